"""Warmup: every variant of the compiled graph, before the clock starts and without a trace.

Looping and late fake quantization give other graphs. Met for the first time in the middle of a run
each would cost half a minute of its wall-clock budget. So a few real steps are made with each, then
the weights come back and the moments are thrown away (both published recipes do this).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from underpar.data.loader import Loader
from underpar.model.gpt import GPT
from underpar.model.layers import Linear, WeightHook
from underpar.recipe.schema import TrainSpec
from underpar.train.compute import Compute
from underpar.train.optimizers import Optimizers
from underpar.train.step import Stepper

#: steps in fake quantization: enough for the compiler
_QAT_STEPS = 2


class WeightHooks:
    """Late QAT's weight hooks, made once and put on and off.

    The compiler guards on their identity: hooks made anew would be compiled anew.
    """

    def __init__(self, model: GPT, install: Callable[[GPT], None]) -> None:
        install(model)
        self._linears = [m for m in model.modules() if isinstance(m, Linear)]
        self._hooks: list[WeightHook | None] = [linear.weight_hook for linear in self._linears]
        self.off()

    def on(self) -> None:
        for linear, hook in zip(self._linears, self._hooks):
            linear.weight_hook = hook

    def off(self) -> None:
        for linear in self._linears:
            linear.weight_hook = None


def warm_up(
    model: GPT, spec: TrainSpec, compute: Compute, loader: Loader, hooks: WeightHooks | None
) -> None:
    """Warm up without loops, with loops if the model has them, with fake quantization if there is.

    ``spec.warmup_steps`` real steps each (two of the last; at least one when compiled). Weights are
    then as before, looping and hooks off.
    """
    weights = [p.detach().clone() for p in model.parameters()]
    stepper = Stepper(model, spec, compute.loss, Optimizers(model, spec, dtype=compute.dtype))
    steps = spec.warmup_steps or int(compute.compiled)
    for looping in (False, True) if model.spec.loop_extra else (False,):
        model.looping = looping
        for _ in range(steps):
            stepper(loader, 1.0, spec.muon_momentum)
    if spec.qat_below and hooks:
        hooks.on()
        for _ in range(min(steps, _QAT_STEPS)):
            stepper(loader, 1.0, spec.muon_momentum)
        hooks.off()
    model.looping = False
    with torch.no_grad():
        torch._foreach_copy_(list(model.parameters()), weights)
