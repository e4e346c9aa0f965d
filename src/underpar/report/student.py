"""Student's t: its tail and its quantiles, for any real number of degrees of freedom.

Welch's test has fractional degrees of freedom and asks for small p, so the tail is computed as
itself, never as 1 - P(T <= t): with x = df / (df + t^2) it is half the incomplete beta function
I_x(df/2, 1/2), which keeps its digits where it is small.
"""

from __future__ import annotations

import math

from underpar.errors import DataError


def tail(t: float, df: float) -> float:
    """P(T >= t) of Student's law, to a relative 1e-12 even far out. df: any real > 0."""
    a, b = df / 2, 0.5
    x, rest = df / (df + t * t), t * t / (df + t * t)
    quick = x < (a + 1) / (a + b + 2)  # else the fraction of 1 - I is, and gives the same
    both = _beta(a, b, x, rest) if quick else 1 - _beta(b, a, rest, x)  # P(|T| >= |t|)
    half = both / 2
    return half if t >= 0 else 1 - half


def quantile(probability: float, df: float) -> float:
    """The t with P(T <= t) = probability, in (0, 1)."""
    if not 0 < probability < 1:
        raise DataError("level", got=probability, wanted="a probability between 0 and 1")
    if probability < 0.5:
        return -quantile(1 - probability, df)
    high = 1.0
    while tail(high, df) > 1 - probability:
        high *= 2
    low = 0.0
    while low < (middle := (low + high) / 2) < high:  # until they are neighbouring floats
        low, high = (middle, high) if tail(middle, df) > 1 - probability else (low, middle)
    return low


def _beta(a: float, b: float, x: float, rest: float) -> float:
    """Regularized incomplete beta function I_x(a, b); rest = 1 - x, passed for its digits.

    The continued fraction of DLMF 8.17.22 by Lentz's method: quick, some sqrt(max(a, b)) steps,
    where x < (a + 1) / (a + b + 2).
    """
    if x == 0:
        return 0.0
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(front + a * math.log(x) + b * math.log(rest)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction, m, step = d, 0, 0.0
    while abs(step - 1) > 1e-14:
        m += 1
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            step = c * d
            fraction *= step
    return front * fraction
