"""The walk over the model: trained weights in, codes and steps out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from underpar import progress
from underpar.errors import DataError, TrainingError
from underpar.grid.grid import quantize as round_to_grid
from underpar.grid.tensors import QuantizedModel, QuantizedTensor, TensorError
from underpar.model.gpt import GPT
from underpar.quant.calibrate import hessians
from underpar.quant.gptq import gptq
from underpar.quant.policy import Treatment, policy
from underpar.recipe.schema import QuantSpec


@torch.no_grad()
def quantize(
    model: GPT, spec: QuantSpec, batches: Iterable[Tensor] | None = None
) -> QuantizedModel:
    """Every parameter of ``model`` as the recipe wants it stored, on the CPU.

    batches: token ids [B, T] for calibration; the method 'gptq' needs them, 'round' ignores them.
    With several ranks every rank calls this and gets the same result. ``errors`` of the result says
    what it cost. Raises RecipeError for an impossible override, DataError when calibration data are
    missing, TrainingError when weights or activations are not finite.
    """
    treatments = policy(model, spec)
    wanted = {path for path, treatment in treatments.items() if treatment.hessian}
    moments: dict[str, Tensor] = {}
    if wanted:
        moments = hessians(model, batches or (), wanted, spec.calibration_batches)
        progress.current().line(f"calibrated {len(moments)} Hessians")
    tensors: dict[str, QuantizedTensor | Tensor] = {}
    errors = []
    clock, done, total = progress.Clock(), 0, sum(p.numel() for p in model.parameters())
    for path, parameter in model.named_parameters():
        weight = parameter.detach().float()
        stored = _store(path, weight, treatments[path], moments, spec)
        tensors[path] = stored
        errors.append(
            TensorError(path, treatments[path].bits, _relative_error(path, stored, weight))
        )
        done += weight.numel()
        progress.current().update("quantizing", done, total, path, clock.left(done, total))
    return QuantizedModel(tensors, tuple(errors))


def _store(
    path: str, weight: Tensor, how: Treatment, moments: Mapping[str, Tensor], spec: QuantSpec
) -> QuantizedTensor | Tensor:
    if how.passthrough:
        return weight.half().cpu()
    scale = how.scales(weight)
    if how.hessian:
        codes = gptq(weight, _moment(path, moments), scale, how.grid, spec.damp, spec.block_size)
    else:
        codes = round_to_grid(weight, scale, how.grid)
    return QuantizedTensor(codes.cpu(), scale.half().cpu(), how.bits)


def _moment(path: str, moments: Mapping[str, Tensor]) -> Tensor:
    if path not in moments:
        raise DataError(
            f"GPTQ of {path}",
            got="no input in any calibration batch",
            wanted="its input's second moments",
            do="Use quant.method = 'round', or store it with quant.overrides at 16 bits.",
        )
    return moments[path]


def _relative_error(path: str, stored: QuantizedTensor | Tensor, weight: Tensor) -> float:
    """Squared error over squared weights of one tensor; refuses what is not finite any more."""
    weight = weight.cpu()
    shipped = stored.dequantize() if isinstance(stored, QuantizedTensor) else stored.float()
    if not (torch.isfinite(weight).all() and torch.isfinite(shipped).all()):
        raise TrainingError(
            f"quantizing {path}",
            got="weights that are not finite, or too large for float16",
            wanted="finite weights below 65,504",
            do="Training diverged: lower the learning rates or use an earlier checkpoint.",
        )
    power = weight.square().sum().item()
    return (shipped - weight).square().sum().item() / power if power else 0.0
