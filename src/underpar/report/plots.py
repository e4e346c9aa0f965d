"""Charts as SVG text: lines, horizontal bars, one stacked bar. Pure functions, no library.

A chart must be readable on a phone and on paper. An SVG that is scaled shrinks its text with it, so
these are not scaled: horizontal positions are per cent of whatever width the page has, vertical
ones are pixels, text keeps the size that the style gives it. Only the lines themselves are drawn in
an inner SVG that stretches, with strokes that do not.

Colours are classes, not values: the page's style sheet (``style.py``) defines tone 'a' (blue) and
'b' (orange) for a light and for a dark page. The two differ for every kind of colour vision, and
colour is never the only mark: lines and bars have their names beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

#: Points of a drawn line at most: a screen has no more columns.
MOST_POINTS = 400

#: Where the data begin, in per cent of the width, right of the numbers of the axis.
LEFT = 9.0
TOP, BOTTOM = 38, 22  # pixels above and below the data of a line chart
ROW = 22  # pixels of one bar


@dataclass(frozen=True)
class Series:
    """A line. x ascending, y may have NaN: there the line is broken. tone: 'a' or 'b'."""

    label: str
    x: Values
    y: Values
    tone: str = "a"


@dataclass(frozen=True)
class Bar:
    """A bar from zero to ``value``; ``shown``: the number as printed. mark: a value to compare."""

    label: str
    value: float
    shown: str
    tone: str = "a"
    mark: float | None = None


@dataclass(frozen=True)
class Part:
    """A part of a stacked bar. tone: 'a', 'a2', 'a3', 'b', 'rest' or 'free' (an outline)."""

    label: str
    value: float
    tone: str


def binned(x: Values, y: Values, most: int = MOST_POINTS) -> tuple[Values, Values]:
    """At most ``most`` points: means over bins of neighbours, in which all values but NaN count."""
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most + 1).astype(int)
    known = np.isfinite(y)
    count = np.add.reduceat(known, edges[:-1], dtype=np.float64)
    total = np.add.reduceat(np.where(known, y, 0.0), edges[:-1])
    means = np.divide(total, count, out=np.full(most, np.nan), where=count > 0)
    return np.add.reduceat(x, edges[:-1], dtype=np.float64) / np.diff(edges), means


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers in [low, high], about ``count``, a step of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    steps = [f * power for f in (1.0, 2.0, 5.0, 10.0)]
    step = min(steps, key=lambda step: abs((high - low) / step - count))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float, step: float) -> str:
    """``value`` with as many decimals as multiples of ``step`` need."""
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def line_chart(
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    y_name: str,
    x_name: str,
    span: tuple[float, float] | None = None,
    limits: tuple[float, float] | None = None,
    marks: Iterable[float] = (),
    shade: bool = False,
    height: int = 260,
) -> str:
    """One line or two over a common axis, each with its name at its end.

    y_name stands above the numbers, x_name before them. span: of x. limits: of y; what lies
    beyond is cut off (say so in words). marks: positions in x with a thin upright. shade: fill
    between two lines of the same x. ValueError when there is nothing to draw.
    """
    thin = [Series(s.label, *binned(s.x, s.y), tone=s.tone) for s in series]
    x_all = np.concatenate([s.x for s in thin])
    y_all = np.concatenate([s.y for s in thin])
    if not np.isfinite(y_all).any():
        raise ValueError("a line chart needs a finite point")
    x_range = span or _wide(float(x_all.min()), float(x_all.max()))
    y_range = limits or _padded(float(np.nanmin(y_all)), float(np.nanmax(y_all)))
    inside = height - TOP - BOTTOM
    frame = _Frame(x_range, y_range, inside)
    body = [
        _text(0, 12, y_name, "unit"),
        *_grid(frame, y_range),
        *_x_axis(frame, x_name, height),
        f'<svg x="{LEFT:g}%" y="{TOP}" width="{100 - LEFT:g}%" height="{inside}" '
        f'viewBox="0 0 1000 {inside}" preserveAspectRatio="none">',
        *(f'<path class="mark" d="M{frame.x(at):.1f} 0V{inside}"/>' for at in marks),
        frame.between(*thin) if shade and len(thin) == 2 else "",
        *(f'<path class="line {s.tone}" d="{frame.path(s)}"/>' for s in thin),
        "</svg>",
        *_names(frame, thin),
    ]
    return _svg("lines", title, description, height, body)


def bar_chart(title: str, description: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from zero: name on the left, number at the end, an optional mark across."""
    most = max((max(b.value, b.mark or 0.0) for b in bars), default=0.0) or 1.0
    longest = max((len(_short(b.label)) for b in bars), default=0)
    left = 40.0 if longest > 13 else 27.0  # per cent for the names; the last 13 are for the numbers
    marked = any(b.mark is not None for b in bars)
    body = []
    for row, bar in enumerate(bars):
        top, scale = row * ROW, (87.0 - left) / most
        width = scale * max(bar.value, 0.0)
        body.append(_text(0, top + 15, _short(bar.label), "name"))
        body.append(
            f'<rect class="fill {bar.tone}" x="{left:g}%" y="{top + 4}" width="{width:.2f}%" '
            f'height="{ROW - 8}"/>'
        )
        if bar.mark is not None:
            at = f"{left + scale * bar.mark:.2f}%"
            body.append(f'<line class="at" x1="{at}" x2="{at}" y1="{top + 2}" y2="{top + 20}"/>')
        # right after a mark, a number would seem to be the mark's
        place = 'x="100%" text-anchor="end"' if marked else f'x="{left + width:.2f}%" dx="6"'
        body.append(f'<text class="number" {place} y="{top + 15}">{escape(bar.shown)}</text>')
    return _svg("bars", title, description, ROW * len(bars), body)


