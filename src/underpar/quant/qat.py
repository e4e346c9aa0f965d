"""Late quantization-aware training: linear layers compute with the weights that will be shipped.

``install`` gives every Linear that will be quantized a weight hook that rounds its float32 master
weight to the grid of the export: same policy, bits, clip and steps. The cast to the activations'
dtype comes after, in the layer. The gradient passes straight through. Tables are looked up, not
multiplied, and are left alone, as in #456.

Setting the hook changes the layer, so a compiled model notices and recompiles; #456 kept its switch
in a class attribute that its compiled graph had folded away, and most likely trained without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from underpar.grid.grid import fake_quantize
from underpar.model.gpt import GPT
from underpar.model.layers import Linear
from underpar.quant.policy import Treatment, policy
from underpar.recipe.schema import QuantSpec


def install(model: GPT, spec: QuantSpec) -> None:
    """From now on, in train mode, compute with fake-quantized weights. Undone by ``remove``."""
    treatments = policy(model, spec)
    for path, module in _linears(model):
        if not treatments[path].passthrough:
            module.weight_hook = partial(_on_grid, treatment=treatments[path])


def remove(model: GPT) -> None:
    """Compute with the float weights again."""
    for _, module in _linears(model):
        module.weight_hook = None


def _on_grid(w: Tensor, *, treatment: Treatment) -> Tensor:
    return fake_quantize(w, treatment.scales(w.detach()), treatment.grid)


def _linears(model: GPT) -> Iterator[tuple[str, Linear]]:
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            yield f"{name}.weight", module
