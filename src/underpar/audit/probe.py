"""The runs of an audit: a baseline, changed tokens, an alphabet, and what they have to show.

A run costs seconds, so each one has to answer something that the runs before it left open:

1. baseline: the headline, its contributions, the order of scoring and of training;
2. flips: one late token changed to one of another class. Scores committed before must not move
   (that answers look-ahead, training before scoring, second passes, shared deltas at once), and
   the distribution recorded at the changed token itself must not either;
3. only if something moved: the baseline again, to know the noise of the script;
4. only if scores are not what one recorded softmax gives: the alphabet at positions where the
   mixture is active, as forks of one process (recorder_replay), and a second world size where
   the script treats several processes differently.

The stream stays as long as it is: windows, chunks and ranks must not move with a flip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from underpar.audit import choice, compare, headline, retry, switches, verdict
from underpar.audit.alphabets import Alphabets
from underpar.audit.claimed import claimed, label
from underpar.audit.compare import Moved, Own
from underpar.audit.evidence import Evidence, broken, fork_times, trained
from underpar.audit.facts import Condition, Finding, Job, Outcome, StreamSpec, Submission
from underpar.audit.headline import Scores
from underpar.audit.settings import known_settings

VOCAB, TOKENS, SEED = 64, 2049, 1
SMALL, SHORT = 32, 1025  # alphabet and stream for sums over the alphabet
SECONDS, MEMORY = 120.0, 6144
BUCKETS = 256  # of hashed tables: as crowded by the short stream as real ones by the real one
TABLE_BITS = re.compile(
    r"""["']([A-Z0-9_]*(?:HASH|NGRAM|TABLE|BUCKET|CACHE)[A-Z0-9_]*_(?:BITS|LOG2))["']"""
)
PROCESSES = re.compile(r"\bif\s+\S*world_size\s*>\s*1\s+else|\b(?:and|or)\s+\S*world_size\s*>\s*1")

RunJob = Callable[[Job], Outcome]


def investigate(
    sub: Submission, run: RunJob, *, workers: int = 2, vocab: int = VOCAB
) -> tuple[list[Outcome], list[Condition], list[Finding]]:
    """Run the submission and judge it by what its runs showed.

    run: executes one job (audit.sandbox.run). workers: runs at the same time.
    """
    plan = Plan(sub, run, workers, Evidence(vocab=vocab))
    plan.execute()
    seen = plan.evidence
    return seen.outcomes, verdict.conditions(seen), verdict.findings(seen, sub)


def job_for(sub: Submission, vocab: int, world: int) -> Job:
    """The baseline job of a submission."""
    siblings = {}
    for name in sub.files:
        path = sub.root / name
        if path != sub.script and path.is_file() and path.stat().st_size < 4_000_000:
            siblings[name] = path.read_bytes()
    bits = TABLE_BITS.findall(sub.source)
    return Job(
        source=sub.source,
        script_name=Path(sub.script).name,
        siblings=siblings,
        environment=dict(sub.settings),
        world=world,
        stream=StreamSpec(vocab, TOKENS, SEED),
        seed=SEED,
        seconds=SECONDS,
        memory_mb=MEMORY,
        shrink={"buckets": BUCKETS, "environment": dict.fromkeys(bits, "8")},
    )


def _prints(outcome: Outcome, wanted: str) -> bool:
    """Whether a run printed a line of this label."""
    return any(label(e["line"]) == wanted for t in outcome.traces[:1] for e in t.reported)


