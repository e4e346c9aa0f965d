"""Tokenizers: text to ids and back, with exact byte accounting (see ``detokenizer``).

Lossless means decode(encode(s)) == s for every string that UTF-8 can represent. Identity
normalisation, no dummy prefix, white space kept and byte fallback get almost there. One character
is left: a literal U+2581 is taken for a space. It is therefore written as its three byte pieces,
which decode to it. A normalising tokenizer (``lossless`` False) maps several texts to one code, so
its score speaks of the normalised text, ``normalized(s) = decode(encode(s))``.

U+2581 must be a piece of its own, else a lone space costs three byte pieces that decode to the
literal character: such a model is not lossless, and a validation set refuses it where it matters.
"""

from __future__ import annotations

import io
import re
from abc import abstractmethod
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece as spm

from underpar.data.detokenizer import SPACE, ByteTables, Detokenizer, SentencePieceDetokenizer
from underpar.data.shards import Tokens
from underpar.errors import DataError

#: SentencePiece's trainer drops every sentence that contains this character without a word.
_RESERVED = "\u2585"


class Tokenizer(Detokenizer):
    """Text to ids and back."""

    @abstractmethod
    def encode(self, text: str) -> Tokens:
        """Ids of ``text``, uint16 [n], no BOS. DataError for text that UTF-8 cannot represent."""

    def normalized(self, text: str) -> str:
        """The text that the ids of ``text`` stand for; ``text`` itself when lossless."""
        return text if self.lossless else self.decode(self.encode(text))


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


class SentencePieceTokenizer(SentencePieceDetokenizer, Tokenizer):
    """A SentencePiece model; ``load_tokenizer`` refuses bytes that are none."""

    def encode(self, text: str) -> Tokens:
        _utf8(text)
        if not self.lossless or SPACE not in text:
            return np.array(self._sp.encode(text), dtype=np.uint16)
        ids: list[int] = []
        for i, part in enumerate(text.split(SPACE)):
            ids += (self._bytes_of_space if i else []) + self._sp.encode(part)
        return np.array(ids, dtype=np.uint16)

    @cached_property
    def _bytes_of_space(self) -> list[int]:
        return [self._sp.piece_to_id(f"<0x{b:02X}>") for b in SPACE.encode()]


def tokenizer_from(kind: str, data: bytes) -> Tokenizer:
    """The tokenizer that ``kind`` and ``to_bytes()`` describe. DataError: unknown kind."""
    if kind == ByteTokenizer.kind:
        return ByteTokenizer()
    if kind == SentencePieceTokenizer.kind:
        return load_tokenizer(data)
    raise DataError("tokenizer kind", got=repr(kind), wanted="'sentencepiece' or 'bytes'")


def load_tokenizer(source: Path | str | bytes) -> SentencePieceTokenizer:
    """A SentencePiece model from a file or from the bytes of one.

    Raises DataError for what cannot be read, is no such model, or lacks a BOS piece.
    """
    name = "tokenizer model" if isinstance(source, bytes) else f"tokenizer {source}"
    try:
        model = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise DataError(name, got=error.strerror or str(error)) from error
    got = f"{len(model)} bytes that SentencePiece cannot read"
    foreign = DataError(name, got=got, wanted="a SentencePiece .model file")
    if not model:  # the library takes nothing for a model, and then writes to stderr
        raise foreign
    try:
        tokenizer = SentencePieceTokenizer(model)
    except (RuntimeError, UnicodeDecodeError) as error:
        raise foreign from error
    if tokenizer.bos_id < 0 or tokenizer.vocab_size > 65_536:
        raise DataError(
            "tokenizer model",
            got=f"{tokenizer.vocab_size} pieces, BOS id {tokenizer.bos_id}",
            wanted="a BOS piece and at most 65536 pieces",
        )
    return tokenizer


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
