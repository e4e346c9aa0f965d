import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.entropy import freqs, rans
from underpar.entropy.rans import LOWEST, PRECISION, SLOTS, Decoder
from underpar.errors import ArtifactError


def groups_of(*arrays):
    """Groups with the frequencies of their own histograms."""
    groups = []
    for symbols in arrays:
        counts = np.bincount(symbols, minlength=1) if len(symbols) else np.ones(1, int)
        groups.append((np.asarray(symbols, np.uint8), freqs.from_counts(counts, SLOTS)))
    return groups


def decode(data, groups, lanes):
    decoder = Decoder(data, lanes)
    symbols = [decoder.take(len(symbols), table) for symbols, table in groups]
    decoder.finish()
    return symbols


def slow_decode(data, groups, lanes):
    """The format, one symbol at a time, in plain integers."""
    states = [int.from_bytes(data[4 * i : 4 * i + 4], "little") for i in range(lanes)]
    words = [int.from_bytes(data[i : i + 2], "little") for i in range(4 * lanes, len(data), 2)]
    words.reverse()
    decoded = []
    for symbols, table in groups:
        out = []
        for i in range(len(symbols)):
            x, slot = states[i % lanes], states[i % lanes] % SLOTS
            symbol, start = 0, 0
            while start + table[symbol] <= slot:
                start += int(table[symbol])
                symbol += 1
            x = int(table[symbol]) * (x // SLOTS) + slot - start
            if x < LOWEST:
                x = x << 16 | words.pop()
            states[i % lanes] = x
            out.append(symbol)
        decoded.append(out)
    assert not words
    assert states == [LOWEST] * lanes
    return decoded


arrays = st.lists(st.integers(0, 20), max_size=60).map(lambda x: np.array(x, np.uint8))


@settings(max_examples=100, deadline=None)
@given(st.lists(arrays, max_size=4), st.integers(1, 9))
def test_round_trip_and_slow_twin(symbols, lanes):
    groups = groups_of(*symbols)
    data = rans.encode(groups, lanes)
    fast = decode(data, groups, lanes)
    assert [list(a) for a in fast] == [list(a) for a in symbols]
    assert slow_decode(data, groups, lanes) == [list(a) for a in symbols]


def test_the_emitted_bytes_are_a_contract():
    """A change of these is a change of format: bump the container's version."""
    symbols = np.array([0, 1, 0, 2, 0, 1, 3, 0, 0, 1] * 3, np.uint8)
    data = rans.encode([(symbols, np.array([8192, 4096, 2048, 2048]))], 2)
    assert data.hex() == "0e1921009de4a44300180020"


def test_one_symbol_costs_nothing():
    groups = groups_of(np.zeros(40_000, np.uint8))
    assert len(rans.encode(groups, 4)) == 16
    assert not decode(rans.encode(groups, 4), groups, 4)[0].any()


def test_nothing_at_all():
    assert decode(rans.encode([], 3), [], 3) == []


def test_the_rate_is_the_entropy():
    rng = np.random.default_rng(0)
    symbols = np.clip(np.rint(rng.standard_normal(1_000_000) * 2.41) + 32, 0, 63).astype(np.uint8)
    groups = groups_of(symbols)
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    entropy = float(counts @ np.log2(len(symbols) / counts)) / 8
    data = rans.encode(groups, rans.lanes_for(len(symbols)))
    assert entropy < len(data) < 1.001 * entropy
    assert np.array_equal(decode(data, groups, rans.lanes_for(len(symbols)))[0], symbols)


def test_a_skewed_source_costs_less_than_a_bit():
    symbols = (np.arange(60_000) % 1000 == 0).astype(np.uint8)
    p = 1 / 1000
    entropy = len(symbols) * (-p * math.log2(p) - (1 - p) * math.log2(1 - p)) / 8
    assert len(rans.encode(groups_of(symbols), 1)) < 1.02 * entropy + 4


def test_damage_is_an_error_and_nothing_else():
    rng = random.Random(0)
    groups = groups_of(np.random.default_rng(0).binomial(12, 0.5, 2000).astype(np.uint8))
    data = rans.encode(groups, 8)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        cut = damaged if rng.random() < 0.6 else data[: rng.randrange(len(data))]
        with pytest.raises(ArtifactError):
            decode(bytes(cut), groups, 8)


@pytest.mark.parametrize("extra", [b"\0", b"\0\0", b"\1\2\3\4"])
def test_words_left_over_are_an_error(extra):
    groups = groups_of(np.arange(50, dtype=np.uint8))
    with pytest.raises(ArtifactError):
        decode(rans.encode(groups, 2) + extra, groups, 2)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=64).filter(any))
def test_frequencies_of_counts(counts):
    table = freqs.from_counts(np.array(counts), SLOTS)
    assert table.sum() == SLOTS
    assert [f > 0 for f in table] == [c > 0 for c in counts]


@given(st.integers(0, (1 << 24) - 1), st.integers(-128, 127), st.integers(0, 255))
def test_gaussian_frequencies(decay, low, width):
    table = freqs.gaussian_freqs(decay, low, min(low + width, 127), SLOTS)
    assert table.sum() == SLOTS
    assert table.min() >= 1


def test_gaussian_frequencies_are_gaussian():
    table = freqs.gaussian_freqs(freqs.gaussian_decay(2.41**2), -31, 31, 1 << 30)
    wanted = np.exp(-0.5 * (np.arange(-31, 32) / 2.41) ** 2)
    assert np.allclose(table / table.sum(), wanted / wanted.sum(), rtol=1e-5, atol=1e-8)


def test_lanes_grow_with_the_stream():
    assert [rans.lanes_for(n) for n in (0, 1, 32_768, 10**6, 10**9)] == [1, 1, 2, 61, 1024]
    assert PRECISION == 14
