"""The official scorer: a model and a validation stream in, a score out.

Three stages of one loop. ``plain``: windows side by side. ``sliding``: windows overlap, each scores
its last ``stride`` positions. ``ttt``: sliding, chunk by chunk, training on each chunk once it is
scored. Several processes share the windows of a chunk, contiguously; the score is that of one.

``file`` scores an artifact from its path; ``laned`` cuts the stream as the text codec does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from underpar import dist, progress
from underpar.bits import Score, bits_per_byte
from underpar.data.validation import ValidationSet
from underpar.model.gpt import GPT
from underpar.recipe.schema import ScoreSpec
from underpar.score.adapt import Adapter
from underpar.score.ledger import Ledger, ScoredChunk
from underpar.score.predictor import Predictor
from underpar.score.windows import Chunk, WindowPlan, batches
from underpar.stages import How


@dataclass
class Result:
    """A score and what it is made of.

    steps: optimizer steps of test-time training. spec: the settings used, ``context`` filled in.
    """

    stage: How
    score: Score
    streams: Sequence[Stream]
    n_targets: int
    spec: ScoreSpec
    steps: int

    @cached_property
    def nll(self) -> NDArray[np.float32]:
        """Nats of each target, float32 [N-1], NaN where it was not scored. Collective."""
        known = np.concatenate([stream.ledger.targets() for stream in self.streams])
        nll = np.full(self.n_targets, np.nan, dtype=np.float32)
        nll[: len(known)] = known
        return nll


def score_model(
    model: GPT, spec: ScoreSpec, validation: ValidationSet, stage: How, *, limit: int = 0
) -> Result:
    """Score a model in memory on the stream as it is. Collective.

    limit: score the first n targets only (0: all); the score then says that it is partial. Stage
    ``ttt`` trains ``model`` in place; the others leave it as it was.
    """
    spec, total = with_context(spec, model), validation.n_targets
    n = min(limit or total, total)
    with ready(model, spec):
        predictor, adapter = Predictor(model, spec.context), adapter_of(model, spec, stage)
        tokens, lengths = validation.tokens[: n + 1], validation.byte_lengths[:n]
        stream = Stream(tokens, lengths, spec, stage, predictor.vocab_size)
        bar = Bar(stage, [stream])
        size = spec.ttt_chunk if adapter else n
        for chunk in stream.plan.chunks(size):
            scored = stream.score_chunk(chunk, predictor, spec.window_batch, bar)
            if adapter:
                adapter.update([scored], chunk.index, stream.plan.n_chunks(size))
        return finished(stage, [stream], bar, spec, adapter, total)


def adapter_of(model: GPT, spec: ScoreSpec, stage: How) -> Adapter | None:
    """What trains the model between the chunks, if anything does."""
    return Adapter(model, spec) if stage == "ttt" else None


def finished(
    stage: How,
    streams: Sequence[Stream],
    bar: Bar,
    spec: ScoreSpec,
    adapter: Adapter | None,
    n_targets: int,
) -> Result:
    """The score of streams that are consecutive parts of ``n_targets`` targets. Collective."""
    parts = [stream.ledger.score() for stream in streams]
    tokens = sum(part.tokens for part in parts)
    nats, n_bytes = sum(part.nats for part in parts), sum(part.bytes for part in parts)
    score = Score(nats, tokens, n_bytes, tokens / n_targets, bar.clock.seconds)
    return Result(stage, score, streams, n_targets, spec, adapter.steps if adapter else 0)


def with_context(spec: ScoreSpec, model: GPT) -> ScoreSpec:
    """``spec`` with its ``context`` filled in."""
    return replace(spec, context=spec.context or model.spec.seq_len)


@contextmanager
def ready(model: GPT, spec: ScoreSpec) -> Iterator[None]:
    """The model in eval mode and in the dtype that it is scored in, for the length of the block."""
    before = model.training, model.compute_dtype
    model.eval()
    if spec.dtype != "auto":
        model.compute_dtype = getattr(torch, spec.dtype)
    try:
        yield
    finally:
        model.compute_dtype = before[1]
        model.train(before[0])


class Bar:
    """How far the scoring of some streams is, and what the score is so far."""

    def __init__(self, stage: How, streams: Sequence[Stream]) -> None:
        self._task, self._ledgers = f"scoring ({stage})", [s.ledger for s in streams]
        self._total = sum(ledger.n_targets for ledger in self._ledgers)
        self._done, self.clock = 0.0, progress.Clock()

    def add(self, targets: float) -> None:
        """So many are scored, by all ranks together if they are equally fast."""
        self._done += targets
        nats = sum(ledger.nats for ledger in self._ledgers)
        bpb = bits_per_byte(nats, sum(ledger.bytes for ledger in self._ledgers))
        left = self.clock.left(self._done, self._total)
        progress.current().update(
            self._task, self._done, self._total, f"{bpb:.4f} bpb", left, "tokens"
        )


class Stream:
    """A stream of tokens [n + 1], its windows and its ledger."""

    def __init__(
        self,
        tokens: NDArray[np.uint16],
        byte_lengths: NDArray[np.int32],
        spec: ScoreSpec,
        stage: How,
        vocab_size: int,
    ) -> None:
        stride = spec.context if stage == "plain" else spec.stride
        self.tokens, self.plan = tokens, WindowPlan(len(byte_lengths), spec.context, stride)
        self.ledger = Ledger(tokens, byte_lengths, vocab_size)

    def score_chunk(
        self, chunk: Chunk, predictor: Predictor, at_once: int, bar: Bar
    ) -> ScoredChunk:
        """Commit this rank's share of a chunk's windows, ``at_once`` in a batch, then close it."""
        first, end = dist.share(len(chunk.windows))
        windows = chunk.windows[first:end]
        for batch in batches(windows, at_once, predictor.max_positions):
            inputs = [self.tokens[window.start : window.end] for window in batch]
            logits = predictor.predict(inputs, batch[0].first - batch[0].start).flatten(0, 1)
            self.ledger.commit([(window.first, window.end) for window in batch], logits)
            bar.add(len(batch) / len(windows) * (chunk.end - chunk.start))
        return self.ledger.close_chunk(chunk.start, chunk.end)
