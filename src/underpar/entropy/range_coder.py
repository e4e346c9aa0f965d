"""A range coder: symbols under any frequencies, first in, first out, at their ideal cost.

Arithmetic coding names a message by a number. Start with the interval [0, 1); for each symbol, cut
the interval into pieces in proportion to the frequencies and keep the piece of the symbol; in the
end write the shortest fraction inside. A likely symbol keeps a large piece, and -log2 of the last
width is the sum of the ideal costs. Martin's range coder (1979) does it in integers of fixed size:
``low`` and ``range`` are the 64 digits of the interval that still change, and whenever ``range``
falls below 2**48 the 16 highest digits of ``low`` are written and both are shifted up.

Carries. Digits already written may still change: adding to ``low`` can overflow its 64 bits, and
the 1 then belongs to the digits before, through every run of 0xFFFF. Subbotin's carryless coder
avoids that by throwing away part of the range; this one keeps the written words in memory and
corrects them from the last one backwards. A word that was just set to zero ends the next
correction, so this costs O(1) a word over a stream.

Why not rANS, as for the weights? It is last in, first out, so its encoder wants all tables before
it starts. A model that learns from what it has coded needs first in, first out.

Lockstep. The decoder finds the symbol that owns a point in a table that it has made itself. One
count that differs moves every later boundary, and all symbols after it are wrong, silently. So
encoder and decoder must build the same integers from the same past: same code, same order, same
batch shapes.

Loss. Boundaries are rounded down to whole units: ``below * range >> 32``. A piece has at least
2**16 units (range >= 2**48, total 2**32), so losing less than one costs under 2**-16 of it for the
rarest symbol, and too little to measure for a likely one. The end costs up to 2 bytes. What remains
is the rounding of probabilities to 32 bits, see ``freqs.from_probabilities``. As the last piece
ends exactly where ``range`` ends, every number belongs to a symbol, and any bytes decode to some
symbols.

Stream: 16-bit big-endian words, then 0 to 2 bytes. Bytes beyond the end read as zero.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from underpar.errors import ArtifactError

#: Frequencies of a symbol's table sum to TOTAL = 2**PRECISION.
PRECISION = 32
TOTAL = 1 << PRECISION

#: Between symbols, LEAST <= range <= WHOLE.
LEAST = 1 << 48
WHOLE = 1 << 64

Cumulative = NDArray[np.int64]


class Encoder:
    """Writes symbols, given as intervals of [0, TOTAL), in the order in which they are read."""

    def __init__(self) -> None:
        self._low, self._range = 0, WHOLE
        self._words: list[int] = []

    def encode(self, below: int, freq: int) -> None:
        """Code the symbol that owns [below, below + freq) of [0, TOTAL); freq is at least 1."""
        self.encode_all((below,), (freq,))

    def encode_all(self, belows: Iterable[int], freqs: Iterable[int]) -> None:
        """``encode`` for many symbols. Python integers: NumPy's would overflow."""
        low, range_, words = self._low, self._range, self._words
        for below, freq in zip(belows, freqs):
            assert freq > 0, "a symbol without a share"
            start = below * range_ >> PRECISION
            range_ = ((below + freq) * range_ >> PRECISION) - start
            low += start
            if low >= WHOLE:
                low -= WHOLE
                _carry(words)
            while range_ < LEAST:
                words.append(low >> 48)
                low = (low & (LEAST - 1)) << 16
                range_ <<= 16
        self._low, self._range = low, range_

    def finish(self) -> bytes:
        """The stream: the words and the fewest bytes that lie in the last interval."""
        value, count = _ending(self._low, self._range)
        if value >= WHOLE:
            value -= WHOLE
            _carry(self._words)
        return np.array(self._words, ">u2").tobytes() + value.to_bytes(8, "big")[:count]


