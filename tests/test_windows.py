"""The window plan: every position once, whatever the length; the published plans where right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.score.windows import Window, WindowPlan, batches


@st.composite
def plans(draw):
    context = draw(st.integers(1, 70))
    return WindowPlan(draw(st.integers(1, 400)), context, draw(st.integers(1, context)))


def slow_windows(n, context, stride):
    """The rule, read aloud: starts at multiples of the stride, while something is left to score."""
    out, start = [], 0
    while start == 0 or start + context - stride < n:
        out.append((start, start + context - stride if start else 0, min(start + context, n)))
        start += stride
    return out


@given(plans())
def test_every_position_is_scored_once_and_left_to_right(plan):
    scored = [p for w in plan.windows for p in range(w.first, w.end)]
    assert scored == list(range(plan.n_positions))


@given(plans())
def test_closed_form_is_the_rule_read_aloud(plan):
    want = slow_windows(plan.n_positions, plan.context, plan.stride)
    assert len(plan) == len(want)
    assert [tuple(plan[i]) for i in range(len(plan))] == want
    assert plan[-1] == want[-1]


@given(plans())
def test_every_window_but_the_first_has_full_context(plan):
    for window in plan.windows[1:]:
        assert window.first - window.start == plan.context - plan.stride
        assert window.end - window.start <= plan.context


@given(plans(), st.integers(1, 500))
def test_chunks_own_each_window_once_and_score_what_they_train_on(plan, size):
    seen: list[Window] = []
    for chunk in plan.chunks(size):
        assert all(plan.chunk_of(w, size) == chunk.index for w in chunk.windows)
        assert (chunk.start, chunk.end) == (
            chunk.index * size,
            min(chunk.index * size + size, plan.n_positions),
        )
        seen += chunk.windows
        assert seen[-1].end >= chunk.end
    assert seen == plan.windows


@given(plans(), st.integers(1, 9), st.integers(1, 300))
def test_batches_keep_order_shape_and_limits(plan, size, positions):
    got = list(batches(plan.windows, size, positions))
    assert [w for batch in got for w in batch] == plan.windows
    for batch in got:
        assert len({w.shape for w in batch}) == 1
        scored = sum(w.end - w.first for w in batch)
        assert len(batch) == 1 or (len(batch) <= size and scored <= positions)


@pytest.mark.parametrize(
    ("n", "context", "stride", "windows"),
    [(62_021_632, 2048, 128, 484_529), (40_540_160, 2048, 64, 633_409), (10, 2048, 64, 1)],
)
def test_production_counts_without_a_list(n, context, stride, windows):
    plan = WindowPlan(n, context, stride)
    assert len(plan) == windows
    assert plan[-1].end == n


def test_plain_windows_lie_side_by_side_and_keep_the_tail():
    assert WindowPlan(10, 4, 4).windows == [(0, 0, 4), (4, 4, 8), (8, 8, 10)]
