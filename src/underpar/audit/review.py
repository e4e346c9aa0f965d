"""What an audit found, as one value: the verdict, the exit code, the JSON and the terminal page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from underpar.audit.facts import Claim, Condition, ConditionName, Finding, Outcome, Submission
from underpar.audit.words import clean, wrapped
from underpar.progress import duration

CONDITIONS: tuple[ConditionName, ...] = ("causal", "normalized", "score_first", "single_pass")
DEMANDS: Mapping[ConditionName, str] = {
    "causal": "a score depends on earlier tokens only",
    "normalized": "the probabilities of the whole alphabet sum to one",
    "score_first": "a token is scored before anything learns from it",
    "single_pass": "every position counts once, and is not replaced later",
}

#: Claims that the rules decide by themselves. The others (seeds, significance, consistency) are for
#: people to weigh.
HARD_CLAIMS = ("size", "train_time", "eval_time", "bytes", "coverage")

Verdict = Literal["clean", "violated", "no verdict"]
EXIT: Mapping[Verdict, int] = {"clean": 0, "violated": 1, "no verdict": 3}
USAGE = 2

#: Facts of a run, as the smoke line says them.
SMOKE = (
    ("import_seconds", "import {:.1f} s"),
    ("width", "width {}"),
    ("layers", "layers {}"),
    ("vocab", "vocabulary {}"),
    ("parameters", "{:,} parameters as run"),
)

MOST_LIST = 200  # entries of one list in the JSON's evidence
MOST_DEPTH = 6


@dataclass(frozen=True)
class Audit:
    """The audit of one submission. conditions: all four, in the order of ``CONDITIONS``.

    runs: every run of the script. caveats: what limits the audit itself.
    """

    submission: Submission
    conditions: tuple[Condition, ...]
    findings: tuple[Finding, ...] = ()
    claims: tuple[Claim, ...] = ()
    runs: tuple[Outcome, ...] = ()
    seconds: float = 0.0
    caveats: tuple[str, ...] = ()

    @property
    def violated(self) -> list[str]:
        """Names of the conditions and hard claims that do not hold."""
        names: list[str] = [c.name for c in self.conditions if c.verdict == "violated"]
        hard = (c for c in self.claims if c.name in HARD_CLAIMS)
        return names + [c.name for c in hard if c.verdict == "violated"]

    @property
    def open(self) -> list[Condition]:
        return [c for c in self.conditions if c.verdict == "not_exercised"]

    @property
    def verdict(self) -> Verdict:
        if self.violated:
            return "violated"
        return "no verdict" if self.open else "clean"

    @property
    def exit_code(self) -> int:
        return EXIT[self.verdict]

    @property
    def script(self) -> str:
        """The audited script's name below the submission's root."""
        script, root = self.submission.script, self.submission.root
        return str(script.relative_to(root)) if script.is_relative_to(root) else script.name

    @cached_property
    def stubs(self) -> tuple[str, ...]:
        """What stood in for something else in any of the runs."""
        return tuple(sorted({stub for run in self.runs for stub in run.stubs}))

    @cached_property
    def meta(self) -> Mapping[str, Any]:
        """Facts of the first run that got anywhere."""
        return next((run.meta for run in self.runs if run.meta), {})

    @property
    def code_bytes(self) -> int | None:
        return self.submission.files.get(self.script)

    @property
    def smoke(self) -> str:
        """How the code ran at all, in one line."""
        parts = []
        if self.runs:
            finished = sum(run.status == "finished" for run in self.runs)
            seconds = sum(run.seconds for run in self.runs)
            parts.append(f"{finished} of {len(self.runs)} runs finished in {duration(seconds)}")
        for name, form in SMOKE:
            value = self.meta.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                parts.append(form.format(value))
        if self.code_bytes is not None:
            parts.append(f"code {self.code_bytes:,} bytes")
        return ", ".join(parts) or "nothing ran"

    @property
    def recommendation(self) -> str:
        """What to do with it, in a sentence or two."""
        conditions = {c.name for c in self.conditions}
        rules = [name for name in self.violated if name in conditions]
        claims = [name for name in self.violated if name not in conditions]
        parts = []
        if rules:
            parts.append(f"Not legal as it stands: {_listed(rules)} violated, by running it.")
        if claims:
            parts.append(f"Outside the limits by its own evidence: {_listed(claims)}.")
        if self.open:
            names = _listed([c.name for c in self.open])
            parts.append(f"No verdict on {names}: a person has to read that part.")
        if not parts:
            parts.append("No objection: all four conditions hold on the path behind the headline.")
        return " ".join(parts)

    @property
    def cautions(self) -> list[str]:
        """What the reader must know about how far this goes."""
        said = [*self.submission.notes, *self.caveats]
        if self.runs:
            said.append(
                "The code ran on a CPU with a shrunken model and synthetic tokens; seeds, real "
                "times and an overlap of training and validation data cannot be seen this way."
            )
        if self.stubs:
            said.append(f"Stand-ins were used for {', '.join(self.stubs)}.")
        failed = [run for run in self.runs if run.status != "finished"]
        said += [f"A run ended as {run.status}: {_last(run.error)}" for run in failed[:3]]
        return said

    def to_json(self) -> dict[str, Any]:
        """Everything but code, printed text and traces. Only what JSON has: no NaN."""
        sub = self.submission
        return {
            "path": clean(sub.root, 1000),
            "script": clean(self.script),
            "packed": sub.packed,
            "settings": {clean(k): clean(v) for k, v in sub.settings.items()},
            "settings_from": clean(sub.settings_from),
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "recommendation": self.recommendation,
            "conditions": {
                c.name: {
                    "verdict": c.verdict,
                    "witness": clean(c.witness, 1000),
                    "why": clean(c.why, 1000),
                    "evidence": plain(c.evidence),
                }
                for c in self.conditions
            },
            "findings": [plain(asdict(finding)) for finding in self.findings],
            "claims": [plain(asdict(claim)) for claim in self.claims],
            "runs": [
                {
                    "status": run.status,
                    "seconds": run.seconds,
                    "error": clean(_last(run.error), 1000),
                    "meta": plain(run.meta),
                }
                for run in self.runs
            ],
            "stubs": [clean(stub) for stub in self.stubs],
            "smoke": self.smoke,
            "code_bytes": self.code_bytes,
            "caveats": [clean(caution, 1000) for caution in self.cautions],
            "seconds": self.seconds,
        }

    def text(self) -> str:
        """The page for a terminal, 100 columns."""
        lines = [f"{clean(self.script)}: {self.verdict}", clean(self.submission.root), ""]
        for c in self.conditions:
            verdict = c.verdict.replace("_", " ")
            told = c.witness if c.verdict == "violated" else c.why or c.witness
            lines.append(f"{c.name:<12} {verdict:<14} {wrapped(told, 28)}")
        if self.claims:
            lines += ["", "Claims"]
        for claim in self.claims:
            parts = (
                claim.claimed and f"claimed {claim.claimed}",
                claim.measured and f"found {claim.measured}",
                claim.note,
            )
            told = "; ".join(filter(None, parts))
            lines.append(f"{clean(claim.name, 12):<12} {claim.verdict:<14} {wrapped(told, 28)}")
        if self.findings:
            lines += ["", "Findings (a static one is a suspicion, not a verdict)"]
        for finding in self.findings:
            text = f"{finding.code} ({finding.kind}): {finding.message}"
            lines.append(f"  {wrapped(f'{place(finding)}  {text}', 4)}")
        lines += ["", wrapped(self.smoke, 0)]
        lines += [wrapped(caution, 0) for caution in self.cautions]
        return "\n".join([*lines, "", wrapped(self.recommendation, 0)]) + "\n"


def place(finding: Finding) -> str:
    """Where a finding is: file:line."""
    return f"{clean(finding.file)}:{finding.line}" if finding.line else clean(finding.file)


def not_exercised(why: str) -> tuple[Condition, ...]:
    """All four conditions without a verdict, for one reason."""
    return tuple(Condition(name, "not_exercised", "", {}, why) for name in CONDITIONS)


def plain(value: Any, depth: int = 0) -> Any:
    """``value`` in the types of JSON: finite numbers, clean strings, bounded lists."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[:MOST_LIST].tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth >= MOST_DEPTH or isinstance(value, str):
        return clean(value, 1000)
    if isinstance(value, Mapping):
        few = list(value.items())[:MOST_LIST]
        return {clean(key): plain(entry, depth + 1) for key, entry in few}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry, depth + 1) for entry in list(value)[:MOST_LIST]]
    return clean(value, 1000)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _last(error: str) -> str:
    """The line of a traceback that says what happened."""
    lines = [line for line in error.splitlines() if line.strip()]
    return clean(lines[-1]) if lines else "no reason given"
