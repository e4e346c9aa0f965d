"""The walk over the model: trained weights in, codes and steps out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from underpar import progress
from underpar.errors import DataError, TrainingError
from underpar.grid.grid import quantize as round_to_grid
from underpar.grid.tensors import QuantizedModel, QuantizedTensor
from underpar.model.gpt import GPT
from underpar.quant.calibrate import hessians
from underpar.quant.gptq import Factor, factor, rounded
from underpar.quant.policy import Treatment, policy
from underpar.recipe.schema import QuantSpec


def quantize(
    model: GPT, spec: QuantSpec, batches: Iterable[Tensor] | None = None
) -> QuantizedModel:
    """Every parameter of ``model`` as the recipe wants it stored, on the CPU.

    batches: token ids [B, T] for calibration; the method 'gptq' needs them, 'round' ignores them.
    With several ranks every rank calls this and gets the same result. ``relative_errors`` says what
    it cost. Raises RecipeError for an impossible override, DataError when calibration data are
    missing, TrainingError when weights or activations are not finite.
    """
    return Quantizer(model, spec, batches or ()).quantize(spec)


class Quantizer:
    """A calibrated model: each call of ``quantize`` stores it with other steps.

    The Hessians are gathered and factored once; they depend on model and text alone.
    """

    def __init__(self, model: GPT, spec: QuantSpec, batches: Iterable[Tensor]) -> None:
        """Arguments and errors as of the function ``quantize``."""
        self._model = model
        wanted = {path for path, treatment in policy(model, spec).items() if treatment.hessian}
        self._factors: dict[str, Factor] = {}
        if not wanted:
            return
        moments = hessians(model, batches, wanted, spec.calibration_batches)
        progress.current().line(f"calibrated {len(moments)} Hessians")
        factors: dict[int, Factor] = {}  # paths of one input share its moment, and the factor
        clock = progress.Clock()
        for done, (path, moment) in enumerate(moments.items()):
            if id(moment) not in factors:
                factors[id(moment)] = factor(moment, spec.damp)
            self._factors[path] = factors[id(moment)]
            left = clock.left(done, len(moments))
            progress.current().update("factoring Hessians", done, len(moments), path, left)

    @torch.no_grad()
    def quantize(self, spec: QuantSpec, by: float = 1.0) -> QuantizedModel:
        """With the steps of ``spec``, ``by`` times as wide where they follow the deviation."""
        tensors: dict[str, QuantizedTensor | Tensor] = {}
        treatments = policy(self._model, spec)
        clock, done, total = progress.Clock(), 0, sum(p.numel() for p in self._model.parameters())
        for path, parameter in self._model.named_parameters():
            weight, how = parameter.detach().float(), treatments[path].widened(by)
            tensors[path] = _store(path, weight, how, self._factors, spec)
            _refuse_non_finite(path, weight, tensors[path])
            done += weight.numel()
            progress.current().update("quantizing", done, total, path, clock.left(done, total))
        return QuantizedModel(tensors)


def _store(
    path: str, weight: Tensor, how: Treatment, factors: Mapping[str, Factor], spec: QuantSpec
) -> QuantizedTensor | Tensor:
    if how.passthrough:
        return weight.half().cpu()
    scale = how.scales(weight)
    if how.hessian:
        codes = rounded(weight, _factor(path, factors), scale, how.grid, spec.block_size)
    else:
        codes = round_to_grid(weight, scale, how.grid)
    return QuantizedTensor(codes.cpu(), scale.half().cpu(), how.bits)


def _factor(path: str, factors: Mapping[str, Factor]) -> Factor:
    if path not in factors:
        raise DataError(
            f"GPTQ of {path}",
            got="no input in any calibration batch",
            wanted="its input's second moments",
            do="Use quant.method = 'round', or store it with quant.overrides at 16 bits.",
        )
    return factors[path]


def _refuse_non_finite(path: str, weight: Tensor, stored: QuantizedTensor | Tensor) -> None:
    """TrainingError when a tensor is not finite, or too large for float16."""
    kept = stored.scales if isinstance(stored, QuantizedTensor) else stored
    if not (weight.isfinite().all() and kept.isfinite().all()):
        raise TrainingError(
            f"quantizing {path}",
            got="weights that are not finite, or too large for float16",
            wanted="finite weights below 65,504",
            do="Training diverged: lower the learning rates or use an earlier checkpoint.",
        )


def relative_errors(model: GPT, stored: QuantizedModel) -> dict[str, float]:
    """Path -> squared error over squared weights of each tensor; 0 for a tensor of zeros."""
    errors, shipped_weights = {}, stored.state_dict()
    for path, parameter in model.named_parameters():
        weight, shipped = parameter.detach().float().cpu(), shipped_weights[path]
        power = weight.square().sum().item()
        errors[path] = (shipped - weight).square().sum().item() / power if power else 0.0
    return errors
