"""Late QAT: training computes with exactly the weights that the quantizer will store."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.test_calibrate import LOOPED, SHARED, batches, lively
from underpar.model import loss
from underpar.model.layers import Linear
from underpar.quant.qat import install, remove
from underpar.quant.quantize import quantize
from underpar.recipe.schema import ModelSpec, QuantSpec

QUANT = QuantSpec(matrix_bits=6, mlp_bits=4, passthrough=64)


@pytest.mark.parametrize("clip", ["max", "search", "std"])
@pytest.mark.parametrize("spec", [LOOPED, SHARED], ids=["looped", "shared"])
def test_hooked_weights_are_the_exported_ones(spec: ModelSpec, clip: str) -> None:
    model = lively(spec)
    quant = replace(QUANT, clip=clip, symmetric=clip == "std")
    install(model, quant)
    exported = quantize(model, quant).state_dict()
    hooked = 0
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            assert module.weight_hook is not None
            assert torch.equal(module.weight_hook(module.weight), exported[f"{name}.weight"])
            hooked += 1
    assert hooked >= 12


def test_training_logits_are_those_of_the_exported_matrices() -> None:
    model, twin = lively(LOOPED).train(), lively(LOOPED).eval()
    install(model, QUANT)
    exported = quantize(model, QUANT)
    with torch.no_grad():
        for name, module in twin.named_modules():
            if isinstance(module, Linear):
                module.weight.copy_(exported.state_dict()[f"{name}.weight"])
        ids = batches()[0]
        torch.testing.assert_close(model(ids), twin(ids))


def test_eval_mode_and_removal_use_float_weights() -> None:
    model, plain = lively(LOOPED), lively(LOOPED).eval()
    ids = batches()[0]
    with torch.no_grad():
        install(model, QUANT)
        assert not torch.equal(model.train()(ids), plain(ids))
        assert torch.equal(model.eval()(ids), plain(ids))
        remove(model)
        assert torch.equal(model.train()(ids), plain(ids))


def test_every_hooked_weight_still_learns() -> None:
    model = lively(LOOPED).train()
    install(model, QUANT)
    loss(model, batches()[0], batches()[1]).backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in model.parameters() if p.ndim > 1)


def test_matrices_that_stay_float16_are_not_hooked() -> None:
    model = lively(LOOPED)
    path = "blocks.1.mlp.fc.weight"
    install(model, replace(QUANT, overrides={path: 16}))
    assert model.get_submodule(path.removesuffix(".weight")).weight_hook is None
    assert model.blocks[0].mlp.fc.weight_hook is not None


@pytest.mark.slow
def test_a_compiled_layer_notices_the_switch() -> None:
    model = lively(LOOPED).train()
    layer, x = model.blocks[0].mlp, torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        plain = compiled(x)
        install(model, QUANT)
        assert not torch.equal(compiled(x), plain)
        torch.testing.assert_close(compiled(x), layer(x))
        remove(model)
        assert torch.equal(compiled(x), plain)
