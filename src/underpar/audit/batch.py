"""Many audits, one after the other, and the table of what came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underpar import progress
from underpar.audit.review import CONDITIONS, USAGE, Audit
from underpar.audit.words import clean
from underpar.errors import DataError, UnderparError

HEAD = ("submission", "verdict", *CONDITIONS, "claims", "findings", "seconds")
SHORT = {"holds": "holds", "violated": "VIOLATED", "not_exercised": "-"}


@dataclass(frozen=True)
class Entry:
    """One line of the list: its audit, or why there is none."""

    path: str
    audit: Audit | None
    error: str = ""

    def row(self) -> tuple[str, ...]:
        if not self.audit:
            return (self.path, "unreadable", *[""] * len(CONDITIONS), "", "", "")
        audit = self.audit
        claims = [c.name for c in audit.claims if c.verdict == "violated"]
        return (
            self.path,
            audit.verdict,
            *(SHORT[c.verdict] for c in audit.conditions),
            ", ".join(claims) or "-",
            str(len(audit.findings)),
            f"{audit.seconds:.0f}",
        )

    def to_json(self) -> dict[str, Any]:
        if self.audit:
            return {**self.audit.to_json(), "path": clean(self.path, 1000)}
        return {"path": clean(self.path, 1000), "error": clean(self.error), "exit_code": USAGE}


def paths(file: Path) -> list[str]:
    """One path a line; empty lines and those that begin with # are skipped.

    Raises DataError when the file cannot be read or names nothing.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list {file}", got=str(error), wanted="one path a line") from error
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise DataError(f"list {file}", got="no path", wanted="one path a line")
    return found


def audits(names: Sequence[str], one: Callable[[Path], Audit]) -> Iterator[Entry]:
    """Audit each of ``names``; one that cannot be read does not keep the others waiting."""
    clock = progress.Clock()
    for done, name in enumerate(names):
        left = clock.left(done, len(names))
        progress.current().update("audits", done, len(names), clean(name, 60), left)
        try:
            yield Entry(name, one(Path(name)))
        except UnderparError as error:
            yield Entry(name, None, str(error))
        except Exception as error:
            yield Entry(name, None, f"the auditor failed: {type(error).__name__}: {error}")


def rows(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """The summary, head first."""
    return [HEAD, *(entry.row() for entry in entries)]


def text(entries: Sequence[Entry]) -> str:
    """The summary for a terminal: the verdicts first, the long names last."""
    table = [(*row[1:], clean(row[0], 70)) for row in rows(entries)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in table]
    counts = [sum(row[0] == v for row in table) for v in ("clean", "violated", "no verdict")]
    said = "{} clean, {} violated, {} without a verdict".format(*counts)
    errors = [f"{clean(e.path, 70)}: {clean(e.error)}" for e in entries if not e.audit]
    return "\n".join([*lines, "", *errors, said]) + "\n"


def exit_code(entries: Sequence[Entry]) -> int:
    """1 when something is violated, else 2 for an unreadable one, else 3 for no verdict, else 0."""
    codes = {entry.audit.exit_code if entry.audit else USAGE for entry in entries}
    return next((code for code in (1, USAGE, 3) if code in codes), 0)
