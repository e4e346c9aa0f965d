"""Test-time training against a plain loop that does the same, slowly and readably."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.scoring import LOOPED, MODEL, SCORE, V, small_model, small_stream
from underpar.errors import LegalityError
from underpar.model import twin
from underpar.score.adapt import Adapter, chunk_lr_multiplier
from underpar.score.ledger import Ledger


def scored_chunks(n, *, size=48):
    """Chunks of a small stream, scored by a model that knows nothing."""
    stream = small_stream(n * size + 1)
    ledger = Ledger(stream.tokens, stream.byte_lengths, V)
    for start in range(0, n * size, size):
        ledger.commit([(start, start + size)], torch.zeros(size, V))
        yield ledger.close_chunk(start, start + size)


def slow_update(model, optimizer, chunk, spec, lr):
    """One chunk of test-time training, spelled out."""
    optimizer.param_groups[0]["lr"] = lr
    tokens = torch.from_numpy(chunk.tokens.astype(np.int64))
    starts = range(0, chunk.end - chunk.start - spec.context + 1, spec.context)
    for _ in range(spec.ttt_epochs):
        for i in range(0, len(starts), spec.ttt_batch):
            losses = []
            for start in starts[i : i + spec.ttt_batch]:
                part = tokens[start : start + spec.context + 1]
                losses.append(F.cross_entropy(model(part[None, :-1])[0], part[1:]))
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            if spec.ttt_clip:
                norm = torch.stack([p.grad.norm() for p in trained(model)]).norm()
                scale = min(1.0, spec.ttt_clip / (norm.item() + 1e-6))
                for p in trained(model):
                    p.grad *= scale
            optimizer.step()


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        (MODEL, {"ttt_optimizer": "adamw", "ttt_lr": 3e-3}),
        (LOOPED, {"ttt_batch": 2}),  # the last step of an epoch has one sequence
        (LOOPED, {"ttt_clip": 0.0, "ttt_momentum": 0.5, "ttt_epochs": 1}),
    ],
    ids=["adamw", "sgd-uneven", "sgd-unclipped"],
)
def test_equals_the_loop_spelled_out(architecture, settings):
    spec = replace(SCORE, **settings)
    fast = small_model(architecture).eval()
    slow = twin(fast)
    adapter = Adapter(fast, spec)
    if spec.ttt_optimizer == "adamw":
        optimizer = torch.optim.AdamW(slow.parameters(), betas=(0.9, 0.999), weight_decay=0)
    else:
        optimizer = torch.optim.SGD(slow.parameters(), lr=1, momentum=spec.ttt_momentum)
    for index, chunk in enumerate(scored_chunks(3)):
        adapter.update([chunk], index, 4)
        lr = spec.ttt_lr * (1 + math.cos(math.pi * index / 3)) / 2
        slow_update(slow, optimizer, chunk, spec, lr)
    steps = math.ceil(3 / spec.ttt_batch) * spec.ttt_epochs * 3
    assert adapter.steps == steps
    for (path, mine), other in zip(fast.named_parameters(), slow.parameters()):
        torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-4, msg=path)


@pytest.mark.parametrize(
    ("architecture", "layers", "frozen"),
    [
        (LOOPED, 2, ("blocks.0.", "blocks.1.")),
        (MODEL, 1, ("blocks.0.", "cores.0.")),  # layer 2 shares core 0: frozen there, too
        (MODEL, 0, ()),
    ],
)
def test_frozen_blocks_and_their_cores_stay(architecture, layers, frozen):
    model = small_model(architecture).eval()
    before = copy.deepcopy(model.state_dict())
    adapter = Adapter(model, replace(SCORE, ttt_freeze=layers))
    for index, chunk in enumerate(scored_chunks(2)):
        adapter.update([chunk], index, 3)
    for path, after in model.state_dict().items():
        assert torch.equal(after, before[path]) == path.startswith(frozen or ("none",)), path


def test_ten_blocks_are_not_one():
    spec = replace(LOOPED, n_layer=11)
    model = small_model(spec)
    Adapter(model, replace(SCORE, ttt_freeze=2))
    frozen = {p.split(".")[1] for p, w in model.named_parameters() if not w.requires_grad}
    assert frozen == {"0", "1"}


def test_learning_rate_falls_along_a_cosine():
    assert [chunk_lr_multiplier(c, 5) for c in range(5)] == pytest.approx(
        [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0], abs=1e-12
    )
    assert chunk_lr_multiplier(0, 1) == 1


def test_last_and_short_chunks_are_not_trained_on():
    model = small_model().eval()
    before = copy.deepcopy(model.state_dict())
    adapter = Adapter(model, SCORE)
    adapter.update([next(scored_chunks(1))], 2, 3)
    adapter.update([next(scored_chunks(1, size=15))], 0, 3)
    assert adapter.steps == 0
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_only_scored_chunks_are_trained_on():
    adapter = Adapter(small_model(), SCORE)
    tokens = small_stream().tokens
    for fake in (tokens, SimpleNamespace(start=0, end=48, tokens=tokens[:49])):
        with pytest.raises(LegalityError, match="ScoredChunk"):
            adapter.update([fake], 0, 3)


def test_training_hooks_stay_off():
    model = small_model().eval()

    def hook(weight):
        raise AssertionError("fake quantization in test-time training")

    for module in model.modules():
        if hasattr(module, "weight_hook"):
            module.weight_hook = hook
    adapter = Adapter(model, SCORE)
    adapter.update([next(scored_chunks(1))], 0, 3)
    assert adapter.steps == 2
