"""Charts: the right numbers in the right place, as well-formed SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from underpar.report.plots import (
    MOST_POINTS,
    Bar,
    Part,
    Series,
    bar_chart,
    binned,
    line_chart,
    number,
    stacked_bar,
    ticks,
)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def words(svg: str) -> list[str]:
    return [text.text or "" for text in parsed(svg).iter("text")]


def line(*series: Series, **how: object) -> str:
    return line_chart("T", "D", series, y_name="loss", x_name="steps", **how)  # type: ignore[arg-type]


def points(svg: str, tone: str) -> list[tuple[float, float]]:
    (path,) = [p for p in parsed(svg).iter("path") if p.get("class") == f"line {tone}"]
    pairs = re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path.get("d") or "")
    return [(float(x), float(y)) for x, y in pairs]


def test_bins_are_means_of_all_points() -> None:
    x, y = np.arange(1000.0), np.sin(np.arange(1000.0))
    few, means = binned(x, y, 10)
    assert few.tolist() == [49.5 + 100 * i for i in range(10)]
    np.testing.assert_allclose(means, y.reshape(10, 100).mean(1))
    same = binned(x, y, 1000)
    assert same[0] is x
    assert same[1] is y


def test_bins_leave_out_what_is_unknown() -> None:
    y = np.array([1.0, np.nan, 3.0, 5.0, np.nan, np.nan])
    _, means = binned(np.arange(6.0), y, 3)
    assert means[:2].tolist() == [1.0, 4.0]
    assert np.isnan(means[2])


def test_a_long_series_is_drawn_with_few_points() -> None:
    x = np.arange(50_000.0)
    assert len(points(line(Series("", x, np.cos(x))), "a")) == MOST_POINTS


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.5, 1]),
        (1, 730, [200, 400, 600]),
        (1.4, 2.6, [1.5, 2, 2.5]),
        (-3, 3, [-2, 0, 2]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, wanted: list[float]) -> None:
    assert ticks(low, high, 3) == pytest.approx(wanted)


def test_numbers_have_the_decimals_of_their_step() -> None:
    assert [number(v, s) for v, s in ((0.5, 0.5), (2, 1), (1e4, 5e3), (0.3, 0.02))] == [
        "0.5",
        "2",
        "10,000",
        "0.30",
    ]


def test_points_lie_where_their_values_are() -> None:
    svg = line(Series("", np.array([0.0, 5, 10]), np.array([0.0, 1, 2])), limits=(0.0, 2.0))
    (x0, y0), (x1, y1), (x2, y2) = points(svg, "a")
    assert (x0, x1, x2) == (0, 500, 1000)
    assert y2 == 0
    assert y1 == y0 / 2
    assert {"0.0", "1.0", "2.0", "0", "10", "loss", "steps"} <= set(words(svg))


def test_a_line_is_broken_where_it_is_unknown() -> None:
    svg = line(Series("", np.arange(4.0), np.array([1.0, np.nan, 2.0, 3.0])))
    assert svg.count("M") - svg.count('d="M') == 1  # one more start than the path's own
    assert len(points(svg, "a")) == 3


def test_the_lower_line_is_named_below_the_upper_above() -> None:
    x = np.arange(20.0)
    svg = line(Series("high", x, x * 0 + 9, "a"), Series("low", x, x * 0 + 1, "b"), shade=True)
    at = {t.text: float(t.get("y") or 0) for t in parsed(svg).iter("text")}
    assert at["high"] < at["low"]
    assert 'class="area"' in svg


def test_constant_single_and_absent_values() -> None:
    assert len(points(line(Series("", np.array([3.0]), np.array([2.0]))), "a")) == 1
    assert len(points(line(Series("", np.arange(3.0), np.ones(3))), "a")) == 3
    with pytest.raises(ValueError, match="finite point"):
        line(Series("", np.arange(2.0), np.full(2, np.nan)))


def test_bars_are_as_long_as_their_values() -> None:
    svg = bar_chart("T", "D", [Bar("one", 1.0, "1.0"), Bar("two", 2.0, "2.0", "b")])
    one, two = (float((r.get("width") or "").rstrip("%")) for r in parsed(svg).iter("rect"))
    assert two == 2 * one
    assert words(svg) == ["one", "1.0", "two", "2.0"]


def test_a_mark_is_on_the_scale_of_the_bars() -> None:
    svg = bar_chart("T", "D", [Bar("x", 1.0, "1", mark=2.0)])
    (bar,), (mark,) = (list(parsed(svg).iter(tag)) for tag in ("rect", "line"))
    left, width, at = (
        float((e.get(k) or "").rstrip("%")) for e, k in ((bar, "x"), (bar, "width"), (mark, "x1"))
    )
    assert at - left == pytest.approx(2 * width, abs=0.02)


def test_a_stacked_bar_fills_its_width() -> None:
    svg = stacked_bar("T", "D", [Part("big", 75, "a"), Part("small", 24, "b"), Part("no", 1, "a2")])
    widths = [float((r.get("width") or "").rstrip("%")) for r in parsed(svg).iter("rect")]
    assert widths == [75, 24, 1]
    assert words(svg) == ["big 75.0%"]


def test_everything_is_escaped_and_has_a_name() -> None:
    evil = "<script>\"&'</script>"
    x = np.arange(3.0)
    for svg in (
        line_chart(evil, evil, [Series(evil, x, x)], y_name=evil, x_name=evil),
        bar_chart(evil, evil, [Bar(evil, 1.0, evil)]),
        stacked_bar(evil, evil, [Part(evil, 1.0, "a")]),
    ):
        root = parsed(svg)
        assert "script" not in {element.tag for element in root.iter()}
        assert root.get("role") == "img"
        assert [child.text for child in root][:2] == [evil, evil]
