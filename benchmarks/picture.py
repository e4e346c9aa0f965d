"""What ``codec.py`` measured, as a picture and as tables in the README and the codec's page.

    python benchmarks/picture.py            rewrite docs/codec.svg and the marked tables
    python benchmarks/picture.py --check    exit 1 if they are not what the result says

The picture is SVG by hand: bars, and beside each what it says. It brings its own background, so it
reads the same on a light page and on a dark one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from codec_tables import tables
from common import RESULTS
from tables import filled

ROOT = Path(__file__).resolve().parent.parent
RESULT = RESULTS / "codec.json"
PICTURE = ROOT / "docs" / "codec.svg"
PAGES = (ROOT / "README.md", ROOT / "docs" / "codec.md")

WIDTH, MARGIN = 720, 18
LEFT, RIGHT = 190, 150  # room for the names, and for the figures of the longest bar
ROW, BAR, HEAD = 20, 13, 34

BACKGROUND, INK, FAINT = "#ffffff", "#1f2328", "#59636e"
PALE, GREY, OURS = "#e1e5ea", "#8c959f", "#d1480a"

#: (name, bits per byte knowing the training text, alone, ours); None: not measured
Line = tuple[str, float | None, float | None, bool]


def lines_of(kind: dict[str, Any]) -> list[Line]:
    """The bars of one text, compressors first, each as it is measured."""
    theirs: list[Line] = [
        (row["name"], row["with_prior_bpb"], row["alone_bpb"], False) for row in kind["compressors"]
    ]
    ours: list[Line] = [
        ("underpar" + ", adapting" * facts["adapts"], facts["bpb"], None, True)
        for facts in kind["underpar"]
    ]
    return theirs + ours


def svg(result: dict[str, Any]) -> str:
    """The picture of a result: a group of bars for each text, all on one scale."""
    groups = [(kind, lines_of(kind)) for kind in result["kinds"].values()]
    most = max(value for _, lines in groups for line in lines for value in line[1:3] if value)
    scale = (WIDTH - 2 * MARGIN - LEFT - RIGHT) / most
    y, parts = 54, [*_legend()]
    for kind, lines in groups:
        y += HEAD
        title = f"{kind['title']}, {kind['bytes']:,} bytes"
        parts.append(_text(MARGIN, y - 8, title, weight="bold"))
        for line in lines:
            parts += _bar(y, line, scale)
            y += ROW
    for kind, why in result["missing"].items():
        y += ROW
        parts.append(_text(MARGIN, y, f"{kind}: not measured, {why}", fill=FAINT))
    height = y + MARGIN
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" font-size="13" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
    )
    label = "<title>Bits per byte of compressors and of underpar</title>"
    back = _box(0, 0, WIDTH, height, BACKGROUND)
    return "\n".join([start, label, back, *parts, "</svg>"]) + "\n"


def _legend() -> Iterator[str]:
    yield _text(MARGIN, 28, "Bits per byte: shorter is better", size=16, weight="bold")
    x, y = MARGIN, 38
    for colour, says, width in (
        (OURS, "underpar, without its model's bytes", 255),
        (GREY, "knowing the same training text", 225),
        (PALE, "the text alone", 0),
    ):
        yield _box(x, y, BAR, BAR, colour)
        yield _text(x + BAR + 6, y + 11, says, fill=FAINT)
        x += width + BAR


def _bar(y: int, line: Line, scale: float) -> Iterator[str]:
    """A row: its name, a bar, a paler one behind it, and the figures where the longer one ends."""
    name, known, alone, ours = line
    weight, start = "bold" if ours else "normal", MARGIN + LEFT
    yield _text(start - 8, y + 11, name, anchor="end", weight=weight)
    if known is None:
        yield _text(start, y + 11, "not measured", fill=FAINT)
        return
    if alone is not None:
        yield _box(start, y, alone * scale, BAR, PALE)
    yield _box(start, y, known * scale, BAR, OURS if ours else GREY)
    says = f"{known:.3f}" + (f"  (alone {alone:.3f})" if alone is not None else "")
    end = start + max(known, alone or 0.0) * scale
    yield _text(end + 6, y + 11, says, fill=OURS if ours else INK, weight=weight)


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="{height:g}" fill="{fill}"/>'


def _text(
    x: float,
    y: float,
    says: str,
    *,
    size: int = 13,
    weight: str = "normal",
    fill: str = INK,
    anchor: str = "start",
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:g}" {style}>{escape(says)}</text>'


def written(result: dict[str, Any]) -> dict[Path, str]:
    """Every file that shows the result, as it should be."""
    contents, files = tables(result), {PICTURE: svg(result)}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        here = {name: c for name, c in contents.items() if f"<!-- table: {name} -->" in text}
        files[page] = filled(text, here)
    return files


def main() -> int:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    if result["unfinished"]:
        print(f"{RESULT.name} lacks {', '.join(result['unfinished'])}: run codec.py to its end")
        return 1
    files = written(result)
    if sys.argv[1:] == ["--check"]:
        return int(any(not p.exists() or p.read_text("utf-8") != t for p, t in files.items()))
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
