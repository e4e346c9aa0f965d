"""Load an artifact from a path and from nothing else: the door for files of any origin.

The file holds all that scoring, compressing or sampling needs: weights, model and score settings,
whether layers loop, the dtype of the activations, the tokenizer. ``check`` refuses what ``pack``
cannot have written; then ``read`` does the reading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from underpar.artifact import layout
from underpar.artifact.check import check_header, sound
from underpar.artifact.container import Header
from underpar.artifact.layout import Coding, Stored
from underpar.artifact.read import Model, build, tensors
from underpar.data.tokenizer import Tokenizer, tokenizer_from
from underpar.errors import ArtifactError, DataError, MachineError, RecipeError


@dataclass(frozen=True)
class LoadedModel(Model):
    """What an artifact holds. sha256: of the file. sections: stored bytes of each.

    The model is on the asked device, in eval mode, looping and compute dtype set; header: as in
    docs/format.md.
    """

    tokenizer: Tokenizer
    sha256: str
    sections: Mapping[str, int]


def load(path: Path, device: torch.device | None = None) -> LoadedModel:
    """The model in the file, on ``device`` (None: the CPU).

    Raises ArtifactError for a file that ``pack`` cannot have written, before taking memory for
    anything that it asks for; DependencyError when its compressor is not installed.
    """
    data = read_file(path)
    header, sections = sound(data, path)
    try:
        compressor = check_header(header, sections, len(data))
        tokenizer = _tokenizer(header, sections, compressor)
        size = header["model"]["vocab_size"]
        if tokenizer.vocab_size > size:
            got = f"a tokenizer of {tokenizer.vocab_size} pieces"
            raise ArtifactError("its header", got=got, wanted=f"up to {size}")
        plain = build(header, sections, device or torch.device("cpu"), compressor=compressor)
    except (ArtifactError, RecipeError, DataError) as error:
        raise ArtifactError(f"artifact {path} cannot be loaded", got=str(error)) from error
    return LoadedModel(
        **vars(plain),
        tokenizer=tokenizer,
        sha256=hashlib.sha256(data).hexdigest(),
        sections={name: len(section) for name, section in sections.items()},
    )


def read_weights(path: Path) -> dict[str, Stored]:
    """The tensors of the file as they are stored: codes and scales, or floats."""
    data = read_file(path)
    header, sections = sound(data, path)
    return tensors(header, sections, compressor=check_header(header, sections, len(data)))


def read_container(path: Path) -> tuple[Header, dict[str, bytes]]:
    """(header without "sections", name -> bytes) of the file, checked from end to end.

    Raises ArtifactError for anything that ``write_container`` of this version cannot have written,
    MachineError when the file cannot be read at all.
    """
    return sound(read_file(path), path)


def read_file(path: Path) -> bytes:
    """The bytes of the file; ArtifactError when there is none, MachineError when unreadable."""
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ArtifactError(
            f"artifact {path}", got=error.strerror, wanted="a .upar file", do="Check the path."
        ) from error
    except OSError as error:
        raise MachineError(f"cannot read {path}", got=error.strerror or str(error)) from error


def _tokenizer(header: Header, sections: Mapping[str, bytes], compressor: str) -> Tokenizer:
    model_bytes = b""
    if "tokenizer" in sections:
        coding = Coding(*header["codings"]["tokenizer"])
        model_bytes = layout.decode_bytes(coding, sections["tokenizer"], compressor=compressor)
    return tokenizer_from(str(header.get("tokenizer")), model_bytes)
