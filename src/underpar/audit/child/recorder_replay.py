"""The same run again with other validation tokens, from just before the evaluation on.

An alphabet sum needs one evaluation per token of the alphabet. What comes before the evaluation
does not depend on the validation tokens (the probe has checked that nothing was trained on them
and nothing of the headline scored), so the process is forked at a time of the recorder's clock:
each fork puts another token into every tensor that holds the stream, and into the shard on disk,
runs until the score of that token is in the sum, or else until the headline is printed, and leaves
the scores of the accumulator.

`Job.shrink["replay"]`: {"clock": t, "scored": when the token's score was committed, "printed": how
many numbers had been printed with the headline, "line": l, "flips": [[index, token], ...], "unit":
nats in the script's unit, "sum": probability of the stream's own token, "enough": sum that ends
the replays}.
"""

from __future__ import annotations

import gc
import os
import posix
import select
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .recorder_state import Recording, current_recording
from .recorder_sums import scored

HEADER_BYTES = 1024
LATER = 3  # ticks after which a sum has reached its accumulator


def schedule_replays(recording: Recording) -> None:
    """Have the replays begin when their time comes."""
    if recording.replay:
        recording.lineage.alarm = (int(recording.replay["clock"]), run_replays)


def run_replays() -> None:
    """All replays, one after the other; returns in each fork, and after the last one."""
    recording = current_recording()
    plan = recording.replay
    recording.lineage.alarm = None
    until = _now() + float(plan.get("seconds", 120.0))
    total = float(plan.get("sum", 0.0))
    for number, (index, token) in enumerate(plan["flips"]):
        if _now() > until or total > float(plan.get("enough", np.inf)):
            return
        pid = os.fork()
        if not pid:
            recording.alternative = number
            _change(recording, int(index), int(token))
            recording.lineage.alarm = (int(plan["scored"]) + LATER, partial(_early, int(index)))
            return
        _wait(pid, until)
        _change_shard(recording, int(index), int(recording.stream[int(index)]))
        total += _read(recording, number, int(index), float(plan.get("unit", 1.0)))


def _early(index: int) -> None:
    """Leave if the changed token has been scored; what comes later would not matter."""
    recording = current_recording()
    recording.lineage.alarm = None
    columns = scored(recording)
    if columns and (columns["pos"] == index).any():
        leave_fork(recording, columns)


def _now() -> float:
    """Seconds of a real clock; those of `time` are the script's."""
    return os.times().elapsed


def path_of(recording: Recording, number: int) -> Path:
    return recording.scratch / f"replay-{recording.rank}-{number}.npz"


def _wait(pid: int, until: float) -> None:
    while _now() < until + 5:
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done:
            return
        select.select([], [], [], 0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _read(recording: Recording, number: int, index: int, unit: float) -> float:
    """Take over the scores of a fork; the probability it gave to the token at `index`."""
    path = path_of(recording, number)
    if not path.exists():
        return 0.0
    with np.load(path, allow_pickle=False) as archive:
        columns = dict(archive)
    path.unlink()
    if not columns:
        return 0.0
    recording.alternatives.append({"number": np.array(number), **columns})
    here = np.flatnonzero(columns["pos"] == index)
    return float(np.exp(-columns["value"][here[0]] * unit)) if len(here) else 0.0


def _change(recording: Recording, index: int, token: int) -> None:
    """Put `token` at `index` of the stream wherever this process holds it."""
    holders = []
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor and thing.dim() == 1 and not thing.is_floating_point():
            place = _place(recording, thing, index)
            if place is not None:
                holders.append((thing, place))
    _change_shard(recording, index, token)  # mapped files change with it, and may not be written
    for tensor, place in holders:
        if int(tensor[place]) != token:
            tensor.numpy()[place] = token
    recording.stream = recording.stream.copy()
    recording.stream[index] = token
    recording.positions = type(recording.positions)(recording.stream)


def _place(recording: Recording, tensor: Any, index: int) -> int | None:
    """Where a flat tensor of tokens holds position `index`, None if it does not."""
    if tensor.device.type != "cpu" or tensor.numel() < 64 or tensor.dtype == torch.bool:
        return None
    values = tensor.detach().numpy()
    pos = recording.locate(values)
    if pos is None:
        return None
    found = np.flatnonzero(pos == index)
    return int(found[0]) if len(found) else None


def _change_shard(recording: Recording, index: int, token: int) -> None:
    body = recording.stream.astype("<u2").tobytes()[:64]
    for path in (recording.scratch / "data").rglob("*.bin"):
        with path.open("r+b") as file:
            file.seek(HEADER_BYTES)
            if file.read(64) == body:
                file.seek(HEADER_BYTES + 2 * index)
                file.write(int(token).to_bytes(2, "little"))


def leave_fork(recording: Recording, columns: dict[str, np.ndarray]) -> None:
    """End of a fork: hand over the scores and go, without the rest of the harness."""
    np.savez(path_of(recording, recording.alternative), **columns)  # type: ignore[arg-type]
    posix._exit(0)  # os._exit may be a stand-in that raises
