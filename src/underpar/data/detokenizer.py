"""Ids back to text, and the bytes that each of them stands for: what a score needs of a tokenizer.

The score divides by the bytes of the text, so every token must know how many bytes it stands for,
in its context. For a SentencePiece model three tables decide, as in the competition's scripts:

    bytes(target | previous) = base[target] + (lead[target] and not boundary[previous])

``base`` is the UTF-8 length of the piece without one leading U+2581 (the library's sign for a
space), 1 for a byte-fallback piece, 0 for control pieces; ``lead`` marks pieces that begin with
U+2581; ``boundary`` marks the ids after which decoding drops that space. Whether it ever drops one
depends on the model, and the tables follow the library's decoder in each case:

- models that strip extra white space or add a dummy prefix (the competition's: nmt_nfkc, white
  space stripped): the space right after BOS is not in the text; boundary = control and unknown;
- models that do neither (ours): ``[BOS, U+2581 a]`` decodes to " a", so a document may begin with
  a space and that space is a byte like any other: no id is a boundary.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import sentencepiece as spm

from underpar.data.modelfile import Normalizer
from underpar.errors import DataError

SPACE = "\u2581"


@dataclass(frozen=True)
class ByteTables:
    """base int32 [V], lead bool [V], boundary bool [V]; see the module's text."""

    base: npt.NDArray[np.int32]
    lead: npt.NDArray[np.bool_]
    boundary: npt.NDArray[np.bool_]

    def lengths(self, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Bytes of each target: tokens [N] -> int32 [N-1], entry i for i + 1 after i."""
        previous, target = tokens[:-1], tokens[1:]
        lengths = self.base[target]
        lengths += self.lead[target] & ~self.boundary[previous]
        return lengths


class Detokenizer(ABC):
    """Ids, which fit in uint16, back to text. lossless: every text comes back as it was."""

    kind: str
    vocab_size: int
    bos_id: int
    lossless: bool

    @abstractmethod
    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of ``ids``; control ids vanish, bytes that are not UTF-8 become U+FFFD."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The model file, b"" for the byte tokenizer; see ``tokenizer_from``."""

    @abstractmethod
    def tables(self) -> ByteTables:
        """The byte tables of this tokenizer, each of length vocab_size."""

    def byte_lengths(self, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Bytes of each target in a stream: tokens [N] -> int32 [N-1]. DataError: unknown ids."""
        self._check(tokens)
        return self.tables().lengths(tokens)

    def fingerprint(self) -> str:
        """sha256 (hex) of kind and model file: equal digests mean equal tokenization."""
        return hashlib.sha256(self.kind.encode() + b"\0" + self.to_bytes()).hexdigest()

    def _check(self, ids: npt.NDArray[np.integer]) -> None:
        if ids.size and (int(ids.max()) >= self.vocab_size or int(ids.min()) < 0):
            raise DataError(
                "token ids do not belong to this tokenizer",
                got=f"id {int(ids.max())}",
                wanted=f"ids below its {self.vocab_size} pieces",
                do="Use the tokenizer that the shards were made with.",
            )


class SentencePieceDetokenizer(Detokenizer):
    """A SentencePiece model with a BOS piece; ``load_tokenizer`` refuses bytes that are none."""

    kind = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        self._sp = spm.SentencePieceProcessor(model_proto=model)
        self._pieces = [self._sp.id_to_piece(i) for i in range(self._sp.get_piece_size())]
        self._model = bytes(model)
        self.vocab_size = len(self._pieces)
        self.bos_id = self._sp.bos_id()
        settings = Normalizer.of(model)
        self._strips = settings.dummy_prefix or settings.strips_space
        n_bytes = sum(self._sp.is_byte(i) for i in range(self.vocab_size))
        has_space = not self._sp.is_unknown(self._sp.piece_to_id(SPACE))
        self.lossless = settings.identity and not self._strips and n_bytes == 256 and has_space

    def decode(self, ids: npt.ArrayLike) -> str:
        ids = np.asarray(ids, dtype=np.int64)
        self._check(ids)
        return self._sp.decode(ids.tolist())

    def to_bytes(self) -> bytes:
        return self._model

    def tables(self) -> ByteTables:
        return self._tables

    @cached_property
    def _tables(self) -> ByteTables:
        sp, size = self._sp, self.vocab_size
        base = np.zeros(size, dtype=np.int32)
        lead = np.zeros(size, dtype=bool)
        boundary = np.zeros(size, dtype=bool)
        for i, piece in enumerate(self._pieces):
            if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
                boundary[i] = self._strips
            elif sp.is_byte(i):
                base[i] = 1
            else:
                lead[i] = piece.startswith(SPACE)
                # a U+2581 further in decodes to a space too; published tables count it as 3 bytes
                base[i] = len(piece.removeprefix(SPACE).replace(SPACE, " ").encode("utf-8"))
        return ByteTables(base, lead, boundary)
