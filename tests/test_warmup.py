"""Warmup meets every variant of the model and leaves no trace of it."""

import pytest
import torch

from tests import training
from tests.training import MODELS, spec
from underpar.model import GPT
from underpar.model.layers import Linear
from underpar.train.compute import Compute, eager_loss
from underpar.train.warmup import WeightHooks, warm_up


def install(model):
    for module in model.modules():
        if isinstance(module, Linear):
            module.weight_hook = torch.clone


@pytest.mark.parametrize(
    ("model", "compiled", "steps", "qat", "want"),
    [
        ("plain", False, 0, False, []),
        ("plain", True, 0, False, [(False, False)]),
        ("plain", False, 3, False, [(False, False)] * 3),
        ("looped", True, 1, True, [(False, False), (True, False), (True, True)]),
        ("looped", True, 3, True, [(False, False)] * 3 + [(True, False)] * 3 + [(True, True)] * 2),
    ],
)
def test_variants(tmp_path, model, compiled, steps, qat, want):
    gpt = GPT(MODELS[model], seed=1).train()
    before = [p.detach().clone() for p in gpt.parameters()]
    hooks = WeightHooks(gpt, install) if qat else None
    seen = []

    def loss(ids, targets):
        linear = next(m for m in gpt.modules() if isinstance(m, Linear))
        seen.append((gpt.looping, linear.weight_hook is not None))
        return eager_loss(gpt)(ids, targets)

    loader = training.loader_factory(training.make_shard(tmp_path))()
    train = spec(warmup_steps=steps, batch_tokens=4 * training.T, qat_below=0.5 * qat)
    warm_up(gpt, train, Compute(torch.float32, compiled, loss), loader, hooks)
    assert seen == want
    assert not gpt.looping
    assert all(m.weight_hook is None for m in gpt.modules() if isinstance(m, Linear))
    assert all(torch.equal(a, b) for a, b in zip(before, gpt.parameters()))
    assert all(p.grad is None for p in gpt.parameters())
