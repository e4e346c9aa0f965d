import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from underpar.entropy import weights
from underpar.entropy.weights import COLUMNS, ROWS, WHOLE, choose_layout
from underpar.errors import ArtifactError


def gaussian(shape, sigma=2.41, *, rows=0.0, columns=0.0, seed=0):
    """int6 codes; rows and columns: spread of their standard deviations, as a fraction."""
    rng = np.random.default_rng(seed)
    w = sigma * rng.standard_normal(shape)
    w *= np.exp(rows * rng.standard_normal((shape[0], 1)))
    w *= np.exp(columns * rng.standard_normal((1, shape[1])))
    return np.clip(np.rint(w), -32, 31).astype(np.int8)


def entropy_bytes(codes):
    counts = np.unique(codes, return_counts=True)[1]
    return float(counts @ np.log2(codes.size / counts)) / 8


def round_trip(tensors):
    data = weights.encode(tensors)
    decoded = weights.decode(data, [t.shape for t in tensors])
    assert all(np.array_equal(a, b) for a, b in zip(tensors, decoded, strict=True))
    return len(data)


matrices = hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12))


@settings(max_examples=50, deadline=None)
@given(st.lists(matrices, max_size=3))
def test_any_codes_come_back(tensors):
    round_trip(tensors)


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((0, 5), np.int8),
        np.zeros((5, 0), np.int8),
        np.zeros((300, 300), np.int8),
        np.full((1, 1), -128, np.int8),
        np.repeat(np.arange(-128, 128), 256).astype(np.int8).reshape(256, 256),
    ],
    ids=["no rows", "no columns", "zeros", "one code", "a row a code"],
)
def test_degenerate_tensors(codes):
    round_trip([codes, gaussian((20, 30)), codes])


def test_gaussian_codes_cost_their_entropy():
    """The figure of the format: at 1.5 million int6 weights within 0.1 % of order-0 entropy."""
    tensors = [gaussian((512, 512), seed=i) for i in range(6)]
    assert round_trip(tensors) < 1.001 * sum(map(entropy_bytes, tensors))


def test_small_tensors_are_described_in_a_few_bytes():
    tensors = [gaussian((32, 32), seed=i) for i in range(8)]
    assert round_trip(tensors) < 1.01 * sum(map(entropy_bytes, tensors)) + 8 * 8


@pytest.mark.parametrize(
    ("spread", "axis"), [({}, WHOLE), ({"rows": 0.2}, ROWS), ({"columns": 0.2}, COLUMNS)]
)
def test_lines_of_unlike_spread_are_sorted_into_classes(spread, axis):
    codes = gaussian((512, 384), **spread)
    assert choose_layout(codes).axis == axis
    size = round_trip([codes])
    assert size < (0.995 if axis else 1.002) * entropy_bytes(codes)


def test_the_estimated_cost_is_the_real_one():
    codes = gaussian((600, 400), columns=0.15)
    assert abs(choose_layout(codes).cost / 8 / round_trip([codes]) - 1) < 0.005


def test_beats_the_general_compressors():
    brotli = pytest.importorskip("brotli")
    codes = gaussian((512, 512))
    assert round_trip([codes]) < 0.987 * len(brotli.compress(codes.tobytes(), quality=11))


def test_the_same_codes_give_the_same_bytes():
    codes = gaussian((64, 64), rows=0.3)
    assert weights.encode([codes]) == weights.encode([codes.copy(order="F")])


def test_damage_is_an_error_or_other_codes_of_the_same_shape():
    """The container's checksums come first; behind them nothing may crash, hang or index wildly."""
    tensors = [gaussian((12, 20), columns=0.9), gaussian((5, 25), 1.0)]
    data, shapes, rng = weights.encode(tensors), [t.shape for t in tensors], random.Random(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged = damaged if rng.random() < 0.7 else damaged[: rng.randrange(len(data))]
        with pytest.raises(ArtifactError):
            weights.decode(bytes(damaged), shapes)


def test_wrong_shapes_are_an_error():
    data = weights.encode([gaussian((40, 30))])
    for shapes in ([], [(40, 31)], [(40, 29)], [(40, 30), (1, 1)]):
        with pytest.raises(ArtifactError):
            weights.decode(data, shapes)


@pytest.mark.parametrize(
    "description",
    [
        b"",
        bytes([7]),
        bytes([WHOLE, 5, 0, 0]),
        bytes([WHOLE, 0, 3, 1, 0, 0, 0]),  # low above high
        bytes([WHOLE, 1, 0, 1, 1, 1]),  # frequencies that do not fill the slots
        bytes([COLUMNS, 0, 0, 1, 1, 0, 0, 0]),  # classes beyond the last
        bytes([COLUMNS, 9, 0, 128]),
        bytes([WHOLE, 0, 0, 0, 0, 0, 0, 0]),  # one byte too many
    ],
)
def test_malformed_descriptions(description):
    deflated = zlib.compress(description)
    data = struct.pack("<I", len(deflated)) + deflated + struct.pack("<I", 1 << 16)
    with pytest.raises(ArtifactError):
        weights.decode(data, [(2, 3)])
