"""Tensors to sections and back.

A table lists every tensor in order: [path, shape, kind]. The kind is "int2" to "int8" for codes
with one float16 step a row, or the float type. Each section holds one sort of number of all
tensors, end to end in the table's order: "codes" (int8, row-major), "scales" (float16, one a row),
"float16", "float32", "bfloat16". So like is compressed with like.

A second table, the codings, says how each section was compressed: [codec, plain bytes, stride of
the byte shuffle or 0]. A file has one compressor. "rans" is the weight coder of
``entropy.weights``; it codes the section "codes" and leaves the others to lzma. Bytes that do not
become shorter are stored as they are, codec "raw".

Numbers are little-endian, as on every machine that torch runs on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from underpar.artifact import compressors
from underpar.entropy import weights
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


@dataclass(frozen=True)
class Coding:
    """How a section was compressed: codec, size of the plain bytes, stride of the shuffle or 0."""

    codec: str
    size: int
    stride: int

    def to_json(self) -> list[Any]:
        return [self.codec, self.size, self.stride]


def entry_of(path: str, tensor: Stored) -> Entry:
    if isinstance(tensor, QuantizedTensor):
        return Entry(path, tuple(tensor.shape), f"int{tensor.bits}")
    kinds = {dtype: name for name, dtype in FLOATS.items()}
    return Entry(path, tuple(tensor.shape), kinds[tensor.dtype])


def encode(
    tensors: Mapping[str, Stored], *, compressor: str, byte_shuffle: bool
) -> tuple[dict[str, Coding], dict[str, bytes]]:
    """(codings, compressed bytes) of the sections that hold ``tensors``, in the mapping's order.

    compressor: for the codes; "rans" leaves the other sections to lzma. byte_shuffle applies to the
    codes, as in #1413; floats are always shuffled by their width.
    """
    codings: dict[str, Coding] = {}
    sections: dict[str, bytes] = {}
    for name, plain in _plain_sections(tensors).items():
        stride = _stride(name, byte_shuffle=byte_shuffle)
        if name == "codes" and compressor == RANS:
            matrices = [t.codes.numpy() for t in tensors.values() if isinstance(t, QuantizedTensor)]
            codings[name] = Coding(RANS, len(plain), 0)
            sections[name] = weights.encode(matrices)
        else:
            codings[name], sections[name] = encode_bytes(plain, stride, compressor=compressor)
    return codings, sections


def encode_bytes(plain: bytes, stride: int = 0, *, compressor: str) -> tuple[Coding, bytes]:
    """Through the general compressor, or as they are where that is no longer."""
    packed = compressors.shuffle(plain, stride) if stride else plain
    packed = compressors.compress(packed, codec="lzma" if compressor == RANS else compressor)
    if len(packed) < len(plain):
        return Coding("lzma" if compressor == RANS else compressor, len(plain), stride), packed
    return Coding("raw", len(plain), 0), plain


def decode_bytes(coding: Coding, data: bytes, *, compressor: str) -> bytes:
    """The plain bytes; at most the declared number of them is ever in memory."""
    if coding.codec == "raw":
        return data
    size = coding.size + (compressors.SHUFFLE_BYTES if coding.stride else 0)
    plain = compressors.decompress(data, size, codec="lzma" if compressor == RANS else compressor)
    return compressors.unshuffle(plain, coding.stride) if coding.stride else plain


def decode(
    entries: Sequence[Entry],
    codings: Mapping[str, Coding],
    sections: Mapping[str, bytes],
    *,
    compressor: str,
) -> dict[str, Stored]:
    """Inverse of ``encode``; ``codings`` are those of ``entries`` (``check`` sees to that)."""
    plain: dict[str, NDArray[np.uint8]] = {}
    for name, coding in codings.items():
        if name == "codes" and compressor == RANS:
            shapes = [(e.shape[0], e.shape[1]) for e in entries if e.kind in BITS]
            codes = weights.decode(sections[name], shapes)
            plain[name] = np.concatenate([c.ravel() for c in codes]).view(np.uint8)
        else:
            data = decode_bytes(coding, sections[name], compressor=compressor)
            plain[name] = np.frombuffer(bytearray(data), np.uint8)
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


def _stride(section: str, *, byte_shuffle: bool) -> int:
    if section == "codes":
        return 2 if byte_shuffle else 0
    return FLOATS[section].itemsize if section in FLOATS else 2
