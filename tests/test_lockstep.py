"""The loop both sides run: same tables, same books as the scorer's, nothing seen too early."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray

from tests.coding import ANY, DEFAULT, LEARNS, OPTIONS, prose
from tests.commands import slow
from tests.scoring import LOOPED, MODEL, SCORE, small_model, small_stream
from underpar.artifact.load import load
from underpar.codec import lockstep, machine
from underpar.codec.blocks import MODEL as CODED
from underpar.codec.blocks import Block
from underpar.codec.lockstep import Coded, Lockstep, Shape
from underpar.codec.session import Session
from underpar.codec.tables import float_tables
from underpar.codec.text import Options, header_for
from underpar.data.tokenizer import ByteTokenizer
from underpar.data.validation import ValidationSet
from underpar.entropy.range_coder import TOTAL
from underpar.recipe.schema import ModelSpec
from underpar.score.file import score
from underpar.score.laned import score_in_lanes
from underpar.score.lanes import cut, fitted_chunk


@dataclass
class Watching:
    """An encoder that writes nothing down but what it was asked, and in which order."""

    lanes: list[NDArray[np.uint16]]
    asked: list[tuple[int, int]] = field(default_factory=list)
    tables: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)
    bits: float = 0.0

    def code(
        self, lanes: list[int], position: int, cumulative: NDArray[np.int64]
    ) -> NDArray[np.uint16]:
        tokens = np.array([self.lanes[lane][position + 1] for lane in lanes], np.uint16)
        for lane, row, token in zip(lanes, cumulative, tokens, strict=True):
            self.asked.append((position, lane))
            self.tables[lane, position] = row
            self.bits -= np.log2((int(row[token + 1]) - int(row[token])) / TOTAL)
        return tokens


def watched(
    stream: ValidationSet, lanes: int, *, adapt: bool, spec: ModelSpec = MODEL
) -> tuple[Watching, Coded]:
    model = small_model(spec).eval()
    coder = Watching(cut(stream.tokens, lanes))
    shape = Shape(stream.n_targets, lanes, SCORE.ttt_chunk)
    loop = Lockstep(model, SCORE, adapt=adapt)
    return coder, loop.run(shape, int(stream.tokens[0]), float_tables, coder)


# 210 lanes: of one token each, more than the largest batch that kernels treat alike
@pytest.mark.parametrize("lanes", [1, 8, 210, slow(2), slow(7), slow(9)])
@pytest.mark.parametrize("adapt", [False, True])
def test_the_books_are_the_scorers(adapt: bool, lanes: int) -> None:
    stream = small_stream()
    coder, coded = watched(stream, lanes, adapt=adapt)
    stage = "ttt" if adapt else "sliding"
    claim = score_in_lanes(small_model(), SCORE, stream, stage, lanes=lanes).score  # type: ignore[arg-type]
    assert coded.nats == pytest.approx(claim.nats, rel=1e-4 if adapt else 1e-6)
    assert coder.bits == pytest.approx(claim.nats / np.log(2), rel=1e-4)
    np.testing.assert_array_equal(coded.tokens, stream.tokens)
    assert len(coded.lanes) == lanes


@pytest.mark.parametrize("adapt", [False, True])
def test_of_a_looped_model(adapt: bool) -> None:
    # positions are rescaled there by the length that is read
    stream = small_stream()
    _, coded = watched(stream, 3, adapt=adapt, spec=LOOPED)
    stage = "ttt" if adapt else "sliding"
    claim = score_in_lanes(small_model(LOOPED), SCORE, stream, stage, lanes=3).score  # type: ignore[arg-type]
    assert coded.nats == pytest.approx(claim.nats, rel=1e-4)


def test_every_token_is_asked_for_once_lanes_side_by_side() -> None:
    coder, _ = watched(small_stream(), 4, adapt=True)
    positions = [[p for p, lane in coder.asked if lane == wanted] for wanted in range(4)]
    assert positions == [list(range(len(part) - 1)) for part in coder.lanes]
    assert coder.asked == sorted(coder.asked)


@pytest.mark.parametrize(("lanes", "n"), [(1, 100), (3, 210)])
def test_a_table_is_fixed_by_what_was_coded_before_it(lanes: int, n: int) -> None:
    stream = small_stream(n + 1)
    before, _ = watched(stream, lanes, adapt=True)
    tokens = stream.tokens.copy()
    edge, position = n * (lanes - 1) // lanes, 60  # in the last lane, after an adaptation
    tokens[edge + position + 1] = (tokens[edge + position + 1] + 1) % 17
    changed = replace(stream, tokens=tokens)
    after, _ = watched(changed, lanes, adapt=True)
    assert before.asked == after.asked
    same = [np.array_equal(before.tables[k], after.tables[k]) for k in before.tables]
    earlier = [p <= position for _, p in before.tables]
    assert all(same[i] for i in range(len(same)) if earlier[i])
    assert not all(same)
    # the lane itself differs at once; the others do from the next adaptation on
    assert not np.array_equal(
        before.tables[lanes - 1, position + 1], after.tables[lanes - 1, position + 1]
    )


def test_how_much_waits_for_the_ledger_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = small_stream()
    one, coded = watched(stream, 2, adapt=True)
    monkeypatch.setattr(lockstep, "_PENDING", 60)
    other, again = watched(stream, 2, adapt=True)
    assert all(np.array_equal(one.tables[k], other.tables[k]) for k in one.tables)
    assert coded.nats == pytest.approx(again.nats, rel=1e-12)


# --- encoder and decoder ----------------------------------------------------------------------


def session_of(artifact: Path, options: Options = DEFAULT) -> Session:
    loaded = load(artifact, torch.device("cpu"))
    return Session(loaded, header_for(loaded, options))


def block_of(text: bytes, payload: bytes, n_tokens: int, lanes: int) -> Block:
    return Block(CODED, len(text), 0, payload, n_tokens, lanes)


@settings(max_examples=15, deadline=None)
@given(text=ANY.filter(bool), options=OPTIONS)
def test_what_one_session_encodes_another_decodes(
    tiny_model: Path, text: bytes, options: Options
) -> None:
    writing, reading = session_of(tiny_model, options), session_of(tiny_model, options)
    for _ in range(2):  # the second time with what was learned from the first
        tokens = writing.stream(text)
        assert tokens is not None
        n = len(tokens) - 1
        lanes = 0 if options.exact else min(options.lanes or 5, n)
        payload, _ = writing.encode(tokens, lanes)
        assert reading.decode(block_of(text, payload, n, lanes)) == text


def coded_bits(artifact: Path, text: bytes, options: Options, lanes: int) -> tuple[int, float]:
    session = session_of(artifact, options)
    tokens = session.stream(text)
    assert tokens is not None
    payload, nats = session.encode(tokens, lanes)
    return 8 * len(payload), nats / np.log(2)


def held_out(text: bytes) -> ValidationSet:
    return ValidationSet.from_tokens(
        np.concatenate([[256], ByteTokenizer().encode(text.decode())]), ByteTokenizer()
    )


def differs_by_no_more(artifact: Path, n: int, *, adapt: bool, lanes: int) -> None:
    """Coded bits, the loop's and the scorer's: all within 0.1 %."""
    text = prose(n)
    options = Options(adapt=adapt, exact=not lanes)
    bits, by_itself = coded_bits(artifact, text, options, lanes)
    assert bits == pytest.approx(by_itself, rel=1e-3)
    stage = "ttt" if adapt else "sliding"
    spec = replace(LEARNS, context=32)
    spec = fitted_chunk(spec, n, lanes) if lanes else spec
    claim = score(artifact, held_out(text), stage, overrides=spec, lanes=max(lanes, 1)).score  # type: ignore[arg-type]
    assert bits == pytest.approx(claim.nats / np.log(2), rel=1e-3)
    assert claim.bytes == n


@pytest.mark.parametrize("adapt", [False, True])
def test_coded_bits_are_scored_bits_in_lanes(tiny_model: Path, adapt: bool) -> None:
    differs_by_no_more(tiny_model, 4000, adapt=adapt, lanes=16)


@pytest.mark.slow
@pytest.mark.parametrize("adapt", [False, True])
def test_coded_bits_are_scored_bits_in_one_stream(tiny_model: Path, adapt: bool) -> None:
    # few tokens, but adapting to them is slow enough to keep them dear
    differs_by_no_more(tiny_model, 2800 if adapt else 2100, adapt=adapt, lanes=0)


@pytest.mark.slow
@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("lanes", [0, 1, 4])
def test_coded_bits_of_a_longer_text(tiny_model: Path, adapt: bool, lanes: int) -> None:
    differs_by_no_more(tiny_model, 40_000, adapt=adapt, lanes=lanes)


def test_a_text_profits_from_the_one_before_until_the_session_forgets(tiny_model: Path) -> None:
    session = session_of(tiny_model)
    tokens = session.stream(prose(1200))
    assert tokens is not None
    lanes = 8
    first, _ = session.encode(tokens, lanes)
    second, _ = session.encode(tokens, lanes)
    assert len(second) < 0.8 * len(first)
    session.reset()
    assert session.encode(tokens, lanes)[0] == first
    fixed = session_of(tiny_model, Options(adapt=False))
    assert fixed.encode(tokens, lanes)[0] == fixed.encode(tokens, lanes)[0]


def test_threads_and_determinism_are_as_before_afterwards() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with machine.held_still(before[0] + 1):
        assert torch.get_num_threads() == before[0] + 1
        assert torch.are_deterministic_algorithms_enabled()
    with suppress(KeyError), machine.held_still(before[0] + 1):
        raise KeyError
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
