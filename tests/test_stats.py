"""The statistics: published figures to the printed digit, other libraries, and what must hold.

Per-seed figures are those of the public repository openai/parameter-golf: the last lines of the
logs ``records/track_10min_16mb/*/train_seed*.log`` of #1394 and #1413, and the submission.json of
the others. What their READMEs say about them is quoted beside each test.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from underpar.errors import DataError
from underpar.report.stats import BPB, NATS, Comparison, Sample, Text

#: Seeds 0, 42, 1234 of #1413 (TTT) and 1, 42, 1234, 1337, 2025 of #1394 (sliding windows).
PR1413 = Sample((2.79517119, 2.79788378, 2.79785185), NATS)
PR1413_BPB = Sample((1.08209788, 1.08314800, 1.08313564), BPB)
PR1394 = Sample((2.80405024, 2.80691494, 2.80170263, 2.80406725, 2.80467299), NATS)
PR1394_BPB = Sample((1.08553523, 1.08664424, 1.08462640, 1.08554182, 1.08577632), BPB)
SP8192 = Text(tokens=40_540_160, bytes=151_078_222)


@pytest.fixture
def published() -> Comparison:
    return Comparison(PR1413, PR1394, 0.005)


def test_1413_against_1394_as_published(published: Comparison) -> None:
    """'Beats #1394 (1.08563) by 0.00283 bpb / 0.00731 nats per token', 2.79697, std ~0.00049."""
    assert f"{PR1413.mean:.5f}" == "2.79697"
    assert f"{PR1413_BPB.mean:.8f}" == "1.08279384"
    assert f"{published.difference:.5f}" == "0.00731"
    assert f"{published.to(BPB, SP8192).difference:.5f}" == "0.00283"
    assert f"{PR1394.mean:.5f}" == "2.80428"
    assert f"{PR1413_BPB.sd:.5f}" == "0.00060"
    assert f"{(PR1413_BPB.sd or 0) * math.sqrt(2 / 3):.5f}" == "0.00049"  # theirs divides by n
    assert f"{PR1394_BPB.sd:.4f}" == "0.0007"
    assert f"{PR1394_BPB.mean:.5f}" == "1.08562"  # 1.08563 is the mean of the rounded figures:
    rounded = Sample(tuple(round(value, 5) for value in PR1394_BPB.values), BPB)
    assert f"{rounded.mean:.5f}" == "1.08563"


def test_tokens_and_bytes_connect_the_two_columns_of_the_logs() -> None:
    for nats, bpb in ((PR1413, PR1413_BPB), (PR1394, PR1394_BPB)):
        assert nats.to(BPB, SP8192).values == pytest.approx(bpb.values, abs=1e-8)
        assert bpb.to(NATS, SP8192).values == pytest.approx(nats.values, abs=2e-8)
    assert f"{SP8192.convert(1, NATS, BPB):.5f}" == "0.38713"
    assert f"{SP8192.convert(0.005, NATS, BPB):.5f}" == "0.00194"


def test_1413_against_1394_by_the_rule(published: Comparison) -> None:
    """Better for certain; by 0.005 nats not at p < 0.01. t, df, p: scipy 1.17.1, ttest_ind."""
    better = replace(published, delta=0.0)
    assert better.t == pytest.approx(5.970824801101082, rel=1e-10)
    assert better.df == pytest.approx(5.042772379022081, rel=1e-10)
    assert better.p == pytest.approx(0.0009161269677097705, rel=1e-9)
    assert published.t == pytest.approx(1.888304462359908, rel=1e-10)
    assert published.p == pytest.approx(0.05856179646149377, rel=1e-9)
    assert published.bound(0.99) == pytest.approx(0.0032061, abs=1e-7)
    assert published.runs_needed(0.01, both=True) == 4
    assert published.runs_needed(0.01) is None  # five runs of #1394 leave its mean too uncertain
    assert better.runs_needed(0.01) == 0


def test_1019_against_549_as_published() -> None:
    """'t_statistic': -11.8339, 'welch_df': 3.3063 (their sign is a - b)."""
    ours = Sample((1.11508120, 1.11437394, 1.11475014), BPB)
    theirs = Sample((1.11922988, 1.12002032, 1.11888882), BPB)
    found = Comparison(ours, theirs, 0.0)
    assert f"{found.t:.4f}" == "11.8339"
    assert f"{found.df:.4f}" == "3.3063"
    assert f"{found.difference:.8f}" == "0.00464458"
    assert f"{ours.sd:.8f}" == "0.00035387"


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    [
        # #1514 against #1493, #1769 (the best five of seven) against #1736
        ((1.07928348, 1.07996676, 1.08024795), (1.08079, 1.08103, 1.08118), "0.020"),
        (
            (1.06356801, 1.0641313, 1.06466993, 1.06509678, 1.06516558),
            (1.06610, 1.06473, 1.06563),
            "0.063",
        ),
    ],
)
def test_p_values_on_the_public_leaderboard(
    ours: tuple[float, ...], theirs: tuple[float, ...], p: str
) -> None:
    """They are one-sided Welch tests of 'better at all', not of 'by 0.005 nats'."""
    assert f"{Comparison(Sample(ours, BPB), Sample(theirs, BPB), 0.0).p:.3f}" == p


def test_the_sleep_data_of_r() -> None:
    """t.test(extra ~ group, data = sleep): t = -1.8608, df = 17.776, p = 0.07939, 95% interval."""
    one = Sample((0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0), NATS)
    two = Sample((1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4), NATS)
    found = Comparison(one, two, 0.0)
    assert f"{found.t:.4f}" == "1.8608"
    assert f"{found.df:.3f}" == "17.776"
    assert f"{2 * (found.p or 0):.5f}" == "0.07939"
    assert found.interval(0.95) == pytest.approx((-0.2054832, 3.3654832), abs=1e-7)


LOSSES = st.lists(st.integers(-9999, 9999), min_size=2, max_size=6)
DELTA = st.integers(-9999, 9999).map(lambda n: n * 1e-4)


def comparison(a: list[int], b: list[int], delta: float = 0.0, by: float = 0.0) -> Comparison:
    assume(len(set(a)) > 1 or len(set(b)) > 1)
    left, right = (Sample(tuple(v * 1e-4 + by for v in x), NATS) for x in (a, b))
    return Comparison(left, right, delta)


@pytest.mark.filterwarnings("ignore:Precision loss occurred")
def test_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")

    @settings(deadline=None)
    @given(LOSSES, LOSSES, DELTA)
    def check(a: list[int], b: list[int], delta: float) -> None:
        found = comparison(a, b, delta)
        shifted = [value + delta for value in found.a.values]
        wanted = stats.ttest_ind(found.b.values, shifted, equal_var=False, alternative="greater")
        assert found.t == pytest.approx(wanted.statistic, rel=1e-7, abs=1e-7)
        assert found.df == pytest.approx(wanted.df, rel=1e-7)
        assert found.p == pytest.approx(wanted.pvalue, rel=1e-5, abs=1e-12)
        both = stats.ttest_ind(found.b.values, found.a.values, equal_var=False)
        ends = both.confidence_interval(0.99)
        assert found.interval(0.99) == pytest.approx((ends.low, ends.high), rel=1e-7, abs=1e-9)

    check()


@settings(deadline=None)
@given(LOSSES, LOSSES, DELTA, st.integers(-5, 5))
def test_a_shift_of_both_changes_nothing(a: list[int], b: list[int], delta: float, by: int) -> None:
    here, there = comparison(a, b, delta), comparison(a, b, delta, by)
    assert there.t == pytest.approx(here.t, rel=1e-6, abs=1e-6)
    assert there.p == pytest.approx(here.p, rel=1e-4, abs=1e-9)


@settings(deadline=None)
@given(LOSSES, LOSSES)
def test_swapping_the_sides_flips_the_sign(a: list[int], b: list[int]) -> None:
    one, other = comparison(a, b), comparison(b, a)
    assert other.t == pytest.approx(-(one.t or 0), abs=1e-9)
    assert other.df == pytest.approx(one.df)
    assert (one.p or 0) + (other.p or 0) == pytest.approx(1)


@settings(deadline=None)
@given(LOSSES, LOSSES, DELTA, st.floats(min_value=1e-4, max_value=1))
def test_more_asked_is_less_shown(a: list[int], b: list[int], delta: float, more: float) -> None:
    little, much = comparison(a, b, delta), comparison(a, b, delta + more)
    assert (little.p or 0) <= (much.p or 0)


@settings(deadline=None)
@given(LOSSES, LOSSES, DELTA, st.sampled_from([0.01, 0.05, 0.3]))
def test_the_bound_and_the_test_agree(a: list[int], b: list[int], delta: float, alpha: float):
    found = comparison(a, b, delta)
    low, p = found.bound(1 - alpha), found.p
    assert low is not None
    assert p is not None
    assume(abs(low - delta) > 1e-9)
    assert (p < alpha) == (low > delta)
    low_, high = found.interval(1 - alpha) or (0.0, 0.0)
    assert low_ < low < high


@settings(deadline=None)
@given(LOSSES, LOSSES, DELTA)
def test_units_do_not_change_the_verdict(a: list[int], b: list[int], delta: float) -> None:
    nats = comparison(a, b, delta)
    bpb = nats.to(BPB, SP8192)
    assert (bpb.t, bpb.df) == pytest.approx((nats.t, nats.df), rel=1e-6, abs=1e-9)
    assert bpb.difference == pytest.approx(nats.difference * 0.387131, rel=1e-5, abs=1e-12)
    back = bpb.to(NATS, SP8192)
    assert back.a.values == pytest.approx(nats.a.values)


def made(sample: Sample, n: int) -> Sample:
    """n values, n even, of the same mean and deviation."""
    step = (sample.sd or 0) * math.sqrt((n - 1) / n)
    return Sample(tuple(sample.mean + step * (-1) ** i for i in range(n)), sample.unit)


def test_the_runs_needed_are_the_first_that_suffice() -> None:
    """Against samples that were made longer with the same means and deviations."""
    better, other = made(PR1413, 4), made(PR1394, 10)

    def p(more: int) -> float:
        """Of ten runs of b, and so many more of a."""
        found = Comparison(made(PR1413, 4 + more), other, 0.004).p
        assert found is not None
        return found

    needed = Comparison(better, other, 0.004).runs_needed(0.002)
    assert needed is not None
    assert p(needed + needed % 2) < 0.002 <= p(needed - 2 + needed % 2)


def test_nothing_helps_when_the_difference_is_too_small(published: Comparison) -> None:
    assert replace(published, delta=0.008).runs_needed(0.01, both=True) is None
    assert (replace(published, delta=0.008).p or 0) > 0.5


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ((2.0,), (3.0, 3.1), "A: a single run has no spread"),
        ((2.0, 2.1), (3.0,), "B: a single run has no spread"),
        ((2.0,), (3.0,), "A and B: a single run has no spread"),
        ((2.0, 2.0), (3.0, 3.0, 3.0), "repeats of one run"),
    ],
)
def test_without_spread_there_is_no_p(a: tuple[float, ...], b: tuple[float, ...], why: str) -> None:
    found = Comparison(Sample(a, NATS), Sample(b, NATS), 0.005)
    assert why in found.untestable
    result: dict[str, Any] = json.loads(json.dumps(found.to_json(0.01), allow_nan=False))
    assert result["difference"] == pytest.approx(sum(b) / len(b) - sum(a) / len(a))
    absent = ("standard_error", "t", "df", "p", "bound", "interval", "runs_needed_a")
    assert [result[key] for key in absent] == [None] * len(absent)
    assert result["shown"] is False


def test_one_side_without_spread_is_a_known_constant() -> None:
    """Then Welch's test is the one-sample test of the other side: df = n - 1."""
    found = Comparison(Sample((2.0, 2.1, 2.3), NATS), Sample((3.0, 3.0), NATS), 0.0)
    assert found.df == pytest.approx(2)
    assert found.t == pytest.approx((3 - 6.4 / 3) / (math.sqrt(7 / 300) / math.sqrt(3)))


def test_json_says_which_formula_and_level(published: Comparison) -> None:
    result = published.to_json(0.05)
    assert result["sd_formula"] == "sample standard deviation, n - 1"
    assert result["a"]["sd"] == PR1413.sd
    assert (result["alpha"], result["shown"], result["unit"]) == (0.05, False, "nats/token")
    assert result["bound"] == published.bound(0.95)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(DataError, match="one finite loss"):
        Sample((), NATS)
    with pytest.raises(DataError, match="one finite loss"):
        Sample((1.0, math.nan), NATS)
    with pytest.raises(DataError, match="unit"):
        Sample((1.0,), "bits")
    with pytest.raises(DataError, match="one unit"):
        Comparison(PR1413, PR1394_BPB, 0.0)
    with pytest.raises(DataError, match="finite"):
        Comparison(PR1413, PR1394, math.inf)
    with pytest.raises(DataError, match="at least one"):
        Text(0, 5)
