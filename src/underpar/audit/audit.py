"""An audit from beginning to end: read, look, run, judge.

Parts that fail on a submission (a file that no parser survives, a probe without a run) leave a
caveat and no verdict. They must not decide anything, in either direction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from underpar import progress
from underpar.audit import claims, probe, sandbox, source, submission
from underpar.audit.facts import Claim, Condition, Finding, Job, Outcome
from underpar.audit.review import CONDITIONS, Audit, not_exercised

SECONDS = 300.0  # for all runs of one submission
LEAST = 2.0  # seconds that are worth starting a run for

T = TypeVar("T")


def audit(path: Path, *, trust: bool = False, seconds: float = SECONDS) -> Audit:
    """Audit a submission folder or a script in it; seconds are for all its runs together.

    trust: run the code without walls, which is for code that the caller has read. Raises DataError
    when there is no submission at ``path``; what is wrong inside one is said in the audit.
    """
    start = time.monotonic()
    found = submission.read(Path(path))
    caveats: list[str] = []
    suspicions = _attempt("static reading", lambda: source.findings(found), caveats) or []
    told = _attempt("checking the claims", lambda: claims.check(found), caveats) or []
    runner = Runner(seconds, trust)
    probed = _attempt("probing", lambda: probe.investigate(found, runner), caveats)
    runs, judged, seen = probed or (runner.done, [], [])
    return Audit(
        submission=found,
        conditions=_all_four(judged, runs, caveats),
        findings=_once([*seen, *suspicions]),
        claims=_measured(told, seen),
        runs=tuple(runs),
        seconds=time.monotonic() - start,
        caveats=tuple(caveats),
    )


class Runner:
    """Runs jobs within one budget of seconds and keeps how they ended."""

    def __init__(self, seconds: float, trust: bool) -> None:
        self._end = time.monotonic() + seconds
        self._seconds, self._trust = seconds, trust
        self.done: list[Outcome] = []

    def __call__(self, job: Job) -> Outcome:
        left = self._end - time.monotonic()
        if left < LEAST:
            out = Outcome("timeout", 0.0, (), "", "the time for this submission is used up", (), {})
        else:
            note = f"run {len(self.done) + 1}"
            progress.current().update("audit", self._seconds - left, self._seconds, note, left)
            job = replace(job, seconds=min(job.seconds, left))
            with progress.busy(note):
                out = sandbox.run(job, trust=self._trust)
        self.done.append(out)
        return out


def _attempt(what: str, part: Callable[[], T], caveats: list[str]) -> T | None:
    try:
        return part()
    except Exception as error:
        caveats.append(f"{what} failed on this submission: {type(error).__name__}: {error}")
        return None


def _measured(claims: Sequence[Claim], seen: Sequence[Finding]) -> tuple[Claim, ...]:
    """The claims; bytes that a run has counted stand for those that logs only imply."""
    wrong = next((f.message for f in seen if f.code == "byte_count" and f.kind == "dynamic"), "")
    if not wrong:
        return tuple(claims)
    rest = [claim for claim in claims if claim.name != "bytes"]
    before = next((claim.claimed for claim in claims if claim.name == "bytes"), "")
    return (*rest, Claim("bytes", "violated", before, wrong, "counted in a run"))


def _all_four(
    judged: Sequence[Condition], runs: Sequence[Outcome], caveats: Sequence[str]
) -> tuple[Condition, ...]:
    """One verdict for each condition, in their order; what nobody judged was not exercised."""
    why = next((run.error for run in runs if run.status == "refused"), "")
    if not why and caveats:
        why = caveats[-1]
    by_name = {c.name: c for c in not_exercised(why or "no run reached a score")}
    by_name |= {c.name: c for c in judged}
    return tuple(by_name[name] for name in CONDITIONS)


def _once(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Each code and place once: what was seen in a run stands for what was only read."""
    kept: dict[tuple[str, str, int | None], Finding] = {}
    for finding in findings:
        kept.setdefault((finding.code, finding.file, finding.line), finding)
    return tuple(kept.values())
