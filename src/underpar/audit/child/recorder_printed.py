"""Losses and bits per byte that the script prints, and the accumulators they came from."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from typing import Any

from .recorder_numbers import _replace
from .recorder_state import Recording, current_recording

NUMBER = re.compile(
    r"((?:[A-Za-z_]\w*[_ .]?)?(?:loss|bpb|nll|bits_per_byte)\w*)\s*[:=]\s*"
    r"(-?\d+\.\d+(?:e[+-]?\d+)?)",
    re.IGNORECASE,
)
MOST = 5000
FEW = 4  # prints of one growing accumulator that are looked into
LONGEST = 1000  # characters of a line; longer ones are packed code, not results


def install(undo: list[Callable[[], None]], over: Callable[[], None]) -> None:
    """Watch print; logs of the scripts go through it.

    over: ends a replay that has printed its headline.
    """
    plain = builtins.print

    def watched(*args: Any, **kwargs: Any) -> None:
        sep = kwargs.get("sep") or " "
        note(sep.join(str(a) for a in args), over)
        plain(*args, **kwargs)

    _replace(builtins, "print", watched, undo)


def note(text: str, over: Callable[[], None]) -> None:
    """Record the numbers of one printed text; a replay is over when it has printed the headline."""
    recording = current_recording()
    if len(recording.reported) > MOST:
        return
    for line in text.splitlines():
        if len(line) > LONGEST:
            continue
        for match in NUMBER.finditer(line):
            _number(recording, match, line)
    if recording.alternative >= 0 and len(recording.reported) >= recording.replay["printed"]:
        over()


def _number(recording: Recording, match: re.Match[str], line: str) -> None:
    digits = match.group(2)
    value, code = float(digits), -1
    for shown, exact, origin in reversed(recording.formatted):
        if shown.strip() == digits:
            value, code = exact, origin
            break
    recording.reported.append(
        {"name": match.group(1).strip(), "value": value, "line": line[:300], "code": code}
    )


def shown_bags(recording: Recording) -> set[int]:
    """Bags behind the last numbers that were printed of each accumulator.

    One accumulator is often printed as it grows; only the last few times count.
    """
    last: dict[int, dict[int, None]] = {}
    for entry in recording.reported:
        index = -entry["code"] - 2
        if index >= 0:
            mine = last.setdefault(recording.lineage.bags[index].group, {})
            mine.pop(index, None)
            mine[index] = None
    return {index for mine in last.values() for index in list(mine)[-FEW:]}


def reported(recording: Recording, group_of: dict[int, int]) -> list[dict[str, Any]]:
    """What was printed, each name followed by "@" and the accumulator where that is known.

    group_of: accumulators by their bag, and by -1 - the first bag of their chain.
    """
    out = []
    for entry in recording.reported:
        code = entry["code"]
        group = None
        if code <= -2:
            root = -1 - recording.lineage.bags[-code - 2].group
            group = group_of.get(-code - 2, group_of.get(root))
        name = entry["name"] if group is None else f"{entry['name']}@{group}"
        out.append({"name": name, "value": float(entry["value"]), "line": entry["line"]})
    return out