def stacked_bar(title: str, description: str, parts: Sequence[Part]) -> str:
    """One bar of all parts side by side; those wide enough carry their name and share."""
    total = sum(part.value for part in parts) or 1.0
    body, at = [], 0.0
    for part in parts:
        width = 100 * part.value / total
        body.append(
            f'<rect class="fill {part.tone}" x="{at:.3f}%" y="1" width="{width:.3f}%" height="38"/>'
        )
        if width > 30:  # narrower ones have no room on a phone; the table below names them all
            words = f"{part.label} {width:.1f}%"
            body.append(
                f'<text class="on {part.tone}" x="{at:.3f}%" dx="10" y="25">{escape(words)}</text>'
            )
        at += width
    return _svg("stack", title, description, 40, body)


@dataclass(frozen=True)
class _Frame:
    """Turns data into coordinates of the inner SVG, 1000 wide and ``height`` high."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    height: int

    def x(self, value: float) -> float:
        return 1000 * (value - self.x_range[0]) / (self.x_range[1] - self.x_range[0])

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height * (high - value) / (high - low)

    def percent(self, value: float) -> float:
        """``value`` in per cent of the whole chart's width, axis included."""
        return LEFT + (100 - LEFT) * self.x(value) / 1000

    def path(self, series: Series) -> str:
        """SVG's M and L commands, a new M after each gap; a lone point is a stroke of no length."""
        out, pen = [], "M"
        for x, y in zip(series.x.tolist(), series.y.tolist()):
            if not math.isfinite(y):
                pen = "M"
                continue
            out.append(f"{pen}{self.x(x):.1f} {self.y(y):.1f}")
            pen = "L"
        return "".join(out) + ("h0" if len(out) == 1 else "")

    def between(self, one: Series, other: Series) -> str:
        """The area between two lines of the same x, where both are known."""
        known = np.isfinite(one.y) & np.isfinite(other.y)
        there = [f"{self.x(x):.0f} {self.y(y):.0f}" for x, y in zip(one.x[known], one.y[known])]
        back = [f"{self.x(x):.0f} {self.y(y):.0f}" for x, y in zip(other.x[known], other.y[known])]
        return f'<path class="area" d="M{"L".join(there + back[::-1])}Z"/>' if there else ""


def _grid(frame: _Frame, y_range: tuple[float, float]) -> list[str]:
    at = ticks(*y_range, 4)
    step = at[1] - at[0] if at[1:] else abs(at[0]) or 1.0
    out = []
    for value in at:
        y = TOP + frame.y(value)
        out.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(_text(0, round(y - 4), number(value, step), "tick"))
    return out


def _x_axis(frame: _Frame, x_name: str, height: int) -> list[str]:
    at = ticks(*frame.x_range, 5)
    step = at[1] - at[0] if at[1:] else abs(at[0]) or 1.0
    out = [_text(0, height - 5, x_name, "unit")]
    for value in at:
        where, words = frame.percent(value), number(value, step)
        anchor = "middle"
        if where > 97:
            anchor = "end"
        out.append(
            f'<text class="tick" x="{where:.2f}%" y="{height - 5}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )
    return out


def _names(frame: _Frame, series: Sequence[Series]) -> list[str]:
    """Each line's name over its last quarter, or under it if it is the lower of two."""
    ends = [s.y[3 * len(s.y) // 4 :] for s in series]
    ends = [end[np.isfinite(end)] for end in ends]
    level = [float(end.mean()) if len(end) else math.inf for end in ends]
    out = []
    for s, end, mean in zip(series, ends, level):
        if not len(end) or not s.label:
            continue
        below = len(series) > 1 and mean == min(level)
        y = frame.y(float(end.min())) + 17 if below else frame.y(float(end.max())) - 8
        y = min(max(y, 12), frame.height - 4) + TOP
        out.append(
            f'<text class="series {s.tone}" x="100%" y="{y:.0f}" text-anchor="end">'
            f"{escape(s.label)}</text>"
        )
    return out


def _svg(kind: str, title: str, description: str, height: int, body: Iterable[str]) -> str:
    return (
        f'<svg class="chart {kind}" role="img" width="100%" height="{height}" '
        f'aria-label="{escape(f"{title}. {description}")}"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{''.join(body)}</svg>"
    )


def _text(x: float, y: int, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y}">{escape(words)}</text>'


def _short(name: str, most: int = 20) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _wide(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _padded(low: float, high: float) -> tuple[float, float]:
    """The range, extended above and below for the names of the lines."""
    low, high = _wide(low, high)
    room = 0.15 * (high - low)
    return low - room, high + room
