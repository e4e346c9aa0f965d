"""Drawing with rich: a line for every task that is under way, redrawn below all that is printed.

    prove       ━━━━━━━━━━────────────────────  2/3   decoding in a fresh process  1 m 12 s
    decompress  ━━━━━━━━━━━━━━────────────────   47%  1 m 05 s left  1,204 tokens/s  2.310 bits

A thread redraws, so a task that is silent for a while is seen to be alive. The cursor stays visible
throughout: a process that is killed could not bring it back.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import TextIO

from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.text import Text

from underpar.progress import duration

#: The line under the head of a table, as ``report.tables`` writes it.
RULE = re.compile(r"─*(?:┼─*)+")

#: Times a second that everything is drawn anew.
RATE = 4

#: Columns of a bar at most, and of a terminal that has room for one.
BAR, WIDE = 30, 50


class _Console(Console):
    """Leaves the cursor alone."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


@dataclass(frozen=True)
class Row:
    """A task as of its last update. began, at: when it was seen first and last, in seconds.

    before: what was done when it was seen first.
    """

    task: str
    done: float
    total: float
    note: str
    left: float
    unit: str
    began: float
    before: float
    at: float

    @property
    def endless(self) -> bool:
        """Nobody knows how long it takes."""
        return self.total < 0

    @property
    def rate(self) -> float:
        """Units a second since it was seen first; 0: unknown."""
        seconds = self.at - self.began
        return (self.done - self.before) / seconds if seconds > 0 else 0.0

    def words(self) -> list[str]:
        """What stands right of the bar, the most important first."""
        silent, left = monotonic() - self.at, self.left
        if left < 0 < self.rate:
            left = (self.total - self.done) / self.rate
        if self.endless:
            times = duration(self.done + silent)
        elif left >= 0:
            times = f"{duration(left - silent)} left"
        else:
            times = duration(self.at + silent - self.began)
        rate = f"{self.rate:,.{0 if self.rate >= 10 else 1}f} {self.unit}/s"
        return [times, rate if self.unit and self.rate > 0 else "", self.note]


class Screen:
    """A terminal: lines are printed on it, and rows drawn below them.

    around: the tasks around all rows, as of ``Progress``.
    """

    def __init__(
        self,
        stream: TextIO,
        around: Mapping[str, tuple[int, int, str]] = MappingProxyType({}),
        console: Console | None = None,
    ) -> None:
        self._console = console or _Console(file=stream)
        self._around, self._rows, self._live = around, dict[str, Row](), self._new_live()
        self._stepped = monotonic()

    @property
    def can_draw(self) -> bool:
        """False on a terminal that cannot move its cursor."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def print(self, text: str) -> None:
        """A line, or several; the terminal breaks what is too long, so that it can be copied."""
        self._console.print(painted(text), soft_wrap=True)

    def put(self, task: str, done: float, total: float, note: str, left: float, unit: str) -> None:
        """Where a task stands; one that is done goes. What has an end displaces others that do."""
        row, now = self._rows.get(task), monotonic()
        if 0 <= total <= done:
            self._rows.pop(task, None)
            return
        if row is None or row.total != total or row.done > done:  # new, or from the start again
            began, before = now, done
            if total >= 0:
                for other in [one.task for one in list(self._rows.values()) if not one.endless]:
                    self._rows.pop(other, None)
        else:
            began, before = row.began, row.before
        self._rows[task] = Row(task, done, total, note, left, unit, began, before, now)
        self._live.start()

    def clear(self) -> None:
        """A step of what is around all rows begins; no row is left of the one before."""
        self._rows.clear()
        self._stepped = monotonic()
        self._live.start()

    def close(self) -> None:
        """Wipe the rows; what was printed stays."""
        self._rows.clear()
        self._around = {}
        self._live.stop()

    def _new_live(self) -> Live:
        return Live(
            self,
            console=self._console,
            refresh_per_second=RATE,
            transient=True,
            # what others print has to go above the rows, but only if it goes to this terminal
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        around, rows = list(self._around.items()), list(self._rows.values())
        names = max((len(name) for name, _ in [*around, *((r.task, 0) for r in rows)]), default=0)
        full, empty = "#-" if options.ascii_only else "━─"
        width = min(BAR, options.max_width // 5) if options.max_width >= WIDE else 0

        def line(name: str, first: int, last: int, count: str, words: list[str]) -> Text:
            bar = Text(f"{name:<{names}}  ")
            if width:
                bar.append(empty * first, "dim").append(full * (last - first), "cyan")
                bar.append(empty * (width - last) + "  ", "dim")
            bar.append(f"{count:<4}  ", "bold").append("  ".join(filter(None, words)))
            bar.truncate(options.max_width, overflow="ellipsis")
            return bar

        for i, (name, (step, steps, note)) in enumerate(around, 1):
            done = width * (step - 1) // steps
            seconds = duration(monotonic() - self._stepped) if i == len(around) else ""
            yield line(name, 0, done, f"{step}/{steps}", [note, seconds])
        for row in rows:
            if row.endless:  # a piece of bar that moves
                first = int((monotonic() - row.began) * RATE) % max(width - 2, 1)
                yield line(row.task, first, min(first + 3, width), "", row.words())
            else:
                share = min(row.done / row.total, 1.0) if row.total else 1.0
                yield line(row.task, 0, round(width * share), f"{share:4.0%}", row.words())


def painted(text: str) -> Text:
    """The same characters, with colour where they are a table."""
    lines, inside = text.split("\n"), False
    rules = [RULE.fullmatch(line) is not None for line in [*lines, ""]]
    parts = []
    for i, line in enumerate(lines):
        part, inside = Text(line), rules[i] or (inside and "│" in line)
        if rules[i + 1]:
            part.stylize("bold")
        elif inside:
            part.stylize("cyan", 0, max(line.find(" │"), 0))
        if inside or rules[i + 1]:
            part.highlight_regex("[─┼│]", "dim")
        parts.append(part)
    return Text("\n").join(parts)
