"""What a SentencePiece model file says about normalisation; the Python library does not tell.

The file is a protobuf message, ModelProto. Its field 3 is the NormalizerSpec: 2 the compiled
character rules (empty for identity), 3 add_dummy_prefix, 4 remove_extra_whitespaces, both true when
left out. Walking over the fields needs no schema compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Normalizer:
    """The normalizer_spec of a model file.

    identity: no character rules. dummy_prefix: a space is put before every text. strips_space: runs
    of white space become one space, and none is left at either end.
    """

    identity: bool
    dummy_prefix: bool
    strips_space: bool

    @classmethod
    def of(cls, model: bytes) -> Normalizer:
        """Read a model file that SentencePiece has accepted."""
        spec = next((v for n, v in _fields(model) if n == 3 and isinstance(v, bytes)), b"")
        found = dict(_fields(spec))
        return cls(
            identity=not found.get(2),
            dummy_prefix=bool(found.get(3, 1)),
            strips_space=bool(found.get(4, 1)),
        )


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protobuf message that the library has already accepted."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            yield number, varint()
        else:
            length = varint() if wire == 2 else {1: 8, 5: 4}[wire]
            yield number, message[at : at + length]
            at += length
