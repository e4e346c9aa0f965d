"""Pack a model into one file; ``load`` reads it back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from underpar import progress
from underpar.artifact import layout
from underpar.artifact.container import write_container
from underpar.artifact.layout import Stored
from underpar.data.detokenizer import Detokenizer
from underpar.recipe.plain import section_to_json
from underpar.recipe.schema import ModelSpec, ScoreSpec


def pack(
    path: Path,
    weights: Mapping[str, Stored],
    *,
    model_spec: ModelSpec,
    score_spec: ScoreSpec,
    looping: bool,
    dtype: str,
    tokenizer: Detokenizer,
    recipe_digest: str,
    compressor: str,
    byte_shuffle: bool,
) -> None:
    """Write the artifact: the same arguments give the same bytes.

    weights: all parameters of a model of ``model_spec``, a QuantizedModel, or path -> float tensor,
    stored as it is. dtype: of the activations, "float32" or "bfloat16". compressor: rans, brotli,
    zstd, lzma or raw.
    Raises DependencyError for a missing compressor, MachineError when the disk refuses.
    """
    entries = [layout.entry_of(name, tensor) for name, tensor in weights.items()]
    with progress.busy("packing"):
        codings, sections = layout.encode(weights, compressor=compressor, byte_shuffle=byte_shuffle)
    if model_bytes := tokenizer.to_bytes():
        codings["tokenizer"], sections["tokenizer"] = layout.encode_bytes(
            model_bytes, compressor=compressor
        )
    header = {
        "codings": {name: coding.to_json() for name, coding in codings.items()},
        "dtype": dtype,
        "looping": looping,
        "model": section_to_json(model_spec),
        "recipe": recipe_digest,
        "score": section_to_json(score_spec),
        "tensors": [entry.to_json() for entry in entries],
        "tokenizer": tokenizer.kind,
    }
    write_container(path, header, sections)


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of the whole file, as sha256sum prints it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
