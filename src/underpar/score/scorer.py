"""The scorer: a path and a validation stream in, a score out.

Three stages of one loop. ``plain``: windows side by side. ``sliding``: windows overlap, each scores
its last ``stride`` positions. ``ttt``: sliding, chunk by chunk, training on each chunk once it is
scored. Several processes share the windows of a chunk, contiguously; the score is that of one.

The official score takes the stream as it is. ``lanes`` cuts it as the codec does when it is in a
hurry (``score/lanes.py``), so that the length of a compressed file can be predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from underpar import dist, progress
from underpar.artifact.pack import load
from underpar.bits import Score, bits_per_byte
from underpar.data.tokenizer import Tokenizer
from underpar.data.validation import ValidationSet
from underpar.errors import DataError
from underpar.model import GPT
from underpar.recipe.schema import ScoreSpec
from underpar.score.adapt import Adapter
from underpar.score.lanes import cut, in_step, lane_edges
from underpar.score.ledger import Ledger, ScoredChunk
from underpar.score.predictor import Predictor
from underpar.score.windows import Chunk, WindowPlan, batches

Stage = Literal["plain", "sliding", "ttt"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Result:
    """A score and what it is made of.

    nll: float32 [N-1], nats of each target, NaN where it was not scored. steps: optimizer steps of
    test-time training. spec: the settings used, ``context`` filled in.
    """

    stage: Stage
    score: Score
    nll: NDArray[np.float32]
    spec: ScoreSpec
    steps: int = 0


def score(
    path: Path,
    validation: ValidationSet,
    stage: Stage,
    *,
    overrides: ScoreSpec | None = None,
    device: torch.device | None = None,
    limit: int = 0,
    lanes: int = 1,
) -> Result:
    """Score the artifact at ``path``, loaded afresh. Collective.

    The settings are the file's own, or ``overrides``. limit: score the first n targets only (0:
    all); the score then says that it is partial. lanes: cut the stream into so many. Raises
    ArtifactError for a file that cannot be read, DataError when the stream was made with another
    tokenizer than the file's.
    """
    loaded = load(path, device or dist.device())
    check_tokenizer(loaded.tokenizer, validation)
    return score_model(
        loaded.model, overrides or loaded.score, validation, stage, limit=limit, lanes=lanes
    )


def score_model(
    model: GPT,
    spec: ScoreSpec,
    validation: ValidationSet,
    stage: Stage,
    *,
    limit: int = 0,
    lanes: int = 1,
) -> Result:
    """Score a model in memory: what ``score`` does with the one it has loaded. Collective.

    Stage ``ttt`` trains ``model`` in place; the others leave it as it was.
    """
    spec = replace(spec, context=spec.context or model.spec.seq_len)
    before = model.training, model.compute_dtype
    model.eval()
    if spec.dtype != "auto":
        model.compute_dtype = DTYPES[spec.dtype]
    try:
        return _Run(model, spec, validation, stage, limit, lanes).finish()
    finally:
        model.compute_dtype = before[1]
        model.train(before[0])


def check_tokenizer(tokenizer: Tokenizer, validation: ValidationSet) -> None:
    """Raise DataError when ``validation`` was not made with ``tokenizer``.

    A digest would tell files apart; what matters is that the stream's byte lengths, the denominator
    of the score, are the ones this tokenizer gives.
    """
    n = validation.n_targets
    if int(validation.tokens.max()) < tokenizer.vocab_size:
        lengths = tokenizer.byte_lengths(validation.tokens)
        if np.array_equal(lengths, validation.byte_lengths):
            return
    raise DataError(
        "the validation text was tokenized with another tokenizer than the model's",
        got=f"{n + 1} tokens of {validation.byte_lengths.sum()} bytes",
        wanted=f"tokens of a {tokenizer.kind} tokenizer with {tokenizer.vocab_size} symbols",
        do="Use the data folder the model was trained with, or build one with its tokenizer.",
    )


class _Lane:
    """A stream, its windows and its books."""

    def __init__(
        self, tokens: NDArray[np.uint16], lengths: NDArray[np.int32], plan: WindowPlan, vocab: int
    ) -> None:
        self.tokens, self.plan = tokens, plan
        self.ledger = Ledger(tokens, lengths, vocab)


class _Run:
    """One pass over one stream, in one lane or several."""

    def __init__(
        self,
        model: GPT,
        spec: ScoreSpec,
        validation: ValidationSet,
        stage: Stage,
        limit: int,
        lanes: int,
    ) -> None:
        self.spec, self.stage, self.clock = spec, stage, progress.Clock()
        self.n_targets = validation.n_targets
        self.n = min(limit or self.n_targets, self.n_targets)
        self.predictor = Predictor(model, spec.context)
        self.adapter = Adapter(model, spec) if stage == "ttt" else None
        stride = spec.context if stage == "plain" else spec.stride
        edges = lane_edges(self.n, lanes)
        self.lanes = [
            _Lane(
                tokens,
                validation.byte_lengths[a:b],
                WindowPlan(b - a, spec.context, stride),
                self.predictor.vocab_size,
            )
            for tokens, (a, b) in zip(cut(validation.tokens[: self.n + 1], lanes), pairwise(edges))
        ]
        self.done = 0

    def finish(self) -> Result:
        plans = [lane.plan for lane in self.lanes]
        size = self.spec.ttt_chunk if self.adapter else self.n
        n_chunks = max(plan.n_chunks(size) for plan in plans)
        for index, parts in in_step(plans, size):
            scored = [self._score(self.lanes[lane], chunk) for lane, chunk in parts.items()]
            if self.adapter:
                self.adapter.update(scored, index, n_chunks)
        steps = self.adapter.steps if self.adapter else 0
        if self.adapter and not steps:
            progress.current().line(
                f"test-time training: no step taken, {self.n} targets are less than two chunks of "
                f"{size} with a sequence of {self.spec.context} in the first"
            )
        nll = np.full(self.n_targets, np.nan, dtype=np.float32)
        nll[: self.n] = np.concatenate([lane.ledger.nll() for lane in self.lanes])
        return Result(self.stage, self._total(), nll, self.spec, steps)

    def _total(self) -> Score:
        parts = [lane.ledger.score() for lane in self.lanes]
        tokens = sum(part.tokens for part in parts)
        return Score(
            sum(part.nats for part in parts),
            tokens,
            sum(part.bytes for part in parts),
            tokens / self.n_targets,
            self.clock.seconds,
        )

    def _score(self, lane: _Lane, chunk: Chunk) -> ScoredChunk:
        """Commit this rank's share of a chunk's windows, then close it."""
        first, end = dist.share(len(chunk.windows))
        windows = chunk.windows[first:end]
        total = sum(window.end - window.first for window in windows)
        before, done = self.done, 0
        for batch in batches(windows, self.spec.window_batch, self.predictor.max_positions):
            inputs = [lane.tokens[window.start : window.end] for window in batch]
            logits = self.predictor.predict(inputs, batch[0].first - batch[0].start)
            lane.ledger.commit([(w.first, w.end) for w in batch], logits.flatten(0, 1))
            done += logits.shape[0] * logits.shape[1]
            # of all ranks, if they are equally fast
            self.done = before + round((chunk.end - chunk.start) * done / total)
            progress.current().update(
                f"scoring ({self.stage})",
                self.done,
                self.n,
                f"{self._running_bpb():.4f} bpb",
                self.clock.left(self.done, self.n),
            )
        self.done = before + chunk.end - chunk.start
        return lane.ledger.close_chunk(chunk.start, chunk.end)

    def _running_bpb(self) -> float:
        nats = sum(lane.ledger.nats for lane in self.lanes)
        return bits_per_byte(nats, sum(lane.ledger.bytes for lane in self.lanes))
