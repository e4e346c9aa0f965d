"""Checkpoints: all of a run's state in one file, whole or not there.

A checkpoint is a NumPy archive (.npz, nothing pickled, a CRC-32 an entry) named by its step. Entry
``manifest`` is JSON: the counters, and the dtype of every tensor. bfloat16, which NumPy does not
know, is stored as the uint16 of its bits. Files are written beside and renamed, and the two newest
of a run are kept: damage to the last one costs a few seconds of training, not the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from underpar.errors import TrainingError
from underpar.storage import replacing

KEPT = 2
_MANIFEST = "manifest"


def save(
    folder: Path, step: int, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]
) -> Path:
    """Write ``step_<n>.npz`` into ``folder``; the older of this run but one are then removed.

    Files of later steps than this one are left-overs of a run that was started over: they go too.
    Raises MachineError when the disk is full; the files that were there then still are.
    """
    path = folder / f"step_{step:09d}.npz"
    dtypes = {key: str(t.dtype).removeprefix("torch.") for key, t in tensors.items()}
    manifest = json.dumps({"counters": counters, "dtypes": dtypes}).encode()
    arrays: dict[str, Any] = {_MANIFEST: np.frombuffer(manifest, np.uint8)}
    arrays |= {f"tensor/{key}": _to_numpy(tensor) for key, tensor in tensors.items()}
    with replacing(path) as handle:
        np.savez(handle, **arrays)
    _tidy(folder, path)
    return path


def newest(folder: Path) -> Path | None:
    """The checkpoint with the highest step, or None."""
    return max(folder.glob("step_*.npz"), default=None)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and counters of a checkpoint file.

    Raises TrainingError when the file is damaged, naming the older one that can be used instead.
    """
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            manifest = json.loads(archive[_MANIFEST].tobytes())
            tensors = {
                key: _from_numpy(archive[f"tensor/{key}"], dtype)
                for key, dtype in manifest["dtypes"].items()
            }
            return tensors, manifest["counters"]
    except Exception as error:  # damage shows as anything from BadZipFile to MemoryError
        older = [p for p in sorted(path.parent.glob("step_*.npz")) if p < path]
        go_on = f"from {older[-1].name}" if older else "from the start"
        raise TrainingError(
            f"checkpoint {path} is damaged",
            got=f"{type(error).__name__}: {error}",
            do=f"Delete it; training then resumes {go_on}.",
        ) from error


def _to_numpy(tensor: Tensor) -> np.ndarray:
    host = tensor.detach().cpu().contiguous()
    if host.dtype == torch.bfloat16:
        host = host.view(torch.uint16)
    return host.numpy()


def _from_numpy(array: np.ndarray, dtype: str) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def _tidy(folder: Path, written: Path) -> None:
    """Keep ``written`` and the one before it; drop the rest, and parts a killed process left."""
    files = sorted(folder.glob("step_*.npz"))
    keep = [p for p in files if p <= written][-KEPT:]
    for path in files:
        if path not in keep:
            path.unlink()
    for part in folder.glob(".step_*.part"):
        part.unlink()
