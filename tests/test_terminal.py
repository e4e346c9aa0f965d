"""What stands on a terminal: bars, lines above them, tables; and nothing of it anywhere else."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from tests import children
from underpar import progress
from underpar.cli.terminal import Terminal, sink, tell
from underpar.report.tables import render

TABLE = render(["run", "bpb", "note"], [["a", "1.25", None], ["mean", "3", ""]])


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def dark(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing about colours."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


# --- the sink ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("dark")
def test_lines_stand_above_the_bars_and_the_bars_vanish() -> None:
    out = Tty()
    with progress.use(Terminal(stream=out)) as shown:
        shown.line("before")
        assert out.getvalue() == "before\n", "nothing is drawn without need"
        with progress.task("prove", 2) as step:
            step("coding")
            shown.update("compress", 1, 2, "note")
            shown._screen._live.refresh()  # type: ignore[attr-defined]
            shown.line("[bold]in the middle[/]")
    shown.update("compress", 1, 2)
    shown.line("after")
    text = out.getvalue()
    assert "\x1b[?25" not in text, "the cursor is never hidden"
    assert "prove" in text
    assert "compress" in text
    assert on_screen(text) == ["before", "[bold]in the middle[/]", "after"]


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = Tty()
    shown = Terminal(stream=out)
    monkeypatch.setattr(shown, "_last", -1e9)
    shown.update("train", 1, 2, "loss 2.5")
    shown.line(TABLE)
    shown.close()
    assert out.getvalue() == f"train  50%  loss 2.5\n{TABLE}\n"


@pytest.mark.usefixtures("dark")
def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Tty()
    with progress.use(Terminal(stream=out)) as shown:
        shown.update("train", 1, 2)
        shown._screen._live.refresh()  # type: ignore[attr-defined]
        shown.line(TABLE)
    assert "train" in out.getvalue()
    assert not re.search(r"\x1b\[[\d;]*3\d", out.getvalue()), "a colour"


@pytest.mark.parametrize(
    ("tty", "options", "live"),
    [
        (True, {}, True),
        (True, {"quiet": True}, False),
        (True, {"live": False}, False),
        (False, {}, False),
    ],
)
def test_where_it_is_drawn(
    monkeypatch: pytest.MonkeyPatch, tty: bool, options: dict[str, bool], live: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", Tty() if tty else io.StringIO())
    assert isinstance(sink(**options), Terminal) is live


# --- tables -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("dark")
def test_results_are_plain_off_a_terminal_and_coloured_on_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(f"a table\n\n{TABLE}")
    assert capsys.readouterr().out == f"a table\n\n{TABLE}\n"
    out = Tty()
    monkeypatch.setattr(sys, "stdout", out)
    tell(f"a table\n\n{TABLE}")
    assert "\x1b[36m" in out.getvalue()
    assert re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()) == f"a table\n\n{TABLE}\n"


# --- a terminal of its own --------------------------------------------------------------------

PROGRAM = """
import sys, time
from underpar import progress
from underpar.cli.terminal import sink
assert "rich" not in sys.modules
with progress.use(sink()) as shown:
    shown.line("the first line")
    print("to stdout")
    assert "rich" not in sys.modules
    for i in range(10_000):
        shown.update("compress", i, 10_000, "note")
        time.sleep(0.01)
"""


def test_ctrl_c_leaves_a_clean_terminal() -> None:
    """In a process of its own, on a terminal of its own: the screen it leaves, the cursor on it."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    process = children.start([sys.executable, "-c", PROGRAM], env=env, terminal=theirs)
    os.close(theirs)
    text, asked, give_up = "", False, time.monotonic() + 60
    for piece in pieces(ours):
        text += piece
        if not asked and text.count("compress") > 1:
            process.send_signal(signal.SIGINT)
            asked = True
        if time.monotonic() > give_up:
            children.fail(process, f"still ran after a minute, having said {text}")
    children.end(process, code=-signal.SIGINT)
    os.close(ours)
    assert "─" * 16 in text
    assert "\x1b[?25l" not in text
    lines = on_screen(text)
    assert lines[:2] == ["the first line", "to stdout"]
    assert lines[2].startswith("Traceback"), "the bars are gone"
    assert lines[-1] == "KeyboardInterrupt"


def pieces(handle: int) -> Iterator[str]:
    """What a terminal shows, until nobody holds its other end; nothing where nothing comes."""
    while True:
        if not select.select([handle], [], [], 0.1)[0]:
            yield ""
            continue
        try:
            piece = os.read(handle, 4096)
        except OSError:  # how Linux says that the other end was closed
            return
        if not piece:
            return
        yield piece.decode("utf-8", "replace")


def on_screen(text: str) -> list[str]:
    """The lines that stay, as a terminal of endless height has them, empty ones left out."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row, column = row + 1, 0
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b"):
            amount = int(re.sub(r"\D", "", part) or 1)
            if part.endswith("A"):
                row = max(row - amount, 0)
            elif part.endswith("K"):
                lines[row] = "" if part == "\x1b[2K" else lines[row][:column]
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
        lines += [""] * (row + 1 - len(lines))
    return [line.rstrip() for line in lines if line.strip()]


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = "import sys, underpar.cli.main; print('rich' in sys.modules, 'torch' in sys.modules)"
    done = children.python("-c", code)
    assert done.out == "False False\n"
