"""The recorder: which numbers reach which accumulator, and which tokens were trained on.

`start` hooks torch, NumPy, math and print before the script runs, `finish` takes the hooks away and
writes `trace-<rank>.npz` and `.json`. The trace has one row per contribution. Contributions come in
channels, in the upper bits of `c_group`, because they describe the same elements:

    0 SCORE      the value that reached the accumulator (its unit is the script's)
    1 REFERENCE  -log softmax of the recorded row at the target, nats
    2 DIGEST     a projection of the whole row: unchanged means the same distribution
    3 COUNTED    bytes the script counted for the target; accumulators of bytes, not of scores
    4 COMMITTED  clock of the sum that committed the element

c_seq is the clock of the loss call that made the score. The lower bits are the accumulator, whose
number indexes the s_* arrays (value divided by tokens is the mean of its elements). Rows of a
replay (recorder_replay) carry its number + 1 from bit 52 up. t_pos is -1 for optimizer steps that
used no validation token.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import recorder_arrays, recorder_numbers, recorder_printed, recorder_steps, recorder_torch
from .recorder_codes import SCORE
from .recorder_positions import Positions
from .recorder_replay import leave_fork, schedule_replays
from .recorder_state import CURRENT, Recording, current_recording
from .recorder_sums import accumulators, scored

CHANNEL, REPLAY = 48, 52
SCORES, REFERENCE, DIGEST, COUNTED, COMMITTED = range(5)
_UNDO: list[Callable[[], None]] = []


def start(scratch: str | Path, rank: int, stream: np.ndarray) -> None:
    """Hook everything. `stream`: validation tokens uint16 [N], flips applied."""
    scratch = Path(scratch)
    job: dict[str, Any] = {}
    if (scratch / "job.json").exists():
        job = json.loads((scratch / "job.json").read_text())
    spec = job.get("stream") or {}
    CURRENT.append(
        Recording(
            scratch=scratch,
            rank=rank,
            stream=np.asarray(stream),
            positions=Positions(np.asarray(stream)),
            vocab=int(spec.get("vocab") or int(stream.max()) + 1),
            replay=(job.get("shrink") or {}).get("replay") or {},
        )
    )
    schedule_replays(current_recording())
    recorder_numbers.install(_UNDO)
    recorder_arrays.install(_UNDO, 8 * len(stream))
    recorder_printed.install(_UNDO, finish)
    recorder_steps.install(_UNDO)
    recorder_torch.install(_UNDO)


def finish() -> None:
    """Take the hooks away and write the trace of this rank. In a replay: hand over and exit."""
    while _UNDO:
        _UNDO.pop()()
    recording = current_recording()
    if recording.alternative >= 0:
        leave_fork(recording, scored(recording))
    groups, sums = accumulators(recording)
    columns = _contributions(recording, groups)
    columns |= {name: np.array(values, np.float64) for name, values in sums.items()}
    columns |= {f"table_{k}": v for k, v in recording.tables.items()}
    columns["tokens"] = recording.stream.astype(np.uint16)
    columns |= _uses(recording)
    for name in columns:
        if name[0] in "cst" and name[1] == "_" and name not in ("c_nll", "s_value", "s_count"):
            columns[name] = columns[name].astype(np.int64)
    stem = recording.scratch / f"trace-{recording.rank}"
    np.savez(stem.with_suffix(".npz"), **columns)  # type: ignore[arg-type]
    bytes_seen = [
        float(g["value"].sum()) for g in groups if g["kind"][0] != SCORE and len(g["value"])
    ]
    group_of = {-1 - g["root"]: i for i, g in enumerate(groups)}
    group_of |= {g["last"]: i for i, g in enumerate(groups)}
    notes = {"reported": recorder_printed.reported(recording, group_of), "bytes": bytes_seen}
    stem.with_suffix(".json").write_text(json.dumps(notes))
    CURRENT.pop()


def _contributions(recording: Recording, groups: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    rows: dict[str, list[np.ndarray]] = {
        f"c_{n}": [] for n in ("pos", "target", "nll", "seq", "group", "line")
    }

    def write(table: dict[str, Any], values: np.ndarray, group: int) -> None:
        pos = table["pos"].astype(np.int64)
        rows["c_pos"].append(pos)
        rows["c_target"].append(np.where(pos >= 0, recording.stream[np.maximum(pos, 0)], -1))
        rows["c_nll"].append(values.astype(np.float64))
        rows["c_seq"].append(np.nan_to_num(table["seq"], nan=-1.0).astype(np.int64))
        rows["c_group"].append(np.full(len(pos), group, np.int64))
        rows["c_line"].append(table["line"].astype(np.int64))

    for index, table in enumerate(groups):
        if table["kind"][0] != SCORE:
            write(table, table["value"], index + (COUNTED << CHANNEL))
            continue
        write(table, table["value"], index)
        for channel, name in ((REFERENCE, "nll"), (DIGEST, "digest"), (COMMITTED, "commit")):
            write(table, table[name], index + (channel << CHANNEL))
    for other in recording.alternatives:
        group = (int(other["number"]) + 1) << REPLAY
        for channel, name in ((SCORES, "value"), (REFERENCE, "nll"), (DIGEST, "digest")):
            write(dict(other), other[name], group + (channel << CHANNEL))
    return {name: np.concatenate(parts or [np.zeros(0)]) for name, parts in rows.items()}


def _uses(recording: Recording) -> dict[str, np.ndarray]:
    sizes = [len(pos) for _, _, pos in recording.uses]
    return {
        "t_pos": np.concatenate([p for _, _, p in recording.uses] or [np.zeros(0, np.int64)]),
        "t_seq": np.repeat([s for s, _, _ in recording.uses] or np.zeros(0, np.int64), sizes),
        "t_line": np.repeat([n for _, n, _ in recording.uses] or np.zeros(0, np.int64), sizes),
    }
