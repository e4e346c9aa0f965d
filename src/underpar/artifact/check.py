"""What an artifact of a stranger must satisfy before anything is computed from it.

A header can ask for a model of a billion layers in a few bytes, so before memory is taken: the
sections must fill the file exactly and have their checksums, the tensor table must be no larger
than such a file can hold, the settings no larger than the table, the model (built without storage,
on torch's meta device) must have exactly the table's tensors, and the sections the table's bytes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from underpar.artifact import layout
from underpar.artifact.container import (
    DIGEST_BYTES,
    MAGIC,
    MAX_HEADER_JSON,
    PREFIX,
    VERSION,
    Header,
    split,
)
from underpar.artifact.layout import BITS, FLOATS, Coding, Entry
from underpar.errors import ArtifactError
from underpar.model.gpt import GPT
from underpar.recipe.load import section_from_json
from underpar.recipe.schema import ModelSpec, ScoreSpec

Spec = TypeVar("Spec")

#: The most that a byte of a file may stand for (an eighth of a bit a weight), and 16 MB for free:
#: a file that claims to unfold to more is refused unread.
PLAIN_PER_BYTE, PLAIN_FREE = 64, 1 << 24


def sound(data: bytes, path: Path) -> tuple[Header, dict[str, bytes]]:
    """``container.split`` of bytes that may be anything; ``path`` is for the messages.

    Raises ArtifactError for anything that ``write_container`` of this version cannot have written.
    """
    stored, length = _check_prefix(data, path)
    header = _parse_header(data[PREFIX.size : PREFIX.size + stored], length, path)
    start, end = PREFIX.size + stored, len(data) - DIGEST_BYTES
    for name, size, crc in _section_table(header, end - start, path):
        if zlib.crc32(data[start : start + size]) != crc:
            raise _damaged(path, f"section '{name}' with a wrong checksum")
        start += size
    if hashlib.sha256(memoryview(data)[:end]).digest() != data[end:]:
        raise _damaged(path, "a wrong SHA-256")
    return split(data)


def check_header(header: Header, sections: Mapping[str, bytes], file_bytes: int) -> str:
    """The compressor of a file whose settings and tables belong together.

    Raises ArtifactError or RecipeError for what ``pack`` cannot have written.
    """
    entries, codings = _tables(header, sections, file_bytes)
    spec = _spec(ModelSpec, header, "model")
    _spec(ScoreSpec, header, "score")
    _choice(header, "dtype", ("float32", "bfloat16"))
    _choice(header, "looping", (False, True))
    check_tensors(entries, spec)
    return compressor_of(codings)


def compressor_of(codings: Mapping[str, Coding]) -> str:
    """The one compressor of a file, from how its sections were coded."""
    names = {name: coding.codec for name, coding in codings.items()}
    if names.get("codes") == layout.RANS:
        return layout.RANS
    return next((codec for codec in names.values() if codec != "raw"), "raw")


def _tables(
    header: Mapping[str, Any], sections: Mapping[str, bytes], file_bytes: int
) -> tuple[list[Entry], dict[str, Coding]]:
    """The two tables, held against each other, the sections and the size of the file."""
    rows, coded = header.get("tensors"), header.get("codings")
    if not isinstance(rows, list) or not isinstance(coded, dict) or set(coded) != set(sections):
        raise _bad("tables that do not fit the sections")
    entries = [_entry(row) for row in rows]
    codings = {name: _coding(row) for name, row in coded.items()}
    room = file_bytes * PLAIN_PER_BYTE + PLAIN_FREE
    asked = sum(coding.size for coding in codings.values())
    if asked > room:
        raise _bad(f"{asked} bytes asked for", f"at most {room} from a file of {file_bytes}")
    if len({entry.path for entry in entries}) != len(entries):
        raise _bad("a tensor listed twice")
    sizes = {name: coding.size for name, coding in codings.items() if name != "tokenizer"}
    if sizes != plain_sizes(entries):
        raise _bad(f"sections of {sizes} bytes", f"{plain_sizes(entries)} for the tensors")
    compressor = compressor_of(codings)
    for name, coding in codings.items():
        general = "lzma" if compressor == layout.RANS and name != "codes" else compressor
        if coding.codec not in ("raw", general):
            raise _bad(f"section '{name}' coded by {coding.codec!r}", f"raw or {compressor}")
        if coding.codec == "raw" and (coding.stride or coding.size != len(sections[name])):
            raise _bad(f"section '{name}' of {len(sections[name])} bytes", f"{coding.size}, plain")
    return entries, codings


def plain_sizes(entries: Iterable[Entry]) -> dict[str, int]:
    """Bytes that each section must hold before compression; sections without bytes left out."""
    sizes: dict[str, int] = {}
    for entry in entries:
        if entry.kind in BITS:
            parts = {"codes": entry.elements, "scales": 2 * entry.shape[0]}
        else:
            parts = {entry.kind: entry.elements * FLOATS[entry.kind].itemsize}
        for name, size in parts.items():
            sizes[name] = sizes.get(name, 0) + size
    return {name: size for name, size in sizes.items() if size}


def check_tensors(entries: Iterable[Entry], spec: ModelSpec) -> None:
    """ArtifactError unless ``entries`` are exactly the parameters of ``spec``'s model."""
    entries = list(entries)
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


