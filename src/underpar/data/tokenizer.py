"""Tokenizers with exact byte accounting.

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

Lossless means decode(encode(s)) == s for every string that UTF-8 can represent. Identity
normalisation, no dummy prefix, white space kept and byte fallback get almost there. One character
is left: a literal U+2581 is taken for a space. It is therefore written as its three byte pieces,
which decode to it. A normalising tokenizer (``lossless`` False) maps several texts to one code, so
its score speaks of the normalised text, ``normalized(s) = decode(encode(s))``.

U+2581 must be a piece of its own, else a lone space costs three byte pieces that decode to the
literal character: such a model is not lossless, and a validation set refuses it where it matters.
"""

from __future__ import annotations

import hashlib
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece as spm

from underpar.data.modelfile import Normalizer
from underpar.data.shards import Tokens
from underpar.errors import DataError

SPACE = "\u2581"
#: SentencePiece's trainer drops every sentence that contains this character without a word.
_RESERVED = "\u2585"


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


class Tokenizer(ABC):
    """Text to ids and back. Ids fit in uint16; ``encode`` never adds BOS."""

    kind: str
    vocab_size: int
    bos_id: int
    lossless: bool

    @abstractmethod
    def encode(self, text: str) -> Tokens:
        """Ids of ``text``, uint16 [n]. Raises DataError for text that UTF-8 cannot represent."""

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

    def normalized(self, text: str) -> str:
        """The text that the ids of ``text`` stand for; ``text`` itself when lossless."""
        return text if self.lossless else self.decode(self.encode(text))

    def digest(self) -> str:
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


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            "text cannot be tokenized",
            got=f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start}",
            wanted="text that UTF-8 can represent",
        ) from error


class ByteTokenizer(Tokenizer):
    """Ids 0..255 are the bytes, 256 is BOS. Lossless, and every count is trivially right."""

    kind = "bytes"
    vocab_size = 257
    bos_id = 256
    lossless = True

    def encode(self, text: str) -> Tokens:
        return np.frombuffer(_utf8(text), dtype=np.uint8).astype(np.uint16)

    def decode(self, ids: npt.ArrayLike) -> str:
        ids = np.asarray(ids, dtype=np.int64)
        self._check(ids)
        return ids[ids != self.bos_id].astype(np.uint8).tobytes().decode("utf-8", "replace")

    def to_bytes(self) -> bytes:
        return b""

    def tables(self) -> ByteTables:
        base = np.ones(self.vocab_size, dtype=np.int32)
        base[self.bos_id] = 0
        return ByteTables(base, np.zeros(self.vocab_size, bool), base == 0)


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model. Raises DataError for bytes that are none, or lack a BOS piece."""

    kind = "sentencepiece"

    def __init__(self, model: bytes, name: str = "tokenizer model") -> None:
        got = f"{len(model)} bytes that SentencePiece cannot read"
        foreign = DataError(name, got=got, wanted="a SentencePiece .model file")
        if not model:  # the library takes nothing for a model, and then writes to stderr
            raise foreign
        try:
            self._sp = spm.SentencePieceProcessor(model_proto=model)
            self._pieces = [self._sp.id_to_piece(i) for i in range(self._sp.get_piece_size())]
        except (RuntimeError, UnicodeDecodeError) as error:
            raise foreign from error
        self._model = bytes(model)
        self.vocab_size = len(self._pieces)
        self.bos_id = self._sp.bos_id()
        if self.bos_id < 0 or self.vocab_size > 65_536:
            raise DataError(
                "tokenizer model",
                got=f"{self.vocab_size} pieces, BOS id {self.bos_id}",
                wanted="a BOS piece and at most 65536 pieces",
            )
        settings = Normalizer.of(model)
        self._strips = settings.dummy_prefix or settings.strips_space
        self._bytes_of_space = [self._sp.piece_to_id(f"<0x{b:02X}>") for b in SPACE.encode()]
        n_bytes = sum(self._sp.is_byte(i) for i in range(self.vocab_size))
        has_space = not self._sp.is_unknown(self._sp.piece_to_id(SPACE))
        self.lossless = settings.identity and not self._strips and n_bytes == 256 and has_space

    def encode(self, text: str) -> Tokens:
        _utf8(text)
        if not self.lossless or SPACE not in text:
            return np.array(self._sp.encode(text), dtype=np.uint16)
        ids: list[int] = []
        for i, part in enumerate(text.split(SPACE)):
            ids += (self._bytes_of_space if i else []) + self._sp.encode(part)
        return np.array(ids, dtype=np.uint16)

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


def tokenizer_from(kind: str, data: bytes) -> Tokenizer:
    """The tokenizer that ``kind`` and ``to_bytes()`` describe. DataError: unknown kind."""
    if kind == ByteTokenizer.kind:
        return ByteTokenizer()
    if kind == SentencePieceTokenizer.kind:
        return SentencePieceTokenizer(data)
    raise DataError("tokenizer kind", got=repr(kind), wanted="'sentencepiece' or 'bytes'")


def load_tokenizer(source: Path | str | bytes) -> SentencePieceTokenizer:
    """A SentencePiece model from a file or from the bytes of one."""
    if isinstance(source, bytes):
        return SentencePieceTokenizer(source)
    try:
        model = Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"tokenizer {source}", got=error.strerror or str(error)) from error
    return SentencePieceTokenizer(model, str(source))


def train_bpe(
    texts: Iterable[str], vocab_size: int, *, lossless: bool = True
) -> SentencePieceTokenizer:
    """Train a BPE model of exactly ``vocab_size`` pieces; the same texts give the same bytes.

    lossless: our settings (see the module's text, coverage 0.9995). Otherwise the competition's:
    nmt_nfkc, extra white space removed, coverage 0.999. Both: digits split, byte fallback,
    pad 0, bos 1, eos 2, unk 3. Documents go in whole, so that pieces such as ".\\n\\n" are learned:
    1.5 to 2.5 % more bytes per token on speeches than training line by line.
    Raises DataError when the texts are too few for ``vocab_size``, or it is too small for them.
    """
    parts = [p for text in texts for p in re.split(f"[{SPACE}{_RESERVED}]", text) if p]
    if not parts:
        raise DataError("training a tokenizer", got="no text", wanted="at least one document")
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(parts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=0.9995 if lossless else 0.999,
            normalization_rule_name="identity" if lossless else "nmt_nfkc",
            remove_extra_whitespaces=not lossless,
            add_dummy_prefix=False,
            byte_fallback=True,
            split_digits=True,
            required_chars=SPACE,
            hard_vocab_limit=False,  # reported below, with what to do about it
            max_sentence_length=2**30,  # longer documents would be dropped
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            num_threads=1,  # stored in the model file
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _training_error(vocab_size, str(error)) from error
    tokenizer = SentencePieceTokenizer(model.getvalue())
    if tokenizer.vocab_size != vocab_size:
        raise DataError(
            f"training a tokenizer of {vocab_size} pieces",
            got=f"text for {tokenizer.vocab_size} only",
            do=f"Lower model.vocab_size to {tokenizer.vocab_size} or less, or add text.",
        )
    return tokenizer


def _training_error(vocab_size: int, message: str) -> DataError:
    smaller = re.search(r"smaller than required_chars. \d+ vs (\d+)", message)
    if smaller:
        return DataError(
            "training a tokenizer: too few pieces for the characters of the text",
            got=vocab_size,
            wanted=f"at least {smaller[1]}",
            do="Raise model.vocab_size.",
        )
    return DataError("training a tokenizer", got=message)
