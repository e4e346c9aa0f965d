"""One optimizer step over all ranks, and the clock that all ranks share.

Gradients are averaged once a step, after the last micro-step, in one flat all-reduce a dtype: as
exact as DistributedDataParallel and without its hooks in the compiled graph, at the price of not
overlapping with the backward pass. A micro-step's loss is divided by their number before backward,
and a power of two divides exactly: two ranks of one micro-step give the bits of one rank of two.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from underpar import dist
from underpar.data.loader import Loader
from underpar.errors import RecipeError
from underpar.recipe.schema import TrainSpec
from underpar.train.compute import Loss
from underpar.train.optimizers import Optimizers


def micro_steps(spec: TrainSpec, world: int) -> int:
    """Micro-steps a rank makes for one batch. RecipeError when the sizes do not divide."""
    per_round = world * spec.micro_tokens
    if spec.batch_tokens % per_round:
        raise RecipeError(
            "recipe key 'train.batch_tokens'",
            got=spec.batch_tokens,
            wanted=f"a multiple of {world} ranks x train.micro_tokens = {per_round}",
            do="Change the number of processes, or lower train.micro_tokens.",
        )
    return spec.batch_tokens // per_round


class TrainingClock:
    """Seconds of training on this process's clock; stands still while paused."""

    def __init__(self, elapsed: float = 0.0) -> None:
        self._start = time.perf_counter() - elapsed

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Validation, checkpoints: time that is not training."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self._start += time.perf_counter() - before


def agree(values: list[float], device: torch.device) -> list[float]:
    """Sums over ranks in float64, one small collective a step; waits for the device."""
    return dist.all_reduce_sum(torch.tensor(values, dtype=torch.float64, device=device)).tolist()


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Mean of every gradient over the ranks, in place."""
    if dist.world_size() == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_dtype.values():
        flat = dist.all_reduce_mean(torch.cat([g.reshape(-1) for g in gradients]))
        parts = flat.split([g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients)])


class Stepper:
    """Forward, backward, average, clip, update."""

    def __init__(
        self, model: nn.Module, spec: TrainSpec, loss: Loss, optimizers: Optimizers
    ) -> None:
        self._parameters = list(model.parameters())
        self._device = self._parameters[0].device
        self._loss, self._optimizers = loss, optimizers
        self._micro_steps = micro_steps(spec, dist.world_size())
        self._clip = spec.grad_clip

    def __call__(self, loader: Loader, multiplier: float, momentum: float) -> float:
        """One step; returns this rank's mean loss divided by the number of ranks."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for _ in range(self._micro_steps):
            loss = self._loss(*to_device(loader.next_batch(), self._device))
            total += loss.detach()
            (loss / self._micro_steps).backward()
        average_gradients(self._parameters)
        if self._clip:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._optimizers.step(multiplier, momentum)
        self._optimizers.zero_grad()
        return float(total) / (self._micro_steps * dist.world_size())


def to_device(batch: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    ids, targets = batch
    return ids.to(device, non_blocking=True), targets.to(device, non_blocking=True)
