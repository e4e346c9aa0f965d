"""The sink: what goes to the terminal, the log and the metrics, and how often."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from underpar import progress
from underpar.progress import Clock, Progress, current, duration, use


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time stands still unless the test moves it: ``clock[0] += 3``."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 m 00 s"),
        (245, "4 m 05 s"),
        (3599.7, "1 h 00 m"),
        (3725, "1 h 02 m"),
        (90_000, "25 h 00 m"),
    ],
)
def test_durations_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_go_to_stream_and_log(tmp_path: Path) -> None:
    stream = io.StringIO()
    with use(Progress(tmp_path / "run", stream=stream)) as sink:
        sink.line("step 1")
        sink.metric(step=1, loss=2.5)
    assert stream.getvalue() == "step 1\n"
    assert (tmp_path / "run" / "log.txt").read_text() == "step 1\n"
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text()) == {"step": 1, "loss": 2.5}


def test_a_resumed_run_appends(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with use(Progress(tmp_path, quiet=True)) as sink:
            sink.line(text)
    assert (tmp_path / "log.txt").read_text() == "first\nsecond\n"


def test_quiet_still_logs(tmp_path: Path) -> None:
    stream = io.StringIO()
    with use(Progress(tmp_path, quiet=True, stream=stream)) as sink:
        sink.line("kept")
        sink.update("train", 1, 2)
    assert stream.getvalue() == ""
    assert (tmp_path / "log.txt").read_text() == "kept\n"


def test_updates_without_a_terminal_are_rare_plain_lines(clock: list[float]) -> None:
    stream = io.StringIO()
    sink = Progress(stream=stream)
    for done in range(25):
        sink.update("train", done, 100, "loss 2.5", left=65)
        clock[0] += 1
    assert stream.getvalue().splitlines() == [
        "train  10%  loss 2.5  1 m 05 s left",
        "train  20%  loss 2.5  1 m 05 s left",
    ]


def test_a_terminal_line_is_redrawn_and_cleared_before_a_line(clock: list[float]) -> None:
    terminal = Terminal()
    sink = Progress(stream=terminal)
    sink.update("train", 0, 2, "done at once: not worth a line")
    clock[0] += 1
    sink.update("train", 1, 2, "a long note")
    clock[0] += 1
    sink.update("train", 2, 2)
    sink.line("done")
    shown = terminal.getvalue().replace("\r", "\n").splitlines()
    assert shown[1] == "█" * 10 + "░" * 10 + " train  50%  a long note"
    assert shown[2] == ("█" * 20 + " train 100%  ").ljust(len(shown[1])), "the rest is wiped"
    assert shown[-1] == "done"
    assert shown[-2].strip() == ""


def test_a_terminal_line_never_wraps(clock: list[float]) -> None:
    terminal = Terminal()
    sink = Progress(stream=terminal)
    clock[0] += 1
    sink.update("train", 1, 2, "x" * 500)
    assert len(terminal.getvalue().strip("\r")) == 79


def test_a_task_of_no_size_is_done(clock: list[float]) -> None:
    stream = io.StringIO()
    sink = Progress(stream=stream)
    clock[0] += 10
    sink.update("empty", 0, 0)
    assert stream.getvalue().startswith("empty 100%")


def test_use_restores_the_sink_before_and_closes_its_own(tmp_path: Path) -> None:
    before = current()
    sink = Progress(tmp_path, quiet=True)

    def fail() -> None:
        with use(sink):
            assert current() is sink
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    assert current() is before
    sink.line("after the end")
    assert (tmp_path / "log.txt").read_text() == ""


def test_the_default_sink_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    current().line("nobody asked")
    current().update("nothing", 1, 2)
    current().metric(a=1)
    assert capsys.readouterr() == ("", "")


def test_time_left_follows_the_pace(clock: list[float]) -> None:
    pace = Clock()
    assert pace.left(0, 10) == -1
    clock[0] += 4
    assert pace.left(2, 10) == pytest.approx(16)
    assert pace.seconds == pytest.approx(4)
