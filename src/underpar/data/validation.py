"""The validation stream, which exists only if its byte count is right.

A stream is documents, each BOS + tokens, end to end. Token i + 1 is the target at position i; the
first token is never a target, and BOS as a target costs nats but stands for no bytes. The score
divides by the bytes of the targets, so a wrong count is a wrong score: a ``ValidationSet`` cannot
be made unless the per-token counts add up to the UTF-8 bytes of the text that the tokens decode to,
document by document, and for a lossless tokenizer to the bytes of the raw text where known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from underpar import progress
from underpar.data.detokenizer import Detokenizer
from underpar.data.shards import Tokens, read_shard
from underpar.errors import DataError


@dataclass(frozen=True, eq=False)
class ValidationSet:
    """A checked stream; its arrays are read-only.

    tokens: uint16 [N], N >= 2. byte_lengths: int32 [N-1], bytes of target i+1 given token i.
    documents: int64 [D], index of each document's first token. true_bytes: UTF-8 bytes of the text
    that is scored. normalized: whether that is the tokenizer's normal form of the text instead of
    the text itself. raw_bytes: bytes of the original text, where known.
    """

    tokens: Tokens
    byte_lengths: npt.NDArray[np.int32]
    documents: npt.NDArray[np.int64]
    true_bytes: int
    normalized: bool = False
    raw_bytes: int | None = None

    def __post_init__(self) -> None:
        n = len(self.tokens)
        if n < 2:
            raise DataError(
                "validation text: nothing to predict",
                got=f"{n} token(s)",
                wanted="at least 2, because the first token is never a target",
            )
        if len(self.byte_lengths) != n - 1:
            raise DataError(
                "byte lengths of the validation text",
                got=len(self.byte_lengths),
                wanted=f"one for each of {n - 1} targets",
            )
        counted = int(self.byte_lengths.sum(dtype=np.int64))
        _same_bytes(counted, self.true_bytes, "the validation text")
        if not self.normalized and self.raw_bytes is not None:
            _same_bytes(counted, self.raw_bytes, "the raw validation text")
        for array in (self.tokens, self.byte_lengths, self.documents):
            array.setflags(write=False)

    @property
    def n_targets(self) -> int:
        return len(self.tokens) - 1

    def beginning(self, n_targets: int) -> ValidationSet:
        """The first ``n_targets`` targets as a set of their own (all, if there are fewer)."""
        n = min(n_targets, self.n_targets)
        lengths = self.byte_lengths[:n].copy()
        return ValidationSet(
            tokens=self.tokens[: n + 1].copy(),
            byte_lengths=lengths,
            documents=self.documents[self.documents <= n].copy(),
            true_bytes=int(lengths.sum(dtype=np.int64)),
            normalized=self.normalized,
        )

    @classmethod
    def from_tokens(
        cls,
        tokens: npt.NDArray[np.integer],
        tokenizer: Detokenizer,
        *,
        document_bytes: Sequence[int] | None = None,
    ) -> ValidationSet:
        """Count, decode and compare. document_bytes: bytes of each original document, where known.

        Raises DataError for ids the tokenizer does not have, a stream that does not begin with BOS,
        or a document whose tokens do not add up to its text.
        """
        lengths = tokenizer.byte_lengths(tokens)  # first, because it refuses foreign ids
        stream = np.array(tokens, dtype=np.uint16)  # a copy: nobody else can write to it
        starts = np.flatnonzero(stream == tokenizer.bos_id)
        if len(stream) and stream[0] != tokenizer.bos_id:
            raise DataError(
                "validation stream",
                got=f"first token {stream[0]}",
                wanted=f"BOS ({tokenizer.bos_id}), the start of a document",
                do="The first token is never scored, so a stream that begins inside a document "
                "would lose text; or the tokenizer is not the one of these shards.",
            )
        if document_bytes is not None and len(document_bytes) != len(starts):
            raise DataError(
                "validation stream",
                got=f"{len(starts)} documents",
                wanted=f"{len(document_bytes)}, as many as there are texts",
            )
        true_bytes = _check_documents(
            stream, starts, lengths, tokenizer, document_bytes=document_bytes
        )
        return cls(
            tokens=stream,
            byte_lengths=lengths,
            documents=starts.astype(np.int64),
            true_bytes=true_bytes,
            normalized=not tokenizer.lossless,
            raw_bytes=None if document_bytes is None else sum(document_bytes),
        )

    @classmethod
    def from_shards(
        cls,
        files: Sequence[Path],
        tokenizer: Detokenizer,
        *,
        document_bytes: Sequence[int] | None = None,
    ) -> ValidationSet:
        """All shards end to end, nothing cut off the tail; see ``from_tokens``."""
        shards = [np.empty(0, np.uint16), *map(read_shard, files)]
        return cls.from_tokens(np.concatenate(shards), tokenizer, document_bytes=document_bytes)


def _check_documents(
    tokens: Tokens,
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int32],
    tokenizer: Detokenizer,
    *,
    document_bytes: Sequence[int] | None,
) -> int:
    """UTF-8 bytes of all decoded documents; DataError at the first that does not add up."""
    ends = np.append(starts[1:], len(tokens))
    total = 0
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist())):
        text = tokenizer.decode(tokens[start:end])
        n_bytes = len(text.encode("utf-8"))
        # lengths[j] belongs to tokens[j + 1]: this document's targets, without the next one's BOS
        counted = int(lengths[start : end - 1].sum(dtype=np.int64))
        _same_bytes(counted, n_bytes, f"validation document {i}")
        if document_bytes is not None and tokenizer.lossless:
            _same_bytes(counted, document_bytes[i], f"the raw text of validation document {i}")
        total += n_bytes
        progress.current().update("counting validation bytes", end, len(tokens))
    return total


def _same_bytes(counted: int, wanted: int, what: str) -> None:
    if counted != wanted:
        raise DataError(
            f"the bytes of the tokens are not the bytes of {what}",
            got=counted,
            wanted=wanted,
            do="A score over them would have a wrong denominator. Check that the shards were made "
            "with this tokenizer.",
        )
