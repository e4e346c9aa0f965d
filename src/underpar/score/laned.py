"""Scores of a text in several lanes, as the text codec codes it; one lane is the official score.

What is coded in lanes has other contexts at the cuts and adapts after more tokens (``lanes``), so a
coded length can be compared with the score in the same lanes only.
"""

from __future__ import annotations

from itertools import pairwise

from underpar.data.validation import ValidationSet
from underpar.model.gpt import GPT
from underpar.recipe.schema import ScoreSpec
from underpar.score.lanes import cut, in_step, lane_edges
from underpar.score.predictor import Predictor
from underpar.score.scorer import Bar, Result, Stream, adapter_of, finished, ready, with_context
from underpar.stages import How


def score_in_lanes(
    model: GPT,
    spec: ScoreSpec,
    validation: ValidationSet,
    stage: How,
    *,
    lanes: int,
    limit: int = 0,
) -> Result:
    """``score_model`` of a stream cut into streams that advance together. Collective."""
    spec, total = with_context(spec, model), validation.n_targets
    n = min(limit or total, total)
    parts = cut(validation.tokens[: n + 1], lanes)
    lengths = [validation.byte_lengths[a:b] for a, b in pairwise(lane_edges(n, lanes))]
    with ready(model, spec):
        predictor, adapter = Predictor(model, spec.context), adapter_of(model, spec, stage)
        size = predictor.vocab_size
        streams = [Stream(t, b, spec, stage, size) for t, b in zip(parts, lengths)]
        bar = Bar(stage, streams)
        size = spec.ttt_chunk if adapter else n
        plans = [stream.plan for stream in streams]
        n_chunks = max(plan.n_chunks(size) for plan in plans)
        for index, chunks in in_step(plans, size):
            scored = [
                streams[lane].score_chunk(chunk, predictor, spec.window_batch, bar)
                for lane, chunk in chunks.items()
            ]
            if adapter:
                adapter.update(scored, index, n_chunks)
        return finished(stage, streams, bar, spec, adapter, total)
