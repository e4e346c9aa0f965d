"""The coder's integer tables from logits: for machines that add alike, or for any machine.

Two ways. ``float_tables`` turns the softmax's floats into frequencies: fast, and right as long as
encoder and decoder compute the very same floats, so the file names the machine that they need.

``GridTables`` is the portable way. Two machines that compute a model in float64 differ by some
1e-13, in every logit: nothing can be equal bit by bit. But *rounded* to a grid of 1/256 nat they
are equal, except where a logit lies so near the middle between two grid points that its two
versions may round differently. The encoder finds these cases: for each logit within ``MARGIN`` of a
middle it writes a note, whether it rounded up or down, and the decoder follows the note instead of
rounding. Everything after the rounding is integer arithmetic: exp(-d / 256) for whole d comes from
a table that is itself made by multiplying integers. The grid costs about (1/256)^2 / 24 nats a
token, the notes some hundredths of a bit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from underpar.entropy.freqs import cumulative, from_grid, from_probabilities
from underpar.errors import CodecError

#: Grid points of a nat.
GRID = 256

#: In grid points. Two ways to compute the demo model in float64 differ by 1e-11 of them; each note
#: takes 7 bytes, and about 2 * MARGIN of all logits get one.
MARGIN = 1e-7

#: (symbol in order of coding, vocabulary entry, 1 if rounded up)
Near = tuple[int, int, int]
_NEAR = struct.Struct("<IHB")


def float_tables(logits: Tensor) -> NDArray[np.int64]:
    """Logits [n, V] -> cumulative frequencies [n, V + 1], for a decoder with the same floats."""
    if not bool(logits.isfinite().all()):
        raise CodecError(
            "the model's logits are not finite: its adaptation diverged",
            do="Compress with --no-adapt.",
        )
    return cumulative(from_probabilities(torch.softmax(logits, dim=-1).cpu().numpy()))


class GridTables:
    """The portable tables of one text, for its encoder or its decoder.

    near: the notes that a decoder follows; None for an encoder, which collects them for ``notes``.
    """

    def __init__(self, near: Sequence[Near] | None = None) -> None:
        self.near: list[Near] = list(near or [])
        self._follow = None if near is None else _by_symbol(near)
        self._symbol = 0

    def __call__(self, logits: Tensor) -> NDArray[np.int64]:
        """Float64 logits [n, V] -> cumulative frequencies [n, V + 1]."""
        assert logits.dtype == torch.float64, "portable tables need a float64 model"
        scaled = logits.cpu().numpy() * GRID
        down = np.floor(scaled)
        fraction = scaled - down
        up = fraction >= 0.5
        if self._follow is None:
            for row, entry in np.argwhere(np.abs(fraction - 0.5) < MARGIN).tolist():
                self.near.append((self._symbol + row, entry, int(up[row, entry])))
        else:  # a logit near a middle is far from the grid: both machines have the same floor
            for row in range(len(up)):
                for entry, side in self._follow.get(self._symbol + row, ()):
                    if entry >= up.shape[1]:
                        raise CodecError("portable payload", got=f"a note on entry {entry}")
                    up[row, entry] = bool(side)
        self._symbol += len(up)
        return cumulative(from_grid((down + up).astype(np.int64), GRID))

    def notes(self) -> bytes:
        """The notes in front of a payload: their number u32, then 7 bytes each."""
        return struct.pack("<I", len(self.near)) + b"".join(_NEAR.pack(*n) for n in self.near)


def split_notes(payload: bytes) -> tuple[list[Near], bytes]:
    """Notes and the rest of a portable payload. Raises CodecError when they do not fit."""
    (count,) = struct.unpack_from("<I", payload.ljust(4, b"\0"))
    end = 4 + count * _NEAR.size
    if end > len(payload):
        raise CodecError("portable payload", got=f"{count} notes in {len(payload)} bytes")
    return list(_NEAR.iter_unpack(payload[4:end])), payload[end:]


def _by_symbol(near: Sequence[Near]) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for symbol, entry, side in near:
        found.setdefault(symbol, []).append((entry, side))
    return found
