"""Where numbers come from: a code for every element of a tracked tensor, array or float.

A score is born in a loss call, as one element for one target. It is then sliced, cast, moved to
NumPy, mixed with other probabilities, logged again, summed and added to an accumulator; the
headline is a quotient of accumulators. What matters is which elements reached which accumulator,
with which values. So every element of interest carries an int64 code:

    -1            nothing known
    >= 0          one element of one event: kind << 62 | event << 24 | element
    <= -2         a bag, index -code - 2: a sum of elements or a growing accumulator

Operations that keep or rearrange elements do the same to the codes; sums make bags; an addition to
a bag makes a longer chain. Nothing is decided here: at the end each chain is laid out again as
contributions, with the value each element had when it was summed. Byte counts are followed in the
same way (kind 0), from the lookup in the byte table to the denominator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NONE = -1
BYTES, SCORE = 0, 1
SHIFT = 24
KIND = 62
BATCH_SUM, CHAIN = 0, 1


@dataclass
class Event:
    """One loss call or byte-table lookup: what is known of each of its elements."""

    kind: int
    seq: int
    line: int
    grad: bool
    pos: np.ndarray  # int64 [n], -1 unknown
    nll: np.ndarray | None = None  # float64 [n], -log softmax of the row at the target
    digest: np.ndarray | None = None  # float64 [n], a projection of the whole row


@dataclass
class Bag:
    """A sum of elements (`codes` with `values`), or `previous` plus one more addend."""

    codes: np.ndarray
    values: np.ndarray
    total: float
    previous: int
    group: int
    seq: int
    line: int


@dataclass
class Lineage:
    """All events and bags of a run, and its clock."""

    clock: int = 0
    events: list[Event] = field(default_factory=list)
    bags: list[Bag] = field(default_factory=list)
    heads: dict[int, int] = field(default_factory=dict)  # group -> its longest bag
    used: set[int] = field(default_factory=set)  # bags that became part of another
    alarm: tuple[int, Callable[[], None]] | None = None  # what to do at a time of the clock

    def tick(self) -> int:
        self.clock += 1
        if self.alarm is not None and self.clock == self.alarm[0]:
            self.alarm[1]()
        return self.clock

    def event(self, kind: int, line: int, pos: np.ndarray, **rest: Any) -> np.ndarray:
        """A new event; the codes of its elements, flat."""
        index = len(self.events)
        self.events.append(Event(kind, self.tick(), line, rest.pop("grad", False), pos, **rest))
        codes = np.arange(len(pos), dtype=np.int64) + (index << SHIFT) + (kind << KIND)
        return np.where(pos >= 0, codes, NONE) if kind == BYTES else codes

    def sum(self, codes: np.ndarray, values: np.ndarray, total: float, line: int) -> int:
        """A bag of elements; elements of exactly zero were masked out. Returns its code."""
        codes, values = codes.reshape(-1), values.reshape(-1).astype(np.float64)
        keep = (codes != NONE) & (values != 0) & np.isfinite(values)
        codes, values = codes[keep], values[keep]
        if not len(codes):
            return NONE
        if len(codes) == 1 and codes[0] <= -2:
            return int(codes[0])
        self._use(codes)
        return self._bag(codes, values, total, -1, -1, line)

    def add(self, a: int, b: int, before: float, delta: float, line: int) -> int:
        """The accumulator with code `a` and value `before` grew by `delta`, of code `b`."""
        if a == NONE or b == NONE:
            return a if b == NONE else b
        if self._kind(a) != self._kind(b):
            return a if self._kind(a) > self._kind(b) else b
        if not self.is_chain(a):
            if self.is_chain(b):
                a, b, before, delta = b, a, delta, before
            else:
                a = self._bag(np.array([a]), np.array([before]), before, -1, -1, line, chain=True)
        self._use(np.array([b]))
        old = self.bags[-a - 2]
        new = self._bag(
            np.array([b]), np.array([delta]), before + delta, -a - 2, old.group, line, chain=True
        )
        self.heads[old.group] = -new - 2
        self.used.add(-a - 2)
        return new

    def _bag(
        self,
        codes: np.ndarray,
        values: np.ndarray,
        total: float,
        previous: int,
        group: int,
        line: int,
        chain: bool = False,
    ) -> int:
        index = len(self.bags)
        if chain and group < 0:
            self._use(codes)
        group = index if group < 0 else group
        self.bags.append(Bag(codes, values, total, previous, group, self.tick(), line))
        if chain:
            self.heads[group] = index
        return -index - 2

    def _use(self, codes: np.ndarray) -> None:
        self.used.update((-codes[codes <= -2] - 2).tolist())

    def is_chain(self, code: int) -> bool:
        return code <= -2 and self.bags[-code - 2].group in self.heads

    def join(self, a: int, b: int, before: float, delta: float, line: int) -> int:
        """Code of `before + delta`, numbers with the codes a and b.

        Two parts of one element stay that element. A difference of accumulators is progress or a
        gain, not a score: it has no code.
        """
        if a == b and a >= 0:
            return a
        if delta < 0 and self.is_chain(b) and self._kind(b) == SCORE:
            return NONE
        return self.add(a, b, before, delta, line)

    def _kind(self, code: int) -> int:
        while code <= -2:
            code = int(self.bags[-code - 2].codes[0])
        return code >> KIND

    def merge(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Codes of an elementwise combination of two tracked operands of one shape.

        A score outranks a byte count. Between scores of the same position the younger wins (an
        average over passes depends on the last); otherwise the first operand's code is kept.
        """
        both = (first != NONE) & (second != NONE) & (first != second)
        out = np.where(first != NONE, first, second)
        if both.any():
            take = both & ((second >> KIND) > (first >> KIND)) & (first >= 0)
            same = both & (first >= 0) & (second >= 0) & ((second >> KIND) == (first >> KIND))
            if same.any():
                same[same] = self.positions(first[same]) == self.positions(second[same])
                take |= same & (second > first)
            out = np.where(take, second, out)
        return out

    def positions(self, codes: np.ndarray) -> np.ndarray:
        """Stream positions of element codes, -1 for all others."""
        return self._look(codes, "pos", -1).astype(np.int64)

    def _look(self, codes: np.ndarray, name: str, missing: float) -> np.ndarray:
        out = np.full(len(codes), missing, np.float64)
        index = np.where(codes >= 0, (codes & ~(np.int64(1) << KIND)) >> SHIFT, -1)
        for number in np.unique(index[index >= 0]):
            column = getattr(self.events[number], name)
            here = index == number
            if column is None:
                continue
            out[here] = column if np.ndim(column) == 0 else column[codes[here] & 0xFFFFFF]
        return out

    def lay_out(self, code: int) -> dict[str, np.ndarray]:
        """The contributions behind a bag: code, value, weight, commit (time of the sum), line."""
        parts: list[tuple[np.ndarray, np.ndarray, float, int, int]] = []
        stack = [(-code - 2, 1.0)]
        while stack:
            index, weight = stack.pop()
            while index >= 0:
                bag = self.bags[index]
                leaf = bag.codes >= 0
                scale = _scale(bag) * weight if bag.previous < 0 else weight
                if leaf.any():
                    parts.append((bag.codes[leaf], bag.values[leaf], scale, bag.seq, bag.line))
                for child, value in zip(bag.codes[~leaf].tolist(), bag.values[~leaf].tolist()):
                    total = self.bags[-child - 2].total
                    stack.append((-child - 2, scale * (_snap(value / total) if total else 1.0)))
                index = bag.previous
        parts.reverse()
        if not parts:
            return {}
        codes = np.concatenate([p[0] for p in parts])
        sizes = [len(p[0]) for p in parts]
        table = {
            "code": codes,
            "value": np.concatenate([p[1] for p in parts]),
            "weight": np.repeat([p[2] for p in parts], sizes),
            "commit": np.repeat([p[3] for p in parts], sizes),
            "line": np.repeat([p[4] for p in parts], sizes),
            "bag": np.repeat(np.arange(len(parts)), sizes),
        }
        table["pos"] = self.positions(codes)
        table["kind"] = codes >> KIND
        for name in ("seq", "nll", "digest"):
            table[name] = self._look(codes, name, np.nan)
        return table

    def touches(self, code: int, line: int) -> bool:
        """Whether an accumulator grew on a line, first or last."""
        bag = self.bags[-code - 2]
        return line in (bag.line, self.bags[bag.group].line)

    def groups(self, most: int, shown: set[int]) -> list[int]:
        """Codes of the accumulators, and of sums that are no part of another.

        The latter only if they hold at least `most` elements. What was printed (`shown`) counts as
        it stood then: it may have gone on into a gain over another score, or into a second pass.
        """
        single = [
            i
            for i, b in enumerate(self.bags)
            if i not in self.used and b.group not in self.heads and len(b.codes) >= most
        ]
        return [-i - 2 for i in sorted({*self.heads.values(), *single, *shown})]


def _snap(ratio: float) -> float:
    return 1.0 if abs(ratio - 1.0) < 1e-5 else ratio


def _scale(bag: Bag) -> float:
    """Weight of the elements in the total: 1 for a sum, 1/n for a mean."""
    if len(bag.values) == 1 and bag.codes[0] <= -2:
        return 1.0  # the scale of a chain's addend is found from the child's total
    whole = float(bag.values.sum())
    return _snap(bag.total / whole) if whole and np.isfinite(bag.total / whole) else 1.0
