"""The one loop that encoder and decoder of the text codec run: predict, code, perceive.

An arithmetic coder needs the same integer table in encoder and decoder, for every token. A model
gives floats, and floats depend on how they were computed: nearly every table from one parallel pass
over a text differs somewhere from the table of a decoder that goes token by token. So the encoder
does not use the parallel pass. It runs this loop, which is the decoder's: same cache, same batch
(padded to a multiple of eight, within which CPU kernels give a row the same bits), same order.
Encoder and decoder differ in one object, the ``Coder``: the encoder's knows the next tokens and
writes them, the decoder's reads them. Neither gives this loop a token before its table is fixed.

Adaptation happens here too, and legally by construction: every token goes into a ledger that starts
empty, and only its closed chunks are trained on. That the text can be decoded proves that the
encoder used nothing that the decoder did not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from underpar import progress
from underpar.bits import LN2
from underpar.model import GPT, twin
from underpar.model.layers import Linear, Table
from underpar.recipe.schema import ScoreSpec
from underpar.score.adapt import Adapter
from underpar.score.lanes import in_step, lane_edges
from underpar.score.ledger import Ledger
from underpar.score.predictor import Stepwise
from underpar.score.windows import Chunk, Window, WindowPlan

#: CPU kernels give a row of a batch of 8, 16, .. 64 the same bits; of 1, 2 or 7 others.
ROWS = 8

#: Most logits that are kept before the ledger gets them: 64 MB.
_PENDING = 1 << 24

#: float logits [n, V] -> integer cumulative frequencies [n, V + 1], as encoder and decoder need
Tables = Callable[[Tensor], NDArray[np.int64]]


class Shape(NamedTuple):
    """How a text is laid out: its tokens, its lanes, and a lane's tokens between adaptations."""

    n_targets: int
    lanes: int
    chunk: int


class Coder(Protocol):
    """Writes the tokens, which the encoder knows, or reads them, for the decoder."""

    def code(
        self, lanes: list[int], position: int, cumulative: NDArray[np.int64]
    ) -> NDArray[np.uint16]:
        """The tokens [n] that follow ``position`` in these lanes, coded with a table each."""
        ...


@dataclass(frozen=True)
class Coded:
    """A coded text: each lane's stream, its first token included; nats of all its tokens."""

    lanes: list[NDArray[np.uint16]]
    nats: float

    @property
    def tokens(self) -> NDArray[np.uint16]:
        """The text as one stream, uint16 [n + 1]."""
        return np.concatenate([self.lanes[0][:1], *(lane[1:] for lane in self.lanes)])


