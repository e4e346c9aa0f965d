"""A leaderboard from a folder of runs: read from their records, ranked by bpb.

Scores rank only among scores of the same validation data, so there is a table for each. Runs that
cannot be ranked are listed with the reason: unreadable or unfinished records, scores of part of the
text (a record with one is refused when it is read), artifacts over their budget, and runs of which
nothing but the weights before quantization was scored, unless that stage is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from underpar.errors import DataError, UnderparError
from underpar.report.record import Record
from underpar.report.tables import render
from underpar.stages import NAMES, TITLES


@dataclass(frozen=True)
class Entry:
    """A ranked run. run: its folder below the tree's. Sizes in bytes; None: not recorded."""

    run: str
    recipe: str
    seed: int
    stage: str
    bpb: float
    nats_per_token: float
    coverage: float
    total_bytes: int | None
    budget_bytes: int | None
    train_seconds: float | None
    steps: int | None
    text: str


@dataclass(frozen=True)
class Leaderboard:
    """entries: best first within each text. unranked: (folder of the record, why)."""

    entries: tuple[Entry, ...]
    unranked: tuple[tuple[str, str], ...]

    def render(self, *, markdown: bool = False) -> str:
        """A table for each text, then what did not rank."""
        parts: list[str] = []
        for text, entries in groupby(self.entries, key=lambda entry: entry.text):
            parts += [f"Validation data: {text}", _table(list(entries), markdown=markdown)]
        if self.unranked:
            parts += ["Not ranked:", render(["run", "why"], self.unranked, "ll", markdown=markdown)]
        return "\n\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        unranked = [{"run": run, "why": why} for run, why in self.unranked]
        return {"entries": [asdict(entry) for entry in self.entries], "unranked": unranked}


def leaderboard(folder: Path, stage: str | None = None) -> Leaderboard:
    """Ranks every record.json below a folder. stage: a name; None: each run's best shipped one.

    DataError when there is no folder, or no record in it.
    """
    if stage not in (None, *NAMES):
        raise DataError("stage", got=f"'{stage}'", wanted=f"one of {', '.join(NAMES)}")
    paths = sorted(Path(folder).rglob("record.json"))
    if not paths:
        do = "Give the folder that holds the run folders."
        raise DataError(f"leaderboard of {folder}", got="no record.json in it", do=do)
    entries, unranked = [], []
    for path in paths:
        run = path.parent.relative_to(folder).as_posix()
        try:
            entries.append(_entry(run, Record.read(path), stage))
        except UnderparError as error:
            unranked.append((run, str(error)))
    entries.sort(key=lambda entry: (entry.text, entry.bpb, entry.run))
    return Leaderboard(tuple(entries), tuple(unranked))


def _entry(run: str, record: Record, stage: str | None) -> Entry:
    """A record's row; raises UnderparError, with the reason, when it cannot be ranked."""
    name = stage or record.best()[0]
    if name not in record.stages:
        done = ", ".join(record.stages) or "none"
        raise DataError("score", got=f"finished stages {done}", wanted=name)
    if name != stage and name == "float":
        raise DataError("score", got="only before quantization", wanted="one of the shipped file")
    if record.data is None:
        raise DataError("record", got="no data section", wanted="what was scored")
    score, artifact, train, data = record.stages[name], record.artifact, record.train, record.data
    if artifact and artifact.total_bytes > artifact.budget_bytes:
        wanted = f"at most {artifact.budget_bytes:,}"
        raise DataError("artifact", got=f"{artifact.total_bytes:,} bytes", wanted=wanted)
    digest = getattr(data, "val_digest", data.tokenizer_digest)
    return Entry(
        run=run,
        recipe=record.name,
        seed=record.seed,
        stage=name,
        bpb=score.bpb,
        nats_per_token=score.nats_per_token,
        coverage=score.coverage,
        total_bytes=artifact.total_bytes if artifact else None,
        budget_bytes=artifact.budget_bytes if artifact else None,
        train_seconds=train.seconds if train else None,
        steps=train.steps if train else None,
        text=f"{score.bytes:,} bytes, {score.tokens:,} tokens, digest {digest[:12]}",
    )


def _table(entries: Sequence[Entry], *, markdown: bool) -> str:
    headers = ["run", "recipe", "seed", "stage", "bpb", "nats/token", "total bytes", "budget"]
    rows = [
        [
            entry.run,
            entry.recipe,
            entry.seed,
            TITLES[entry.stage],
            f"{entry.bpb:.5f}",
            f"{entry.nats_per_token:.5f}",
            _count(entry.total_bytes),
            _count(entry.budget_bytes),
            None if entry.train_seconds is None else f"{entry.train_seconds:.1f}",
            _count(entry.steps),
            f"{100 * entry.coverage:.0f}%",
        ]
        for entry in entries
    ]
    return render(
        [*headers, "train s", "steps", "coverage"], rows, "llrlrrrrrrr", markdown=markdown
    )


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"
