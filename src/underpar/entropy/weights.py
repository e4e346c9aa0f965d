"""Weight codes coded to bytes at their entropy limit.

Trained weights on a uniform grid look like independent draws from a bell curve: there is nothing to
predict, only a distribution to describe. A general compressor describes it with Huffman-like codes
of whole bits and loses 1.3 to 2.8 % that way. Here the distribution is written down and the codes
are coded under it by rANS, all tensors in one stream.

What is written per tensor is whichever of these makes description plus codes smallest:

- one distribution for the whole tensor;
- lines (rows or columns) sorted into 2, 4 or 8 classes by their spread, one distribution a class.
  Columns of trained matrices do differ in spread; rows do when their scale comes from the largest
  weight. The class of each line is itself coded as a little tensor in the same stream.

And each distribution is the cheaper of

- a Gaussian: one 24-bit parameter (small tensors cannot afford more);
- a histogram: one number a symbol (no formula fits the tails of large tensors).

Bytes: uint32 length of the description, the description (deflated), the rANS stream. The order of
the groups in stream and description: per tensor, first the line classes if any, then the classes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from underpar.entropy import freqs as fr
from underpar.entropy import rans
from underpar.errors import ArtifactError

Codes = NDArray[np.int8]

WHOLE, ROWS, COLUMNS = 0, 1, 2
GAUSSIAN, HISTOGRAM = 0, 1
CLASS_COUNTS = (2, 4, 8)


@dataclass(frozen=True)
class Distribution:
    """Frequencies [A] of the codes low..low+A-1, and the bytes that describe them."""

    low: int
    freqs: fr.Freqs
    description: bytes


@dataclass(frozen=True)
class Layout:
    """How a tensor is split: not at all, or the lines of ``axis`` by class (uint8 [lines])."""

    axis: int
    classes: NDArray[np.uint8]
    cost: float = 0.0  # bits, description included


def encode(tensors: Sequence[Codes]) -> bytes:
    """Code int8 matrices [O, I]. The bytes do not hold the shapes; ``decode`` is given them."""
    description = bytearray()
    groups: list[tuple[NDArray[np.uint8], fr.Freqs]] = []
    for codes in tensors:
        layout = choose_layout(codes)
        description.append(layout.axis)
        if layout.axis:
            description.append(int(layout.classes.max()))
            _add_group(layout.classes.astype(np.int8), description, groups)
        for part in _split(codes, layout):
            _add_group(part, description, groups)
    deflated = zlib.compress(bytes(description), 9)
    stream = rans.encode(groups, rans.lanes_for(sum(codes.size for codes in tensors)))
    return struct.pack("<I", len(deflated)) + deflated + stream


def decode(data: bytes, shapes: Sequence[tuple[int, int]]) -> list[Codes]:
    """Inverse of ``encode``. ArtifactError for bytes that no ``encode`` of these shapes wrote.

    Memory is taken for the shapes only, so the caller must have checked them.
    """
    size = struct.unpack_from("<I", data)[0] if len(data) >= 4 else len(data)
    if size > len(data) - 4:
        raise _damaged(f"{len(data)} bytes")
    reader = _Reader(_inflate(data[4 : 4 + size], shapes))
    decoder = rans.Decoder(data[4 + size :], rans.lanes_for(sum(o * i for o, i in shapes)))
    tensors = [_decode_tensor(shape, reader, decoder) for shape in shapes]
    reader.finish()
    decoder.finish()
    return tensors


def choose_layout(codes: Codes) -> Layout:
    """The cheapest split of codes [O, I] among whole, rows and columns by 2, 4, 8 classes."""
    best = Layout(WHOLE, np.zeros(1, np.uint8))
    if not codes.size:
        return best
    low, high = int(codes.min()), int(codes.max())
    width = high - low + 1
    for axis, lines in ((ROWS, codes), (COLUMNS, codes.T)):
        where = np.arange(len(lines), dtype=np.int64)[:, None] * width + (
            lines.astype(np.int64) - low
        )
        counts = np.bincount(where.ravel(), minlength=len(lines) * width).reshape(-1, width)
        if axis == ROWS:
            best = Layout(WHOLE, best.classes, _cost(counts.sum(0), low))
        spread = counts @ np.arange(low, high + 1, dtype=np.float64) ** 2
        for k in CLASS_COUNTS:
            classes = _classes(spread, k)
            n_classes = int(classes.max()) + 1
            if n_classes == 1:
                continue
            cost = _cost(np.bincount(classes), 0) + 8
            for c in range(n_classes):
                cost += _cost(counts[classes == c].sum(0), low)
            if cost < best.cost:
                best = Layout(axis, classes, cost)
    return best


def _classes(spread: NDArray[np.float64], k: int) -> NDArray[np.uint8]:
    """Class of each line: k equal steps in log spread between the outer 2 %, no class empty."""
    log = np.log(spread + 1.0)
    first, last = np.quantile(log, (0.02, 0.98))
    edges = np.linspace(first, last, k + 1)[1:-1]
    return np.unique(np.searchsorted(edges, log), return_inverse=True)[1].astype(np.uint8)


def _cost(counts: NDArray[np.integer], low: int) -> float:
    best = _describe(counts, low)
    return 8.0 * len(best.description) + fr.cost_bits(counts, _padded(best, low, len(counts)))


def _padded(best: Distribution, low: int, width: int) -> fr.Freqs:
    table = np.zeros(width, np.int64)
    table[best.low - low : best.low - low + len(best.freqs)] = best.freqs
    return table


def _describe(counts: NDArray[np.integer], low: int) -> Distribution:
    """The cheaper of Gaussian and histogram for counts [A] of the codes low.. (not all zero)."""
    used = np.flatnonzero(counts)
    counts, low = counts[used[0] : used[-1] + 1], low + int(used[0])
    high = low + len(counts) - 1
    values = np.arange(low, high + 1)
    decay = fr.gaussian_decay(float(counts @ values**2) / float(counts.sum()))
    bell = Distribution(
        low,
        fr.gaussian_freqs(decay, low, high, rans.SLOTS),
        struct.pack("<BbbI", GAUSSIAN, low, high, decay)[:6],
    )
    freqs = fr.from_counts(counts, rans.SLOTS)
    varints = b"".join(_varint(int(f)) for f in freqs)
    table = Distribution(low, freqs, struct.pack("<Bbb", HISTOGRAM, low, high) + varints)
    return min(bell, table, key=lambda d: 8 * len(d.description) + fr.cost_bits(counts, d.freqs))


def _add_group(
    codes: Codes, description: bytearray, groups: list[tuple[NDArray[np.uint8], fr.Freqs]]
) -> None:
    if not codes.size:
        return
    low = int(codes.min())
    shifted = (codes.astype(np.int16) - low).astype(np.uint8)
    best = _describe(np.bincount(shifted), low)
    description += best.description
    groups.append((shifted, best.freqs))


def _split(codes: Codes, layout: Layout) -> list[Codes]:
    """The codes of each class, flattened line by line."""
    if layout.axis == WHOLE:
        return [codes.ravel()]
    lines = codes if layout.axis == ROWS else codes.T
    return [lines[layout.classes == c].ravel() for c in range(int(layout.classes.max()) + 1)]


def _decode_tensor(shape: tuple[int, int], reader: _Reader, decoder: rans.Decoder) -> Codes:
    codes = np.empty(shape, np.int8)
    axis = reader.byte()
    if axis == WHOLE:
        codes[:] = _take(codes.size, reader, decoder).reshape(shape)
    elif axis in (ROWS, COLUMNS) and codes.size:
        lines = codes if axis == ROWS else codes.T
        last = reader.byte()
        classes = _take(len(lines), reader, decoder)
        if classes.min() < 0 or classes.max() > last:
            raise _damaged("a line of no class")
        for c in range(last + 1):
            mine = classes == c
            part = _take(int(mine.sum()) * lines.shape[1], reader, decoder)
            lines[mine] = part.reshape(-1, lines.shape[1])
    else:
        raise _damaged(f"split {axis} of a tensor of shape {shape}")
    return codes


def _take(count: int, reader: _Reader, decoder: rans.Decoder) -> Codes:
    if not count:
        return np.empty(0, np.int8)
    low, freqs = reader.distribution()
    return (decoder.take(count, freqs).astype(np.int16) + low).astype(np.int8)


class _Reader:
    """Reads the description from its start; missing or impossible bytes are an ArtifactError."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        if self._at >= len(self._data):
            raise _damaged("a description that ends too early")
        self._at += 1
        return self._data[self._at - 1]

    def distribution(self) -> tuple[int, fr.Freqs]:
        """(lowest code, frequencies)."""
        kind, low, high = self.byte(), _signed(self.byte()), _signed(self.byte())
        if low > high or kind not in (GAUSSIAN, HISTOGRAM):
            raise _damaged(f"distribution kind {kind} of codes {low} to {high}")
        if kind == GAUSSIAN:
            decay = self.byte() | self.byte() << 8 | self.byte() << 16
            return low, fr.gaussian_freqs(decay, low, high, rans.SLOTS)
        freqs = np.array([self._varint() for _ in range(high - low + 1)], np.int64)
        if int(freqs.sum()) != rans.SLOTS:
            raise _damaged(f"frequencies of sum {int(freqs.sum())}", str(rans.SLOTS))
        return low, freqs

    def finish(self) -> None:
        if self._at != len(self._data):
            raise _damaged(f"{len(self._data) - self._at} bytes of description left over")

    def _varint(self) -> int:
        first = self.byte()
        return first if first < 128 else (first & 127) | self.byte() << 7


def _varint(value: int) -> bytes:
    """One byte below 128, else two: 7 low bits first, then the rest (values up to 32767)."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _inflate(deflated: bytes, shapes: Sequence[tuple[int, int]]) -> bytes:
    """The description; no tensor needs more than 16 distributions of 3 + 2 * 256 bytes."""
    limit = len(shapes) * 16 * 515
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(deflated, limit + 1)
    except zlib.error as error:
        raise _damaged(f"an unreadable description ({error})") from error
    if not inflater.eof or inflater.unused_data:
        raise _damaged("an incomplete or overlong description")
    return plain


def _damaged(got: str, wanted: str | None = None) -> ArtifactError:
    return ArtifactError(
        "damaged codes section", got=got, wanted=wanted, do="Fetch or pack the artifact again."
    )