class Decoder:
    """Reads what ``Encoder`` wrote: for each symbol ``slot``, then ``take``; last, ``finish``."""

    def __init__(self, data: bytes) -> None:
        """Any ``data`` will do: damage shows in the symbols, and most often in ``finish``."""
        self._data = data
        words = np.frombuffer(data + bytes(-len(data) % 2), ">u2").tolist()
        self._words: list[int] = words + [0] * max(4 - len(words), 0)
        self._code = int.from_bytes(data[:8].ljust(8, b"\0"), "big")  # less low: 0 <= code < range
        self._range = WHOLE
        self._read = 4

    def slot(self) -> int:
        """The point of [0, TOTAL) that the next symbol owns."""
        # The last point whose boundary, point * range >> PRECISION, is not above the code.
        return (((self._code + 1) << PRECISION) - 1) // self._range

    def take(self, below: int, freq: int) -> None:
        """Step over the symbol that owns [below, below + freq), the interval ``slot`` lies in."""
        assert freq > 0, "a symbol without a share"
        range_, words, read = self._range, self._words, self._read
        start = below * range_ >> PRECISION
        range_ = ((below + freq) * range_ >> PRECISION) - start
        code = self._code - start
        while range_ < LEAST:
            code = code << 16 | (words[read] if read < len(words) else 0)
            range_ <<= 16
            read += 1
        self._code, self._range, self._read = code, range_, read

    def finish(self) -> None:
        """Raises ArtifactError unless an encoder of these symbols would have ended on this byte.

        Damage changes the symbols and so the bytes they take, mostly but not always: whoever needs
        to be sure keeps a checksum of the text.
        """
        used = 2 * (self._read - 4)
        value = int.from_bytes(self._data[used : used + 8].ljust(8, b"\0"), "big")
        low = (value - self._code) % WHOLE
        wanted, count = _ending(low, self._range)
        if len(self._data) != used + count or wanted % WHOLE != value:
            raise ArtifactError(
                "damaged text stream",
                got=f"{len(self._data)} bytes",
                wanted=f"the very {used + count} bytes that its symbols take",
                do="Compress the text again, or decode with the model that coded it.",
            )


def encode_rows(encoder: Encoder, cumulative: Cumulative, symbols: NDArray[np.integer]) -> None:
    """Code ``symbols`` [n], symbol i under row i of ``cumulative`` [n, V+1] (0 first, TOTAL last).

    Every symbol must have a frequency of at least 1 in its row.
    """
    rows = np.arange(len(symbols))
    columns = symbols.astype(np.intp)  # a uint16 would wrap at the last of 65,536 symbols
    belows = cumulative[rows, columns]
    freqs = cumulative[rows, columns + 1] - belows
    encoder.encode_all(belows.tolist(), freqs.tolist())


def decode_rows(decoder: Decoder, cumulative: Cumulative) -> NDArray[np.uint16]:
    """One symbol [n] for each row of ``cumulative`` [n, V+1], V <= 65,536; see ``encode_rows``."""
    count, width = cumulative.shape
    symbols = np.empty(count, np.uint16)
    # A memoryview yields Python integers: bisecting it takes a third of the time of searchsorted.
    flat = np.ascontiguousarray(cumulative, np.int64).reshape(-1).data
    slot, take = decoder.slot, decoder.take
    for row in range(count):
        first = row * width
        owner = bisect_right(flat, slot(), first, first + width) - 1
        below = flat[owner]
        take(below, flat[owner + 1] - below)
        symbols[row] = owner - first
    return symbols


def _carry(words: list[int]) -> None:
    """Add 1 to the number that ``words`` spell. It fits: the interval lies in [0, 1)."""
    last = len(words) - 1
    while words[last] == 0xFFFF:
        words[last] = 0
        last -= 1
    words[last] += 1


def _ending(low: int, range_: int) -> tuple[int, int]:
    """The number in [low, low + range_) with the fewest leading bytes, and how many (0 to 2)."""
    for count in range(2):
        shift = 64 - 8 * count
        value = -(-low >> shift) << shift
        if value < low + range_:
            return value, count
    return -(-low >> 48) << 48, 2  # there is one, since range_ >= 2**48
