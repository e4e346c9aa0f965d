"""A `sentencepiece` module that serves the made-up vocabulary, whatever model file is named."""

from __future__ import annotations

import types
from typing import Any

from . import hits
from .modelproto import model_file
from .pieces import BOS, EOS, PAD, UNK, Pieces


class Processor:
    """A SentencePieceProcessor over `pieces` with both spellings of every method."""

    pieces: Pieces

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        hits.hit("sentencepiece")

    def load(self, *_args: Any, **_kwargs: Any) -> bool:
        return True

    def vocab_size(self) -> int:
        return self.pieces.vocab

    def __len__(self) -> int:
        return self.pieces.vocab

    def is_control(self, i: int) -> bool:
        return self.pieces.is_control(int(i))

    def is_unknown(self, i: int) -> bool:
        return int(i) == UNK

    def is_unused(self, i: int) -> bool:
        return False

    def is_byte(self, i: int) -> bool:
        return self.pieces.is_byte(int(i))

    def id_to_piece(self, i: Any) -> Any:
        if isinstance(i, list | tuple):
            return [self.pieces.names[int(j)] for j in i]
        return self.pieces.names[int(i)]

    def piece_to_id(self, piece: Any) -> Any:
        if isinstance(piece, list | tuple):
            return [self.pieces.ids.get(p, UNK) for p in piece]
        return self.pieces.ids.get(piece, UNK)

    def get_score(self, i: int) -> float:
        return -float(i)

    def bos_id(self) -> int:
        return BOS

    def eos_id(self) -> int:
        return EOS

    def pad_id(self) -> int:
        return PAD

    def unk_id(self) -> int:
        return UNK

    def serialized_model_proto(self) -> bytes:
        return model_file(self.pieces)

    def encode(self, text: Any, out_type: Any = int, **_kwargs: Any) -> Any:
        if isinstance(text, list | tuple):
            return [self.encode(t, out_type) for t in text]
        ids = self.pieces.encode(text)
        return ids if out_type is int else [self.pieces.names[i] for i in ids]

    def decode(self, ids: Any, **_kwargs: Any) -> Any:
        if hasattr(ids, "tolist"):
            ids = ids.tolist()
        if isinstance(ids, int):
            ids = [ids]
        if ids and isinstance(ids[0], list | tuple):
            return [self.decode(i) for i in ids]
        return self.pieces.decode(
            [self.pieces.ids.get(i, UNK) if isinstance(i, str) else i for i in ids]
        )

    def __getattr__(self, name: str) -> Any:
        twin = _CAMEL.get(name)
        if twin is None:
            raise AttributeError(name)
        return getattr(self, twin)


_NAMES = """
load vocab_size is_control is_unknown is_unused is_byte id_to_piece piece_to_id encode decode
get_score bos_id eos_id pad_id unk_id
"""
_CAMEL = {"".join(w.capitalize() for w in name.split("_")): name for name in _NAMES.split()} | {
    "get_piece_size": "vocab_size",
    "piece_size": "vocab_size",
    "GetPieceSize": "vocab_size",
    "Load": "load",
    "LoadFromFile": "load",
    "load_from_serialized_proto": "load",
    "LoadFromSerializedProto": "load",
    "EncodeAsIds": "encode",
    "encode_as_ids": "encode",
    "DecodeIds": "decode",
    "decode_ids": "decode",
    "decode_pieces": "decode",
    "DecodePieces": "decode",
    "IsControl": "is_control",
}


def module(pieces: Pieces) -> types.ModuleType:
    """The stand-in for `import sentencepiece`."""
    fake: Any = types.ModuleType("sentencepiece")
    fake.SentencePieceProcessor = type("SentencePieceProcessor", (Processor,), {"pieces": pieces})
    fake.__version__ = "0.2.0"
    return fake