class Lockstep:
    """Model and adapter of encoder or decoder, kept from text to text with what they learned.

    spec: ``context`` filled in. adapt: train on what has been coded.
    """

    def __init__(self, model: GPT, spec: ScoreSpec, *, adapt: bool) -> None:
        assert spec.context
        self._adapter = Adapter(model, spec) if adapt else None
        self._model, self._cast = model, _cast(model)
        self._predictor = Stepwise(self._cast, spec.context)
        self._context, self._stride = spec.context, spec.stride

    def run(
        self,
        shape: Shape,
        first: int,
        tables: Tables,
        coder: Coder,
        task: str = "",
    ) -> Coded:
        """Code one text.

        first: the token that every lane begins with. task: name for the progress line.
        """
        n_targets = shape.n_targets
        edges = lane_edges(n_targets, shape.lanes)
        plans = [WindowPlan(b - a, self._context, self._stride) for a, b in pairwise(edges)]
        text = _Text(plans, first, self._predictor.vocab_size, tables, coder, task)
        size = shape.chunk if self._adapter else n_targets
        n_chunks = max(plan.n_chunks(size) for plan in plans)
        for index, parts in in_step(plans, size):
            for windows in _rounds(parts):
                self._window(text, windows)
            if self._adapter:
                closed = [
                    text.ledgers[lane].close_chunk(c.start, c.end) for lane, c in parts.items()
                ]
                self._adapter.update(closed, index, n_chunks)
                self._refresh()
        return Coded(text.streams, text.nats)

    @torch.no_grad()
    def _refresh(self) -> None:
        if self._cast is not self._model:
            for cast, weight in zip(self._cast.parameters(), self._model.parameters()):
                cast.copy_(weight)

    def _window(self, text: _Text, windows: Mapping[int, Window]) -> None:
        """Code the scored positions of one window a lane."""
        start, first, _ = next(iter(windows.values()))  # the same for all lanes; only ends differ
        ids = np.zeros((-(-len(text.streams) // ROWS) * ROWS, first + 1 - start), np.uint16)
        for lane in windows:
            ids[lane] = text.streams[lane][start : first + 1]
        logits = self._predictor.begin(ids)
        steps = max(window.end for window in windows.values()) - first
        for position in range(first, first + steps):
            live = [lane for lane, window in windows.items() if position < window.end]
            rows = logits[live]
            tokens = text.coder.code(live, position, text.tables(rows))
            text.perceive(live, position, rows, tokens)
            if position + 1 < first + steps:
                following = np.zeros(len(ids), np.uint16)
                following[live] = tokens
                logits = self._predictor.step(following)
        text.commit()


def _cast(model: GPT) -> GPT:
    """``model`` with its matrices in the dtype they are used in: the same floats, cast once.

    A forward pass casts every matrix where it is used. For one token a lane that is a tenth of its
    time.
    """
    if model.compute_dtype == model.core(0).attn.proj.weight.dtype:
        return model
    cast = twin(model).requires_grad_(False)
    for module in cast.modules():
        if isinstance(module, Linear | Table):
            module.weight.data = module.weight.data.to(model.compute_dtype)
    return cast


class _Text:
    """The streams of a text, as far as their tokens are known, and their ledgers."""

    def __init__(
        self,
        plans: list[WindowPlan],
        first: int,
        vocab: int,
        tables: Tables,
        coder: Coder,
        task: str,
    ) -> None:
        self.tables, self.coder = tables, coder
        self._task, self._clock = task, progress.Clock()
        self._size, self._known, self._committed = sum(plan.n_positions for plan in plans), 0, 0
        self.streams = [np.full(plan.n_positions + 1, first, np.uint16) for plan in plans]
        self.ledgers = [Ledger.blank(plan.n_positions, first, vocab) for plan in plans]
        self._waiting: dict[int, tuple[int, list[Tensor]]] = {}  # lane -> (position, its logits)
        self._n_waiting = 0

    @property
    def nats(self) -> float:
        return sum(ledger.nats for ledger in self.ledgers)

    def perceive(
        self, lanes: list[int], position: int, logits: Tensor, tokens: NDArray[np.uint16]
    ) -> None:
        """Take in tokens that were just coded; ledgers get them and the logits in larger pieces."""
        for lane, row, token in zip(lanes, logits, tokens, strict=True):
            self.streams[lane][position + 1] = token
            self._waiting.setdefault(lane, (position, []))[1].append(row)
        self._n_waiting += logits.numel()
        self._known += len(lanes)
        if self._n_waiting > _PENDING:
            self.commit()
        self._report()

    def commit(self) -> None:
        for lane, (first, rows) in self._waiting.items():
            end = first + len(rows)
            tokens = self.streams[lane][first + 1 : end + 1]
            self.ledgers[lane].commit([(first, end)], torch.stack(rows), decoded=tokens)
        self._waiting, self._n_waiting, self._committed = {}, 0, self._known

    def _report(self) -> None:
        left, note = self._clock.left(self._known, self._size), ""
        if self._committed:
            note = f"{self.nats / self._committed / LN2:.3f} bits a token"
        progress.current().update(self._task, self._known, self._size, note, left, "tokens")


def _rounds(parts: Mapping[int, Chunk]) -> Iterator[dict[int, Window]]:
    """The k-th window of every lane's chunk, k by k."""
    for k in range(max(len(chunk.windows) for chunk in parts.values())):
        yield {lane: chunk.windows[k] for lane, chunk in parts.items() if k < len(chunk.windows)}
