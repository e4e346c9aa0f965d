"""Training batches from shards: the two published orders and one of ours, with exact resume.

sequential (#456): all shards, in name order, are one endless ring of tokens. A micro-batch is a
slice of micro_tokens + 1 consecutive tokens (inputs, and targets shifted by one), reshaped to rows;
the next slice begins where this one ended. Slices are dealt to the ranks in turn, so micro-batch
m of a run is the same whatever the world size: one process accumulating twice sees what two
processes see together. Sequences cross documents; no shuffling.

shuffled (#1413): rank r owns files r, r + world, ... and one PCG64 generator seeded with r alone.
Per shard it draws a phase, cuts sequences of seq_len from there, and permutes them. Every row then
comes from a shard drawn with probability proportional to its sequences left. When all are used up,
every shard is cut and permuted anew by the same generator. The order of draws is part of the
contract: a replay gives the same bits as the published loader.
With fewer files than ranks the published loader fails. Here each file is then treated as ``world``
contiguous parts of equal length, and rank r owns the r-th part of every file.

recent (ours): sequences start anywhere, drawn with replacement, the likelier the closer they are to
the end of the stream: a start loses half its weight every ``half_life`` of the stream. Text drifts,
and what is to be predicted usually comes after what there is to train on. The order is stationary,
so it suits a budget of seconds, in which nobody knows beforehand how many steps there will be.

State is a position plus what it is a position in. It is the same on every rank, so one rank may
save it for all. Restoring replays the draws of the shuffled order, some microseconds a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from underpar import dist
from underpar.data.shards import Tokens, read_shard
from underpar.errors import DataError
from underpar.recipe.schema import DataSpec

#: inputs and targets, int64 [B, T] on the CPU; targets are inputs shifted by one token
Batch = tuple[Tensor, Tensor]
State = dict[str, int | str]


class Loader(Protocol):
    """An endless, repeatable sequence of batches of this rank."""

    def next_batch(self) -> Batch:
        """The next micro-batch: inputs, targets, int64 [micro_tokens / seq_len, seq_len]."""
        ...

    def bookmark(self) -> State:
        """Where the loader stands, as JSON-able data, equal on every rank."""
        ...

    def restore(self, state: State) -> None:
        """Go where ``state`` says. DataError when it belongs to other data or settings."""
        ...


def make_loader(
    spec: DataSpec, files: Sequence[Path], *, seq_len: int, micro_tokens: int
) -> Loader:
    """A loader of this rank at the beginning of the order that ``spec`` names.

    files: one or more. micro_tokens: predicted tokens per rank and micro-step, a multiple of
    seq_len. Raises DataError when there are too few tokens for one sequence.
    """
    shards = [read_shard(path) for path in files]
    match spec.loader:
        case "sequential":
            return SequentialLoader(shards, seq_len, micro_tokens)
        case "shuffled":
            return ShuffledLoader(shards, seq_len, micro_tokens)
        case "recent":
            return RecentLoader(shards, seq_len, micro_tokens, spec.half_life)


class _Positioned(ABC):
    """State and restore of a loader whose order is a function of one position."""

    kind: str

    def __init__(self, shards: Sequence[Tokens], seq_len: int, micro_tokens: int) -> None:
        self._seq_len, self._micro_tokens = seq_len, micro_tokens
        self._rank, self._world = dist.rank(), dist.world_size()
        self._tokens = sum(len(shard) for shard in shards)
        self._position = 0

    @abstractmethod
    def _seek(self, position: int) -> None: ...

    def _identity(self) -> State:
        return {"kind": self.kind, "tokens": self._tokens, "seq_len": self._seq_len}

    def bookmark(self) -> State:
        return {**self._identity(), "position": self._position}

    def restore(self, state: State) -> None:
        for key, ours in self._identity().items():
            if state.get(key) != ours:
                raise DataError(
                    f"loader state: {key}",
                    got=state.get(key),
                    wanted=ours,
                    do="Resume with the data, settings and processes that the run began with.",
                )
        self._seek(int(state["position"]))


class _Stream(_Positioned):
    """A loader that reads all shards as one ring of tokens."""

    def __init__(self, shards: Sequence[Tokens], seq_len: int, micro_tokens: int) -> None:
        super().__init__(shards, seq_len, micro_tokens)
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])
        if self._tokens <= seq_len:
            raise _too_short(self._tokens, seq_len)

    def _seek(self, position: int) -> None:
        self._position = position

    def _read(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """``length`` tokens of the ring from ``start`` on."""
        out = np.empty(length, dtype=np.int64)
        done = 0
        while done < length:
            at = (start + done) % self._tokens
            i = int(np.searchsorted(self._ends, at, side="right"))
            begin = at - int(self._ends[i]) + len(self._shards[i])
            piece = self._shards[i][begin : begin + length - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
        return out


class SequentialLoader(_Stream):
    """#456's order; ``position`` counts slices taken by all ranks together."""

    kind = "sequential"

    def _identity(self) -> State:
        return {**super()._identity(), "micro_tokens": self._micro_tokens}

    def next_batch(self) -> Batch:
        length = self._micro_tokens + 1
        tokens = self._read((self._position + self._rank) * length, length)
        self._position += self._world
        rows = torch.from_numpy(tokens)
        return rows[:-1].view(-1, self._seq_len), rows[1:].view(-1, self._seq_len)


