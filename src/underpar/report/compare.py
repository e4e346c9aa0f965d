"""Two groups of runs compared, from their records or from published figures, by Welch's test.

A comparison is only as good as what is compared. So every record has the same stage, scored in
full, on the same validation stream and tokenizer; and a sample is one recipe under several seeds. A
seed given twice would look like a spread of zero, a run on both sides like no difference.

Published figures are plain numbers. The rule counts nats per token, so figures in bpb need the
tokens and bytes of the text that was scored; if runs stand beside them, these are taken from the
runs' records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from underpar.bits import Score
from underpar.errors import DataError, UnderparError
from underpar.report.record import Record
from underpar.report.stats import BPB, NATS, SD_FORMULA, Comparison, Sample, Text
from underpar.report.tables import render


@dataclass(frozen=True)
class Run:
    """A record, where it lies, and its score at the stage in question."""

    path: Path
    record: Record
    score: Score

    @classmethod
    def read(cls, source: Path, stage: str) -> Run:
        """source: record.json or a run folder. DataError: unreadable, or not scored at stage."""
        path = source / "record.json" if source.is_dir() else source
        try:
            record = Record.read(path)
        except UnderparError as error:
            raise DataError(f"cannot compare {source}", got=str(error)) from error
        if stage not in record.stages:
            raise DataError(
                f"cannot compare {source}",
                got=f"finished stages {', '.join(record.stages) or 'none'}",
                wanted=stage,
                do="A score of part of the text is no stage. Score the run in full, or give "
                "--stage.",
            )
        return cls(path.resolve(), record, record.stages[stage])

    def text(self) -> Mapping[str, Any]:
        """What identifies the scored text: facts of the validation stream and its tokenizer."""
        if self.record.data is None:
            raise DataError(f"record {self.path}", got="no data section", wanted="what was scored")
        facts = {k: v for k, v in asdict(self.record.data).items() if k.startswith("val_")}
        facts["tokenizer_digest"] = self.record.data.tokenizer_digest
        return {**facts, "scored_tokens": self.score.tokens, "scored_bytes": self.score.bytes}

    def recipe(self) -> str:
        """The recipe as JSON text, without its seed and its name."""
        recipe = {k: v for k, v in self.record.recipe.items() if k not in ("seed", "name")}
        return json.dumps(recipe, sort_keys=True)


def samples(
    ours: Sequence[str], theirs: Sequence[str], *, stage: str, unit: str, text: Text | None
) -> tuple[Sample, Sample, Text | None]:
    """(a, b, the scored text), the samples in nats per token.

    ours, theirs: paths of records or run folders, or numbers in ``unit``. text: the one that the
    numbers were measured on; None, with unit NATS: unknown. DataError, with the reason, when they
    cannot be compared.
    """
    numbers = [[_number(item) for item in group] for group in (ours, theirs)]
    runs = [
        [Run.read(Path(item), stage) for item, value in zip(group, values) if value is None]
        for group, values in zip((ours, theirs), numbers)
    ]
    _check_text([*runs[0], *runs[1]])
    for group in runs:
        _check_sample(group)
    if twice := {run.path for run in runs[0]} & {run.path for run in runs[1]}:
        raise DataError("comparison", got=f"{min(twice)} on both sides", wanted="different runs")
    text = _text([*runs[0], *runs[1]], text)
    a, b = (_values(values, group, unit, text) for values, group in zip(numbers, runs))
    return Sample(a, NATS), Sample(b, NATS), text


def _number(item: str) -> float | None:
    """``item`` as a published figure; None when it is a path. '7' is a folder, '7.0' a number."""
    return float(item) if re.fullmatch(r"[0-9]+\.[0-9]+", item) else None


def _values(
    numbers: Sequence[float | None], runs: Sequence[Run], unit: str, text: Text | None
) -> tuple[float, ...]:
    """Nats per token: first of the numbers, converted, then of the runs."""
    given = [value for value in numbers if value is not None]
    if given and unit == BPB:
        if text is None:
            raise DataError(
                "published figures in bpb",
                got="no size of the text",
                wanted="its tokens and bytes, as differences are judged in nats per token",
                do="Give --tokens and --bytes (sp8192: 40540160 and 151078222), or --unit nats.",
            )
        given = [text.convert(value, BPB, NATS) for value in given]
    return (*given, *(run.score.nats_per_token for run in runs))


def _text(runs: Sequence[Run], text: Text | None) -> Text | None:
    """The text of the runs; DataError when the caller stated another one."""
    if not runs:
        return text
    scored = Text(runs[0].score.tokens, runs[0].score.bytes)
    if text not in (None, scored):
        raise DataError("--tokens and --bytes", got=text, wanted=f"{scored}, as in the records")
    return scored


def _check_text(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        first, this = runs[0].text(), run.text()
        if differ := [key for key in first if first[key] != this[key]]:
            raise DataError(
                f"cannot compare {run.path} with {runs[0].path}",
                got="scores of different validation data: "
                + ", ".join(f"{key} {this[key]} and {first[key]}" for key in differ),
                wanted="the same text in the same tokens",
            )


def _check_sample(runs: Sequence[Run]) -> None:
    """One recipe, each seed once."""
    for i, run in enumerate(runs):
        if run.recipe() != runs[0].recipe():
            raise DataError(
                f"{run.path} and {runs[0].path} in one sample",
                got="different recipes",
                wanted="one recipe under several seeds",
                do="Compare recipes with each other: one side each.",
            )
        if run.record.seed in [other.record.seed for other in runs[:i]]:
            raise DataError(
                f"{run.path} in a sample",
                got=f"seed {run.record.seed} a second time",
                wanted="each seed once",
                do="A repeat shows the noise of the machine, not that of seeds.",
            )


def summary(
    comparison: Comparison, text: Text | None, alpha: float, *, markdown: bool = False
) -> str:
    """The comparison (in nats per token) as a table in both units, and in words."""
    scales = [comparison, *([comparison.to(BPB, text)] if text else [])]
    rows: list[list[object]] = [
        ["A", comparison.a.n, *(cell for c in scales for cell in _mean_sd(c.a))],
        ["B", comparison.b.n, *(cell for c in scales for cell in _mean_sd(c.b))],
        ["B - A", None, *(cell for c in scales for cell in (f"{c.difference:.5f}", None))],
    ]
    if not comparison.untestable:
        level = 1 - alpha
        lows = [cell for c in scales for cell in (f"{c.bound(level):.5f}", None)]
        ranges = [cell for c in scales for cell in (_between(c.interval(level)), None)]
        rows.append([f"at least ({level:.4g}, one-sided)", None, *lows])
        rows.append([f"between ({level:.4g}, two-sided)", None, *ranges])
    headers = ["", "n", *(cell for c in scales for cell in (f"mean {c.unit}", "sd"))]
    return "\n\n".join([render(headers, rows, markdown=markdown), *_sentences(scales, alpha)])


def _mean_sd(sample: Sample) -> tuple[str, str | None]:
    return f"{sample.mean:.5f}", None if sample.sd is None else f"{sample.sd:.5f}"


def _between(ends: tuple[float, float] | None) -> str | None:
    return ends and f"{ends[0]:.5f} .. {ends[1]:.5f}"


def _sentences(scales: Sequence[Comparison], alpha: float) -> list[str]:
    """What was tested, the result, and how many more runs are needed."""
    c = scales[0]
    margin = " = ".join(f"{scale.delta:.4g} {scale.unit}" for scale in scales)
    if c.p is None:
        return [f"A better by more than {margin}: cannot be tested. {c.untestable}."]
    shown = "shown" if c.p < alpha else "not shown"
    verdict = (
        f"A better by more than {margin}: {shown} at p < {alpha:g}. One-sided Welch test: "
        f"t = {c.t:.3f}, {c.df:.2f} degrees of freedom, p = {c.p:.2g}. sd: {SD_FORMULA}."
    )
    if c.p < alpha:
        return [verdict]
    if c.difference <= c.delta:
        return [verdict, "The difference seen is no larger than that: no number of runs shows it."]
    alone, each = c.runs_needed(alpha), c.runs_needed(alpha, both=True)
    return [
        verdict,
        "Were these means and deviations the true ones, an even chance to show it would take "
        f"{_more(each, 'A and of B')}, or {_more(alone, 'A alone')}.",
    ]


def _more(runs: int | None, of: str) -> str:
    if runs is None:  # more runs of A leave the uncertainty of B's mean as it is
        return f"no number of runs of {of}"
    return f"{runs} more run{'s' * (runs != 1)} of {of}"
