"""Which window of the stream scores which position.

A stream of N tokens has N - 1 targets; *position* p is the prediction of token p + 1 from the
tokens up to p. A window reads the tokens [start, end) and scores the positions [first, end): the
ones before ``first`` are context, scored by an earlier window. Window 0 scores all it reads; every
later one starts ``stride`` further on and scores its last ``stride`` positions, so that each of
them is seen with at least ``context - stride`` tokens before it:

    window 0   [#################]                  # scored   . context
    window 1       [.............####]
    window 2           [.............###|           the ragged tail: what is left

Windows exist while they have something left to score: start + context - stride < n. Ending one
stride later, as #456 did (start + stride <= n), makes every window that runs into the end score
the same tail again; ending without window 0, as #1413 did, leaves a short text unscored. With this
rule every position belongs to exactly one window, for every n >= 1. ``stride == context`` is the
plain, non-overlapping evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple


class Window(NamedTuple):
    """Reads tokens [start, end), scores positions [first, end); all absolute."""

    start: int
    first: int
    end: int

    @property
    def shape(self) -> tuple[int, int]:
        """(tokens read, tokens of context): windows of one shape can share a batch."""
        return self.end - self.start, self.first - self.start


@dataclass(frozen=True)
class Chunk:
    """A stretch of positions [start, end) and the windows whose first position lies in it."""

    index: int
    start: int
    end: int
    windows: Sequence[Window]


@dataclass(frozen=True)
class WindowPlan:
    """The windows of ``n_positions`` positions, in order; none of them is stored.

    n_positions >= 1, 1 <= stride <= context: a recipe and a validation set see to that.
    """

    n_positions: int
    context: int
    stride: int

    def __len__(self) -> int:
        return self._before(self.n_positions)

    def __getitem__(self, index: int) -> Window:
        i = range(len(self))[index]
        start = i * self.stride
        first = start + self.context - self.stride if i else 0
        return Window(start, first, min(start + self.context, self.n_positions))

    @property
    def windows(self) -> list[Window]:
        return [self[i] for i in range(len(self))]

    def n_chunks(self, chunk_size: int) -> int:
        return -(-self.n_positions // chunk_size)

    def chunk_of(self, window: Window, chunk_size: int) -> int:
        """The chunk that scores ``window``: the one its first scored position lies in."""
        return min(window.first // chunk_size, self.n_chunks(chunk_size) - 1)

    def chunks(self, chunk_size: int) -> Iterator[Chunk]:
        """The chunks of ``chunk_size`` positions that own a window, in order.

        A chunk owns none when a window longer than it has scored all of it: it is left out. When
        the stride does not divide the chunk, its last window scores a little beyond its end.
        """
        for index in range(self.n_chunks(chunk_size)):
            start = index * chunk_size
            end = min(start + chunk_size, self.n_positions)
            windows = [self[i] for i in range(self._before(start), self._before(end))]
            if windows:
                yield Chunk(index, start, end, windows)

    def _before(self, position: int) -> int:
        """How many windows have their first scored position before ``position``."""
        later = -(-max(position - self.context, 0) // self.stride)
        return later + 1 if position > 0 else 0


def batches(windows: Iterable[Window], size: int, max_positions: int) -> Iterator[list[Window]]:
    """Runs of consecutive windows of one shape.

    At most ``size`` windows in each, and at most ``max_positions`` scored, but never none.
    """
    for _, run in groupby(windows, key=lambda window: window.shape):
        same = list(run)
        step = max(min(size, max_positions // (same[0].end - same[0].first)), 1)
        for i in range(0, len(same), step):
            yield same[i : i + step]
