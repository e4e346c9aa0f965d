"""The record of a run: facts, as versioned JSON. A recipe is the intention, a record is what
happened.

Demos, tables, reports and submissions read ``record.json`` and compute nothing in it a second time.
Records are immutable: ``with_stage`` and its like return a new one.

A *stage* is a finished score of the full validation stream, so a table of stages compares like with
like. ``with_stage`` refuses a score over less than the full stream, which belongs under
``diagnostics``. Reading is strict: another version, an unknown or missing field, a wrong type, or a
bpb that is not its own nats over its own bytes is an error, because every number of a submission
relies on it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from underpar import storage
from underpar.bits import Score
from underpar.data.shards import read_shard
from underpar.errors import DataError, LegalityError
from underpar.recipe.plain import digest, to_json
from underpar.recipe.schema import Recipe
from underpar.report.machine import Machine, commit, machine, versions
from underpar.stages import NAMES

if TYPE_CHECKING:  # these import torch
    from underpar.data.dataset import Dataset
    from underpar.train.run import TrainResult

FORMAT = "underpar.record"
SCHEMA = 2

Section = TypeVar("Section")


@dataclass(frozen=True, kw_only=True)
class TrainFacts:
    """Training. seconds: of training proper; compile_seconds: before its clock started."""

    steps: int
    tokens: int
    seconds: float
    compile_seconds: float
    stop_reason: str

    @classmethod
    def of(cls, result: TrainResult) -> TrainFacts:
        """The facts of a training result; its other attributes are not kept."""
        return cls(**{f.name: getattr(result, f.name) for f in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What was trained and scored on.

    val_digest: SHA-256 of the scored stream's tokens, uint16 little-endian. val_bytes: bytes the
    score divides by. raw_bytes: of the text before the tokenizer's
    normalisation, None when unknown. normalized: whether those two texts may differ.
    """

    train_tokens: int
    val_tokens: int
    val_digest: str
    val_documents: int
    val_bytes: int
    raw_bytes: int | None
    normalized: bool
    tokenizer_digest: str

    @classmethod
    def of(cls, dataset: Dataset) -> DataFacts:
        """The facts of a data set. Counts and checks its validation text, unless already done."""
        validation = dataset.validation()
        return cls(
            train_tokens=sum(len(read_shard(path)) for path in dataset.train_files),
            val_tokens=len(validation.tokens),
            val_digest=hashlib.sha256(validation.tokens.astype("<u2").tobytes()).hexdigest(),
            val_documents=len(validation.documents),
            val_bytes=validation.true_bytes,
            raw_bytes=validation.raw_bytes,
            normalized=validation.normalized,
            tokenizer_digest=dataset.tokenizer.fingerprint(),
        )


