"""The script's clock: virtual, so that two runs of one script see the same times.

Training loops of the competition run until ten minutes are over and shape their schedules by the
share that has passed, while budgets of the evaluation must not run out on a slow machine. So the
clock jumps with the *training* steps: the first `steps` steps of the busiest optimizer spend one
training budget together, with a few more for loops that only the clock can end. Optimizers that
come later adapt during evaluation and cost no time; any reading costs a millisecond. Sleeping
takes none.
"""

from __future__ import annotations

import time
import weakref
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from . import hits
from .swap import swap

_TICK = 1e-3
_PATIENCE = 50_000
"""Readings after which a loop is taken to wait for the clock alone, and time runs faster."""
_real_sleep = time.sleep


class VirtualClock:
    """Seconds that pass with readings and optimizer steps."""

    def __init__(self, budget: float, steps: int) -> None:
        self.start = time.time()
        self.now = 1000.0
        self.readings = 0
        self.steps, self.jump = steps, budget / max(1, steps)
        self.most = 0
        self.counts: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def read(self) -> float:
        """Seconds since some start."""
        self.readings += 1
        self.now += _TICK if self.readings < _PATIENCE else 1.0
        return self.now

    def after_step(self, optimizer: Any, *_args: Any) -> None:
        """Called after every optimizer step: the first training steps take their share."""
        if optimizer not in self.counts and self.most >= self.steps:
            return
        count = self.counts[optimizer] = self.counts.get(optimizer, 0) + 1
        if count > self.most:
            self.most = count
            if count <= self.steps + 3:
                self.now += self.jump

    def sleep(self, seconds: float = 0.0) -> None:
        """Let virtual time pass; yield, as another rank may be awaited."""
        hits.hit("sleep")
        self.now += float(seconds)
        _real_sleep(min(0.002, max(0.0, float(seconds))))


def install(budget: float, steps: int) -> VirtualClock:
    """Replace the clocks of `time`; code that imported them earlier keeps the real ones."""
    clock = VirtualClock(budget, steps)
    torch.optim.lr_scheduler  # noqa: B018  (imported while the clock is still the real one)
    register_optimizer_step_post_hook(clock.after_step)
    swap(
        time,
        perf_counter=clock.read,
        monotonic=clock.read,
        process_time=clock.read,
        time=lambda: clock.start + clock.read(),
        perf_counter_ns=lambda: int(clock.read() * 1e9),
        monotonic_ns=time.perf_counter_ns,
        time_ns=lambda: int((clock.start + clock.read()) * 1e9),
        sleep=clock.sleep,
    )
    return clock