class RecentLoader(_Stream):
    """Our order; ``position`` counts rows taken by all ranks together.

    Row n is the n-th draw of one generator, whoever takes it, so that a run sees the same
    micro-batches on any world size, and seeking is free.
    """

    kind = "recent"

    def __init__(
        self, shards: Sequence[Tokens], seq_len: int, micro_tokens: int, half_life: float
    ) -> None:
        super().__init__(shards, seq_len, micro_tokens)
        self._half_life = half_life * self._tokens

    def next_batch(self) -> Batch:
        n = self._micro_tokens // self._seq_len
        length = self._seq_len + 1
        rows = np.stack([self._read(s, length) for s in self._starts(n)])
        self._position += n * self._world
        tokens = torch.from_numpy(rows)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def _starts(self, n: int) -> list[int]:
        """Starts of this rank's next n rows: exponential ages from the end, cut at the start."""
        generator = np.random.PCG64(0).advance(self._position + self._rank * n)
        u = np.random.Generator(generator).random(n)
        last, decay = self._tokens - self._seq_len - 1, self._half_life / np.log(2)
        ages = -decay * np.log1p(-u * -np.expm1(-(last + 1) / decay))
        return [last - int(age) for age in np.minimum(ages, last)]


class ShuffledLoader(_Positioned):
    """#1413's order; ``position`` counts rows taken by this rank (equal on all ranks)."""

    kind = "shuffled"

    def __init__(self, shards: Sequence[Tokens], seq_len: int, micro_tokens: int) -> None:
        super().__init__(shards, seq_len, micro_tokens)
        r, w = self._rank, self._world
        if len(shards) >= w:
            self._shards = list(shards[r::w])
        else:
            self._shards = [s[len(s) * r // w : len(s) * (r + 1) // w] for s in shards]
        longest = max(len(shard) for shard in self._shards)
        if longest <= seq_len:
            raise _too_short(longest, seq_len)
        self._seek(0)

    def _identity(self) -> State:
        return {**super()._identity(), "world": self._world}

    def next_batch(self) -> Batch:
        length = self._seq_len
        rows = np.empty((self._micro_tokens // length, length + 1), dtype=np.int64)
        for row in rows:
            shard, start = self._next_row()
            row[:] = self._shards[shard][start : start + length + 1]
        tokens = torch.from_numpy(rows)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def _seek(self, position: int) -> None:
        self._random = np.random.Generator(np.random.PCG64(self._rank))
        self._cut_all()
        self._position = 0
        for _ in range(position):
            self._next_row()

    def _cut_all(self) -> None:
        """Cut and permute every shard: ``_starts`` are stacks, ``_left`` their heights."""
        self._starts = [self._cut(len(shard)) for shard in self._shards]
        self._left = np.array([len(starts) for starts in self._starts], dtype=np.float64)

    def _cut(self, n: int) -> npt.NDArray[np.int64]:
        length = self._seq_len
        largest = min(length - 1, max(0, n - length - 1))
        phase = int(self._random.integers(largest + 1)) if largest else 0
        return phase + length * self._random.permutation((n - 1 - phase) // length)

    def _next_row(self) -> tuple[int, int]:
        """(shard, start) of the next row: one weighted draw, even from a single shard."""
        total = self._left.sum()
        if total == 0:
            self._cut_all()
            total = self._left.sum()
        # Generator.choice(len(p), p=p), spelt out: the same bits in a third of the time
        cumulative = (self._left / total).cumsum()
        cumulative /= cumulative[-1]
        shard = int(cumulative.searchsorted(self._random.random(), side="right"))
        self._left[shard] -= 1
        self._position += 1
        return shard, int(self._starts[shard][int(self._left[shard])])


def _too_short(tokens: int, seq_len: int) -> DataError:
    return DataError(
        "training shards are too short for one sequence",
        got=f"{tokens} tokens",
        wanted=f"at least seq_len + 1 = {seq_len + 1} in a rank's part",
        do="Lower model.seq_len, use fewer processes, or give more text.",
    )
