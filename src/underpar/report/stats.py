"""Is one recipe better than another? Means over seeds, Welch's test, how many runs are missing.

The rule of the competition: a record beats the one before by 0.005 nats per token, shown at p <
0.01. Lower is better. ``a`` is the challenger, ``b`` what it is compared with, and

    difference = mean(b) - mean(a),    t = (difference - delta) / sqrt(s_a^2 / n_a + s_b^2 / n_b)

    p = P(T >= t)   under "a is better by delta or less", T of Student's law

*One-sided*, because the claim has a direction: that a is far worse must not count as evidence.
*Welch*, because two recipes on two machines have two spreads. Pooling them (Student's own test)
assumes one, and with unequal n a wrong assumption makes p too small. The degrees of freedom are
Welch's, no whole number. The spread is the sample standard deviation, n - 1. Published entries use
n as often: the 0.00049 bpb of #1413 is 0.00060 by n - 1, so a deviation from here cannot be
compared with such a one. *Nats per token*, because the rule is in nats: 0.005 of them are 0.0030
bpb with 1,024 tokens and 0.0019 with 8,192. t, degrees of freedom and p are the same in both units.

What three seeds cannot show. Their standard deviation is known within a factor of 0.5 to 6 only, so
few runs must differ by more: at p = 0.01 t must exceed 6.96 with 2 degrees of freedom, 3.75 with 4
and 2.33 with many. That runs scatter normally is assumed and cannot be checked on three. p holds
for all runs that were planned: the best five of seven show nothing. It is not the probability of
being wrong, and not about other texts either: all runs are scored on the same one. One run has no
spread, hence no p; nor have runs that agree to the last digit, because they are one run given
twice.

``runs_needed`` takes the means and spreads seen so far for the true ones. If they are, that many
runs reach p < alpha in about half of all attempts; plan for more.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from underpar.bits import bits_per_byte
from underpar.errors import DataError
from underpar.report.student import quantile, tail

NATS, BPB = "nats/token", "bpb"
SD_FORMULA = "sample standard deviation, n - 1"

#: The rule: better by this many nats per token, at this p.
DELTA, ALPHA = 0.005, 0.01

#: ``runs_needed`` gives up beyond this many.
MOST_RUNS = 1000


@dataclass(frozen=True)
class Text:
    """What converting units needs of the scored text: its targets and their UTF-8 bytes."""

    tokens: int
    bytes: int

    def __post_init__(self) -> None:
        if min(self.tokens, self.bytes) < 1:
            got = f"{self.tokens} tokens, {self.bytes} bytes"
            raise DataError("scored text", got=got, wanted="at least one of each")

    def convert(self, value: float, old: str, new: str) -> float:
        """A loss, or a difference of losses, in another unit."""
        if old == new:
            return value
        per_nat = bits_per_byte(self.tokens, self.bytes)  # bpb of a nat for every token
        return value * per_nat if new == BPB else value / per_nat


@dataclass(frozen=True)
class Sample:
    """One loss per seed. unit: NATS or BPB."""

    values: tuple[float, ...]
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in (NATS, BPB):
            raise DataError("unit of a sample", got=f"'{self.unit}'", wanted=f"{NATS} or {BPB}")
        if not self.values or not all(map(math.isfinite, self.values)):
            raise DataError("sample", got=list(self.values), wanted="one finite loss or more")

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / self.n

    @property
    def sd(self) -> float | None:
        """Sample standard deviation, n - 1. None of a single value."""
        return statistics.stdev(self.values) if self.n > 1 else None

    def to(self, unit: str, text: Text) -> Sample:
        return Sample(tuple(text.convert(v, self.unit, unit) for v in self.values), unit)

    def to_json(self) -> dict[str, Any]:
        return {"n": self.n, "values": list(self.values), "mean": self.mean, "sd": self.sd}


@dataclass(frozen=True)
class Comparison:
    """Is mean(b) - mean(a) larger than delta? delta: in the unit of the samples."""

    a: Sample
    b: Sample
    delta: float

    def __post_init__(self) -> None:
        if self.a.unit != self.b.unit:
            raise DataError("comparison", got=f"{self.a.unit} and {self.b.unit}", wanted="one unit")
        if not math.isfinite(self.delta):
            raise DataError("delta of a comparison", got=self.delta, wanted="a finite number")

    @property
    def unit(self) -> str:
        return self.a.unit

    @property
    def difference(self) -> float:
        """How much lower a is than b."""
        return self.b.mean - self.a.mean

    @cached_property
    def untestable(self) -> str:
        """Why there is no p; empty when there is."""
        single = [name for name, sample in (("A", self.a), ("B", self.b)) if sample.n == 1]
        if single:
            return f"{' and '.join(single)}: a single run has no spread"
        if self.a.sd == 0 == self.b.sd:
            return "all runs of A agree exactly, and all of B: repeats of one run, not seeds"
        return ""

    @cached_property
    def _law(self) -> tuple[float, float] | None:
        """Standard error of the difference, and its degrees of freedom."""
        if self.untestable:
            return None
        return _welch(self.a.sd or 0.0, self.a.n, self.b.sd or 0.0, self.b.n)

    @property
    def standard_error(self) -> float | None:
        return self._law[0] if self._law else None

    @property
    def df(self) -> float | None:
        """Welch's degrees of freedom."""
        return self._law[1] if self._law else None

    @property
    def t(self) -> float | None:
        return (self.difference - self.delta) / self._law[0] if self._law else None

    @cached_property
    def p(self) -> float | None:
        """One-sided: how often chance gives a difference this large if the true one is delta."""
        return tail(self.t, self.df) if self.t is not None and self.df else None

    def bound(self, level: float) -> float | None:
        """The difference is at least this, one-sided: more than delta iff p < 1 - level."""
        return self._at(-quantile(level, self._law[1])) if self._law else None

    def interval(self, level: float) -> tuple[float, float] | None:
        """The difference lies between these, two-sided."""
        if not self._law:
            return None
        q = quantile((1 + level) / 2, self._law[1])
        return self._at(-q), self._at(q)

    def _at(self, q: float) -> float:
        return self.difference + q * (self.standard_error or 0.0)

    def runs_needed(self, alpha: float, *, both: bool = False) -> int | None:
        """Further runs of a (both: of each) for p < alpha, if means and spreads stay as they are.

        None: the runs have no spread, the difference is not above delta, or it takes more than
        MOST_RUNS; b alone, if it is held fixed, may be too uncertain for any number.
        """
        if self.untestable or self.difference <= self.delta:
            return None
        for more in range(MOST_RUNS + 1):
            n_b = self.b.n + more * both
            error, df = _welch(self.a.sd or 0.0, self.a.n + more, self.b.sd or 0.0, n_b)
            if tail((self.difference - self.delta) / error, df) < alpha:
                return more
        return None

    def to(self, unit: str, text: Text) -> Comparison:
        """The same comparison in another unit. t, df and p stay the same."""
        delta = text.convert(self.delta, self.unit, unit)
        return Comparison(self.a.to(unit, text), self.b.to(unit, text), delta)

    def to_json(self, alpha: float) -> dict[str, Any]:
        """Everything above, at the level 1 - alpha."""
        return {
            "unit": self.unit,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "sd_formula": SD_FORMULA,
            "delta": self.delta,
            "difference": self.difference,
            "standard_error": self.standard_error,
            "t": self.t,
            "df": self.df,
            "p": self.p,
            "untestable": self.untestable,
            "alpha": alpha,
            "shown": self.p is not None and self.p < alpha,
            "bound": self.bound(1 - alpha),
            "interval": self.interval(1 - alpha),
            "runs_needed_a": self.runs_needed(alpha),
            "runs_needed_each": self.runs_needed(alpha, both=True),
        }


def _welch(sd_a: float, n_a: int, sd_b: float, n_b: int) -> tuple[float, float]:
    """(standard error, degrees of freedom) of a difference of means; Welch 1947, Satterthwaite."""
    worst = max(sd_a, sd_b)  # scaled out, or tiny spreads would underflow when squared twice
    a, b = (sd_a / worst) ** 2 / n_a, (sd_b / worst) ** 2 / n_b
    return worst * math.sqrt(a + b), (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))
