"""What the runs of an audit have shown, for the verdicts to read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from underpar.audit.compare import Moved, Own
from underpar.audit.facts import Outcome, Trace
from underpar.audit.headline import Headline

TOLERANCE = 0.002  # by which a sum over the alphabet may miss 1


@dataclass(frozen=True)
class Alphabet:
    """Probabilities of tokens put in place of one position, with everything before equal.

    unscored: tokens without bytes that the script does not score at all; rest: what the recorded
    distribution leaves for them. doubt: by how much the sum may be off.
    """

    position: int
    tokens: tuple[int, ...]
    total: float
    complete: bool
    prefix_equal: bool
    line: int
    unscored: int = 0
    rest: float = 0.0
    doubt: float = 0.0


@dataclass
class Evidence:
    """All that the runs have shown about the headline."""

    outcomes: list[Outcome] = field(default_factory=list)
    base: Headline | None = None
    trace: Trace = field(default_factory=Trace)
    why: str = ""
    assumed: dict[str, str] = field(default_factory=dict)  # switches turned on beside the settings
    instead: str = ""  # what is judged although the documents claim another number
    noise: float = 0.0
    flips: list[int] = field(default_factory=list)
    tested: int = 0
    moved: list[Moved] = field(default_factory=list)
    own: list[Own] = field(default_factory=list)
    alphabets: list[Alphabet] = field(default_factory=list)
    pure: float = 0.0
    world: int = 1
    vocab: int = 64


def trained(seen: Evidence) -> np.ndarray | None:
    """Positions trained on before their first score, in order; None if there are none."""
    assert seen.base is not None
    scores, trace = seen.base.scores, seen.trace
    mine = (scores.rank == 0) & (scores.pos >= 0)
    known = trace.t_pos >= 0
    score_at = np.full(len(trace.tokens), 2**60)
    use_at = np.full(len(trace.tokens), 2**60)
    np.minimum.at(score_at, scores.pos[mine], scores.seq[mine])
    np.minimum.at(use_at, trace.t_pos[known], trace.t_seq[known])
    early = np.flatnonzero((use_at < score_at) & (score_at < 2**60))
    return early if len(early) else None


def fork_times(trace: Trace, base: Headline) -> list[int]:
    """Clocks at which the run may be forked into replays of its headline, latest first.

    The end of the evaluation or training step that comes last before anything of the headline was
    scored or trained on; then the last training step, in case that evaluation kept something of
    the stream. Empty if nothing comes before.
    """
    first = base.scores.seq[base.scores.seq >= 0].min(initial=2**60)
    limit = min(first, trace.t_seq[trace.t_pos >= 0].min(initial=2**60))
    steps = trace.t_seq[trace.t_seq < limit]
    ends = np.concatenate((steps, trace.s_seq[trace.s_seq < limit]))
    latest = [int(times.max()) for times in (ends, steps) if len(times)]
    return list(dict.fromkeys(latest))


def broken(found: Alphabet) -> bool:
    """Whether the sum proves that the scores are no distribution.

    Too little is proof only if all tokens were tried, and those that are not scored could not make
    up for it with all that the distribution behind the scores gives them.
    """
    if not found.prefix_equal:
        return False
    all_tried = found.complete or bool(found.unscored)
    most = found.total + found.rest + found.doubt
    return found.total - found.doubt > 1 + TOLERANCE or (all_tried and most < 1 - TOLERANCE)
