"""Student's t: textbook values, closed forms, and the tails of other people's libraries."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.errors import DataError
from underpar.report.student import quantile, tail

DF = st.floats(min_value=0.5, max_value=500)


@settings(deadline=None)
@given(st.floats(min_value=-1e4, max_value=1e4))
def test_closed_forms_of_one_and_two_degrees(t: float) -> None:
    """Cauchy's law, and the algebraic one of df = 2, written so that far tails keep digits."""
    assert tail(t, 1) == pytest.approx(math.atan2(1, t) / math.pi, rel=1e-11)
    root = math.sqrt(2 + t * t)
    two = 1 / (root * (root + t)) if t > 0 else (1 - t / root) / 2
    assert tail(t, 2) == pytest.approx(two, rel=1e-11)


@pytest.mark.parametrize(
    ("df", "upper"),
    [(1, 31.821), (2, 6.965), (3, 4.541), (4, 3.747), (5, 3.365), (10, 2.764), (1000, 2.330)],
)
def test_the_printed_one_percent_points(df: float, upper: float) -> None:
    assert f"{quantile(0.99, df):.3f}" == f"{upper:.3f}"
    assert quantile(0.01, df) == -quantile(0.99, df)


@settings(deadline=None)
@given(DF, st.floats(min_value=0.001, max_value=0.999))
def test_the_quantile_undoes_the_tail(df: float, probability: float) -> None:
    assert tail(quantile(probability, df), df) == pytest.approx(1 - probability, rel=1e-9)


@settings(deadline=None)
@given(DF, st.floats(min_value=0, max_value=50), st.floats(min_value=0.001, max_value=9))
def test_the_tail_falls_and_is_symmetric(df: float, t: float, step: float) -> None:
    assert tail(t, df) > tail(t + step, df)
    assert tail(t, df) + tail(-t, df) == pytest.approx(1)
    assert tail(0, df) == 0.5


def test_where_the_two_fractions_meet() -> None:
    """At t = 1 with df = 1 both conditions hold with equality; to either side one does."""
    assert tail(1.0, 1.0) == pytest.approx(0.25, rel=1e-14)
    near = [tail(1.0 + i * 1e-12, 1.0) for i in range(-3, 4)]
    assert near == pytest.approx([0.25] * 7, rel=1e-11)


@settings(deadline=None)
@given(st.floats(min_value=-1e3, max_value=1e3), st.floats(min_value=0.5, max_value=100))
def test_the_tail_is_that_of_mpmath(t: float, df: float) -> None:
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(40):
        x = mpmath.mpf(df) / (mpmath.mpf(df) + mpmath.mpf(t) ** 2)
        half = mpmath.betainc(mpmath.mpf(df) / 2, 0.5, 0, x, regularized=True) / 2
        wanted = float(half if t >= 0 else 1 - half)
    assert tail(t, df) == pytest.approx(wanted, rel=1e-11)


def test_tail_and_quantile_are_those_of_scipy() -> None:
    law = pytest.importorskip("scipy.stats").t
    for df in (1.0, 2.3, 3.3063, 5.04, 12.0, 97.5):
        for t in (-3.0, -0.1, 0.0, 0.7, 2.5, 11.8, 150.0):
            assert tail(t, df) == pytest.approx(law.sf(t, df), rel=1e-9)
        for probability in (0.005, 0.2, 0.5, 0.99, 0.995):
            wanted = law.ppf(probability, df)
            assert quantile(probability, df) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.5, 99.0, math.nan])
def test_a_level_is_a_probability(probability: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        quantile(probability, 3)
