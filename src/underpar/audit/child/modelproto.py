"""The made-up vocabulary as a SentencePiece model file, for scripts that read that file themselves.

A protobuf ModelProto: pieces (1), trainer (2) with the ids of the controls, normalizer (3) without
character rules. SentencePiece itself loads it if all 256 bytes
have pieces.
"""

from __future__ import annotations

import struct

from .pieces import BOS, EOS, PAD, UNK, Pieces

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_BPE = 2


def model_file(pieces: Pieces) -> bytes:
    """The bytes of `tokenizer.model`."""
    parts = []
    for i, name in enumerate(pieces.names):
        kind = _CONTROL if pieces.is_control(i) else _BYTE if pieces.is_byte(i) else _NORMAL
        kind = _UNKNOWN if i == UNK else kind
        parts.append((1, _message((1, name.encode()), (2, -float(i)), (3, kind))))
    ids = ((40, UNK), (41, BOS), (42, EOS), (43, PAD))
    names = ((45, "<unk>"), (46, "<s>"), (47, "</s>"), (48, "<pad>"))
    trainer = _message(
        (3, _BPE), (4, len(pieces.names)), (35, 1), *ids, *((n, s.encode()) for n, s in names)
    )
    return _message(*parts, (2, trainer), (3, _message((1, b"identity"), (4, 0))))


def _message(*fields: tuple[int, int | float | bytes]) -> bytes:
    """Fields as protobuf writes them: whole numbers as varints, floats in 4 bytes, then bytes."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number * 8) + _varint(value)
        elif isinstance(value, float):
            out += _varint(number * 8 + 5) + struct.pack("<f", value)
        else:
            out += _varint(number * 8 + 2) + _varint(len(value)) + value
    return out


def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])
