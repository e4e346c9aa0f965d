"""What the parts of the auditor tell each other. Data only: no judgement and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

FindingKind = Literal["static", "dynamic", "claim"]
ClaimVerdict = Literal["holds", "violated", "unknown"]
ConditionName = Literal["causal", "normalized", "score_first", "single_pass"]
ConditionVerdict = Literal["holds", "violated", "not_exercised"]
Status = Literal["finished", "failed", "timeout", "killed", "refused"]


@dataclass(frozen=True)
class Submission:
    """A folder or script as it was handed in, decoded but never executed.

    `source` is the plain Python text behind `script` (equal to the file when it is not packed) and
    compiles under this interpreter. `files` maps relative names to bytes as shipped. `settings` is
    the environment of the headline run and `settings_from` the document that gave it.
    """

    root: Path
    script: Path
    source: str
    packed: bool
    files: dict[str, int]
    settings: dict[str, str]
    settings_from: str
    documents: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something a reader should look at. A static finding is a suspicion, never a verdict."""

    code: str
    message: str
    file: str
    line: int | None
    kind: FindingKind


@dataclass(frozen=True)
class Claim:
    """One thing the submission says about itself, and what its own evidence says."""

    name: str
    verdict: ClaimVerdict
    claimed: str
    measured: str
    note: str = ""


@dataclass(frozen=True)
class Condition:
    """The verdict on one of the four conditions. `why` says what was missing or what held."""

    name: ConditionName
    verdict: ConditionVerdict
    witness: str
    evidence: dict[str, Any]
    why: str


@dataclass(frozen=True)
class StreamSpec:
    """The synthetic validation stream; `flips` are (index in the stream, new token id)."""

    vocab: int
    n_tokens: int
    seed: int
    flips: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Job:
    """One run of the script in the child process."""

    source: str
    script_name: str
    siblings: dict[str, bytes]
    environment: dict[str, str]
    world: int
    stream: StreamSpec
    seed: int
    seconds: float
    memory_mb: int
    shrink: dict[str, Any] = field(default_factory=dict)


_U16 = partial(np.zeros, 0, np.uint16)
_I64 = partial(np.zeros, 0, np.int64)
_F64 = partial(np.zeros, 0, np.float64)


@dataclass(frozen=True, eq=False)
class Trace:
    """What one rank recorded. `*_seq` is a clock common to all arrays of the trace.

    tokens  uint16 [N]: the validation stream of this run.
    c_*     [C]: one contribution each to some accumulator or loss: index of the target in the
            stream (-1 unknown), target id, nats, time, loss call (group), line in the script.
    t_*     [U]: target positions whose loss reached an optimizer step, at the time of the step.
    s_*     [S]: accumulator totals that could be the headline: value, tokens counted, line.
    reported: numbers printed or returned, {"name", "value", "line"}.
    bytes   float64: byte denominators seen.
    table   base_bytes, has_leading_space, is_boundary arrays if the script built them.
    """

    tokens: np.ndarray = field(default_factory=_U16)
    c_pos: np.ndarray = field(default_factory=_I64)
    c_target: np.ndarray = field(default_factory=_I64)
    c_nll: np.ndarray = field(default_factory=_F64)
    c_seq: np.ndarray = field(default_factory=_I64)
    c_group: np.ndarray = field(default_factory=_I64)
    c_line: np.ndarray = field(default_factory=_I64)
    t_pos: np.ndarray = field(default_factory=_I64)
    t_seq: np.ndarray = field(default_factory=_I64)
    t_line: np.ndarray = field(default_factory=_I64)
    s_seq: np.ndarray = field(default_factory=_I64)
    s_value: np.ndarray = field(default_factory=_F64)
    s_line: np.ndarray = field(default_factory=_I64)
    s_count: np.ndarray = field(default_factory=_F64)
    reported: tuple[Mapping[str, Any], ...] = ()
    bytes: tuple[float, ...] = ()
    table: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `stubs` names what was replaced to run on a CPU: part of the evidence."""

    status: Status
    seconds: float
    traces: tuple[Trace, ...]
    stdout: str
    error: str
    stubs: tuple[str, ...]
    meta: dict[str, Any]
