"""Rows of tasks as they are drawn, and the colours of tables."""

from __future__ import annotations

import io

import pytest

from underpar.cli import screen as module
from underpar.cli.screen import Screen, _Console, painted
from underpar.report.tables import render

TABLE = render(["run", "bpb", "note"], [["a", "1.25", None], ["mean", "3", ""]])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time of what is drawn stands still unless the test moves it."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def screen(width: int = 80, **around: tuple[int, int, str]) -> Screen:
    console = _Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    return Screen(io.StringIO(), around, console)


def drawn(on: Screen) -> list[str]:
    """The rows as they would be drawn now."""
    console = on._console
    return [str(row).rstrip() for row in on.__rich_console__(console, console.options)]


def test_a_bar_with_rate_and_time_left(clock: list[float]) -> None:
    on = screen(prove=(2, 3, "decoding"))
    on.put("decompress", 0, 400, "", -1, "tokens")
    clock[0] += 10
    on.put("decompress", 100, 400, "2.31 bits a token", -1, "tokens")
    assert drawn(on) == [
        "prove       " + "━" * 5 + "─" * 11 + "  2/3   decoding  10 s",
        "decompress  " + "━" * 4 + "─" * 12 + "   25%  30 s left  10 tokens/s  2.31 bits a token",
    ]
    clock[0] += 7  # nothing was heard of it, yet time goes by
    assert "23 s left" in drawn(on)[1]
    on.put("decompress", 400, 400, "", 0, "tokens")
    assert len(drawn(on)) == 1, "what is done goes"
    on.close()


def test_who_reports_may_know_the_time_left_better(clock: list[float]) -> None:
    on = screen()
    on.put("train", 1, 10, "loss 2.5", 700.0, "")
    assert drawn(on)[0].endswith("10%  11 m 40 s left  loss 2.5")
    on.put("train", 0, 10, "again from the start", -1, "")
    assert drawn(on)[0].endswith("0%  0 s  again from the start")
    on.close()


def test_a_task_without_an_end_shows_that_it_moves(clock: list[float]) -> None:
    on = screen()
    seen = []
    for _ in range(3):
        on.put("packing", clock[0] - 999, -1, "", -1, "")
        seen.append(drawn(on)[0])
        clock[0] += 1
    assert [row.split()[-2:] for row in seen] == [["1", "s"], ["2", "s"], ["3", "s"]]
    assert all("━━━" in row for row in seen)
    assert len({row.find("━") for row in seen}) == 3
    on.close()


def test_a_new_task_takes_the_place_of_the_one_before(clock: list[float]) -> None:
    on = screen()
    on.put("waiting", 3, -1, "", -1, "")
    on.put("calibrating", 1, 2, "", -1, "")
    on.put("quantizing", 1, 2, "", -1, "")
    assert [row.split()[0] for row in drawn(on)] == ["waiting", "quantizing"]
    on.clear()
    assert drawn(on) == []
    on.close()


@pytest.mark.parametrize("width", [1, 8, 30, 49, 50, 80, 200])
def test_no_row_is_broken_by_the_edge(clock: list[float], width: int) -> None:
    on = screen(width, prove=(1, 3, "a long explanation of it" * 5))
    on.put("compress", 1, 2, "x" * 300, -1, "tokens")
    rows = drawn(on)
    assert all(len(row) <= width for row in rows)
    assert ("━" in rows[1]) is (width >= 50)
    if width >= 30:
        assert "50%" in rows[1]
    on.close()


def test_a_terminal_without_unicode() -> None:
    on = screen()
    options = on._console.options.update()
    options.encoding = "ascii"
    on.put("compress", 1, 2, "", -1, "")
    (row,) = on.__rich_console__(on._console, options)
    assert str(row).isascii()
    on.close()


def test_a_table_keeps_its_characters() -> None:
    text = f"Validation data: x\n\n{TABLE}\n\nA better than B │ or not.\n"
    assert painted(text).plain == text
    spans = [(text[s.start : s.end].strip(), s.style) for s in painted(text).spans]
    assert [span for span in spans if span[1] != "dim"] == [
        (TABLE.splitlines()[0].strip(), "bold"),
        ("a", "cyan"),
        ("mean", "cyan"),
    ]
    assert {cell for cell, style in spans if style == "dim"} == set("─┼│")