def _entry(row: Any) -> Entry:
    match row:
        case [str(path), list(shape), str(kind)]:
            sizes = all(type(n) is int and n >= 0 for n in shape)
            if sizes and (kind in FLOATS or (kind in BITS and len(shape) == 2)):
                return Entry(path, tuple(shape), kind)
    raise _bad(f"tensor entry {row!r}", "[path, shape, kind]")


def _coding(row: Any) -> Coding:
    match row:
        case [str(codec), int(size), int(stride)] if size >= 0 and 0 <= stride < 256:
            return Coding(codec, size, stride)
    raise _bad(f"coding {row!r}", "[codec, plain bytes, stride]")


def _spec(cls: type[Spec], header: Mapping[str, Any], key: str) -> Spec:
    if not isinstance(header.get(key), dict):
        raise _bad(f"no settings under '{key}'")
    return section_from_json(cls, header[key])


def _choice(header: Mapping[str, Any], key: str, choices: tuple[Any, ...]) -> Any:
    value = header.get(key)
    if type(value) is not type(choices[0]) or value not in choices:
        raise _bad(f"{key} = {value!r}", " or ".join(map(str, choices)))
    return value


def _check_prefix(data: bytes, path: Path) -> tuple[int, int]:
    """(stored bytes, JSON bytes) of the header, both within bounds."""
    if not data.startswith(MAGIC):
        raise ArtifactError(
            f"{path} is not an underpar artifact",
            got=f"first bytes {data[:4]!r}",
            wanted=repr(MAGIC),
            do="Give the path of a .upar file.",
        )
    if len(data) < PREFIX.size + DIGEST_BYTES:
        raise _damaged(path, f"{len(data)} bytes", f"at least {PREFIX.size + DIGEST_BYTES}")
    _, version, stored, length = PREFIX.unpack_from(data)
    if version > VERSION:
        raise ArtifactError(
            f"artifact {path}",
            got=f"format version {version}",
            wanted=f"version {VERSION}, the newest this underpar knows",
            do="Update underpar, or fetch the file again if it should be older.",
        )
    if version != VERSION:
        raise _damaged(path, f"format version {version}", f"version {VERSION}")
    room = len(data) - PREFIX.size - DIGEST_BYTES
    if stored > room or length > MAX_HEADER_JSON:
        raise _damaged(
            path,
            f"a header of {stored} bytes that inflates to {length}",
            f"at most {room} and {MAX_HEADER_JSON}",
        )
    return stored, length


def _parse_header(deflated: bytes, length: int, path: Path) -> Header:
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(deflated, length + 1)  # never more than was declared
        whole = inflater.eof and len(text) == length and not inflater.unused_data
        header = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (zlib.error, ValueError, RecursionError) as error:
        raise _damaged(path, f"an unreadable header ({error})") from error
    if not whole or not isinstance(header, dict):
        raise _damaged(path, "an incomplete header")
    return header


def _section_table(header: Header, room: int, path: Path) -> list[tuple[str, int, int]]:
    """Takes the table out of the header; lengths add up to exactly ``room`` bytes."""
    table = header.pop("sections", None)
    if not isinstance(table, list):
        raise _damaged(path, "a header without section table")
    rows: list[tuple[str, int, int]] = []
    for row in table:
        match row:
            case [str(name), int(size), int(crc)] if size >= 0 and not isinstance(size, bool):
                rows.append((name, size, crc))
            case _:
                raise _damaged(path, f"section entry {row!r}", "[name, length, crc32]")
    if len({name for name, _, _ in rows}) != len(rows):
        raise _damaged(path, "two sections of one name")
    if sum(size for _, size, _ in rows) != room:
        total = sum(size for _, size, _ in rows)
        raise _damaged(path, f"{room} bytes of sections", f"the {total} that the header lists")
    return rows


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _damaged(path: Path, got: str, wanted: str | None = None) -> ArtifactError:
    return ArtifactError(
        f"artifact {path} is damaged or was not written by underpar",
        got=got,
        wanted=wanted,
        do="Fetch or pack it again.",
    )


def _bad(got: str, wanted: str | None = None) -> ArtifactError:
    return ArtifactError("its header", got=got, wanted=wanted)
