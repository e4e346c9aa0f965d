"""Lanes: nothing is lost at the cuts, and the score is the one a simple loop gives."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.scoring import SCORE, small_model, small_stream
from underpar.data.validation import ValidationSet
from underpar.model import GPT, loss
from underpar.recipe.schema import ScoreSpec
from underpar.score.adapt import chunk_lr_multiplier
from underpar.score.laned import score_in_lanes
from underpar.score.lanes import (
    LEAST_CHUNKS,
    LEAST_TOKENS,
    MOST_ADAPTING,
    MOST_FIXED,
    cut,
    fitted_chunk,
    in_step,
    lane_edges,
    lanes_for,
)
from underpar.score.windows import WindowPlan


@given(n=st.integers(1, 500), data=st.data())
def test_a_cut_loses_nothing_and_is_even(n: int, data: st.DataObject) -> None:
    lanes = data.draw(st.integers(1, min(n, 40)))
    tokens = np.arange(1000, 1001 + n).astype(np.uint16)
    parts = cut(tokens, lanes)
    assert len(parts) == lanes
    assert all(part[0] == 1000 and part.dtype == np.uint16 for part in parts)
    np.testing.assert_array_equal(np.concatenate([part[1:] for part in parts]), tokens[1:])
    sizes = {len(part) - 1 for part in parts}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    edges = lane_edges(n, lanes)
    assert [b - a for a, b in pairwise(edges)] == [len(part) - 1 for part in parts]


@given(
    n=st.integers(1, 400),
    context=st.integers(1, 40),
    chunk=st.integers(1, 90),
    data=st.data(),
)
def test_chunks_in_step_cover_every_lane_once(
    n: int, context: int, chunk: int, data: st.DataObject
) -> None:
    lanes = data.draw(st.integers(1, min(n, 9)))
    stride = data.draw(st.integers(1, context))
    plans = [WindowPlan(b - a, context, stride) for a, b in pairwise(lane_edges(n, lanes))]
    scored: list[list[int]] = [[] for _ in plans]
    indices = []
    for index, parts in in_step(plans, chunk):
        indices.append(index)
        assert list(parts) == sorted(parts)
        for lane, part in parts.items():
            assert part.index == index
            for window in part.windows:
                scored[lane] += range(window.first, window.end)
        # the k-th windows of all lanes are read together: they differ in their ends alone
        for k in range(max(len(part.windows) for part in parts.values())):
            beginnings = {p.windows[k][:2] for p in parts.values() if k < len(p.windows)}
            assert len(beginnings) == 1
    assert indices == sorted(set(indices))
    assert scored == [list(range(plan.n_positions)) for plan in plans]


@pytest.mark.parametrize("adapts", [True, False])
def test_how_many_lanes(adapts: bool) -> None:
    counts = [lanes_for(n, adapts=adapts) for n in range(0, 200_000, 64)]
    assert counts == sorted(counts)
    assert counts[0] == lanes_for(2 * LEAST_TOKENS - 1, adapts=adapts) == 1
    assert lanes_for(2 * LEAST_TOKENS, adapts=adapts) == 2
    assert (
        counts[-1] == lanes_for(10**9, adapts=adapts) == (MOST_ADAPTING if adapts else MOST_FIXED)
    )


@given(
    n=st.integers(1, 200_000),
    lanes=st.integers(1, 20),
    context=st.sampled_from((16, 100, 1024)),
    chunk=st.integers(1, 70_000),
)
def test_a_fitted_chunk(n: int, lanes: int, context: int, chunk: int) -> None:
    spec = ScoreSpec(context=context, stride=5, ttt_chunk=chunk)
    done = fitted_chunk(spec, n, lanes)
    assert replace(done, ttt_chunk=chunk) == spec
    assert done.ttt_chunk % context == 0
    assert done.ttt_chunk >= context
    if done.ttt_chunk > context:
        assert done.ttt_chunk * lanes <= chunk
        assert done.ttt_chunk * lanes * LEAST_CHUNKS <= n


# --- the score of a cut stream ----------------------------------------------------------------


def _nll(model: GPT, ids: torch.Tensor, start: int, first: int, end: int) -> np.ndarray:
    with torch.no_grad():
        nats = loss(model, ids[None, start:end], ids[None, start + 1 : end + 1], reduction="none")
    return nats[0, first - start :].numpy()


def _streams(stream: ValidationSet, lanes: int) -> list[torch.Tensor]:
    edges = [stream.n_targets * i // lanes for i in range(lanes + 1)]
    ids = torch.from_numpy(stream.tokens.astype(np.int64))
    return [torch.cat((ids[:1], ids[a + 1 : b + 1])) for a, b in pairwise(edges)]


@pytest.mark.parametrize("lanes", [1, 2, 7, pytest.param(210, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", ["plain", "sliding"])
def test_lanes_are_scored_as_streams_of_their_own(stage: str, lanes: int) -> None:
    model, stream = small_model().eval(), small_stream()
    result = score_in_lanes(model, SCORE, stream, stage, lanes=lanes)  # type: ignore[arg-type]
    wanted = []
    for ids in _streams(stream, lanes):
        plan = WindowPlan(len(ids) - 1, 16, 16 if stage == "plain" else SCORE.stride)
        wanted += [_nll(model, ids, *window) for window in plan]
    np.testing.assert_allclose(result.nll, np.concatenate(wanted), atol=1e-5)
    nats = float(np.concatenate(wanted).sum(dtype=np.float64))
    assert result.score.nats == pytest.approx(nats, rel=1e-6)
    assert (result.score.tokens, result.score.bytes) == (210, stream.true_bytes)
    assert result.score.complete


def _adapting(model: GPT, stream: ValidationSet, lanes: int) -> tuple[np.ndarray, int]:
    """Nats of each target, chunk by chunk; steps taken. SGD, momentum, clipping by the book."""
    model.eval()
    streams, size, context = _streams(stream, lanes), SCORE.ttt_chunk, 16
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1.0, momentum=SCORE.ttt_momentum)
    nll = [np.full(len(ids) - 1, np.nan, np.float32) for ids in streams]
    n_chunks, steps = -(-max(map(len, nll)) // size), 0
    for c in range(n_chunks):
        sequences = []
        for ids, mine in zip(streams, nll):
            end = min((c + 1) * size, len(mine))
            for w in WindowPlan(len(mine), context, SCORE.stride):
                if c * size <= w.first < end:
                    mine[w.first : w.end] = _nll(model, ids, *w)
            starts = range(c * size, end - context + 1, context)
            sequences += [ids[s : s + context + 1] for s in starts]
        if c == n_chunks - 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = SCORE.ttt_lr * chunk_lr_multiplier(c, n_chunks)
        for _ in range(SCORE.ttt_epochs):
            for i in range(0, len(sequences), SCORE.ttt_batch):
                batch = torch.stack(sequences[i : i + SCORE.ttt_batch])
                optimizer.zero_grad()
                loss(model, batch[:, :-1], batch[:, 1:]).backward()
                torch.nn.utils.clip_grad_norm_(parameters, SCORE.ttt_clip)
                optimizer.step()
                steps += 1
    return np.concatenate(nll), steps


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_lanes_adapt_together(lanes: int) -> None:
    # 299 targets: the lanes end at different places, and the last chunk is ragged
    stream = small_stream(300)
    result = score_in_lanes(small_model(), SCORE, stream, "ttt", lanes=lanes)
    nll, steps = _adapting(small_model(), stream, lanes)
    assert result.steps == steps
    assert steps > 8
    np.testing.assert_allclose(result.nll, nll, atol=1e-3)
    assert result.score.nats == pytest.approx(float(nll.sum(dtype=np.float64)), rel=1e-5)
    assert (result.score.tokens, result.score.complete) == (299, True)


def test_the_first_chunks_are_scored_before_any_of_them_is_learned_from() -> None:
    stream = small_stream(300)
    for lanes in (2, 3):
        sliding = score_in_lanes(small_model(), SCORE, stream, "sliding", lanes=lanes).nll
        ttt = score_in_lanes(small_model(), SCORE, stream, "ttt", lanes=lanes).nll
        for edge in lane_edges(299, lanes)[:-1]:
            np.testing.assert_array_equal(ttt[edge : edge + 48], sliding[edge : edge + 48])
            assert not np.array_equal(ttt[edge + 64 : edge + 96], sliding[edge + 64 : edge + 96])


def test_a_limit_and_lanes() -> None:
    stream = small_stream()
    part = score_in_lanes(small_model(), SCORE, stream, "sliding", limit=100, lanes=3)
    alone = score_in_lanes(small_model(), SCORE, stream.beginning(100), "sliding", lanes=3)
    np.testing.assert_array_equal(part.nll[:100], alone.nll)
    assert np.isnan(part.nll[100:]).all()
    assert part.score.coverage == 100 / 210
