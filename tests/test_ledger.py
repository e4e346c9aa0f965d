"""The ledger: what it adds up, and what it refuses to write down."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar import dist
from underpar.errors import DataError, LegalityError
from underpar.score.ledger import Ledger, ScoredChunk, negative_log_likelihoods

V = 11


def stream(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, n).astype(np.uint16), rng.integers(0, 5, n - 1).astype(np.int32)


def logits(n, seed=0):
    return torch.randn(n, V, generator=torch.Generator().manual_seed(seed)) * 3


def test_score_is_the_code_length_of_the_targets():
    tokens, lengths = stream()
    ledger, rows = Ledger(tokens, lengths, V), logits(39)
    ledger.commit([(0, 20), (20, 39)], rows)
    score = ledger.score(2.5)
    p = torch.softmax(rows.double(), -1)[torch.arange(39), torch.from_numpy(tokens[1:].astype(int))]
    assert score.nats == pytest.approx(-p.log().sum().item(), rel=1e-6)
    assert (score.tokens, score.bytes, score.coverage) == (39, int(lengths.sum()), 1.0)
    assert score.seconds == 2.5
    np.testing.assert_allclose(ledger.targets(), -p.log().numpy(), rtol=1e-5, atol=1e-6)
    assert (ledger.nats, ledger.bytes) == (pytest.approx(score.nats, rel=1e-12), score.bytes)


@given(st.lists(st.integers(1, 38), unique=True, max_size=6), st.randoms())
@settings(max_examples=30, deadline=None)
def test_order_and_grouping_of_commits_do_not_matter(cuts, random):
    tokens, lengths = stream()
    rows, edges = logits(39), [0, *sorted(cuts), 39]
    whole, parts = Ledger(tokens, lengths, V), Ledger(tokens, lengths, V)
    whole.commit([(0, 39)], rows)
    spans = list(pairwise(edges))
    random.shuffle(spans)
    for first, end in spans:
        parts.commit([(first, end)], rows[first:end])
    assert parts.score() == whole.score()
    assert parts.close_chunk(0, 39).end == 39


def test_uniform_logits_cost_log_v():
    nll = negative_log_likelihoods(torch.full((3, V), 7.0), np.array([0, 5, 10], dtype=np.uint16))
    np.testing.assert_allclose(nll, math.log(V), rtol=1e-6)


def test_the_stream_is_the_ledgers_own():
    tokens, lengths = stream()
    honest, rows = Ledger(tokens, lengths, V), logits(39)
    target = int(tokens[1])
    tokens[:] = 0  # too late to change what will be scored
    honest.commit([(0, 39)], rows)
    assert honest.targets()[0] == pytest.approx(-rows[0].log_softmax(-1)[target].item(), abs=1e-6)


@pytest.mark.parametrize(
    ("spans", "rows"),
    [
        ([(0, 5)], torch.zeros(5, V - 1)),  # not the whole alphabet
        ([(0, 5)], torch.zeros(5, V + 1)),
        ([(0, 5)], torch.zeros(4, V)),
        ([(0, 5)], torch.zeros(5)),
        ([(0, 5)], torch.full((5, V), math.nan)),
        ([(0, 1)], torch.tensor([[math.inf] + [0.0] * (V - 1)])),
        ([(0, 1)], torch.tensor([[-math.inf] + [0.0] * (V - 1)])),
        ([(35, 40)], torch.zeros(5, V)),  # the stream has 39 targets
        ([(-1, 4)], torch.zeros(5, V)),
        ([(5, 5)], torch.zeros(0, V)),
        ([], torch.zeros(0, V)),
        ([(0, 3), (2, 4)], torch.zeros(5, V)),  # twice in one commit
    ],
)
def test_a_refused_commit_leaves_the_books_unchanged(spans, rows):
    tokens, lengths = stream()
    ledger = Ledger(tokens, lengths, V)
    with pytest.raises(LegalityError):
        ledger.commit(spans, rows)
    assert ledger.score().tokens == 0
    ledger.commit([(0, 39)], logits(39))
    assert ledger.score().complete


def test_a_position_is_committed_once_open_or_closed():
    tokens, lengths = stream()
    ledger = Ledger(tokens, lengths, V)
    ledger.commit([(0, 10)], logits(10))
    with pytest.raises(LegalityError, match="position 9"):
        ledger.commit([(9, 12)], logits(3))
    ledger.close_chunk(0, 10)
    with pytest.raises(LegalityError, match="scored twice"):
        ledger.commit([(3, 4)], torch.zeros(1, V))


def test_a_chunk_closes_only_when_all_of_it_is_scored():
    tokens, lengths = stream()
    ledger = Ledger(tokens, lengths, V)
    ledger.commit([(0, 5), (6, 12)], logits(11))
    with pytest.raises(LegalityError, match="before all of it was scored"):
        ledger.close_chunk(0, 5 + 1)
    ledger.commit([(5, 6)], logits(1))
    with pytest.raises(LegalityError, match="before all of it was scored"):
        ledger.close_chunk(0, 13)
    chunk = ledger.close_chunk(0, 8)
    np.testing.assert_array_equal(chunk.tokens, tokens[0:9])
    assert ledger.close_chunk(8, 12).end == 12  # scored beyond the first chunk's end


def test_scored_chunks_cannot_be_forged_or_changed():
    tokens, lengths = stream()
    with pytest.raises(LegalityError, match="outside the ledger"):
        ScoredChunk(0, 39, tokens)
    ledger = Ledger(tokens, lengths, V)
    ledger.commit([(0, 10)], logits(10))
    chunk = ledger.close_chunk(0, 10)
    with pytest.raises(LegalityError):
        replace(chunk, end=39, tokens=tokens)
    with pytest.raises(ValueError, match="read-only"):
        chunk.tokens[0] = 1
    with pytest.raises(AttributeError):
        chunk.end = 39
    assert copy.copy(chunk).end == 10


def ranks_of(monkeypatch, other):
    """As if a second process had committed the spans ``other``."""
    monkeypatch.setattr(dist, "gather", lambda value: [value, other])


def test_ranks_that_overlap_are_caught(monkeypatch):
    tokens, lengths = stream()
    ledger = Ledger(tokens, lengths, V)
    ledger.commit([(0, 10)], logits(10))
    ranks_of(monkeypatch, [(9, 20)])
    for attempt in (lambda: ledger.close_chunk(0, 20), ledger.score):
        with pytest.raises(LegalityError, match="two processes"):
            attempt()


def test_ranks_that_leave_a_hole_are_caught(monkeypatch):
    tokens, lengths = stream()
    ledger = Ledger(tokens, lengths, V)
    ledger.commit([(0, 10)], logits(10))
    ranks_of(monkeypatch, [(11, 20)])
    with pytest.raises(LegalityError, match="before all of it was scored"):
        ledger.close_chunk(0, 20)
    ranks_of(monkeypatch, [(10, 20)])
    assert ledger.close_chunk(0, 20).end == 20
    with pytest.raises(LegalityError, match="scored twice"):
        ledger.commit([(12, 13)], torch.zeros(1, V))  # the other rank's position


def test_a_partial_score_says_so():
    tokens, lengths = stream()
    ledger = Ledger(tokens, lengths, V)
    ledger.commit([(3, 13)], logits(10))
    score = ledger.score()
    assert score.coverage == 10 / 39
    assert score.bytes == lengths[3:13].sum()
    assert str(score).startswith("PARTIAL")
    assert np.isnan(ledger.targets()).sum() == 29


def test_streams_that_cannot_be_scored():
    tokens, lengths = stream()
    with pytest.raises(DataError, match="another tokenizer"):
        Ledger(tokens, lengths, int(tokens.max()))
    with pytest.raises(DataError, match="byte lengths"):
        Ledger(tokens, lengths[1:], V)
    with pytest.raises(DataError, match="two tokens"):
        Ledger(tokens[:1], lengths[:0], V)
