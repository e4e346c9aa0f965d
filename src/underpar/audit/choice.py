"""Where to change the stream, and into what."""

from __future__ import annotations

import numpy as np

from underpar.audit.child.pieces import Pieces
from underpar.audit.headline import Headline

POSITIONS = 2  # whose alphabet is tried


def choose_flips(base: Headline, tokens: np.ndarray, vocab: int) -> list[tuple[int, int]]:
    """Two changes: one in the middle of a late call, one at the start of a later one.

    The new token is of another class (word start or not, other parity), and no control token.
    """
    scores = base.scores
    calls = np.unique(scores.seq[scores.pos >= 0])
    out: list[tuple[int, int]] = []
    for share, place in ((0.62, 0.55), (0.9, 0.05)):
        seq = calls[min(int(share * len(calls)), len(calls) - 1)]
        pos = np.unique(scores.pos[(scores.seq == seq) & (scores.pos >= 0)])
        plain = [p for p in pos.tolist() if tokens[p] > 3] or pos.tolist()
        at = plain[int(place * (len(plain) - 1))]
        if len(calls) == 1:
            at = plain[int(share * (len(plain) - 1))]
        if at not in [f[0] for f in out]:
            out.append((int(at), other_class(tokens, int(at), vocab)))
    return out


def other_class(tokens: np.ndarray, position: int, vocab: int) -> int:
    """A text token that differs from the one at `position` in class, parity and itself."""
    pieces = Pieces(vocab)
    lead = pieces.leading_space()
    now = int(tokens[position])
    around = set(tokens[max(0, position - 3) : position + 4].tolist())
    text = [i for i in range(vocab) if pieces.is_text(i) and i not in around]
    best = [i for i in text if lead[i] != lead[now] and i % 2 != now % 2]
    rest = best or text or [i for i in range(4, vocab) if i != now]
    return rest[position % len(rest)]


def alphabet(vocab: int, now: int) -> list[int]:
    """All tokens, text of both classes first, so that a few tell much."""
    order = sorted(range(vocab), key=lambda v: ((v * 29 + now) % 64, v))
    pieces = Pieces(vocab)
    return [v for v in order if pieces.is_text(v)] + [v for v in order if not pieces.is_text(v)]


def active(base: Headline, impure: np.ndarray) -> list[int]:
    """Late positions where the score differs most from the recorded distribution's."""
    scores = base.scores
    with np.errstate(invalid="ignore"):
        gap = np.nan_to_num(np.abs(scores.nll - scores.reference), nan=1.0)
    _, inverse, counts = np.unique(scores.pos, return_inverse=True, return_counts=True)
    single = counts[inverse] == 1
    late = np.arange(len(gap)) >= len(gap) // 2
    gap = np.where(impure & single & (scores.pos >= 0) & late, gap, 0)
    if not gap.any():
        gap = np.where(impure & (scores.pos >= 0), 1.0, 0.0)
    order = np.argsort(-gap, kind="stable")
    chosen = [int(scores.pos[i]) for i in order[: POSITIONS * 8 : 8] if gap[i] > 0]
    return list(dict.fromkeys(chosen))
