"""The ledger: the only place where a score comes into being, and the only source of training data.

A score is a code length, and it counts only if a decoder could have followed. Four conditions say
when that is so; what this module does about each:

1. **Causal.** The distribution of position p depends on tokens up to p alone. The model's mask sees
   to that; the ledger's part is that the predictor never gets targets: they live here, privately.
2. **Full distribution.** The ledger takes raw logits over the whole alphabet, normalises them
   itself and picks the target itself. There is no way to hand it a number for the realised token.
3. **Score before update.** Score-first test-time training adapts the model to text that it has
   already scored: predict chunk c, *commit* the losses, and only then train on chunk c, so that
   chunk c + 1 is predicted by a model that has seen no token of it. What may be trained on is a
   ``ScoredChunk``, and only ``close_chunk`` can make one, after every target in it is committed.
4. **Once, left to right.** A position can be committed once; chunks close in order, without a hole.
   Training on a scored chunk may take several epochs: its losses are on the books and stay there.

The tokens of the chunk [start, end) of positions are tokens start .. end, one more than it has
positions: the last of them, the first token of the next chunk, is what position end - 1 predicted.

With several processes each commits its own spans and ``close_chunk`` gathers the spans of all; two
ranks that scored the same position, or left one out, stop the run. Losses of the ranks meet in one
array indexed by position, so the total does not depend on who computed which part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from underpar import dist
from underpar.bits import Score
from underpar.errors import DataError, LegalityError

Span = tuple[int, int]  # positions [first, end)

_SEAL = object()


@dataclass(frozen=True, eq=False)
class ScoredChunk:
    """Positions [start, end), all scored, and their end - start + 1 tokens (read-only uint16).

    Made by ``Ledger.close_chunk`` alone; anyone else gets a LegalityError.
    """

    start: int
    end: int
    tokens: NDArray[np.uint16]
    seal: InitVar[object] = None

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise LegalityError(
                "a ScoredChunk was made outside the ledger",
                wanted="one from Ledger.close_chunk",
                do="Score the chunk first: only scored tokens may be trained on.",
            )


class Ledger:
    """The books of one pass over one validation stream.

    tokens: uint16 [N], the stream (copied). byte_lengths: int [N-1], UTF-8 bytes of each target.
    vocab_size: the alphabet every distribution must cover.
    """

    def __init__(
        self, tokens: NDArray[np.uint16], byte_lengths: NDArray[np.int32], vocab_size: int
    ) -> None:
        if len(tokens) < 2 or len(byte_lengths) != len(tokens) - 1:
            raise DataError(
                "validation stream",
                got=f"{len(tokens)} tokens and {len(byte_lengths)} byte lengths",
                wanted="two tokens or more, and one byte length fewer",
            )
        if int(tokens.max()) >= vocab_size:
            raise DataError(
                "validation stream",
                got=f"token {int(tokens.max())}",
                wanted=f"ids below the model's vocabulary of {vocab_size}",
                do="Was the text tokenized with another tokenizer?",
            )
        self._tokens = np.array(tokens, dtype=np.uint16)
        self._tokens.flags.writeable = False
        self._byte_lengths = byte_lengths
        self._vocab_size = vocab_size
        self._nll = np.full(self.n_targets, np.nan, dtype=np.float32)  # NaN: not ours, or not yet
        self._open: list[Span] = []  # this rank's spans since the last closed chunk
        self._closed = 0  # positions before this one are scored, by some rank
        self._nats, self._bytes = 0.0, 0

    @classmethod
    def blank(cls, n_targets: int, first: int, vocab_size: int) -> Ledger:
        """The books of a text that is not known yet, a decoder's: ``commit`` brings the tokens.

        first: the token that the stream begins with. Bytes are not counted.
        """
        tokens = np.full(n_targets + 1, first, dtype=np.uint16)
        ledger = cls(tokens, np.zeros(n_targets, dtype=np.int32), vocab_size)
        ledger._tokens.flags.writeable = True
        return ledger

    @property
    def n_targets(self) -> int:
        return len(self._tokens) - 1

    @property
    def nats(self) -> float:
        """Of what this rank has committed so far; for progress lines."""
        return self._nats

    @property
    def bytes(self) -> int:
        """Of what this rank has committed so far."""
        return self._bytes

    def commit(
        self, spans: Sequence[Span], logits: Tensor, *, decoded: NDArray[np.uint16] | None = None
    ) -> None:
        """Score the positions of ``spans`` for good.

        logits: float [n, V], unnormalised, a row for each position in the order of the spans; they
        are normalised in float32, and summed in float64. decoded: uint16 [n], the targets, for a
        ledger that began blank, and for no other. Raises LegalityError for a position that
        is already scored or not in the stream, for rows that are not finite or do not cover the
        alphabet; the books are then unchanged.
        """
        self._refuse_scored(spans)
        n = sum(end - first for first, end in spans)
        if tuple(logits.shape) != (n, self._vocab_size):
            raise LegalityError(
                f"logits of {n} positions",
                got=f"shape {list(logits.shape)}",
                wanted=f"[{n}, {self._vocab_size}]: the whole alphabet at each",
            )
        targets = decoded
        if targets is None:
            targets = np.concatenate([self._tokens[first + 1 : end + 1] for first, end in spans])
        nll = negative_log_likelihoods(logits, targets)
        row = 0
        for first, end in spans:
            values = nll[row : row + end - first]
            if decoded is not None:  # numpy refuses where the tokens were known all along
                self._tokens[first + 1 : end + 1] = decoded[row : row + end - first]
            row += end - first
            self._nll[first:end] = values
            self._nats += float(values.sum(dtype=np.float64))
            self._bytes += int(self._byte_lengths[first:end].sum(dtype=np.int64))
            if self._open and self._open[-1][1] == first:
                first = self._open.pop()[0]
            self._open.append((first, end))

    def close_chunk(self, start: int, end: int) -> ScoredChunk:
        """The chunk [start, end) of positions, now that every rank has committed its part.

        Collective: all ranks call it with the same arguments. Raises LegalityError when a position
        before ``end`` was scored twice or not at all.
        """
        reached = self._closed
        for first, last in self._gathered():
            if first > reached:
                raise _hole(reached, first)
            reached = last
        if not 0 <= start < end <= reached:
            raise _hole(reached, end)
        self._closed, self._open = reached, []
        tokens = self._tokens[start : end + 1].copy()
        tokens.flags.writeable = False
        return ScoredChunk(start, end, tokens, seal=_SEAL)

    def score(self, seconds: float = 0.0) -> Score:
        """The sum over all ranks. Collective. Not every position needs to be scored by now."""
        scored = self._scored()
        nll = self.targets()
        nats = float(nll[scored].sum(dtype=np.float64))
        tokens = int(np.count_nonzero(scored))
        n_bytes = int(self._byte_lengths[scored].sum(dtype=np.int64))
        return Score(nats, tokens, n_bytes, tokens / self.n_targets, seconds)

    def targets(self) -> NDArray[np.float32]:
        """Nats of each target, float32 [N-1], NaN where nothing was scored. Collective."""
        mine = torch.from_numpy(np.nan_to_num(self._nll)).to(dist.device())
        total = dist.all_reduce_sum(mine).cpu().numpy()
        total[~self._scored()] = np.nan
        return total

    def _refuse_scored(self, spans: Sequence[Span]) -> None:
        if not spans or not all(0 <= first < end <= self.n_targets for first, end in spans):
            raise LegalityError(
                "commit",
                got=f"spans {list(spans)}",
                wanted=f"first < end within positions 0 to {self.n_targets - 1}",
            )
        reached = self._closed
        for first, end in sorted(spans):
            known = ~np.isnan(self._nll[first:end])
            if first < reached or known.any():
                raise LegalityError(
                    "a position was scored twice",
                    got=f"position {first + int(known.argmax())}",
                    wanted="each position once",
                    do="An early score is final: it cannot be replaced or repeated.",
                )
            reached = end

    def _gathered(self) -> list[Span]:
        """All ranks' open spans, sorted; raises when two overlap each other or what is closed."""
        spans = sorted(span for rank in dist.gather(self._open) for span in rank)
        reached = self._closed
        for first, end in spans:
            if first < reached:
                raise LegalityError(
                    "two processes scored the same position",
                    got=f"position {first} again, scored up to {reached}",
                    wanted="each position once",
                )
            reached = end
        return spans

    def _scored(self) -> NDArray[np.bool_]:
        scored = np.zeros(self.n_targets, dtype=bool)
        for first, end in [(0, self._closed), *self._gathered()]:
            scored[first:end] = True
        return scored


def negative_log_likelihoods(logits: Tensor, targets: NDArray[np.uint16]) -> NDArray[np.float32]:
    """-ln p of each target under the softmax of its row; float32 [n] from logits [n, V].

    Raises LegalityError when a row is no distribution (an infinity or a NaN in it).
    """
    log_p = F.log_softmax(logits.float(), dim=-1)
    if not bool(log_p.isfinite().all()):
        raise LegalityError(
            "logits are not finite", got="NaN or infinity", wanted="a distribution at each position"
        )
    index = torch.from_numpy(targets.astype(np.int64)).to(logits.device)
    return -log_p.gather(1, index[:, None]).squeeze(1).cpu().numpy()


def _hole(reached: int, end: int) -> LegalityError:
    return LegalityError(
        "a chunk was closed before all of it was scored",
        got=f"every position before {reached} scored",
        wanted=f"every position before {end}",
        do="Only scored tokens may be trained on.",
    )
