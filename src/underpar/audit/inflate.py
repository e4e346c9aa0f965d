"""Decompression of bytes from strangers: bounded in time and memory, whatever they claim."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any

#: The largest value that may come into being, in bytes or characters.
LIMIT = 8_000_000

#: The largest dictionary of an LZMA stream: the decoder allocates it before it reads a byte.
LZMA_DICTIONARY = 1 << 26


class Unknown(Exception):
    """The expression is outside of what is known here, or larger than LIMIT."""


def room(size: int) -> None:
    """Refuse before the value comes into being."""
    if size > LIMIT:
        raise Unknown(f"larger than {LIMIT} bytes")


def bounded(value: Any) -> Any:
    if isinstance(value, str | bytes | bytearray | list | tuple | dict):
        room(len(value))
    if isinstance(value, int) and abs(value) > 1 << 64:
        raise Unknown("a large number")
    return value


def bounded_decompress(kind: str, data: bytes, *args: Any, **keys: Any) -> bytes:
    """Decompressed `data` of at most LIMIT bytes; concatenated streams as the library does."""
    out = b""
    while data:
        engine = _engine(kind, args, keys)
        out += engine.decompress(data, LIMIT + 1 - len(out))
        bounded(out)
        if not engine.eof:
            if kind == "lzma" and (args or keys) and out:
                return out  # a raw stream need not carry an end mark
            raise Unknown("a compressed stream that does not end")
        data = engine.unused_data
        if kind == "zlib":
            break
        if out and kind == "lzma" and not data.startswith((b"\xfd7zXZ", b"]")):
            break
    return out


def _engine(kind: str, args: tuple[Any, ...], keys: dict[str, Any]) -> Any:
    if kind == "bz2":
        return bz2.BZ2Decompressor()
    if kind in ("zlib", "gzip"):
        bits = args[0] if args else keys.get("wbits", 31 if kind == "gzip" else 15)
        return zlib.decompressobj(bits)
    names = ("format", "memlimit", "filters")
    chosen = dict(zip(names, args)) | {k: v for k, v in keys.items() if k in names}
    for item in chosen.get("filters") or ():
        if item.get("dict_size", 0) > LZMA_DICTIONARY:
            raise Unknown("an LZMA dictionary larger than 64 MB")
    if chosen.get("format", lzma.FORMAT_AUTO) != lzma.FORMAT_RAW:
        chosen["memlimit"] = 4 * LZMA_DICTIONARY
    return lzma.LZMADecompressor(**chosen)
