"""Nats, bits, bytes: the one place that divides them.

A score is a code length. ``nats`` is the sum of -ln p(token) over the scored targets, ``bytes`` the
UTF-8 length of the text those targets decode to, and

    bpb = nats / ln 2 / bytes

so a model's bpb and a compressor's ``8 * compressed / original`` are the same quantity. Bytes and
nats must cover the same multiset of positions; ``coverage`` says how much of the stream that was
(distinct targets scored / targets in the stream, the first token never being a target).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

LN2 = math.log(2.0)

#: The competition's cap on code plus compressed model, in bytes: decimal, not MiB.
BUDGET_BYTES = 16_000_000


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Bits per byte of a text of ``n_bytes`` bytes whose targets cost ``nats`` nats in all."""
    return nats / LN2 / n_bytes if n_bytes else math.nan


def compressed_bpb(compressed: int, original: int) -> float:
    """Bits per byte of a compressor that turned ``original`` bytes into ``compressed``."""
    return 8.0 * compressed / original if original else math.nan


def megabytes(n_bytes: float) -> str:
    """Decimal megabytes, as the competition counts them: 15_976_000 -> '15.976 MB'."""
    return f"{n_bytes / 1e6:.3f} MB"


@dataclass(frozen=True)
class Score:
    """A finished (or honestly partial) score.

    nats: summed -ln p, float64. tokens: contributions. bytes: UTF-8 bytes of those targets.
    coverage: distinct targets scored / targets in the stream, in [0, 1]. seconds: wall time.
    """

    nats: float
    tokens: int
    bytes: int
    coverage: float
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        return self.coverage == 1.0

    @property
    def bpb(self) -> float:
        """nats / ln 2 / bytes. Of a partial score it is a diagnostic: print it with ``str``."""
        return bits_per_byte(self.nats, self.bytes)

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens if self.tokens else math.nan

    def __str__(self) -> str:
        """'1.08279 bpb', or for a partial score 'PARTIAL 1.08 bpb over 12.3% of the targets'."""
        if self.complete:
            return f"{self.bpb:.5f} bpb"
        return f"PARTIAL {self.bpb:.4f} bpb over {100 * self.coverage:.2f}% of the targets"

    def to_json(self) -> dict[str, float | int]:
        return {**asdict(self), "bpb": self.bpb}

    @classmethod
    def from_json(cls, data: Mapping[str, float | int]) -> Score:
        return cls(
            nats=float(data["nats"]),
            tokens=int(data["tokens"]),
            bytes=int(data["bytes"]),
            coverage=float(data["coverage"]),
            seconds=float(data.get("seconds", 0.0)),
        )
