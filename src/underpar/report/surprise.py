"""Excerpts of the scored text, each token tinted by the bits it cost.

A token is a few bytes, not always whole characters: neighbours that share a character are tinted as
one, by their mean. Tints are eight classes, and neighbours of one class share a tag, because with a
style for each token ten documents would be megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from underpar.bits import LN2
from underpar.data.bytetokens import TokenBytes
from underpar.data.detokenizer import Detokenizer
from underpar.data.validation import ValidationSet

#: Bits per token at which the next tint begins; below the first there is none.
EDGES = (1.0, 2.0, 4.0, 6.0, 9.0, 12.0, 16.0)

#: Tokens of one document that are shown at most.
MOST_TOKENS = 1500

#: Bytes of a UTF-8 character at most, and so tokens of one that stand for any bytes.
MOST_BYTES = 4


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a document. html: escaped, tinted. tokens: shown; of: in the document."""

    document: int
    html: str
    tokens: int
    of: int
    opening: str


def level(bits: float) -> int:
    """The tint 0 to 7 of a token that cost ``bits``; NaN, an unknown cost, has none: 0."""
    return 0 if np.isnan(bits) else int(np.searchsorted(EDGES, bits, side="right"))


def legend() -> str:
    """The tints with their bits per token."""
    names = [f"under {EDGES[0]:g}"]
    names += [f"{a:g} to {b:g}" for a, b in pairwise(EDGES)] + [f"over {EDGES[-1]:g}"]
    tints = "".join(f"<li><i class=t{i}>{name}</i></li>" for i, name in enumerate(names))
    return f'<ul class="legend" aria-label="bits per token">{tints}</ul>'


def excerpts(
    nll: NDArray[np.float32],
    validation: ValidationSet,
    tokenizer: Detokenizer,
    *,
    documents: int,
    room: int,
) -> list[Excerpt]:
    """The beginnings of up to ``documents`` documents, evenly spread; ``room``: bytes of HTML."""
    count = len(validation.documents)
    chosen = np.unique(np.linspace(0, count - 1, min(documents, count)).round().astype(int))
    ends = np.append(validation.documents[1:], len(validation.tokens))
    table = TokenBytes(tokenizer)
    return [
        _excerpt(d, int(ends[d]), nll, validation, table, room // len(chosen))
        for d in chosen.tolist()
    ]


def _excerpt(
    document: int,
    end: int,
    nll: NDArray[np.float32],
    validation: ValidationSet,
    table: TokenBytes,
    room: int,
) -> Excerpt:
    first = int(validation.documents[document]) + 1  # BOS itself has no text
    out: list[str] = []
    shown, opening, run, tint = 0, "", "", 0
    for text, tokens, bits in _characters(first, end, nll, validation, table):
        size = len(_tinted(run + text, tint).encode())
        if shown + tokens > MOST_TOKENS or size + 20 > room:
            break
        if level(bits) != tint:
            out.append(_tinted(run, tint))
            room -= len(out[-1].encode())
            run, tint = "", level(bits)
        run += text
        shown += tokens
        if len(opening) < 50:
            opening += text
    out.append(_tinted(run, tint))
    return Excerpt(document, "".join(out), shown, end - first, " ".join(opening.split()))


def _tinted(text: str, tint: int) -> str:
    return f"<i class=t{tint}>{escape(text, quote=False)}</i>" if text and tint else escape(
        text, quote=False
    )  # fmt: skip


def _characters(
    first: int,
    end: int,
    nll: NDArray[np.float32],
    validation: ValidationSet,
    table: TokenBytes,
) -> Iterator[tuple[str, int, float]]:
    """(text, its tokens, bits per token) of the least tokens that make whole characters."""
    data, begin = b"", first
    for at in range(first, end):
        piece = table.decode(validation.tokens[at : at + 1])
        # a space that the tokenizer's decoder drops has no byte in the score either
        data += piece[len(piece) - int(validation.byte_lengths[at - 1]) :]
        try:
            text = data.decode()
        except UnicodeDecodeError:
            if len(data) < MOST_BYTES and at + 1 < end:
                continue
            text = data.decode(errors="replace")
        bits = float(np.mean(nll[begin - 1 : at])) / LN2
        yield text, at + 1 - begin, bits
        data, begin = b"", at + 1
