"""Integer frequencies: what a coder needs where a model has probabilities.

Both ends must hold the very same integers. So whatever the *decoder* computes here is integer
arithmetic: a float that differs in its last bit between two machines would turn a whole file into
noise. Floats may guide the encoder, whose choice is then written down.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Freqs = NDArray[np.int64]

#: Fixed point of ``gaussian_freqs``: parameters and weights are fractions of 2**GAUSS_BITS.
GAUSS_BITS = 24
_ONE = 1 << 48


def from_counts(counts: NDArray[np.integer], total: int) -> Freqs:
    """Frequencies [A] summing to ``total``, in proportion to ``counts`` [A] (not all zero).

    At least 1 where the count is positive, 0 where it is zero. Integer arithmetic throughout.
    """
    counts = np.asarray(counts, np.int64)
    used = counts > 0
    spare = total - int(used.sum())
    assert spare >= 0, "more symbols than slots"
    freqs = np.where(used, 1 + counts * spare // int(counts.sum()), 0)
    freqs[np.argmax(counts)] += total - int(freqs.sum())
    return freqs


def gaussian_freqs(decay: int, low: int, high: int, total: int) -> Freqs:
    """Frequencies of the integers low..high under exp(-k^2 / (2 sigma^2)), summing to ``total``.

    decay: exp(-1 / (2 sigma^2)) in units of 2**-24, in [0, 2**24). Since r^(k^2) = r^((k-1)^2) *
    r^(2k-1), the weights follow from ``decay`` by multiplication alone, in 48-bit fixed point.
    """
    ratio = decay << (48 - GAUSS_BITS)
    square = ratio * ratio >> 48
    weights, weight = [_ONE], _ONE
    for _ in range(max(-low, high, 0)):
        weight = weight * ratio >> 48
        weights.append(weight)
        ratio = ratio * square >> 48
    table = [weights[abs(k)] for k in range(low, high + 1)]
    spare, mass = total - len(table), sum(table)
    assert spare >= 0, "more symbols than slots"
    freqs = np.array([1 + (w * spare // mass if mass else 0) for w in table], np.int64)
    freqs[np.argmax(freqs)] += total - int(freqs.sum())
    return freqs


def gaussian_decay(variance: float) -> int:
    """The ``decay`` of ``gaussian_freqs`` for a variance in squared steps."""
    ratio = math.exp(-0.5 / variance) if variance > 0 else 0.0
    return min(int(ratio * (1 << GAUSS_BITS)), (1 << GAUSS_BITS) - 1)


def cost_bits(counts: NDArray[np.integer], freqs: Freqs) -> float:
    """Ideal code length in bits of symbols with these ``counts`` [A] under ``freqs`` [A]."""
    used = counts > 0
    return float(counts[used] @ (math.log2(int(freqs.sum())) - np.log2(freqs[used])))
