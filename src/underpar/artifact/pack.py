"""Pack a model into one file, load it back.

The file holds all that scoring, compressing or sampling needs: weights, model and score settings,
whether layers loop, the dtype of the activations, the tokenizer. ``load`` starts from a path and
from nothing else.

Loading trusts nothing it has not checked. A header can ask for a model of a billion layers in a few
bytes, so before any memory is taken: the tensor table must be no larger than such a file can hold,
the settings no larger than the table, the model (built without storage, on torch's meta device)
must have exactly the table's tensors, and the sections exactly the table's bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from underpar.artifact import layout
from underpar.artifact.container import parse_container, read_file, write_container
from underpar.artifact.layout import Coding, Entry, Stored
from underpar.data.tokenizer import Tokenizer, tokenizer_from
from underpar.errors import ArtifactError, DataError, RecipeError
from underpar.grid.tensors import QuantizedTensor
from underpar.model.gpt import GPT
from underpar.recipe.load import section_from_json, section_to_json
from underpar.recipe.schema import ModelSpec, ScoreSpec

Spec = TypeVar("Spec")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

#: The most that a byte of a file may stand for (an eighth of a bit a weight), and 16 MB for free:
#: a file that claims to unfold to more is refused unread.
PLAIN_PER_BYTE, PLAIN_FREE = 64, 1 << 24


@dataclass(frozen=True)
class LoadedModel:
    """What an artifact holds.

    model: on the asked device, in eval mode, looping and compute dtype set. sha256: of the file.
    sections: stored bytes of each. header: as in docs/format.md.
    """

    model: GPT
    score: ScoreSpec
    tokenizer: Tokenizer
    header: Mapping[str, Any]
    sha256: str
    sections: Mapping[str, int]


def pack(
    path: Path,
    weights: Mapping[str, Stored],
    *,
    model_spec: ModelSpec,
    score_spec: ScoreSpec,
    looping: bool,
    dtype: str,
    tokenizer: Tokenizer,
    recipe_digest: str,
    compressor: str,
    byte_shuffle: bool = False,
) -> None:
    """Write the artifact: the same arguments give the same bytes.

    weights: a QuantizedModel, or path -> float tensor, stored as it is. dtype: of the activations,
    "float32" or "bfloat16". compressor: rans, brotli, zstd, lzma or raw. Raises ArtifactError when
    the weights are not those of ``model_spec``, DependencyError for a missing compressor,
    MachineError when the disk refuses.
    """
    assert dtype in DTYPES, dtype
    entries = [layout.entry_of(name, tensor) for name, tensor in weights.items()]
    _check_tensors(entries, model_spec)
    codings, sections = layout.encode(weights, compressor, byte_shuffle)
    if model_bytes := tokenizer.to_bytes():
        codings["tokenizer"], sections["tokenizer"] = layout.encode_bytes(model_bytes, compressor)
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


def load(path: Path, device: torch.device | None = None) -> LoadedModel:
    """The model in the file, on ``device`` (None: the CPU).

    Raises ArtifactError for a file that ``pack`` cannot have written, before taking memory for
    anything that it asks for; DependencyError when its compressor is not installed.
    """
    data = read_file(path)
    header, sections = parse_container(data, path)
    try:
        return _load(header, sections, len(data), hashlib.sha256(data).hexdigest(), device)
    except (ArtifactError, RecipeError, DataError) as error:
        raise ArtifactError(f"artifact {path} cannot be loaded", got=str(error)) from error


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of the whole file, as sha256sum prints it."""
    return hashlib.sha256(read_file(path)).hexdigest()


def read_weights(path: Path) -> dict[str, Stored]:
    """The tensors of the file as they are stored: codes and scales, or floats."""
    data = read_file(path)
    header, sections = parse_container(data, path)
    entries, codings = _tables(header, sections, len(data))
    return layout.decode(entries, _of_weights(codings), sections)


