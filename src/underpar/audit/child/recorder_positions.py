"""Where in the validation stream a run of tokens stands.

Every window of four tokens of the stream is unique, so that a call that shows some targets says
which positions it scores. A match counts only as part of a run: training tokens that happen to
repeat one window of the stream must not look like validation tokens.
"""

from __future__ import annotations

import numpy as np

WINDOW = 4
SHORTEST_RUN = 6


class Positions:
    """Finds positions in one stream, uint16 [N]."""

    def __init__(self, stream: np.ndarray) -> None:
        self.stream = stream.astype(np.int64)
        keys = _keys(self.stream)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        alone = np.ones(len(keys), bool)
        alone[1:] &= keys[1:] != keys[:-1]
        alone[:-1] &= keys[:-1] != keys[1:]
        self.keys, self.at = keys[alone], order[alone]

    def locate(self, ids: np.ndarray) -> np.ndarray | None:
        """Position of each token of a flat int array [n], -1 where unknown; None if none is known.

        Windows reach over neighbouring rows where rows continue each other, and stop at padding.
        """
        n = len(ids)
        if n < WINDOW or not len(self.keys):
            return None
        ids = ids.astype(np.int64)
        keys = _keys(ids)
        slot = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        start = np.where(
            (self.keys[slot] == keys) & (ids[: n - WINDOW + 1] >= 0), self.at[slot], -1
        )
        if not (start >= 0).any():
            return None
        return _long_runs(_spread(start, n), min(SHORTEST_RUN, n))


def _spread(start: np.ndarray, n: int) -> np.ndarray:
    """Positions of n tokens from those of their windows; where windows differ the longer run wins.

    Two rows laid end to end make windows that belong to neither and may occur elsewhere.
    """
    weight = np.where(start >= 0, _run_lengths(start), 0)
    out, best = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    for shift in range(WINDOW):
        part = slice(shift, shift + len(start))
        better = weight > best[part]
        out[part] = np.where(better, start + shift, out[part])
        best[part] = np.where(better, weight, best[part])
    return out


def _run_lengths(at: np.ndarray) -> np.ndarray:
    """Length of the run of consecutive positions that each element belongs to."""
    edges = np.concatenate(([0], np.flatnonzero(np.diff(at) != 1) + 1, [len(at)]))
    return np.repeat(np.diff(edges), np.diff(edges))


def _keys(ids: np.ndarray) -> np.ndarray:
    """One number per window of four tokens."""
    if len(ids) < WINDOW:
        return np.zeros(0, np.uint64)
    wide = (ids & 0xFFFF).astype(np.uint64)
    n = len(ids) - WINDOW + 1
    key = np.zeros(n, np.uint64)
    for shift in range(WINDOW):
        key = (key << np.uint64(16)) | wide[shift : shift + n]
    return key


def _long_runs(at: np.ndarray, shortest: int) -> np.ndarray | None:
    """Forget runs of consecutive positions shorter than `shortest`."""
    lengths = _run_lengths(at)
    out = np.where(lengths >= shortest, at, -1)
    return out if (out >= 0).any() else None
