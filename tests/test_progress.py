"""The sink: what goes to the terminal, the log and the metrics, and how often."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import pytest

from underpar import progress
from underpar.progress import Clock, Progress, busy, current, duration, task, use


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


def test_a_task_of_no_size_is_done(clock: list[float]) -> None:
    stream = io.StringIO()
    sink = Progress(stream=stream)
    clock[0] += 10
    sink.update("empty", 0, 0)
    assert stream.getvalue() == "empty 100%\n"


def test_a_task_without_a_known_end_says_how_long_it_takes(clock: list[float]) -> None:
    stream = io.StringIO()
    sink = Progress(stream=stream)
    clock[0] += 75
    sink.update("packing", 75, -1, "brotli")
    assert stream.getvalue() == "packing 1 m 15 s  brotli\n"


def test_steps_of_tasks_around_stand_before_the_update(clock: list[float]) -> None:
    stream = io.StringIO()

    def updated() -> str:
        clock[0] += 10
        current().update("decompress", 1, 4)
        return stream.getvalue().splitlines()[-1]

    with use(Progress(stream=stream)), task("seeds", 2) as seed:
        seed("seed 42")
        with use(Progress(stream=stream)), task("prove", 3) as step:  # what is around stays so
            step("coding")
            step("decoding")
            assert updated() == "seeds 1/2, prove 2/3, decompress  25%"
        seed("seed 1234")
        assert updated() == "seeds 2/2, decompress  25%"
    assert not current().around


def test_a_task_that_fails_is_over(clock: list[float]) -> None:
    def fail() -> None:
        with task("prove", 3) as step:
            step("coding")
            raise ValueError("boom")

    with use(Progress(stream=io.StringIO())) as sink:
        with pytest.raises(ValueError, match="boom"):
            fail()
        assert not sink.around


class Updates(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.seen: list[tuple[object, ...]] = []
        self.enough = threading.Event()

    def update(self, *where: object) -> None:  # type: ignore[override]
        self.seen.append(where)
        self.enough.set()


def test_busy_ticks_until_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TICK", 0.02)
    with use(Updates()) as sink, busy("packing"):
        assert isinstance(sink, Updates)
        assert sink.enough.wait(20)
    *ticks, last = sink.seen
    assert ticks
    assert all(tick[0] == "packing" and tick[2] == -1 for tick in ticks)
    assert last == ("packing", 1, 1), "it is over"
    monkeypatch.setattr(progress, "TICK", 20.0)
    threads = threading.active_count()
    with use(Updates()) as sink, busy("nothing"):
        pass
    assert isinstance(sink, Updates)
    assert not sink.seen, "what is done at once is not mentioned"
    assert threading.active_count() == threads


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
