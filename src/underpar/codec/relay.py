"""Progress of a child process, shown by its parent: one JSON list a line, on the child's stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from underpar import progress

#: Seconds between the lines of a child, at least.
EVERY = 0.2


class Relay(progress.Progress):
    """In the child: prints each update as a line of JSON."""

    def update(
        self, task: str, done: float, total: float, note: str = "", left: float = -1, unit: str = ""
    ) -> None:
        if time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self.show(json.dumps([task, float(done), float(total), note, float(left), unit]))


def forward(lines: Iterable[str]) -> str:
    """In the parent: updates go to the current sink; all other lines are returned."""
    said = []
    for line in lines:
        try:
            where = json.loads(line)
        except ValueError:
            where = None
        if isinstance(where, list):
            progress.current().update(*where)
        else:
            said.append(line)
    return "".join(said)
