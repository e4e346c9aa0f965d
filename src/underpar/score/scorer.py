"""The scorer: a path and a validation stream in, a score out.

Three stages of one loop. ``plain``: windows side by side. ``sliding``: windows overlap, each scores
its last ``stride`` positions. ``ttt``: sliding, chunk by chunk, training on each chunk once it is
scored. Several processes share the windows of a chunk, contiguously; the score is that of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from underpar import dist, progress
from underpar.artifact.pack import load
from underpar.bits import Score
from underpar.data.tokenizer import Tokenizer
from underpar.data.validation import ValidationSet
from underpar.errors import DataError
from underpar.model import GPT
from underpar.recipe.schema import ScoreSpec
from underpar.score.adapt import Adapter
from underpar.score.ledger import Ledger
from underpar.score.predictor import Predictor
from underpar.score.windows import Window, WindowPlan, batches

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
) -> Result:
    """Score the artifact at ``path``, loaded afresh. Collective.

    The settings are the file's own, or ``overrides``. limit: score the first n targets only (0:
    all); the score then says that it is partial. Raises ArtifactError for a file that cannot be
    read, DataError when the stream was made with another tokenizer than the file's.
    """
    loaded = load(path, device or dist.device())
    check_tokenizer(loaded.tokenizer, validation)
    return score_model(loaded.model, overrides or loaded.score, validation, stage, limit=limit)


def score_model(
    model: GPT, spec: ScoreSpec, validation: ValidationSet, stage: Stage, *, limit: int = 0
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
        return _Run(model, spec, validation, stage, limit).finish()
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


class _Run:
    """One pass over one stream."""

    def __init__(
        self, model: GPT, spec: ScoreSpec, validation: ValidationSet, stage: Stage, limit: int
    ) -> None:
        self.spec, self.stage, self.clock = spec, stage, progress.Clock()
        self.tokens = validation.tokens
        n = min(limit or validation.n_targets, validation.n_targets)
        self.plan = WindowPlan(n, spec.context, spec.context if stage == "plain" else spec.stride)
        self.predictor = Predictor(model, spec.context)
        self.ledger = Ledger(self.tokens, validation.byte_lengths, self.predictor.vocab_size)
        self.adapter = Adapter(model, spec) if stage == "ttt" else None

    def finish(self) -> Result:
        n = self.plan.n_positions
        size = self.spec.ttt_chunk if self.adapter else n
        n_chunks = self.plan.n_chunks(size)
        for chunk in self.plan.chunks(size):
            first, end = dist.share(len(chunk.windows))
            self._score(chunk.windows[first:end], chunk.start, chunk.end)
            scored = self.ledger.close_chunk(chunk.start, chunk.end)
            if self.adapter:
                self.adapter.update(scored, chunk.index, n_chunks)
        steps = self.adapter.steps if self.adapter else 0
        if self.adapter and not steps:
            progress.current().line(
                f"test-time training: no step taken, {n} targets are less than two chunks of "
                f"{size} with a sequence of {self.spec.context} in the first"
            )
        nll = self.ledger.nll()
        return Result(self.stage, self.ledger.score(self.clock.seconds), nll, self.spec, steps)

    def _score(self, windows: Sequence[Window], start: int, end: int) -> None:
        """Commit ``windows``, this rank's share of the chunk [start, end)."""
        total = sum(window.end - window.first for window in windows)
        done = 0
        for batch in batches(windows, self.spec.window_batch, self.predictor.max_positions):
            inputs = [self.tokens[window.start : window.end] for window in batch]
            logits = self.predictor.predict(inputs, batch[0].first - batch[0].start)
            self.ledger.commit([(w.first, w.end) for w in batch], logits.flatten(0, 1))
            done += logits.shape[0] * logits.shape[1]
            at = start + (end - start) * done / total  # of all ranks, if they are equally fast
            progress.current().update(
                f"scoring ({self.stage})",
                at,
                self.plan.n_positions,
                f"{self.ledger.running_bpb:.4f} bpb",
                self.clock.left(at, self.plan.n_positions),
            )