@dataclass(frozen=True, kw_only=True)
class ArtifactFacts:
    """The file that was scored, and what counts against the budget. All sizes in bytes.

    code_bytes: length of the packed train_gpt.py that would be handed in (``ship``).
    """

    file_bytes: int
    code_bytes: int
    total_bytes: int
    budget_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A run. ``train``, ``data`` and ``artifact`` are None until there are such facts."""

    name: str
    seed: int
    date: str
    command: str
    recipe_digest: str
    recipe: Mapping[str, Any]
    machine: Machine
    versions: Mapping[str, str]
    commit: str
    train: TrainFacts | None = None
    data: DataFacts | None = None
    artifact: ArtifactFacts | None = None
    stages: Mapping[str, Score] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        *,
        command: str = "",
        train: TrainFacts | None = None,
        data: DataFacts | None = None,
    ) -> Record:
        """The record of a run on this machine, now; scores and artifact still to come."""
        return cls(
            name=recipe.name,
            seed=recipe.seed,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            recipe_digest=digest(recipe),
            recipe=to_json(recipe),
            machine=machine(),
            versions=versions(),
            commit=commit(),
            train=train,
            data=data,
        )

    def with_stage(self, stage: str, score: Score) -> Record:
        """This record with a stage's score. LegalityError unless that covers the stream exactly."""
        _check_stage(stage, score)
        stages = {**self.stages, stage: score}
        return replace(self, stages={name: stages[name] for name in NAMES if name in stages})

    def with_artifact(self, facts: ArtifactFacts) -> Record:
        return replace(self, artifact=facts)

    def with_diagnostic(self, name: str, value: object) -> Record:
        """This record with other JSON data: partial scores, parts of the file, timings."""
        value = value.to_json() if isinstance(value, Score) else value
        return replace(self, diagnostics={**self.diagnostics, name: value})

    def best(self) -> tuple[str, Score]:
        """(stage, score) of the lowest bpb of the shipped file; of the float file if that is all.

        DataError when nothing has been scored.
        """
        if not self.stages:
            raise DataError(f"record of '{self.name}'", got="no stage", do="Score the run first.")
        shipped = {name: score for name, score in self.stages.items() if name != "float"}
        return min((shipped or self.stages).items(), key=lambda item: item[1].bpb)

    def to_json(self) -> dict[str, Any]:
        data = asdict(replace(self, stages={}))
        data["stages"] = {name: score.to_json() for name, score in self.stages.items()}
        return {"format": FORMAT, "schema": SCHEMA, **data}

    def write(self, path: Path) -> None:
        """Write it as indented JSON; a half-written file is never left at ``path``."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        storage.write_text(Path(path), text + "\n")

    @classmethod
    def read(cls, path: Path) -> Record:
        """The record in a file. DataError: missing, foreign, damaged or of another version."""
        try:
            data = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"cannot read record {path}", got=error.strerror) from error
        except ValueError as error:
            raise DataError(f"record {path}", got=f"damaged JSON ({error})") from error
        return cls.from_json(data, where=str(path))

    @classmethod
    def from_json(cls, data: object, where: str = "record") -> Record:
        """The record in parsed JSON; as strict as the top of this file describes."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise DataError(where, got="JSON of another kind", wanted=f'"format": "{FORMAT}"')
        if data.get("schema") != SCHEMA:
            raise DataError(
                where,
                got=f"record schema {data.get('schema')}",
                wanted=SCHEMA,
                do="Read it with the version of underpar that wrote it (see its 'versions').",
            )
        body = {key: value for key, value in data.items() if key not in ("format", "schema")}
        record: Record = _section(cls, body, where)
        for stage, score in record.stages.items():
            _check_stage(stage, score)
        return record


def _check_stage(stage: str, score: Score) -> None:
    if stage not in NAMES:
        raise DataError("stage of a record", got=f"'{stage}'", wanted=f"one of {', '.join(NAMES)}")
    if not score.complete:
        raise LegalityError(
            f"stage '{stage}' of a record",
            got=f"coverage {score.coverage:.6g}",
            wanted="1: every target of the stream scored once",
            do="A partial score is a diagnostic: with_diagnostic(name, score).",
        )


def _section(cls: type[Section], data: object, where: str) -> Section:
    """A dataclass from JSON: exactly its fields, each of its declared type."""
    if not isinstance(data, dict):
        raise DataError(where, got=type(data).__name__, wanted="an object")
    hints = get_type_hints(cls)
    if data.keys() != hints.keys():
        odd = sorted(data.keys() ^ hints.keys())
        raise DataError(where, got=f"unknown or missing fields {odd}", wanted=sorted(hints))
    return cls(**{key: _value(hints[key], data[key], f"{where}: {key}") for key in hints})


def _value(kind: Any, value: Any, where: str) -> Any:
    """A JSON value as a field of type ``kind``."""
    options = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and NoneType in options:
        return None
    kind = options[0]
    if kind is Any:
        return value
    if kind is Score:
        return _score(value, where)
    if is_dataclass(kind):
        return _section(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is Mapping:
        _expect(isinstance(value, dict), value, "an object", where)
        return {
            key: _value(get_args(kind)[1], part, f"{where}.{key}") for key, part in value.items()
        }
    fits = type(value) is kind or (kind is float and type(value) is int)
    _expect(fits, value, kind.__name__, where)
    return float(value) if kind is float else value


def _score(data: object, where: str) -> Score:
    if not isinstance(data, dict) or data.keys() != {*get_type_hints(Score), "bpb"}:
        raise DataError(where, got=repr(data)[:80], wanted="a score with its bpb")
    for key, value in data.items():
        _expect(type(value) in (int, float), value, "a number", f"{where}.{key}")
    score = Score.from_json(data)
    ok = math.isclose(score.bpb, data["bpb"], rel_tol=1e-12)
    _expect(ok, data["bpb"], f"{score.bpb}, its nats over its bytes", f"{where}.bpb")
    return score


def _expect(ok: bool, got: object, wanted: str, where: str) -> None:
    if not ok:
        raise DataError(where, got=repr(got)[:80], wanted=wanted)
