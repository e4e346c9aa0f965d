"""The sum over the alphabet: the token at one position replaced by every other token in turn.

A distribution that was fixed before the token was seen gives probabilities that add up to 1. The
sum means something only if everything scored before was the same in all runs, which is checked.
Alternatives are forks of one process where possible (child/recorder_replay). A fork may have missed
a copy of the stream, so one alternative is also tried in a run from the start; if the two disagree,
the forks are made earlier. A partial sum above 1 is proof enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from underpar.audit import choice, compare, headline
from underpar.audit.child.pieces import Pieces
from underpar.audit.evidence import Alphabet, fork_times
from underpar.audit.facts import Job, Outcome, Submission, Trace
from underpar.audit.headline import CHANNEL, COMMITTED, DIGEST, REFERENCE, REPLAY, Headline, Scores

FIRST = 8  # tokens tried where each needs a run of its own
ENOUGH = 1.02  # a sum that needs no further tokens
FORK_SECONDS = 150.0


class Alphabets:
    """Runs with other tokens at one position."""

    def __init__(
        self,
        sub: Submission,
        run: Callable[[Job], Outcome],
        job: Job,
        base: Headline,
        trace: Trace,
    ) -> None:
        self.sub, self.run, self.job, self.base, self.trace = sub, run, job, base, trace
        self.vocab = job.stream.vocab
        self.times = fork_times(trace, base) if job.world == 1 else []
        self.forked = bool(self.times)

    def at(self, position: int) -> Alphabet | None:
        """The sum over the alphabet at a position, None if no run could tell."""
        now = int(self.trace.tokens[position])
        others = [v for v in choice.alphabet(self.vocab, now) if v != now]
        if not self.forked:
            found = self._runs(position, others)
            return self._total(position, found) if found else None
        result = None
        for clock in self.times:
            found = self._forks(position, others, clock)
            if found:
                result = self._total(position, found)
                if self._confirmed(position, found):
                    return result
        return replace(result, prefix_equal=False) if result is not None else None

    def _total(self, position: int, found: dict[int, Scores]) -> Alphabet:
        return total(self.base, self.trace, position, found, self.vocab)

    def _forks(self, position: int, others: list[int], clock: int) -> dict[int, Scores]:
        scores = self.base.scores
        own = float(np.exp(-scores.nll[np.flatnonzero(scores.pos == position)[0]]))
        replay = {
            "clock": clock,
            "scored": self._scored(position),
            "printed": self._printed(),
            "line": int(scores.line[-1]),
            "flips": [[position, v] for v in others],
            "seconds": FORK_SECONDS,
            "unit": self.base.unit,
            "sum": own,
            "enough": ENOUGH,
        }
        job = replace(
            self.job, shrink={**self.job.shrink, "replay": replay}, seconds=2.0 * FORK_SECONDS
        )
        return forks(self.run(job), others, self.base.unit)

    def _runs(self, position: int, others: list[int]) -> dict[int, Scores]:
        found: dict[int, Scores] = {}
        for token in others[:FIRST]:
            scores = self._scores(self.run(self._flipped(position, token)))
            if scores is not None:
                found[token] = scores
                if self._total(position, found).total > ENOUGH:
                    break
        return found

    def _scored(self, position: int) -> int:
        """Clock at which the score of a position was added to the headline's sum."""
        trace, group = self.trace, self.base.group
        times = trace.c_nll[trace.c_group == group + (COMMITTED << CHANNEL)]
        return int(times[np.flatnonzero(trace.c_pos[trace.c_group == group] == position)[0]])

    def _printed(self) -> int:
        """How many numbers have been printed when the headline has been."""
        lines = [e["line"] for e in self.trace.reported]
        return lines.index(self.base.text) + 1

    def _flipped(self, position: int, token: int) -> Job:
        return replace(self.job, stream=replace(self.job.stream, flips=((position, token),)))

    def _scores(self, outcome: Outcome) -> Scores | None:
        found = headline.find(outcome, self.sub, self.vocab)
        return found.scores if found is not None else None

    def _confirmed(self, position: int, found: dict[int, Scores]) -> bool:
        """Whether a run from the start agrees with the fork about the likeliest other token."""

        def at(scores: Scores) -> float:
            here = np.flatnonzero(scores.pos == position)
            return float(scores.nll[here[0]]) if len(here) else np.inf

        token = min(found, key=lambda v: at(found[v]))
        full = self._scores(self.run(self._flipped(position, token)))
        return full is not None and abs(at(full) - at(found[token])) < 1e-4


def forks(outcome: Outcome, tokens: Sequence[int], unit: float) -> dict[int, Scores]:
    """Scores in nats of each replay of a run, by the token that was put in."""
    found: dict[int, Scores] = {}
    for trace in outcome.traces[:1]:
        numbers = trace.c_group >> REPLAY
        for number in np.unique(numbers[numbers > 0]).tolist():
            mine = numbers == number
            channel = (trace.c_group >> CHANNEL) & 15
            nll, reference, digest = (
                trace.c_nll[mine & (channel == c)] for c in (0, REFERENCE, DIGEST)
            )
            rows = np.flatnonzero(mine & (channel == 0))
            order = np.lexsort((trace.c_pos[rows], trace.c_seq[rows]))
            rows = rows[order]
            found[tokens[number - 1]] = Scores(
                trace.c_pos[rows], trace.c_target[rows], nll[order] * unit, trace.c_seq[rows],
                trace.c_line[rows], reference[order], digest[order],
                np.zeros(len(rows), np.int64), 0.0, 1.0,
            )  # fmt: skip
    return found


def without_bytes(vocab: int) -> list[int]:
    """Tokens that stand for no text at all, a space included."""
    pieces = Pieces(vocab)
    lengths, lead = pieces.base_bytes(), pieces.leading_space()
    return [v for v in range(vocab) if not lengths[v] and not lead[v]]


def total(
    headline_: Headline, trace: Trace, position: int, found: dict[int, Scores], vocab: int
) -> Alphabet:
    """Add up the probabilities of the tokens tried, the stream's own included.

    A control token is the edge of a document, which may change what is adapted together and so
    scores before it, by a little; twice as many nats are allowed for in its probability.
    """
    base, pieces = headline_.scores, Pieces(vocab)
    own = np.flatnonzero(base.pos == position)[0]
    values, behind = [float(base.nll[own])], [float(base.reference[own])]
    equal, doubt = True, 0.0
    tokens, unscored = [int(trace.tokens[position])], []
    for token, scores in found.items():
        here = np.flatnonzero(scores.pos == position)
        if len(here):
            change = compare.moved(base, scores, position, 0.0, before=True)
            if change is not None and pieces.is_control(token):
                doubt += float(np.exp(2 * change.nats - scores.nll[here[0]]))
                doubt -= float(np.exp(-scores.nll[here[0]]))
            equal &= change is None or pieces.is_control(token)
            values.append(float(scores.nll[here[0]]))
            behind.append(float(scores.reference[here[0]]))
            tokens.append(token)
        else:
            unscored.append(token)
    rest = 1.0 - float(np.exp(-np.array(behind)).sum())
    known = np.isfinite(rest) and len(tokens) + len(unscored) == vocab
    free = len(unscored) if known and set(unscored) <= set(without_bytes(vocab)) else 0
    return Alphabet(
        position, tuple(tokens), float(np.exp(-np.array(values)).sum()), len(tokens) == vocab,
        equal, int(base.line[own]), free, max(rest, 0.0) if free else 0.0, doubt,
    )  # fmt: skip
