"""The one division: nats by bytes."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.bits import (
    BUDGET_BYTES,
    LN2,
    Score,
    bits_per_byte,
    compressed_bpb,
    megabytes,
)


def test_a_fair_coin_a_byte_is_one_bit_per_byte() -> None:
    assert bits_per_byte(math.log(2) * 1000, 1000) == pytest.approx(1.0, rel=1e-15)


def test_uniform_bytes_cost_eight_bits() -> None:
    assert bits_per_byte(100 * math.log(256), 100) == pytest.approx(8.0, rel=1e-15)


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_a_compressor_and_a_model_are_measured_alike(compressed: int, original: int) -> None:
    """A file of n bytes is a code of 8 n bits."""
    nats = 8 * compressed * LN2
    assert bits_per_byte(nats, original) == pytest.approx(compressed_bpb(compressed, original))


def test_nothing_has_no_bits_per_byte() -> None:
    assert math.isnan(bits_per_byte(0.0, 0))
    assert math.isnan(compressed_bpb(0, 0))
    assert math.isnan(Score(0.0, 0, 0, 1.0).nats_per_token)


def test_megabytes_are_decimal() -> None:
    assert megabytes(15_976_000) == "15.976 MB"
    assert megabytes(BUDGET_BYTES) == "16.000 MB"


def test_a_nat_per_token_of_the_published_validation_stream() -> None:
    """40,540,160 predicted sp8192 tokens stand for 151,078,222 bytes: 0.38713 bpb a nat."""
    score = Score(nats=40_540_160.0, tokens=40_540_160, bytes=151_078_222, coverage=1.0)
    assert score.nats_per_token == 1.0
    assert score.bpb == pytest.approx(0.38713, abs=5e-6)


def test_a_partial_score_says_so() -> None:
    whole = Score(nats=LN2 * 80, tokens=10, bytes=40, coverage=1.0)
    part = Score(nats=LN2 * 80, tokens=10, bytes=40, coverage=0.123)
    assert (whole.complete, part.complete) == (True, False)
    assert str(whole) == "2.00000 bpb"
    assert str(part) == "PARTIAL 2.0000 bpb over 12.30% of the targets"


COUNTS = st.integers(1, 10**9)


@given(st.floats(0, 1e12), COUNTS, COUNTS, st.floats(0, 1), st.floats(0, 1e6))
def test_a_score_survives_json(
    nats: float, tokens: int, n_bytes: int, coverage: float, seconds: float
) -> None:
    score = Score(nats, tokens, n_bytes, coverage, seconds)
    assert Score.from_json(json.loads(json.dumps(score.to_json()))) == score
