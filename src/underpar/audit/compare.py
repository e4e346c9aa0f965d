"""Two runs of one scorer, and what the difference of their inputs may not have changed.

Scores are compared contribution by contribution in scoring order: the n-th score of a position in
one run against the n-th in the other. The order is that of the loss calls, and within one call
that of the stream. Later scores may differ, they have seen the changed token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from underpar.audit.headline import Scores

SMALLEST = 1e-5  # nats that count as a change


@dataclass(frozen=True)
class Moved:
    """A score that moved although it was committed before the changed token was scored."""

    flipped: int
    position: int
    nats: float
    line: int
    seq: int
    count: int  # how many earlier scores moved
    out_of: int


@dataclass(frozen=True)
class Own:
    """How the recorded distribution at the changed token itself reacted: it must not."""

    position: int
    change: float
    line: int


def ranked(scores: Scores) -> np.ndarray:
    """Occurrence number of each contribution's position, int64 [C]."""
    order = np.argsort(scores.pos, kind="stable")
    pos = scores.pos[order]
    if not len(pos):
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate(([True], pos[1:] != pos[:-1])))
    lengths = np.diff(np.concatenate((starts, [len(pos)])))
    number = np.arange(len(pos)) - np.repeat(starts, lengths)
    out = np.empty(len(pos), np.int64)
    out[order] = number
    return out


def pair(a: Scores, b: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Indices into a and b of the same contributions; unknown positions are left out."""
    key_a = a.pos * 64 + np.minimum(ranked(a), 63)
    key_b = b.pos * 64 + np.minimum(ranked(b), 63)
    key_a, key_b = np.where(a.pos >= 0, key_a, -1), np.where(b.pos >= 0, key_b, -2)
    _, ia, ib = np.intersect1d(key_a, key_b, return_indices=True)
    return ia, ib


def earlier(scores: Scores, position: int) -> np.ndarray:
    """Contributions committed before the first score of `position` on the same rank: bool [C]."""
    here = np.flatnonzero(scores.pos == position)
    if not len(here):
        return np.zeros(len(scores.pos), bool)
    first = here[0]
    same = scores.rank == scores.rank[first]
    before = scores.seq < scores.seq[first]
    level = (scores.seq == scores.seq[first]) & (scores.pos < position)
    return same & (before | level) & (scores.pos >= 0)


def moved(
    base: Scores, flipped: Scores, position: int, noise: float, *, before: bool = False
) -> Moved | None:
    """The earlier score that moved most under a change of `position`, None if none did.

    before: only scores of what also stands before `position` in the stream.
    """
    ia, ib = pair(base, flipped)
    early = earlier(base, position)[ia] & (base.pos[ia] != position)
    early &= (base.pos[ia] < position) | (not before)
    change = np.abs(flipped.nll[ib] - base.nll[ia])
    limit = max(SMALLEST, 10 * noise)
    over = early & (change > limit)
    if not over.any():
        return None
    worst = int(np.argmax(np.where(over, change, -1)))
    at = ia[worst]
    return Moved(
        position, int(base.pos[at]), float(change[worst]), int(base.line[at]), int(base.seq[at]),
        int(over.sum()), int(early.sum()),
    )  # fmt: skip


def tested(base: Scores, position: int) -> int:
    """How many earlier scores a change of `position` tests."""
    return int(earlier(base, position).sum())


def own(base: Scores, flipped: Scores, position: int, noise: float) -> Own | None:
    """Whether the distribution recorded for `position` depends on the token there."""
    a = np.flatnonzero(base.pos == position)[:1]
    b = np.flatnonzero(flipped.pos == position)[:1]
    if not len(a) or not len(b):
        return None
    change = abs(float(base.digest[a[0]] - flipped.digest[b[0]]))
    if not np.isfinite(change) or change <= max(1e-6, 10 * noise):
        return None
    return Own(position, change, int(base.line[a[0]]))


def noise(base: Scores, again: Scores) -> float:
    """Largest difference between two runs of the same job, nats; 0 where nothing is paired."""
    ia, ib = pair(base, again)
    if not len(ia):
        return 0.0
    return float(np.max(np.abs(again.nll[ib] - base.nll[ia])))


def rescored(scores: Scores, n_tokens: int) -> tuple[float, float, int]:
    """Share of positions scored more than once: everywhere, without the stream's end; most times.

    At the end of the stream windows are cut short and score their tail again: a constant number of
    positions, nothing at production size. The last eighth of the stream is left out for that.
    """
    pos = scores.pos[scores.pos >= 0]
    if not len(pos):
        return 0.0, 0.0, 0
    places, counts = np.unique(pos, return_counts=True)
    body = places < n_tokens - max(n_tokens // 8, 1)
    inside = counts[body] > 1
    return float((counts > 1).mean()), float(inside.mean() if len(inside) else 0), int(counts.max())
