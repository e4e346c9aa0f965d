"""Interleaved rANS: symbols to bits at their entropy, in numpy alone.

An asymmetric numeral system (Duda, arXiv:1311.2540) keeps everything coded so far in one integer x.
Coding a symbol that owns ``f`` of the ``M = 2**PRECISION`` slots, ``c`` slots after the first,

    x  ->  (x // f) * M + c + x % f            grows x by log2(M / f) bits, its ideal cost
    x  ->  f * (x // M) + x % M - c            undoes it; the symbol is the owner of slot x % M

so decoding runs backwards through encoding: last in, first out. We encode the symbols from the last
to the first, and the decoder reads them in natural order. To keep x in 32 bits, the encoder moves
its low 16 bits out as one word whenever the next step would overflow, and the decoder takes a word
back whenever x falls below 2**16. Both happen at most once a symbol, at the same places.

One integer at a time would be slow in Python, so ``lanes`` integers run side by side (interleaved
rANS, Giesen, arXiv:1402.3392): a group of symbols is cut into rows of ``lanes``, and lane j codes
column j. A short last row uses the first lanes only, so no padding is ever coded. The words of all
lanes share one sequence, in the order in which the decoder wants them: row by row, lane by lane.

The states are carried from group to group, so their 4 bytes a lane are paid once for a whole model
(about half of that is overhead: each lane starts as 2**16 instead of nothing). They end, for the
decoder, as they began for the encoder: at exactly 2**16. Together with "all words used" that is a
check: a damaged stream is an error, and nothing in it can index outside a table or run on.

Stream: uint32 little-endian states, one a lane, then uint16 little-endian words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from underpar.errors import ArtifactError

#: Frequencies of a group sum to 2**PRECISION.
PRECISION = 14
SLOTS = 1 << PRECISION

#: States live in [LOWEST, 2**32) between symbols; also every lane's state before the first symbol.
LOWEST = 1 << 16

Symbols = NDArray[np.integer]
Freqs = NDArray[np.integer]


def lanes_for(n_symbols: int) -> int:
    """Lanes for a stream: about 16,384 rows, so that states cost 0.03 % or less, at most 1024."""
    return min(max(n_symbols >> 14, 1), 1024)


def encode(groups: Sequence[tuple[Symbols, Freqs]], lanes: int) -> bytes:
    """Code (symbols [n] from 0, frequencies [A] summing to SLOTS) groups into one stream.

    Every symbol that occurs must have a frequency of at least 1. Groups may be empty.
    """
    states = np.full(lanes, LOWEST, np.uint64)
    words: list[NDArray[np.uint16]] = []  # in reverse: the decoder's last word first
    for symbols, freqs in reversed(groups):
        _encode_group(symbols, freqs, states, words)
    words.reverse()
    return states.astype("<u4").tobytes() + b"".join(word.tobytes() for word in words)


def _encode_group(
    symbols: Symbols, freqs: Freqs, states: NDArray[np.uint64], words: list[NDArray[np.uint16]]
) -> None:
    """Push the symbols, last row first, onto ``states`` (in place) and ``words``."""
    assert int(freqs.sum()) == SLOTS, "frequencies must fill the slots exactly"
    starts = (np.cumsum(freqs) - freqs).astype(np.uint64)
    sizes = freqs.astype(np.uint64)
    limits = sizes << np.uint64(32 - PRECISION)
    lanes = len(states)
    for row in range(-(-len(symbols) // lanes) - 1, -1, -1):
        s = symbols[row * lanes : (row + 1) * lanes]
        x = states[: len(s)]
        full = x >= limits[s]
        if full.any():
            words.append(x[full].astype("<u2"))  # keeps the low 16 bits
            x[full] >>= np.uint64(16)
        quotient, rest = np.divmod(x, sizes[s])
        states[: len(s)] = (quotient << np.uint64(PRECISION)) + rest + starts[s]


class Decoder:
    """Reads what ``encode`` wrote: ``take`` each group in the same order, then ``finish``."""

    def __init__(self, data: bytes, lanes: int) -> None:
        """Raises ArtifactError when ``data`` cannot be a stream of ``lanes`` lanes."""
        if len(data) < 4 * lanes or len(data) % 2:
            raise _damaged(f"{len(data)} bytes", f"an even number from {4 * lanes} up")
        self._states = np.frombuffer(data, "<u4", lanes).astype(np.uint64)
        self._words = np.frombuffer(data, "<u2", offset=4 * lanes)
        self._taken = 0
        if self._states.min() < LOWEST:
            raise _damaged("a state below 2**16")

    def take(self, count: int, freqs: Freqs) -> Symbols:
        """The next group: ``count`` symbols, uint8 [count], of an alphabet of up to 256."""
        assert int(freqs.sum()) == SLOTS, "frequencies must fill the slots exactly"
        starts = np.cumsum(freqs) - freqs
        owner = np.repeat(np.arange(len(freqs), dtype=np.uint8), freqs)  # of each slot
        size = np.repeat(freqs, freqs).astype(np.uint64)
        offset = (np.arange(SLOTS) - np.repeat(starts, freqs)).astype(np.uint64)
        symbols = np.empty(count, np.uint8)
        lanes, mask, shift = len(self._states), np.uint64(SLOTS - 1), np.uint64(PRECISION)
        for first in range(0, count, lanes):
            x = self._states[: count - first]
            slot = (x & mask).astype(np.intp)
            symbols[first : first + lanes] = owner[slot]
            np.multiply(size[slot], x >> shift, out=x)
            x += offset[slot]
            low = np.flatnonzero(x < LOWEST)
            words = self._words[self._taken : self._taken + len(low)]
            if len(words) < len(low):
                raise _damaged("a stream that ends too early")
            x[low] = (x[low] << np.uint64(16)) | words
            self._taken += len(low)
        return symbols

    def finish(self) -> None:
        """Raises ArtifactError unless every word was used and every state is back at 2**16."""
        left = len(self._words) - self._taken
        if left or np.any(self._states != LOWEST):
            raise _damaged(f"{left} words left over, or a state that did not return")


def _damaged(got: str, wanted: str | None = None) -> ArtifactError:
    return ArtifactError("damaged rANS stream", got=got, wanted=wanted, do="Pack it again.")
