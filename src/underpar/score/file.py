"""Score an artifact: a path and a validation stream in, a score out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from underpar import dist, progress
from underpar.artifact.load import load
from underpar.data.tokenizer import Tokenizer
from underpar.data.validation import ValidationSet
from underpar.errors import DataError
from underpar.recipe.schema import ScoreSpec
from underpar.score.laned import score_in_lanes
from underpar.score.scorer import Result, score_model
from underpar.stages import How


def score(
    path: Path,
    validation: ValidationSet,
    stage: How,
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
    spec = overrides or loaded.score
    if lanes == 1:
        result = score_model(loaded.model, spec, validation, stage, limit=limit)
    else:
        result = score_in_lanes(loaded.model, spec, validation, stage, lanes=lanes, limit=limit)
    if stage == "ttt" and not result.steps:
        progress.current().line(
            f"test-time training: no step taken, {result.score.tokens} targets are less than two "
            f"chunks of {spec.ttt_chunk} with a sequence of {result.spec.context} in the first"
        )
    return result


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
