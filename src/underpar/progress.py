"""Progress and log lines: one small sink for terminal, log file and metrics.

Library code says what happened through the current ``Progress``; whoever starts a run decides where
that goes. On a terminal a live line is redrawn in place; elsewhere a plain line is printed at most
every few seconds, so that a log file stays readable. Only rank 0 speaks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO


def duration(seconds: float) -> str:
    """'8 s', '4 m 05 s', '1 h 02 m': as long as a person needs it, no longer."""
    s = round(max(seconds, 0.0))
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} m {s % 60:02d} s"
    return f"{s // 3600} h {s % 3600 // 60:02d} m"


class Progress:
    """Where lines go. ``folder`` adds log.txt and metrics.jsonl; ``quiet`` stills the terminal."""

    def __init__(
        self, folder: Path | None = None, *, quiet: bool = False, stream: TextIO | None = None
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._live = not quiet and self._stream.isatty()
        self._width = 0
        self._last = time.monotonic()  # what is done at once needs no progress
        self._log: TextIO | None = None
        self._metrics: TextIO | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._log = (folder / "log.txt").open("a", encoding="utf-8")
            self._metrics = (folder / "metrics.jsonl").open("a", encoding="utf-8")

    def line(self, text: str = "") -> None:
        """A line worth keeping: terminal and log file."""
        if not self._quiet:
            self._clear()
            print(text, file=self._stream, flush=True)
        if self._log:
            print(text, file=self._log, flush=True)

    def update(
        self, task: str, done: float, total: float, note: str = "", left: float = -1
    ) -> None:
        """Where a long task stands: done of total (any unit), seconds left if known."""
        now = time.monotonic()
        if self._quiet or now - self._last < (0.1 if self._live else 10.0):
            return
        self._last = now
        share = min(done / total, 1.0) if total else 1.0
        time_left = f"  {duration(left)} left" if left >= 0 else ""
        text = f"{task} {100 * share:3.0f}%  {note}{time_left}"
        if self._live:
            bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
            text = f"{bar} {text}"[: self._columns() - 1]  # a wrapped line could not be redrawn
            print(f"\r{text.ljust(self._width)}", end="", file=self._stream, flush=True)
            self._width = len(text)
        else:
            print(text, file=self._stream, flush=True)

    def metric(self, **values: object) -> None:
        """One JSON object a line in metrics.jsonl."""
        if self._metrics:
            print(json.dumps(values), file=self._metrics, flush=True)

    def close(self) -> None:
        self._clear()
        with ExitStack() as stack:  # closing one may fail on a full disk; the other is closed too
            for handle in (self._log, self._metrics):
                if handle:
                    stack.callback(handle.close)
            self._log = self._metrics = None

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:  # looks like a terminal, but has no size to tell
            return 80

    def _clear(self) -> None:
        if self._live and self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream, flush=True)
            self._width = 0


class Clock:
    """Seconds left of a task, from its own pace so far."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def left(self, done: float, total: float) -> float:
        return self.seconds / done * (total - done) if done else -1.0


_current = Progress(quiet=True)


def current() -> Progress:
    """The sink of this process; silent until ``use`` installs one."""
    return _current


@contextmanager
def use(progress: Progress) -> Iterator[Progress]:
    """Make ``progress`` the current sink for the length of the block, then close it."""
    global _current
    before, _current = _current, progress
    try:
        yield progress
    finally:
        _current = before
        progress.close()