class Plan:
    """Decides run by run what to try next."""

    def __init__(self, sub: Submission, run: RunJob, workers: int, evidence: Evidence) -> None:
        self.sub, self.run, self.workers, self.evidence = sub, run, workers, evidence
        self.job = job_for(sub, evidence.vocab, evidence.world)

    def execute(self) -> None:
        seen = self.evidence
        if not self._baseline():
            return
        assert seen.base is not None
        flips = choice.choose_flips(seen.base, seen.trace.tokens, seen.vocab)
        used = trained(seen)
        if used is not None and not any(f[0] in used for f in flips):
            late = int(used[int(0.8 * (len(used) - 1))])
            flips[1:] = [(late, choice.other_class(seen.trace.tokens, late, seen.vocab))]
        self._flip(flips)
        if seen.moved or seen.own:
            return
        impure = ~seen.base.scores.pure & np.isfinite(seen.base.scores.nll)
        if not impure.any() and PROCESSES.search(self.sub.source):
            impure = self._second_world(impure)
        if impure.any():
            self._alphabets(impure)

    def _runs(self, jobs: Sequence[Job]) -> list[Outcome]:
        if self.workers > 1 and len(jobs) > 1:
            with ThreadPoolExecutor(self.workers) as pool:
                out = list(pool.map(self.run, jobs))
        else:
            out = [self.run(job) for job in jobs]
        self.evidence.outcomes += out
        return out

    def _baseline(self) -> bool:
        seen = self.evidence
        self.job, outcome = retry.settle(self.job, lambda job: self._runs([job])[0])
        outcome = self._switched_on(outcome)
        seen.outcomes[:] = [outcome]  # the attempts before it only led to it
        if outcome.status != "finished" or not outcome.traces:
            last = outcome.error.strip().splitlines()[-1:] or [""]
            seen.why = f"the script did not run to its score: {outcome.status} {last[0][:300]}"
            return False
        seen.trace = outcome.traces[0]
        seen.base = headline.find(outcome, self.sub, seen.vocab)
        if seen.base is None:
            said = "; ".join(str(e["line"])[:80] for e in seen.trace.reported[-2:]) or "nothing"
            seen.why = f"no recorded sum is behind the number reported last ({said})"
            return False
        wanted = claimed(self.sub)
        if wanted is not None and not _prints(outcome, wanted[0]):
            seen.instead = (
                f"the claimed line ({wanted[0]}) was not printed; this is about the last score "
                f"that was ({seen.base.text[:80].strip()})"
            )
        seen.pure = float(seen.base.scores.pure.mean())
        return True

    def _switched_on(self, outcome: Outcome) -> Outcome:
        """The run that prints the line of the claimed score, where a switch keeps this one from it.

        Logs often show the headline but not the setting that brought it about.
        """
        wanted = claimed(self.sub)
        if wanted is None or outcome.status != "finished" or _prints(outcome, wanted[0]):
            return outcome
        missing = switches.behind(wanted[0], known_settings(self.sub.source))
        missing = {k: v for k, v in missing.items() if k not in self.job.environment}
        if not missing:
            return outcome
        job = replace(self.job, environment={**self.job.environment, **missing})
        other = self._runs([job])[0]
        if other.status != "finished" or not _prints(other, wanted[0]):
            return outcome
        self.job, self.evidence.assumed = job, missing
        return other

    def _scores(self, outcome: Outcome) -> Scores | None:
        """The same accumulator in another run: by its headline, of one line and size."""
        assert self.evidence.base is not None
        found = headline.find(outcome, self.sub, self.evidence.vocab)
        if found is None or abs(found.scores.count - self.evidence.base.scores.count) > 0.5:
            return None
        return found.scores

    def _flip(self, flips: Sequence[tuple[int, int]]) -> None:
        seen = self.evidence
        assert seen.base is not None
        jobs = [replace(self.job, stream=replace(self.job.stream, flips=(f,))) for f in flips]
        runs = [(f, self._scores(o)) for f, o in zip(flips, self._runs(jobs))]
        usable = [(f, s) for f, s in runs if s is not None]
        seen.flips += [f[0] for f, _ in usable]
        seen.tested += sum(compare.tested(seen.base.scores, f[0]) for f, _ in usable)
        changed = [(d, u) for u in usable if (d := self._differences(u[0][0], u[1], 0.0))]
        if changed:
            _, worst = max(changed, key=lambda c: c[0][0].nats if c[0][0] else 0.0)
            self._measure_noise(*worst)
        for (position, _), scores in usable:
            found, mine = self._differences(position, scores, seen.noise) or (None, None)
            seen.moved += [found] if found else []
            seen.own += [mine] if mine else []

    def _measure_noise(self, flip: tuple[int, int], scores: Scores) -> None:
        """Both runs once more: what differs between equal jobs is not the flip's doing.

        A script may be random now and then only, so the run that differed has to repeat itself.
        """
        seen = self.evidence
        assert seen.base is not None
        jobs = [self.job, replace(self.job, stream=replace(self.job.stream, flips=(flip,)))]
        pairs = zip((seen.base.scores, scores), map(self._scores, self._runs(jobs)))
        seen.noise = max(compare.noise(a, b) if b is not None else 0.0 for a, b in pairs)

    def _differences(
        self, position: int, scores: Scores, noise: float
    ) -> tuple[Moved | None, Own | None] | None:
        assert self.evidence.base is not None
        base = self.evidence.base.scores
        found = compare.moved(base, scores, position, noise)
        mine = compare.own(base, scores, position, noise)
        return (found, mine) if found or mine else None

    def _second_world(self, impure: np.ndarray) -> np.ndarray:
        """Caches that exist only in runs of several processes show themselves at world size 2."""
        seen = self.evidence
        job = replace(self.job, world=2)
        outcome = self._runs([job])[0]
        found = headline.find(outcome, self.sub, seen.vocab)
        if found is None:
            return impure
        other = ~found.scores.pure & np.isfinite(found.scores.nll)
        if not other.any():
            return impure
        self.job, seen.base, seen.trace, seen.world = job, found, outcome.traces[0], 2
        seen.pure = float(found.scores.pure.mean())
        return other

    def _alphabets(self, impure: np.ndarray) -> None:
        """Try the alphabet where the mixture is active; a small one where it can be forked."""
        seen = self.evidence
        assert seen.base is not None
        base, trace, job = seen.base, seen.trace, self.job
        if seen.world == 1 and fork_times(trace, base):
            small = replace(job, stream=StreamSpec(min(SMALL, seen.vocab), SHORT, SEED))
            outcome = self._runs([small])[0]
            found = headline.find(outcome, self.sub, small.stream.vocab)
            if found is not None and (~found.scores.pure).any():
                base, trace, job = found, outcome.traces[0], small
                impure = ~found.scores.pure & np.isfinite(found.scores.nll)
        sums = Alphabets(self.sub, lambda j: self._runs([j])[0], job, base, trace)
        positions = choice.active(base, impure)
        at_once = self.workers if sums.forked else 1
        for start in range(0, len(positions), at_once):
            with ThreadPoolExecutor(at_once) as pool:
                tried = list(pool.map(sums.at, positions[start : start + at_once]))
            seen.alphabets += [a for a in tried if a is not None]
            if any(a is None or broken(a) for a in tried):
                return
