"""The picture and the tables of the codec's benchmark: what is measured is what is shown."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def picture() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import picture

        yield picture


def compressor(name: str, alone: float | None, known: float | None) -> dict[str, Any]:
    missing = "package x is not installed" if alone is None else None
    bpb = {"alone_bpb": alone, "with_prior_bpb": known}
    return {"name": name, "label": f"{name} -9", "missing": missing, **bpb}


def ours(adapts: bool, bpb: float) -> dict[str, Any]:
    way = {"seconds": 2.0, "tokens_per_second": 500.0, "parts": {"steps": 1.5, "other": 0.5}}
    sizes = {"bpb": bpb, "shipped_bpb": bpb + 8, "tokens": 1000, "lanes": [16]}
    return {"adapts": adapts, "portable": False, "encode": way, "decode": way, **sizes}


@pytest.fixture
def result() -> dict[str, Any]:
    rows = [compressor("gzip", 3.0, 2.0), compressor("<&>", None, None)]
    kind = {"title": 'held-out "speeches" & more', "source": "a | b", "bytes": 4000}
    kind |= {"compressors": rows, "underpar": [ours(False, 1.5), ours(True, 1.25)]}
    coded = [{**ours(adapts, 1.5), "lanes": lanes} for lanes in (8, 16) for adapts in (False, True)]
    exact = [{**ours(adapts, 1.4), "lanes": 0} for adapts in (False, True)]
    return {
        "command": "python benchmarks/codec.py",
        "machine": {"cpu": "abacus", "cores": 2},
        "artifact": {"file_bytes": 1000, "code_bytes": 100},
        "prior_bytes": 50_000,
        "missing": {"language": "no <text>"},
        "kinds": {"speeches": kind},
        "lanes": {"scored_exactly": exact, "coded_exactly": exact, "coded": coded},
        "portable": [ours(False, 1.5), {**ours(False, 1.6), "portable": True, "notes": 7}],
        "unfinished": [],
    }


def test_the_picture_is_well_formed_and_says_what_was_measured(
    picture: ModuleType, result: dict[str, Any]
) -> None:
    root = ET.fromstring(picture.svg(result))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert 'held-out "speeches" & more, 4,000 bytes' in texts
    assert {"<&>", "not measured", "2.000  (alone 3.000)", "1.500", "1.250"} <= set(texts)
    assert "language: not measured, no <text>" in texts


def test_bars_are_on_one_scale_and_inside_the_picture(
    picture: ModuleType, result: dict[str, Any]
) -> None:
    root = ET.fromstring(picture.svg(result))
    boxes = list(root.iter(f"{SVG}rect"))
    wide = [b for b in boxes if float(b.get("x", 0)) == picture.MARGIN + picture.LEFT]
    widths = [float(bar.get("width", 0)) for bar in wide]
    per_bit = widths[0] / 3.0  # gzip alone; then gzip with the prior and ours
    assert widths == pytest.approx([value * per_bit for value in (3.0, 2.0, 1.5, 1.25)], abs=0.1)
    assert [bar.get("fill") == picture.OURS for bar in wide] == [False, False, True, True]
    for box in boxes:
        assert float(box.get("x", 0)) + float(box.get("width", 0)) <= picture.WIDTH
        assert float(box.get("y", 0)) < float(root.get("height", 0))


def test_marked_tables_are_filled_and_nothing_else(
    picture: ModuleType, result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("codec", "codec-speed", "codec-time", "codec-lanes", "codec-portable")
    marks = [f"<!-- table: {name} -->\nold\n<!-- /table -->" for name in names]
    page, other = tmp_path / "codec.md", tmp_path / "README.md"
    page.write_text("before\n" + "\n".join(marks) + "\nafter\n")
    other.write_text("no marks\n")
    monkeypatch.setattr(picture, "PAGES", (page, other))
    files = picture.written(result)
    assert files[other] == "no marks\n"
    text = files[page]
    assert "old" not in text
    assert text.startswith("before\n<!-- table: codec -->\n| bits per byte")
    assert text.endswith("<!-- /table -->\nafter\n")
    rows = {cells[0]: cells[1:] for cells in map(_cells, text.splitlines()) if cells}
    assert rows["gzip -9"] == ["3.000 / 2.000"]
    assert rows["<&> -9"] == ["–"]
    assert rows["**underpar, adapting**"] == ["9.25 / 1.250"]
    assert rows["exact, coded"] == ["1,000", "1.4000", "1.4000", "500", "500", "500", "500"]
    assert rows["portable"][-1] == "7"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def test_a_result_that_lacks_a_part_is_not_shown(
    picture: ModuleType,
    result: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "codec.json"
    path.write_text(json.dumps({**result, "unfinished": ["lanes"]}))
    monkeypatch.setattr(picture, "RESULT", path)
    monkeypatch.setattr(picture, "PICTURE", tmp_path / "codec.svg")
    assert picture.main() == 1
    assert "lanes" in capsys.readouterr().out
    assert not (tmp_path / "codec.svg").exists()
