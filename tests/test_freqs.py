"""Rows of probabilities; the tables for weights are tested with their coder, in test_rans."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.entropy import freqs, range_coder
from underpar.entropy.freqs import ROW_TOTAL


def softmax(logits, dtype):
    e = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=dtype)
    return e / e.sum(axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 3, 257, 1024, 8192, 65_536]),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([0.0, 1.0, 5.0, 60.0]),
    st.sampled_from([0.0, -1e-6, 1e-6]),
)
def test_a_row_fills_the_total_and_leaves_nobody_out(seed, n_symbols, dtype, spread, error):
    logits = np.random.default_rng(seed).standard_normal((3, n_symbols)).astype(dtype) * spread
    p = softmax(logits, dtype) * dtype(1 + error)
    table = freqs.from_probabilities(p)
    assert table.dtype == np.int64
    assert (table.sum(axis=1) == ROW_TOTAL).all()
    assert table.min() >= 1
    unrounded = p.astype(np.float64) * (ROW_TOTAL - n_symbols) + 1
    off = np.abs(table - unrounded)
    off[np.arange(3), p.argmax(axis=1)] = 0  # takes the remainder
    assert off.max() <= 1


def test_the_integers_are_a_contract():
    """A change of these is a change of format: bump the version of the text format."""
    p = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.1, 0.2, 0.7]], np.float32)
    assert freqs.from_probabilities(p).tolist() == [
        [2147483648, 1073741824, 1073741824],
        [1, 4294967294, 1],
        [429496736, 858993472, 3006477088],
    ]


def test_a_float32_is_rounded_once():
    """Products in float32 would round some counts up first."""
    few = np.linspace(0.26, 0.49, 50, dtype=np.float32)
    p = np.stack([few, 1 - few, np.zeros_like(few)], axis=1)
    table = freqs.from_probabilities(p)[:, 0]
    exact = [math.floor(Fraction(float(x)) * (ROW_TOTAL - 3)) + 1 for x in few]
    assert table.tolist() == exact
    assert (table != np.floor(few * np.float32(ROW_TOTAL - 3)) + 1).any()


def test_rows_with_too_much_mass_are_our_bug():
    with pytest.raises(AssertionError, match="sum to 1"):
        freqs.from_probabilities(np.full((1, 4096), 4 / 4096))


def test_no_rows_at_all():
    table = freqs.from_probabilities(np.empty((0, 5), np.float32))
    assert table.shape == (0, 5)
    assert freqs.cumulative(table).shape == (0, 6)


def test_rounding_costs_next_to_nothing():
    rng = np.random.default_rng(0)
    p = softmax(rng.standard_normal((200, 8192)) * 4.0, np.float64)
    q = freqs.from_probabilities(p.astype(np.float32)) / ROW_TOTAL
    entropy = -(p * np.log2(p)).sum()
    cross_entropy = -(p * np.log2(q)).sum()
    assert 2 < entropy / 200 < 8  # bits a symbol: about what a language model sees
    assert entropy < cross_entropy < 1.00001 * entropy


def test_cumulative_sums():
    table = np.array([[1, 2, 3], [4, 0, 2]])
    sums = freqs.cumulative(table)
    assert sums.dtype == np.int64
    assert sums.tolist() == [[0, 1, 3, 6], [0, 4, 4, 6]]
    assert range_coder.TOTAL == ROW_TOTAL
