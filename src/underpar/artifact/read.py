"""Read a model from a file that ``pack`` wrote: bytes in, weights on a device out.

Nothing is doubted here. A file that somebody handed over is opened by ``load``, which checks it
first; a program that reads what it has just written needs no more than this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from underpar.artifact import layout
from underpar.artifact.container import Header, split
from underpar.artifact.layout import Coding, Entry, Stored
from underpar.grid.tensors import QuantizedTensor
from underpar.model.gpt import GPT
from underpar.recipe.schema import ModelSpec, ScoreSpec


@dataclass(frozen=True)
class Model:
    """A model in eval mode, looping and compute dtype set; its score settings and header."""

    model: GPT
    score: ScoreSpec
    header: Mapping[str, Any]


def read_model(path: Path, device: torch.device, *, compressor: str) -> Model:
    """The model in the file, which was packed with ``compressor``, on ``device``."""
    header, sections = split(path.read_bytes())
    return build(header, sections, device, compressor=compressor)


def build(
    header: Header, sections: Mapping[str, bytes], device: torch.device, *, compressor: str
) -> Model:
    """The model of a header and its sections."""
    model = GPT(ModelSpec(**header["model"]))
    model.compute_dtype = getattr(torch, header["dtype"])
    model.looping = header["looping"]
    stored = tensors(header, sections, compressor=compressor)
    model.load_state_dict({path: dense(tensor) for path, tensor in stored.items()})
    return Model(model.to(device).eval(), ScoreSpec(**header["score"]), header)


def tensors(header: Header, sections: Mapping[str, bytes], *, compressor: str) -> dict[str, Stored]:
    """The tensors as they are stored: codes and scales, or floats."""
    entries = [Entry(path, tuple(shape), kind) for path, shape, kind in header["tensors"]]
    codings = {name: Coding(*row) for name, row in header["codings"].items()}
    codings.pop("tokenizer", None)
    return layout.decode(entries, codings, sections, compressor=compressor)


def dense(tensor: Stored) -> torch.Tensor:
    """The weights that the model computes with."""
    return tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor
