"""Averages of the weights along the way, always in float32, whatever the weights are stored in.

The raw weights of the last step are noisy; an average of late ones scores better (the published
recipes gain 0.01 bpb and more). EMA forgets exponentially; SWA is the plain mean of snapshots taken
near the end. Both read the weights after a step and write them back once, after training.

Published #1413 starts the EMA at the initial weights and never corrects for it: after t steps they
still hold decay^t of the average, which matters below about 2,000 steps at 0.997. The default
(``debias``) starts at zero and divides by 1 - decay^t, an average over real updates only, as in
Adam.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from underpar.recipe.schema import TrainSpec
from underpar.train import schedule


class Average(Protocol):
    """What the loop needs from an average of the weights."""

    def update(self, model: nn.Module, step: int, multiplier: float) -> None:
        """Take in the weights after ``step`` steps, the last at ``multiplier`` of the rate."""

    def apply(self, model: nn.Module) -> None:
        """Replace the weights by the average, in their own dtypes; nothing seen: nothing done."""

    def saved(self) -> dict[str, Tensor]: ...

    def restore(self, state: Mapping[str, Tensor]) -> None: ...


def make_average(spec: TrainSpec, model: nn.Module) -> Average | None:
    """The average the recipe asks for, starting from the model's present weights."""
    if spec.average == "ema":
        return EMA(model, decay=spec.ema_decay, debias=spec.ema_debias)
    if spec.average == "swa":
        return SWA(model, start=spec.swa_start, every=spec.swa_every)
    return None


class _Shadow:
    """A float32 tensor beside each parameter, and how many updates it has seen."""

    def __init__(self, model: nn.Module, *, copy: bool) -> None:
        self.count = 0
        self.paths = [path for path, _ in model.named_parameters()]
        self.tensors = [
            p.detach().float().clone() if copy else torch.zeros_like(p, dtype=torch.float32)
            for p in model.parameters()
        ]

    @torch.no_grad()
    def write(self, model: nn.Module, scale: float) -> None:
        for parameter, tensor in zip(model.parameters(), self.tensors):
            parameter.copy_(tensor * scale)

    def saved(self) -> dict[str, Tensor]:
        return {"count": torch.tensor(self.count), **dict(zip(self.paths, self.tensors))}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.count = int(state["count"])
        for path, tensor in zip(self.paths, self.tensors):
            tensor.copy_(state[path])


def _float32(model: nn.Module) -> list[Tensor]:
    return [p.detach().float() for p in model.parameters()]  # no copy where it is float32 already


class EMA(_Shadow):
    """average <- decay * average + (1 - decay) * weights, after every step."""

    def __init__(self, model: nn.Module, *, decay: float, debias: bool = True) -> None:
        super().__init__(model, copy=not debias)
        self.decay, self.debias = decay, debias

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, multiplier: float) -> None:
        # published arithmetic; a lerp is one pass and nearer to exact, but 2e-6 off their numbers
        torch._foreach_mul_(self.tensors, self.decay)
        torch._foreach_add_(self.tensors, _float32(model), alpha=1.0 - self.decay)
        self.count += 1

    def apply(self, model: nn.Module) -> None:
        if self.count:
            self.write(model, 1.0 / (1.0 - self.decay**self.count) if self.debias else 1.0)


class SWA(_Shadow):
    """Mean of the weights at every ``every``-th step while the rate is below ``start``."""

    def __init__(self, model: nn.Module, *, start: float, every: int) -> None:
        super().__init__(model, copy=False)
        self.start, self.every = start, every

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, multiplier: float) -> None:
        if schedule.takes_snapshot(step, multiplier, start=self.start, every=self.every):
            torch._foreach_add_(self.tensors, _float32(model))
            self.count += 1

    def apply(self, model: nn.Module) -> None:
        if self.count > 1:  # a single snapshot is not an average: the final weights are as good
            self.write(model, 1.0 / self.count)
