"""Integer frequencies from probabilities: a coder needs the former, a model gives the latter.

Encoder and decoder must have the very same integers: a float that differs in its last bit between
two machines would make a whole file undecodable. So a *decoder* computes in integers here, and
floats may only guide the encoder, whose choice is then written down. The one exception,
``from_probabilities``, is for an encoder and a decoder that compute the very same floats.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Freqs = NDArray[np.int64]

#: Fixed point of ``gaussian_freqs``: parameters and weights are fractions of 2**GAUSS_BITS.
GAUSS_BITS = 24
_ONE = 1 << 48

#: What a row of ``from_probabilities`` sums to; the total of ``range_coder``.
ROW_TOTAL = 1 << 32


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


def from_probabilities(p: NDArray[np.floating]) -> Freqs:
    """Frequencies [n, V] of rows of probabilities [n, V], each at least 1, summing to ROW_TOTAL.

    p: float32 or float64, rows summing to 1 to about 1e-6, V <= 65,536. Costs at most
    -log2(1 - V / 2**32) bits a symbol over ``p`` (3e-6 for V = 8192) but for the remainder, which
    goes to the likeliest symbol of the row.

    A decoder may call it only if it computes the very same floats as the encoder: same code, order,
    batch shapes, libraries and kind of device. Where any of these differ, portable files are needed
    (``from_grid``). Equal floats do give equal frequencies on any machine: one product in float64,
    and one rounding towards zero.

    Why 32 bits: the least frequency is a lower bound of every probability. With 24 bits a text that
    the model did not expect (50 of 20,000 tokens below 2**-24) took 0.2 % less than its score.
    """
    n_symbols = p.shape[1]
    freqs = np.multiply(p, ROW_TOTAL - n_symbols, dtype=np.float64).astype(np.int64)
    freqs += 1
    rows, likeliest = np.arange(len(freqs)), np.argmax(p, axis=1)
    freqs[rows, likeliest] += ROW_TOTAL - freqs.sum(axis=1)
    assert freqs.min(initial=1) >= 1, "rows must be probabilities that sum to 1"
    return freqs


def from_grid(logits: NDArray[np.int64], grid: int) -> Freqs:
    """Frequencies [n, V] of the softmax of integer logits [n, V] in units of 1/grid nat.

    Each at least 1, a row summing to ROW_TOTAL. Integer arithmetic throughout, so the same on
    every machine; weights have 31 bits.
    """
    table = _exponentials(grid)
    n_symbols = logits.shape[1]
    below = logits.max(axis=1, keepdims=True) - logits
    weights = table[np.minimum(below, len(table) - 1)]
    freqs = 1 + weights * (ROW_TOTAL - n_symbols) // weights.sum(axis=1, keepdims=True)
    rows, likeliest = np.arange(len(freqs)), np.argmax(logits, axis=1)
    freqs[rows, likeliest] += ROW_TOTAL - freqs.sum(axis=1)
    return freqs


@lru_cache
def _exponentials(grid: int) -> NDArray[np.int64]:
    """exp(-d / grid) in units of 2**-31 for d = 0, 1, .. until it is 0, by integer arithmetic."""
    one = 1 << 62
    ratio, term = one, one
    for k in range(1, 30):  # the series of exp(-1 / grid)
        term = term // (grid * k)
        ratio += -term if k % 2 else term
    table, value = [], one
    while value >> 31:
        table.append(value >> 31)
        value = value * ratio >> 62
    return np.array([*table, 0], np.int64)


def cumulative(freqs: Freqs) -> NDArray[np.int64]:
    """The sums [n, V+1] of the frequencies [n, V] below each symbol: 0 first, the total last."""
    sums = np.zeros((freqs.shape[0], freqs.shape[1] + 1), np.int64)
    np.cumsum(freqs, axis=1, out=sums[:, 1:])
    return sums


def cost_bits(counts: NDArray[np.integer], freqs: Freqs) -> float:
    """Ideal code length in bits of symbols with these ``counts`` [A] under ``freqs`` [A]."""
    used = counts > 0
    return float(counts[used] @ (math.log2(int(freqs.sum())) - np.log2(freqs[used])))
