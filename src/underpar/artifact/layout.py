"""Tensors to sections and back.

A table lists every tensor in order: [path, shape, kind]. The kind is "int2" to "int8" for codes
with one float16 step a row, or the float type. Each section holds one sort of number of all
tensors, end to end in the table's order: "codes" (int8, row-major), "scales" (float16, one a row),
"float16", "float32", "bfloat16". So like is compressed with like.

A second table, the codings, says how each section was compressed: [codec, plain bytes, stride of
the byte shuffle or 0]. Codec "rans" is the weight coder of ``entropy.weights`` and codes only the
section "codes"; every other codec takes any bytes.

Numbers are little-endian, as on every machine that torch runs on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from underpar.artifact import codecs
from underpar.entropy import weights
from underpar.errors import ArtifactError
from underpar.grid.tensors import QuantizedTensor

Stored = QuantizedTensor | Tensor

FLOATS = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}
BITS = {f"int{bits}": bits for bits in range(2, 9)}
RANS = "rans"


@dataclass(frozen=True)
class Entry:
    """A row of the tensor table."""

    path: str
    shape: tuple[int, ...]
    kind: str

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def to_json(self) -> list[Any]:
        return [self.path, list(self.shape), self.kind]

    @classmethod
    def from_json(cls, row: Any) -> Entry:
        """Raises ArtifactError for anything that ``to_json`` cannot have made."""
        match row:
            case [str(path), list(shape), str(kind)]:
                sizes = all(type(n) is int and n >= 0 for n in shape)
                if sizes and (kind in FLOATS or (kind in BITS and len(shape) == 2)):
                    return cls(path, tuple(shape), kind)
        raise _bad(f"tensor entry {row!r}", "[path, shape, kind]")


@dataclass(frozen=True)
class Coding:
    """How a section was compressed: codec, size of the plain bytes, stride of the shuffle or 0."""

    codec: str
    size: int
    stride: int

    def to_json(self) -> list[Any]:
        return [self.codec, self.size, self.stride]

    @classmethod
    def from_json(cls, row: Any) -> Coding:
        match row:
            case [str(codec), int(size), int(stride)] if size >= 0 and 0 <= stride < 256:
                return cls(codec, size, stride)
        raise _bad(f"coding {row!r}", "[codec, plain bytes, stride]")


def entry_of(path: str, tensor: Stored) -> Entry:
    if isinstance(tensor, QuantizedTensor):
        return Entry(path, tuple(tensor.shape), f"int{tensor.bits}")
    kind = next((name for name, dtype in FLOATS.items() if dtype == tensor.dtype), None)
    if kind is None:
        raise ArtifactError(f"cannot store {path}", got=tensor.dtype, wanted=", ".join(FLOATS))
    return Entry(path, tuple(tensor.shape), kind)


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


def encode(
    tensors: Mapping[str, Stored], compressor: str, byte_shuffle: bool
) -> tuple[dict[str, Coding], dict[str, bytes]]:
    """(codings, compressed bytes) of the sections that hold ``tensors``, in the mapping's order.

    compressor: for the codes; "rans" leaves the other sections to lzma. byte_shuffle applies to the
    codes, as in #1413; floats are always shuffled by their width.
    """
    codings: dict[str, Coding] = {}
    sections: dict[str, bytes] = {}
    for name, plain in _plain_sections(tensors).items():
        stride = _stride(name, byte_shuffle)
        if name == "codes" and compressor == RANS:
            matrices = [t.codes.numpy() for t in tensors.values() if isinstance(t, QuantizedTensor)]
            codings[name] = Coding(RANS, len(plain), 0)
            sections[name] = weights.encode(matrices)
        else:
            codings[name], sections[name] = encode_bytes(plain, compressor, stride)
    return codings, sections


def encode_bytes(plain: bytes, compressor: str, stride: int = 0) -> tuple[Coding, bytes]:
    """Through the codec, or as they are where that is no longer."""
    codec = "lzma" if compressor == RANS else compressor
    packed = codecs.compress(codec, codecs.shuffle(plain, stride) if stride else plain)
    if len(packed) < len(plain):
        return Coding(codec, len(plain), stride), packed
    return Coding("raw", len(plain), 0), plain


def decode_bytes(coding: Coding, data: bytes) -> bytes:
    """The plain bytes; at most the declared number of them is ever in memory."""
    if not coding.stride:
        return codecs.decompress(coding.codec, data, coding.size)
    framed = codecs.decompress(coding.codec, data, coding.size + codecs.SHUFFLE_BYTES)
    return codecs.unshuffle(framed, coding.stride)


def decode(
    entries: Sequence[Entry], codings: Mapping[str, Coding], sections: Mapping[str, bytes]
) -> dict[str, Stored]:
    """Inverse of ``encode``. The caller has held ``codings`` against ``plain_sizes(entries)``."""
    quantized = [e for e in entries if e.kind in BITS]
    plain = {
        name: np.frombuffer(bytearray(decode_bytes(codings[name], sections[name])), np.uint8)
        for name in codings
        if codings[name].codec != RANS
    }
    if "codes" in codings and codings["codes"].codec == RANS:
        shapes = [(e.shape[0], e.shape[1]) for e in quantized]
        codes: Iterable[Any] = weights.decode(sections["codes"], shapes)
        plain["codes"] = np.concatenate([c.ravel() for c in codes]).view(np.uint8)
    empty, taken = np.empty(0, np.uint8), dict.fromkeys((*FLOATS, "codes", "scales"), 0)

    def take(section: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        start = taken[section]
        taken[section] += math.prod(shape) * dtype.itemsize
        piece = plain.get(section, empty)[start : taken[section]]
        if not piece.size:  # a view of nothing as another dtype is refused
            return torch.empty(shape, dtype=dtype)
        return torch.from_numpy(piece.copy()).view(dtype).reshape(shape)

    tensors: dict[str, Stored] = {}
    for entry in entries:
        if entry.kind in BITS:
            codes_OI = take("codes", entry.shape, torch.int8)
            scales_O = take("scales", entry.shape[:1], torch.float16)
            tensors[entry.path] = QuantizedTensor(codes_OI, scales_O, BITS[entry.kind])
        else:
            tensors[entry.path] = take(entry.kind, entry.shape, FLOATS[entry.kind])
    return tensors


def _plain_sections(tensors: Mapping[str, Stored]) -> dict[str, bytes]:
    parts: dict[str, list[bytes]] = {name: [] for name in ("codes", "scales", *FLOATS)}
    for path, tensor in tensors.items():
        if isinstance(tensor, QuantizedTensor):
            parts["codes"].append(_bytes(tensor.codes))
            parts["scales"].append(_bytes(tensor.scales))
        else:
            parts[entry_of(path, tensor).kind].append(_bytes(tensor))
    joined = {name: b"".join(pieces) for name, pieces in parts.items()}
    return {name: plain for name, plain in joined.items() if plain}


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _stride(section: str, byte_shuffle: bool) -> int:
    if section == "codes":
        return 2 if byte_shuffle else 0
    return FLOATS[section].itemsize if section in FLOATS else 2


def _bad(got: str, wanted: str) -> ArtifactError:
    return ArtifactError("artifact header", got=got, wanted=wanted, do="Pack the artifact again.")
