"""What evidence is enough for which verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from underpar.audit import compare, headline, verdict
from underpar.audit.compare import Moved, Own
from underpar.audit.evidence import Alphabet, Evidence
from underpar.audit.facts import Trace
from underpar.audit.headline import Headline, Scores

N = 400


def scores(pos: np.ndarray | None = None, **columns: np.ndarray) -> Scores:
    pos = np.arange(1, N) if pos is None else pos
    size = len(pos)
    nll = columns.get("nll", np.linspace(1, 2, size))
    return Scores(
        pos, np.full(size, 9), nll, columns.get("seq", np.arange(size) // 10),
        np.full(size, 77), columns.get("reference", nll), columns.get("digest", nll),
        np.zeros(size, np.int64), float(nll.sum()), float(size),
    )  # fmt: skip


def evidence(of: Scores | None = None, error: float = 0.0, **more: object) -> Evidence:
    of = scores() if of is None else of
    line = "final val_loss:1.50000000"
    base = Headline("val_loss", line, 1.5, of, error, 1e-5, 0.0, 1.0, 0, True)
    trace = Trace(tokens=np.full(N, 9, np.uint16))
    seen = Evidence(base=base, trace=trace, flips=[300], tested=299, pure=float(of.pure.mean()))
    for name, value in more.items():
        setattr(seen, name, value)
    return seen


def verdicts(seen: Evidence) -> dict[str, str]:
    return {c.name: c.verdict for c in verdict.conditions(seen)}


def test_all_four_hold_when_nothing_moved() -> None:
    assert set(verdicts(evidence()).values()) == {"holds"}


def test_a_sum_that_is_off_holds_nothing() -> None:
    seen = evidence(error=2e-5)
    assert set(verdicts(seen).values()) == {"not_exercised"}
    assert "differs" in verdict.conditions(seen)[0].why


def test_unknown_positions_hold_nothing() -> None:
    pos = np.arange(1, N)
    pos[::50] = -1
    assert set(verdicts(evidence(scores(pos))).values()) == {"not_exercised"}


def test_an_untested_order_does_not_hold() -> None:
    found = verdicts(evidence(flips=[], tested=0))
    assert found["causal"] == found["single_pass"] == "not_exercised"


def test_a_moved_score_is_the_witness() -> None:
    seen = evidence(moved=[Moved(300, 120, 0.0131, 812, 12, 4, 299)])
    found = {c.name: c for c in verdict.conditions(seen)}
    text = "flipping token 300 moved the score of token 120 by 0.013 nats (line 812)"
    assert found["causal"].witness == text
    assert found["single_pass"].verdict == "violated"
    assert found["score_first"].verdict == "not_exercised"


def test_a_distribution_that_saw_its_token() -> None:
    found = verdicts(evidence(own=[Own(300, 0.1, 5)]))
    assert found["score_first"] == "violated"
    assert found["causal"] == "violated"


def test_training_before_a_score_needs_the_flip() -> None:
    seen = evidence()
    seen.trace = Trace(
        tokens=np.full(N, 9, np.uint16), t_pos=np.arange(1, 20),
        t_seq=np.full(19, -5), t_line=np.full(19, 31),
    )  # fmt: skip
    assert verdicts(seen)["score_first"] == "holds"
    seen.moved = [Moved(300, 120, 0.01, 812, 12, 4, 299)]
    found = {c.name: c for c in verdict.conditions(seen)}["score_first"]
    assert found.verdict == "violated"
    assert "line 31" in found.witness


@pytest.mark.parametrize(
    ("total", "complete", "equal", "expected"),
    [
        (1.2, False, True, "violated"),
        (0.7, False, True, "not_exercised"),
        (0.7, True, True, "violated"),
        (1.2, True, False, "not_exercised"),
        (1.0001, True, True, "holds"),
    ],
)
def test_alphabet_sums(total: float, complete: bool, equal: bool, expected: str) -> None:
    mixed = scores(reference=np.linspace(1, 2, N - 1) + 0.3)
    seen = evidence(mixed, alphabets=[Alphabet(200, (1, 2), total, complete, equal, 9)])
    assert verdicts(seen)["normalized"] == expected


@pytest.mark.parametrize(
    ("total", "unscored", "rest", "doubt", "expected"),
    [
        (0.87, 4, 0.11, 0.0, "violated"),  # 0.02 is lost whatever the other four would get
        (0.87, 4, 0.13, 0.0, "not_exercised"),
        (0.87, 0, 0.0, 0.0, "not_exercised"),
        (1.01, 0, 0.0, 0.005, "violated"),
        (1.01, 0, 0.0, 0.009, "not_exercised"),
    ],
)
def test_alphabets_with_gaps(
    total: float, unscored: int, rest: float, doubt: float, expected: str
) -> None:
    mixed = scores(reference=np.linspace(1, 2, N - 1) + 0.3)
    found = Alphabet(200, (1, 2), total, False, True, 9, unscored, rest, doubt)
    assert verdicts(evidence(mixed, alphabets=[found]))["normalized"] == expected


def test_multiplicity_counts_without_the_tail_of_the_stream() -> None:
    tail = np.concatenate([np.arange(1, N), np.arange(N - 40, N)])
    share, body, most = compare.rescored(scores(tail), N)
    assert share > 0.09
    assert body == 0
    assert most == 2
    assert verdicts(evidence(scores(tail)))["single_pass"] == "holds"
    twice = np.concatenate([np.arange(1, N), np.arange(1, 100)])
    assert verdicts(evidence(scores(twice)))["single_pass"] == "violated"


def test_earlier_means_scoring_order_not_stream_order() -> None:
    order = scores(np.arange(N - 1, 0, -1))
    early = compare.earlier(order, 200)
    assert order.pos[early].min() > 199
    changed = scores(np.arange(N - 1, 0, -1), nll=np.where(order.pos < 200, 3.0, order.nll))
    assert compare.moved(order, changed, 200, 0.0) is None
    assert compare.moved(order, changed, 50, 0.0) is not None


def test_byte_lengths_follow_the_pieces() -> None:
    tokens = np.array([1, 20, 21, 22, 5], np.uint16)
    lengths = headline.byte_lengths(tokens, 64)
    assert lengths[0] == 0
    assert lengths[4] == 1
    assert (lengths[1:4] >= 1).all()


def test_a_denominator_is_held_against_the_text() -> None:
    seen = evidence()
    assert seen.base is not None
    true = headline.true_bytes(seen.trace.tokens, seen.base.scores.pos, seen.vocab)
    seen.base = replace(seen.base, bytes=true)
    assert verdict.byte_error(seen) == ""
    lengths = headline.byte_lengths(seen.trace.tokens, seen.vocab)[1:] + 1.0
    seen.base = replace(seen.base, bytes=float(lengths.sum()))
    assert "divides by" in verdict.byte_error(seen)
    group = np.full(N - 1, headline.COUNTED << headline.CHANNEL)
    seen.trace = replace(seen.trace, c_pos=np.arange(1, N), c_nll=lengths, c_group=group)
    assert "token 1 is counted as" in verdict.byte_error(seen)
