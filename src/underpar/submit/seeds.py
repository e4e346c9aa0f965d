"""Runs under several seeds, side by side: one row each, then mean and standard deviation.

The deviation is the sample's, n - 1, which is printed beside it. The figures of a row are those of
its record; the bytes depend on which code is counted, so callers may state its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from underpar.report.stats import BPB, NATS, SD_FORMULA, Sample
from underpar.report.tables import render
from underpar.stages import planned
from underpar.submit.runs import Run


@dataclass(frozen=True)
class Row:
    """One seed. before, after: bpb of the stage before the headline, and of the headline. left:
    bytes to the cap.

    train_ms: of training proper. eval_ms: of the headline's scoring.
    """

    seed: int
    steps: int
    before: float
    after: float
    nats_per_token: float
    total_bytes: int
    left: int
    train_ms: float
    eval_ms: float

    @classmethod
    def of(cls, run: Run, code_bytes: int | None = None, cap: int | None = None) -> Row:
        """code_bytes, cap: of what is shipped; None: as the run counted them."""
        code = run.artifact.code_bytes if code_bytes is None else code_bytes
        total = run.counted_bytes + code
        return cls(
            seed=run.seed,
            steps=run.train.steps,
            before=run.before.bpb,
            after=run.headline.bpb,
            nats_per_token=run.headline.nats_per_token,
            total_bytes=total,
            left=(run.artifact.budget_bytes if cap is None else cap) - total,
            train_ms=1000 * run.train.seconds,
            eval_ms=1000 * run.headline.seconds,
        )

    @property
    def difference(self) -> float:
        """What the last stage changed; negative is better."""
        return self.after - self.before


@dataclass(frozen=True)
class Seeds:
    """rows: a run each. titles: of the stage before the headline, and of the headline."""

    rows: tuple[Row, ...]
    titles: tuple[str, str]

    @classmethod
    def of(
        cls, runs: Sequence[Run], code_bytes: int | None = None, cap: int | None = None
    ) -> Seeds:
        before, after = (stage.title for stage in planned(runs[0].recipe.score.ttt)[-2:])
        rows = tuple(Row.of(run, code_bytes, cap) for run in runs)
        return cls(rows, (f"{before}, bpb", f"{after}, bpb"))

    @property
    def before(self) -> Sample:
        return Sample(tuple(row.before for row in self.rows), BPB)

    @property
    def bpb(self) -> Sample:
        return Sample(tuple(row.after for row in self.rows), BPB)

    @property
    def nats(self) -> Sample:
        return Sample(tuple(row.nats_per_token for row in self.rows), NATS)

    @property
    def largest(self) -> int:
        """Bytes of the largest artifact with its code."""
        return max(row.total_bytes for row in self.rows)

    def table(self, *, markdown: bool = False) -> str:
        """Every seed, the means and, of more than one, the deviations of the scores."""
        headers = ["seed", "steps", *self.titles, "difference", "artifact", "margin"]
        lines = [_line(str(row.seed), row) for row in self.rows]
        if len(self.rows) > 1:
            lines += [self._means(), self._deviations()]
        return render([*headers, "train ms", "eval ms"], lines, markdown=markdown)

    def words(self) -> str:
        """The headline in a sentence: mean, deviation, which formula, how many."""
        n, bpb, nats = len(self.rows), self.bpb, self.nats
        if bpb.sd is None or nats.sd is None:
            return f"{bpb.mean:.5f} bpb, {nats.mean:.5f} nats/token; one seed, so no deviation."
        return (
            f"Mean of {n} seeds: {bpb.mean:.5f} bpb, standard deviation {bpb.sd:.5f}; "
            f"{nats.mean:.5f} nats/token, standard deviation {nats.sd:.5f} ({SD_FORMULA})."
        )

    def _means(self) -> list[str | None]:
        return [
            "mean",
            f"{fmean(row.steps for row in self.rows):,.1f}",
            f"{self.before.mean:.5f}",
            f"{self.bpb.mean:.5f}",
            f"{fmean(row.difference for row in self.rows):+.5f}",
            f"{fmean(row.total_bytes for row in self.rows):,.0f}",
            f"{fmean(row.left for row in self.rows):,.0f}",
            f"{fmean(row.train_ms for row in self.rows):,.0f}",
            f"{fmean(row.eval_ms for row in self.rows):,.0f}",
        ]

    def _deviations(self) -> list[str | None]:
        gains = Sample(tuple(row.difference for row in self.rows), BPB)
        spreads = [f"{sample.sd:.5f}" for sample in (self.before, self.bpb, gains)]
        return ["standard deviation", None, *spreads, None, None, None, None]


def _line(name: str, row: Row) -> list[str | None]:
    return [
        name,
        f"{row.steps:,}",
        f"{row.before:.5f}",
        f"{row.after:.5f}",
        f"{row.difference:+.5f}",
        f"{row.total_bytes:,}",
        f"{row.left:,}",
        f"{row.train_ms:,.0f}",
        f"{row.eval_ms:,.0f}",
    ]
