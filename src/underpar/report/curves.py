"""What the pictures of a run show: its training curves and its losses token by token.

The losses of each stage lie beside the record as ``nll_STAGE.npy``: float16, nats of each target of
the validation stream. They are for pictures only; the score itself is in the record, summed in
float64 while scoring. Losses with another sum than the record's are of a part of the stream, of
another run, or of an artifact that has been packed again since, and are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from underpar import storage
from underpar.bits import bits_per_byte
from underpar.data.validation import ValidationSet
from underpar.report.record import Record
from underpar.stages import NAMES

Losses = NDArray[np.float32]
Values = NDArray[np.float64]

#: How far the sum of rounded losses may lie from the record's: float16 keeps three digits of each.
SAME_SUM = 1e-3


def save_losses(run: Path, stage: str, nll: Losses) -> None:
    """Write ``nll`` [targets] of a stage into the run folder. MachineError: no space."""
    with storage.replacing(Path(run) / f"nll_{stage}.npy") as handle:
        np.save(handle, nll.astype(np.float16), allow_pickle=False)


def load_losses(run: Path) -> dict[str, Losses]:
    """stage -> losses, for the stages whose file is there; foreign or damaged ones are skipped."""
    found = {}
    for stage in NAMES:
        try:
            nll = np.load(Path(run) / f"nll_{stage}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        if isinstance(nll, np.ndarray) and nll.ndim == 1 and nll.dtype.kind == "f":
            found[stage] = nll.astype(np.float32)
    return found


def of_record(
    nll: Mapping[str, Losses], record: Record, validation: ValidationSet
) -> dict[str, Losses]:
    """The losses that cover this stream and add up to the record's nats, in the record's order."""
    return {
        stage: nll[stage]
        for stage, score in record.stages.items()
        if stage in nll
        and nll[stage].shape == (validation.n_targets,)
        and math.isclose(float(np.sum(nll[stage], dtype=np.float64)), score.nats,
                         rel_tol=SAME_SUM)
    }  # fmt: skip


def along(nll: Losses, validation: ValidationSet, bins: int) -> tuple[Values, Values]:
    """(bytes up to the middle of each bin, bpb within it): equal numbers of targets a bin.

    A bin without bytes is NaN.
    """
    n = validation.n_targets
    edges = np.linspace(0, n, min(bins, n) + 1).astype(int)
    at = offsets(validation)[edges]
    return (at[:-1] + at[1:]) / 2, _rates(nll, validation, edges[:-1], edges[1:])


def saved_so_far(
    without: Losses, adapting: Losses, validation: ValidationSet, bins: int
) -> tuple[Values, Values]:
    """(bytes so far, per cent of the bits so far that test-time training saved)."""
    n = validation.n_targets
    edges = np.linspace(0, n, min(bins, n) + 1).astype(int)[1:]
    before, after = (np.cumsum(nll, dtype=np.float64)[edges - 1] for nll in (without, adapting))
    share = np.divide(after, before, out=np.full(len(edges), np.nan), where=before > 0)
    return offsets(validation)[edges].astype(np.float64), 100 * (1 - share)


def offsets(validation: ValidationSet) -> NDArray[np.int64]:
    """Bytes of the text before each target, and after the last: int64 [N]."""
    return np.concatenate([[0], np.cumsum(validation.byte_lengths, dtype=np.int64)])


def by_document(nll: Losses, validation: ValidationSet) -> Values:
    """bpb of each document, its BOS included: their mean, weighted by bytes, is the score."""
    # target i is token i + 1; the first token of the stream is no target
    first = np.maximum(validation.documents - 1, 0)
    return _rates(nll, validation, first, np.append(first[1:], validation.n_targets))


def _rates(
    nll: Losses, validation: ValidationSet, first: NDArray[np.int64], end: NDArray[np.int64]
) -> Values:
    """bpb of the targets first[i] to end[i]."""
    nats = np.concatenate([[0.0], np.cumsum(nll, dtype=np.float64)])
    size = offsets(validation)
    return np.array(
        [
            bits_per_byte(nats[b] - nats[a], size[b] - size[a])
            for a, b in zip(first.tolist(), end.tolist())
        ]
    )


@dataclass(frozen=True)
class Training:
    """Values by step. loss: nats per token of the batch. scale: multiplier of the learning rates.

    validation: nats per token of the validations during training. Each is (steps, values), possibly
    empty.
    """

    loss: tuple[Values, Values]
    scale: tuple[Values, Values]
    validation: tuple[Values, Values]


def read_training(run: Path) -> Training:
    """The values in metrics.jsonl. Lines that are cut off or of another kind are ignored.

    A resumed run repeats the steps since its checkpoint: the later line of a step replaces the
    earlier one.
    """
    loss: dict[int, float] = {}
    scale: dict[int, float] = {}
    validation: dict[int, float] = {}
    try:
        lines = (Path(run) / "metrics.jsonl").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            row = json.loads(line)
            step = row["step"]
            if "loss" in row:
                loss[step], scale[step] = float(row["loss"]), float(row["lr_scale"])
            elif row["coverage"] == 1:
                validation[step] = row["nats"] / row["tokens"]
        except (ValueError, LookupError, TypeError, ZeroDivisionError):
            continue
    return Training(_sorted(loss), _sorted(scale), _sorted(validation))


def _sorted(values: Mapping[int, float]) -> tuple[Values, Values]:
    steps = sorted(step for step in values if math.isfinite(values[step]))
    return np.array(steps, dtype=np.float64), np.array([values[step] for step in steps])
