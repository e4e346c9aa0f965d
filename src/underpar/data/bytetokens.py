"""Any bytes to tokens and back, exactly, with a tokenizer that need not be lossless itself.

Going back is one table, token id -> bytes: a piece with U+2581 as a space, one byte for a
byte-fallback piece, nothing for control and unknown pieces. Joined, not decoded: the library's
decoder replaces broken UTF-8 and may drop spaces, a join cannot. So whatever was encoded is
verified by the join, and only what fails is said in another way:

1. Bytes that are not UTF-8 are said one by one, with the pieces that stand for a single byte.
2. The valid text between them goes through the tokenizer as it is. With a lossless one that is
   all: its tokens are those of ``Tokenizer.encode``, so a coded length is the official score.
3. A normalising tokenizer (the competition's) folds characters, line ends among them, and strips
   spaces. Which characters it loses is found by trying each distinct one once. They and runs of
   spaces are said byte by byte, the stretches between them encoded by themselves, and the words
   of a stretch that fails still (sequences that compose) by themselves again.

Each step reads a text once, so time is linear in its length whatever the text is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import sentencepiece as spm

from underpar.data.detokenizer import SPACE, Detokenizer
from underpar.data.shards import Tokens
from underpar.data.tokenizer import ByteTokenizer, Tokenizer
from underpar.errors import DataError

#: Bytes that are not UTF-8, in the guise that "surrogateescape" gives them.
_INVALID = re.compile("([\udc80-\udcff]+)")
_WORD = re.compile(" ?[^ ]+")
#: In place of an id, for a byte that no piece stands for.
_UNSAYABLE = -1


class TokenBytes:
    """The bytes that tokens stand for."""

    def __init__(self, tokenizer: Detokenizer) -> None:
        self._pieces = _pieces(tokenizer)

    def decode(self, tokens: npt.NDArray[np.integer]) -> bytes:
        """The bytes of ``tokens``; control ids have none. DataError: ids of another tokenizer."""
        size = len(self._pieces)
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
            got = f"ids {int(tokens.min())} to {int(tokens.max())}"
            raise DataError("token ids of another tokenizer", got=got, wanted=f"0 to {size - 1}")
        return self._joined(tokens.tolist())

    def _joined(self, ids: list[int]) -> bytes:
        return b"".join(map(self._pieces.__getitem__, ids))


class ByteTokens(TokenBytes):
    """The lossless code of bytes in the tokens of ``tokenizer``."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._tokenizer = tokenizer
        self._ids_of_bytes = _ids_of_bytes(self._pieces)
        self._survives: dict[str, bool] = {}

    def encode(self, data: bytes) -> Tokens | None:
        """Tokens that ``decode`` makes ``data`` of, without BOS, uint16 [n].

        None when the tokenizer has no piece for some byte; one with byte fallback has all. For
        text that a lossless tokenizer can encode these are the tokens of its ``encode``.
        """
        parts = _INVALID.split(data.decode("utf-8", "surrogateescape"))
        gaps: re.Pattern[str] | None = None
        ids: list[int] = []
        for i, part in enumerate(parts):
            if i % 2:
                ids += self._said(part)
            elif whole := self._encoded(part):
                ids += whole
            elif part:
                gaps = gaps or self._gaps(set[str]().union(*parts[::2]))
                ids += self._mended(part, gaps)
        return None if _UNSAYABLE in ids else np.array(ids, dtype=np.uint16)

    def _said(self, text: str) -> list[int]:
        """``text`` byte by byte."""
        return [self._ids_of_bytes[b] for b in text.encode("utf-8", "surrogateescape")]

    def _encoded(self, text: str) -> list[int]:
        """The tokenizer's ids of valid ``text``; none where it does not survive.

        A space in front is tried in two more ways: left to a tokenizer that puts one there
        itself, and said before what a tokenizer that strips it makes of the rest.
        """
        ids: list[int] = self._tokenizer.encode(text).tolist()
        if self._joined(ids) == text.encode():
            return ids
        if not text.startswith(" "):
            return []
        ids = self._tokenizer.encode(text[1:]).tolist()
        joined = self._joined(ids)
        if joined == text.encode():
            return ids
        return [*self._said(" "), *ids] if joined == text[1:].encode() else []

    def _mended(self, text: str, gaps: re.Pattern[str]) -> list[int]:
        """Ids of valid ``text`` that does not survive as a whole."""
        ids: list[int] = []
        for stretch, gap in _split(gaps, text):
            if stretch:
                ids += self._encoded(stretch) or self._by_words(stretch)
            ids += self._said(gap)
        return ids

    def _by_words(self, stretch: str) -> list[int]:
        ids: list[int] = []
        for word in _WORD.findall(stretch):
            ids += self._encoded(word) or self._said(word)
        return ids

    def _gaps(self, characters: set[str]) -> re.Pattern[str]:
        """What cannot survive: lost characters with the spaces around them, and runs of spaces."""
        for c in characters - self._survives.keys():
            ids = self._tokenizer.encode(f"a{c}a").tolist()
            self._survives[c] = self._joined(ids).endswith(f"{c}a".encode())
        lost = [re.escape(c) for c in sorted(characters) if c != " " and not self._survives[c]]
        # a surrogate is in no valid text: it keeps the set from being empty
        return re.compile(f" *+[\udc80{''.join(lost)}]++|  ++| \\Z")


def _split(gaps: re.Pattern[str], text: str) -> Iterator[tuple[str, str]]:
    """(stretch, the gap after it) through the text; either may be empty."""
    at = 0
    for gap in gaps.finditer(text):
        yield text[at : gap.start()], gap[0]
        at = gap.end()
    yield text[at:], ""


def _pieces(tokenizer: Detokenizer) -> list[bytes]:
    """What each id stands for within a text."""
    if isinstance(tokenizer, ByteTokenizer):
        return [*(bytes([b]) for b in range(256)), b""]
    sp = spm.SentencePieceProcessor(model_proto=tokenizer.to_bytes())
    pieces: list[bytes] = []
    for i in range(tokenizer.vocab_size):
        piece = sp.id_to_piece(i)
        if sp.is_byte(i):
            pieces.append(bytes([int(piece[3:5], 16)]))
        elif sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
            pieces.append(b"")
        else:
            pieces.append(piece.replace(SPACE, " ").encode())
    return pieces


def _ids_of_bytes(pieces: list[bytes]) -> list[int]:
    """An id for each byte. Byte fallback comes first in a model, a character's own piece, if it has
    one, later: that one is what ordinary text is made of."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    return [ids.get(bytes([b]), _UNSAYABLE) for b in range(256)]
