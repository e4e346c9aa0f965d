"""General-purpose compressors by name, each with a decompressor that cannot be made to overrun.

The size of the plain data is always known to the reader (it is in the artifact's header and was
checked there), so decompression takes it as a hard limit: a stream that holds more or less is an
error, found before more than ``size`` plus a buffer's worth of memory is used.

Level settings are those of the published recipes: zstd 22 (#456), brotli 11 (#1413), lzma preset 6
(#1413's other choice). lzma is a raw LZMA2 stream with its settings fixed here, because a stored
dictionary size would be one more number to distrust.

``shuffle`` is #1413's byte shuffle: all first bytes of the elements, then all second bytes. It
groups the exponents of floats (worth it); on one-byte codes it does nothing.
"""

from __future__ import annotations

import importlib
import lzma
from typing import Any

import numpy as np

from underpar.errors import ArtifactError, DependencyError

SHUFFLE_MAGIC = b"BSHF"

_LZMA_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]


NAMES = ("raw", "zstd", "brotli", "lzma")


def require(name: str) -> None:
    """DependencyError before the training rather than after it when a package is missing."""
    compress(b"", codec=name)


def compress(data: bytes, *, codec: str) -> bytes:
    """``data`` through the compressor. DependencyError when its package is missing."""
    match codec:
        case "zstd":
            return _zstd_compress(data)
        case "brotli":
            return _brotli().compress(data, quality=11)
        case "lzma":
            return lzma.compress(data, format=lzma.FORMAT_RAW, filters=_LZMA_FILTERS)
        case "raw":
            return data
    raise _unknown(codec)


def decompress(data: bytes, size: int, *, codec: str) -> bytes:
    """The ``size`` plain bytes; ArtifactError when the stream does not hold exactly those."""
    match codec:
        case "zstd":
            plain = _zstd_decompress(data, size)
        case "brotli":
            plain = _brotli_decompress(data, size)
        case "lzma":
            plain = _lzma_decompress(data, size)
        case "raw":
            plain = data[: size + 1]
        case _:
            raise _unknown(codec)
    if len(plain) != size:
        got = f"{len(plain)} bytes" if len(plain) < size else f"more than {size} bytes"
        raise _bad(codec, got, f"{size} bytes")
    return plain


def shuffle(data: bytes, stride: int = 2) -> bytes:
    """Magic, one byte of stride, then bytes 0, s, 2s, ... of ``data``, then 1, s+1, ..."""
    plain = np.frombuffer(data, np.uint8)
    planes = [plain[lane::stride].tobytes() for lane in range(stride)]
    return b"".join([SHUFFLE_MAGIC, bytes([stride]), *planes])


def unshuffle(data: bytes, stride: int = 2) -> bytes:
    """Inverse of ``shuffle``; ArtifactError when the frame is not one of this stride."""
    frame = SHUFFLE_MAGIC + bytes([stride])
    if not data.startswith(frame):
        raise _bad("byte shuffle", repr(data[: len(frame)]), repr(frame))
    planes = np.frombuffer(data, np.uint8, offset=5)
    plain = np.empty_like(planes)
    start = 0
    for lane in range(min(stride, len(planes))):
        count = len(range(lane, len(planes), stride))
        plain[lane::stride] = planes[start : start + count]
        start += count
    return plain.tobytes()


SHUFFLE_BYTES = len(SHUFFLE_MAGIC) + 1


def _unknown(name: str) -> ArtifactError:
    return ArtifactError(
        "unknown compressor",
        got=repr(name),
        wanted=", ".join(NAMES),
        do="Update underpar, or choose one of these.",
    )


def _bad(name: str, got: object, wanted: str | None = None) -> ArtifactError:
    return ArtifactError(f"damaged {name} stream", got=got, wanted=wanted, do="Pack it again.")


def _package(module: str, requirement: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DependencyError(
            f"this artifact's compressor needs the package '{module}'",
            do=f"pip install '{requirement}', or pack with the compressor 'rans' or 'lzma'.",
        ) from error


def _brotli() -> Any:
    brotli = _package("brotli", "brotli>=1.2")
    if not hasattr(brotli.Decompressor, "can_accept_more_data"):  # no output limit before 1.2
        raise DependencyError("brotli is older than 1.2", do="pip install -U 'brotli>=1.2'.")
    return brotli


def _brotli_decompress(data: bytes, size: int) -> bytes:
    brotli = _brotli()
    decoder = brotli.Decompressor()
    plain = bytearray()
    piece = data  # handed over once; the decoder keeps what it has no room to decode yet
    try:
        while len(plain) <= size and not decoder.is_finished():
            produced = decoder.process(piece, output_buffer_limit=size + 1 - len(plain))
            if not produced and not decoder.is_finished():
                raise _bad("brotli", "a truncated stream")
            plain += produced
            piece = b""
    except brotli.error as error:
        raise _bad("brotli", error) from error
    return bytes(plain)


def _zstd_compress(data: bytes) -> bytes:
    return _package("zstandard", "zstandard").ZstdCompressor(level=22).compress(data)


def _zstd_decompress(data: bytes, size: int) -> bytes:
    zstandard = _package("zstandard", "zstandard")
    try:
        # The frame names its own content size and would be believed over max_output_size.
        declared = zstandard.get_frame_parameters(data).content_size
        if declared != size:
            raise _bad("zstd", f"{declared} bytes declared", f"{size} bytes")
        decoder = zstandard.ZstdDecompressor()
        return decoder.decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _bad("zstd", error) from error


def _lzma_decompress(data: bytes, size: int) -> bytes:
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_LZMA_FILTERS)
    try:
        plain = decoder.decompress(data, max_length=size + 1)
        if len(plain) == size and not decoder.eof:  # the end mark may still be unread
            plain += decoder.decompress(b"", max_length=1)
    except (lzma.LZMAError, EOFError) as error:
        raise _bad("lzma", error) from error
    if len(plain) <= size and (not decoder.eof or decoder.unused_data):
        raise _bad("lzma", "a truncated or overlong stream")
    return plain
