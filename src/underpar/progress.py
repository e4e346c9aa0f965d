"""Progress and log lines: one small sink for terminal, log file and metrics.

Library code says what happened through the current ``Progress``; whoever starts a run decides where
that goes. Here lines are printed, and updates no more often than a log file can bear; the command
line installs a sink that draws them (``cli.terminal``). Only rank 0 speaks.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import TextIO, TypeVar

Sink = TypeVar("Sink", bound="Log")

#: Seconds between the updates of a task that is ``busy``.
TICK = 1.0


def duration(seconds: float) -> str:
    """'8 s', '4 m 05 s', '1 h 02 m': as long as a person needs it, no longer."""
    s = round(max(seconds, 0.0))
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} m {s % 60:02d} s"
    return f"{s // 3600} h {s % 3600 // 60:02d} m"


class Log:
    """Lines, printed and kept in ``folder``/log.txt: enough for a program that nobody watches.

    What else ``Progress`` is told passes unheard. quiet: nothing is printed.
    """

    def __init__(
        self, folder: Path | None = None, *, quiet: bool = False, stream: TextIO | None = None
    ) -> None:
        self._stream, self._quiet = stream or sys.stderr, quiet
        self._files: dict[str, TextIO] = {}
        #: tasks around the next update, outermost first: name -> (step, of how many, what it does)
        self.around: dict[str, tuple[int, int, str]] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._open(folder / "log.txt")

    def line(self, text: str = "") -> None:
        """A line worth keeping: printed, and in the log file."""
        self.show(text)
        self._write("log.txt", text)

    def show(self, text: str) -> None:
        """Print a line."""
        if not self._quiet:
            print(text, file=self._stream, flush=True)

    def update(
        self, task: str, done: float, total: float, note: str = "", left: float = -1, unit: str = ""
    ) -> None:
        """Where a long task stands: done of total, seconds left if known.

        unit: what is counted, for a rate. total: -1 if nobody knows; done is then in seconds.
        """

    def begin(self, task: str, step: int, steps: int, note: str) -> None:
        """The next updates belong to a step of a task around them: its number, what it does."""

    def busy(self, task: str) -> AbstractContextManager[None]:
        """Something long that cannot say how far it is."""
        return nullcontext()

    def metric(self, **values: object) -> None:
        """One JSON object a line in metrics.jsonl."""

    def close(self) -> None:
        with ExitStack() as stack:  # closing one may fail on a full disk; the other is closed too
            while self._files:
                stack.callback(self._files.popitem()[1].close)

    def _open(self, path: Path) -> None:
        self._files[path.name] = path.open("a", encoding="utf-8")

    def _write(self, name: str, text: str) -> None:
        if name in self._files:
            print(text, file=self._files[name], flush=True)


class Progress(Log):
    """A log that also says every ten seconds how far things are; metrics.jsonl beside log.txt."""

    def __init__(
        self, folder: Path | None = None, *, quiet: bool = False, stream: TextIO | None = None
    ) -> None:
        super().__init__(folder, quiet=quiet, stream=stream)
        self._last = time.monotonic()  # what is done at once needs no progress
        if folder is not None:
            self._open(folder / "metrics.jsonl")

    def update(
        self, task: str, done: float, total: float, note: str = "", left: float = -1, unit: str = ""
    ) -> None:
        if self._quiet or time.monotonic() - self._last < 10:
            return
        self._last = time.monotonic()
        share = 100 * min(done / total, 1.0) if total else 100.0
        steps = "".join(f"{name} {step}/{n}, " for name, (step, n, _) in self.around.items())
        head = f"{steps}{task} {f'{share:3.0f}%' if total >= 0 else duration(done)}"
        time_left = f"{duration(left)} left" if left >= 0 else ""
        self.show("  ".join(filter(None, (head, note, time_left))))

    def begin(self, task: str, step: int, steps: int, note: str) -> None:
        self.around[task] = step, steps, note

    @contextmanager
    def busy(self, task: str) -> Iterator[None]:
        """Report every second that the block goes on."""
        clock, over = Clock(), threading.Event()

        def tick() -> None:
            while not over.wait(1.0):
                self.update(task, clock.seconds, -1)

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            if clock.seconds > 1:  # else nobody has heard of it
                self.update(task, 1, 1)

    def metric(self, **values: object) -> None:
        self._write("metrics.jsonl", json.dumps(values))


class Clock:
    """Seconds left of a task, from its own pace so far."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def left(self, done: float, total: float) -> float:
        return self.seconds / done * (total - done) if done else -1.0


_current = Log(quiet=True)


def current() -> Log:
    """The sink of this process; silent until ``use`` installs one."""
    return _current


@contextmanager
def use(progress: Sink) -> Iterator[Sink]:
    """Make ``progress`` the current sink for the length of the block, then close it."""
    global _current
    before, _current = _current, progress
    progress.around |= before.around
    try:
        yield progress
    finally:
        _current = before
        progress.close()


@contextmanager
def task(name: str, steps: int) -> Iterator[Callable[[str], None]]:
    """A task of several steps with updates of their own.

    What is yielded begins the next step, and is told what that does.
    """
    sink, numbers = current(), count(1)
    try:
        yield lambda note: sink.begin(name, next(numbers), steps, note)
    finally:
        sink.around.pop(name, None)


def busy(task: str) -> AbstractContextManager[None]:
    """``Log.busy`` of the current sink."""
    return current().busy(task)
