"""Schedules: what the published tables do not show (those are checked in tests/golden/optim.py)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.recipe.schema import TrainSpec
from underpar.train import schedule


def test_multiplier_takes_the_schedule_of_the_recipe():
    steps = TrainSpec(seconds=0, iterations=100, warmdown_iters=40)
    assert schedule.multiplier(steps, 59, 0.0) == 1.0
    assert schedule.multiplier(steps, 80, 0.0) == pytest.approx(0.5)
    assert schedule.multiplier(steps, 99, 0.0) == pytest.approx(1 / 40)
    share = TrainSpec(seconds=0, iterations=100, warmdown_frac=0.4, min_lr=0.1)
    assert schedule.multiplier(share, 80, 0.0) == pytest.approx(0.5)
    assert schedule.multiplier(share, 99, 0.0) == pytest.approx(0.1)
    plain = TrainSpec(seconds=0, iterations=100)
    assert schedule.multiplier(plain, 99, 0.0) == 1.0


def test_the_reserve_comes_off_the_clock():
    spec = TrainSpec(seconds=100, reserve_seconds=20, warmdown_frac=0.5)
    assert schedule.budget_seconds(spec) == 80
    assert schedule.multiplier(spec, 7, 60.0) == pytest.approx(0.5)
    assert schedule.multiplier(spec, 7, 80.0) == 0.0
    assert schedule.budget_seconds(TrainSpec(seconds=0)) == 0.0


def test_warmdown_by_clock_estimates_the_steps_left():
    """10 ms a step and 100 warmdown steps: the last second falls."""
    args = {"iterations": 10**6, "warmdown": 100, "seconds": 10.0}
    assert schedule.warmdown_by_steps(890, 8.9, **args) == 1.0
    assert schedule.warmdown_by_steps(950, 9.5, **args) == pytest.approx(0.5)
    assert schedule.warmdown_by_steps(1000, 10.0, **args) == 0.0
    assert schedule.warmdown_by_steps(0, 0.0, **args) == 1.0


@given(st.integers(1, 300), st.integers(0, 400), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_multiplier_never_rises_and_stays_in_range(iterations, warmdown, frac, floor, by_steps):
    if by_steps:
        spec = TrainSpec(seconds=0, iterations=iterations, warmdown_iters=warmdown)
    else:
        spec = TrainSpec(seconds=0, iterations=iterations, warmdown_frac=frac, min_lr=floor)
    values = [schedule.multiplier(spec, step, 0.0) for step in range(iterations)]
    assert all(0.0 <= v <= 1.0 for v in values)
    assert values == sorted(values, reverse=True)


def test_latches_stay():
    assert not schedule.loops_on(False, 0.9, at=0.5, extra=0)
    assert schedule.loops_on(False, 0.5, at=0.5, extra=1)
    assert schedule.loops_on(True, 0.1, at=0.5, extra=1)
    assert not schedule.qat_on(False, 0.1, below=0.1)
    assert schedule.qat_on(False, 0.0999, below=0.1)
    assert schedule.qat_on(True, 1.0, below=0.1)


def test_snapshots_late_and_every_nth():
    takes = [s for s in range(1, 21) if schedule.takes_snapshot(s, 1 - s / 20, start=0.5, every=4)]
    assert takes == [12, 16, 20]
