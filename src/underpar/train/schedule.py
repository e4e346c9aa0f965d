"""Schedules as pure functions of step and elapsed seconds. Steps count from 0.

A run has either a wall-clock budget (``seconds`` > 0; then ``iterations`` only bounds the steps) or
counts iterations. Elapsed time must come from one clock: see ``step.TrainingClock``.
"""

from __future__ import annotations

from underpar.recipe.schema import TrainSpec


def fraction(step: int, elapsed: float, *, iterations: int, seconds: float = 0.0) -> float:
    """How much of the budget is used, 0 at the start; may pass 1 in wall-clock mode (#1413)."""
    return elapsed / seconds if seconds else step / max(iterations, 1)


def warmdown_by_steps(
    step: int, elapsed: float, *, iterations: int, warmdown: int, seconds: float = 0.0
) -> float:
    """#456: linear fall to zero over the last ``warmdown`` steps.

    With a wall-clock budget the time those steps will take is estimated from the mean step so far.
    Without one the multiplier is 1 again from step ``iterations`` on, which never runs.
    """
    if warmdown <= 0:
        return 1.0
    if not seconds:
        start = max(iterations - warmdown, 0)
        return (iterations - step) / warmdown if start <= step < iterations else 1.0
    needed = warmdown * elapsed / max(step, 1)
    left = max(seconds - elapsed, 0.0)
    return left / max(needed, 1e-12) if left <= needed else 1.0


def warmdown_by_fraction(done: float, *, warmdown: float, floor: float = 0.0) -> float:
    """#1413: 1, then linear over the last ``warmdown`` of the budget, never below ``floor``."""
    if warmdown <= 0 or done < 1.0 - warmdown:
        return 1.0
    return max((1.0 - done) / warmdown, floor)


def multiplier(spec: TrainSpec, step: int, elapsed: float) -> float:
    """Factor on every group's learning rate for the step about to run."""
    seconds = budget_seconds(spec)
    if spec.warmdown_frac:
        done = fraction(step, elapsed, iterations=spec.iterations, seconds=seconds)
        return warmdown_by_fraction(done, warmdown=spec.warmdown_frac, floor=spec.min_lr)
    return warmdown_by_steps(
        step, elapsed, iterations=spec.iterations, warmdown=spec.warmdown_iters, seconds=seconds
    )


def budget_seconds(spec: TrainSpec) -> float:
    """Seconds of training proper; 0: no clock, iterations count."""
    return spec.seconds - spec.reserve_seconds if spec.seconds else 0.0


def muon_momentum(step: int, *, start: float, final: float, warmup: int) -> float:
    """Linear from ``start`` to ``final`` over ``warmup`` steps."""
    f = min(step / warmup, 1.0) if warmup else 1.0
    return (1.0 - f) * start + f * final


def loops_on(already: bool, done: float, *, at: float, extra: int) -> bool:
    """Whether looped layers loop in the step about to run. A latch: once on, always on."""
    return already or (extra > 0 and done >= at)


def qat_on(already: bool, multiplier: float, *, below: float) -> bool:
    """Late QAT (#456), asked after a step with that step's multiplier: holds from the next step."""
    return already or multiplier < below


def takes_snapshot(step: int, multiplier: float, *, start: float, every: int) -> bool:
    """SWA (#456): ``step`` already counts the step just done, ``multiplier`` is that step's."""
    return multiplier < start and step % every == 0