def _load(
    header: dict[str, Any],
    sections: dict[str, bytes],
    file_bytes: int,
    sha256: str,
    device: torch.device | None,
) -> LoadedModel:
    entries, codings = _tables(header, sections, file_bytes)
    spec = _spec(ModelSpec, header, "model")
    _check_tensors(entries, spec)
    score = _spec(ScoreSpec, header, "score")
    tokenizer = _tokenizer(header, codings, sections)
    if tokenizer.vocab_size > spec.vocab_size:
        raise _bad(f"a tokenizer of {tokenizer.vocab_size} pieces", f"up to {spec.vocab_size}")
    model = GPT(spec)
    model.compute_dtype = DTYPES[_choice(header, "dtype", tuple(DTYPES))]
    model.looping = _choice(header, "looping", (False, True))
    stored = layout.decode(entries, _of_weights(codings), sections)
    model.load_state_dict({path: _dense(tensor) for path, tensor in stored.items()})
    return LoadedModel(
        model=model.to(device or "cpu").eval(),
        score=score,
        tokenizer=tokenizer,
        header=header,
        sha256=sha256,
        sections={name: len(data) for name, data in sections.items()},
    )


def _dense(tensor: Stored) -> torch.Tensor:
    return tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor


def _tables(
    header: Mapping[str, Any], sections: Mapping[str, bytes], file_bytes: int
) -> tuple[list[Entry], dict[str, Coding]]:
    """The two tables, held against each other, the sections and the size of the file."""
    rows, coded = header.get("tensors"), header.get("codings")
    if not isinstance(rows, list) or not isinstance(coded, dict) or set(coded) != set(sections):
        raise _bad("tables that do not fit the sections")
    entries = [Entry.from_json(row) for row in rows]
    codings = {name: Coding.from_json(row) for name, row in coded.items()}
    room = file_bytes * PLAIN_PER_BYTE + PLAIN_FREE
    asked = sum(coding.size for coding in codings.values())
    if asked > room:
        raise _bad(f"{asked} bytes asked for", f"at most {room} from a file of {file_bytes}")
    if len({entry.path for entry in entries}) != len(entries):
        raise _bad("a tensor listed twice")
    sizes = {name: coding.size for name, coding in _of_weights(codings).items()}
    if sizes != layout.plain_sizes(entries):
        raise _bad(f"sections of {sizes} bytes", f"{layout.plain_sizes(entries)} for the tensors")
    if any(c.codec == layout.RANS for name, c in codings.items() if name != "codes"):
        raise _bad("a section other than the codes in the weight coder's hands")
    return entries, codings


def _of_weights(codings: Mapping[str, Coding]) -> dict[str, Coding]:
    return {name: coding for name, coding in codings.items() if name != "tokenizer"}


def _check_tensors(entries: list[Entry], spec: ModelSpec) -> None:
    """ArtifactError unless ``entries`` are exactly the parameters of ``spec``'s model."""
    elements = sum(entry.elements for entry in entries)
    steps = spec.n_layer + spec.loop_extra * (spec.loop_end - spec.loop_start + 1)
    # Each layer has tensors of its own, and each pair of steps has skip weights.
    if spec.n_layer > len(entries) or steps > max(elements, len(entries)):
        raise _bad(f"settings for {steps} layers", f"as many as {len(entries)} tensors can be")
    try:
        with torch.device("meta"):
            model = GPT(spec)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise _bad(f"a model that cannot be built ({error})") from error
    wanted = {path: tuple(tensor.shape) for path, tensor in model.state_dict().items()}
    got = {entry.path: entry.shape for entry in entries}
    for path in sorted(wanted.keys() | got.keys()):
        if got.get(path) != wanted.get(path):
            there, meant = got.get(path, "no tensor"), wanted.get(path, "none in such a model")
            raise ArtifactError(f"weights: {path}", got=there, wanted=meant)


def _spec(cls: type[Spec], header: Mapping[str, Any], key: str) -> Spec:
    if not isinstance(header.get(key), dict):
        raise _bad(f"no settings under '{key}'")
    return section_from_json(cls, header[key])


def _tokenizer(
    header: Mapping[str, Any], codings: Mapping[str, Coding], sections: Mapping[str, bytes]
) -> Tokenizer:
    model_bytes = b""
    if "tokenizer" in codings:
        model_bytes = layout.decode_bytes(codings["tokenizer"], sections["tokenizer"])
    return tokenizer_from(str(header.get("tokenizer")), model_bytes)


def _choice(header: Mapping[str, Any], key: str, choices: tuple[Any, ...]) -> Any:
    value = header.get(key)
    if type(value) is not type(choices[0]) or value not in choices:
        raise _bad(f"{key} = {value!r}", " or ".join(map(str, choices)))
    return value


def _bad(got: str, wanted: str | None = None) -> ArtifactError:
    return ArtifactError("its header", got=got, wanted=wanted)
