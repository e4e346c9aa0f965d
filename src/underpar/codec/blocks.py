"""The `.up` file: compressed text as a header, blocks and an end mark, read in one go.

All numbers little-endian; u8, u16, u32: unsigned, of 1, 2, 4 bytes; CRC: zlib's CRC-32, u32.

    header    6 bytes   magic ff 55 50 00, format version u8, flags u8: 1 the model adapts,
                        2 portable arithmetic, 4 score settings follow, 8 stored blocks only: no
                        artifact is needed, and nothing but the CRC follows
             23         first 16 bytes of the artifact's SHA-256; the machine: torch version u8 x 3,
                        instruction set u8, threads u8, dtype u8, device u8
            2 + n       (if flagged) length u16 and canonical JSON of the score settings
              4         CRC of all of the header before it
    block     1         kind: 1 model, 2 stored
              4         bytes of the text u32
             10         (model) tokens u32, lanes u16 (0: the exact schedule), payload bytes u32
              4 + 4     CRC of the text; CRC of all of this block but these four bytes
              n         payload; of a stored block the text itself
    end mark  1 + 4     kind 0, number of blocks u32
              4         CRC of these five bytes, begun with the header's CRC, so that the end of one
                        file does not fit another; nothing may follow

The machine is in the header because floating-point sums differ between machines: a decoder that
cannot have the same sums must refuse at once. The file may come through a pipe, so nothing seeks,
and sizes cannot be compared with the size of the file. They are compared with hard limits instead,
and memory is taken as bytes arrive, never because a number announces them. CRCs detect accidents;
they are no signature. A change of the arithmetic needs a new version, too: a forward pass or an
adapter that adds in another order makes other tables of the same file.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from underpar.artifact.container import canonical_json
from underpar.errors import CodecError

#: 0xff is in no UTF-8 text, and a zero byte makes other tools take the file for binary.
MAGIC = b"\xffUP\0"
VERSION = 1
MODEL, STORED = 1, 2

#: Longest text of one block, in bytes.
MAX_BLOCK = 1 << 30
#: Bytes of payload, and tokens, exceed the bytes of the text by no more than this.
SLACK = 1 << 12

#: Names of ``torch.backends.cpu.get_cpu_capability()``; the place in a table is the code.
INSTRUCTION_SETS = ("DEFAULT", "AVX2", "AVX512", "NEON", "SVE256", "VSX", "Z VECTOR")
OTHER = "other"  # any set that is not in the table
DTYPES = ("float32", "bfloat16", "float64")
DEVICES = ("cpu", "cuda")

_CODES = {name: i for i, name in enumerate(INSTRUCTION_SETS)} | {OTHER: 255}
_ADAPTS, _PORTABLE, _SETTINGS, _STORED_ONLY = 1, 2, 4, 8
_START = struct.Struct("<4sBB")
_MODEL_FIELDS = struct.Struct("<16s7B")
_MODEL_BLOCK = struct.Struct("<BIIHII")
_STORED_BLOCK = struct.Struct("<BII")
_END = struct.Struct("<BI")
_PIECE = 1 << 20


@dataclass(frozen=True)
class Machine:
    """What decides a float's last bits. CodecError: more threads than fit in a byte."""

    torch: tuple[int, int, int]
    instruction_set: str
    threads: int
    dtype: str
    device: str

    def __post_init__(self) -> None:
        if not 0 < self.threads < 256:
            raise CodecError("threads of compressed text", got=self.threads, wanted="1 to 255")


@dataclass(frozen=True)
class Header:
    """What decoding needs besides the blocks; ``Header()``: all blocks are stored.

    artifact: first 16 bytes of the artifact's SHA-256; settings: score settings that differ from
    the artifact's, None when none do. Without an artifact nothing else is set.
    """

    artifact: bytes | None = None
    machine: Machine | None = None
    adapts: bool = False
    portable: bool = False
    settings: dict[str, Any] | None = None

    @property
    def stored_only(self) -> bool:
        return self.artifact is None


@dataclass(frozen=True)
class Block:
    """One stretch of text. kind: MODEL or STORED; text_bytes, text_crc: of the text.

    n_tokens and lanes (0: the exact schedule) are a model block's, 0 in a stored one.
    """

    kind: int
    text_bytes: int
    text_crc: int
    payload: bytes
    n_tokens: int = 0
    lanes: int = 0

    @classmethod
    def stored(cls, text: bytes) -> Block:
        return cls(STORED, len(text), zlib.crc32(text), text)


def write_header(out: BinaryIO, header: Header) -> int:
    """Append the header. Returns the number of bytes written, as the next two do."""
    data = _header_bytes(header)
    return _write(out, data + _crc(data))


def write_block(out: BinaryIO, block: Block) -> int:
    """Append one block; its sizes are within the limits of this module."""
    assert _fits(block.text_bytes, block.n_tokens, len(block.payload)), "an oversized block"
    if block.kind == MODEL:
        sizes = (block.text_bytes, block.n_tokens, block.lanes, len(block.payload))
        fields = _MODEL_BLOCK.pack(MODEL, *sizes, block.text_crc)
    else:
        assert block == Block.stored(block.payload)
        fields = _STORED_BLOCK.pack(STORED, block.text_bytes, block.text_crc)
    return _write(out, fields + _crc(block.payload, after=fields)) + _write(out, block.payload)


def write_end(out: BinaryIO, n_blocks: int, header: Header) -> int:
    """The end mark of a file that has this header and ``n_blocks`` blocks."""
    return _write(out, _end_mark(n_blocks, header))


def read_header(stream: BinaryIO) -> Header:
    """The header at the start of ``stream``, which is left at the first block.

    Raises CodecError: foreign, of a newer version, damaged or cut short.
    """
    start = _read(stream, _START.size)
    if start[:4] != MAGIC:
        what = "this is not text compressed by underpar"
        got = f"first bytes {start[:4]!r}" if start else "an empty file"
        raise CodecError(what, got=got, wanted=repr(MAGIC), do="Give a .up file.")
    if len(start) > len(MAGIC) and start[4] > VERSION:
        raise CodecError(
            "compressed text",
            got=f"format version {start[4]}",
            wanted=f"version {VERSION}, the newest this underpar knows",
            do="Update underpar, or fetch the file again if it should be older.",
        )
    data = start + _exactly(stream, _START.size - len(start), "the header")
    flags = data[-1]
    if not flags & _STORED_ONLY:
        data += _exactly(stream, _MODEL_FIELDS.size, "the header")
    if flags & _SETTINGS:
        length = _exactly(stream, 2, "the header")
        data += length + _exactly(stream, int.from_bytes(length, "little"), "the header")
    if _exactly(stream, 4, "the header") != _crc(data):
        raise _damaged("the header", "a wrong checksum")
    return _parse_header(data)


def read_blocks(stream: BinaryIO, header: Header) -> Iterator[Block]:
    """The blocks after the header, checked one by one, then the end mark and that nothing follows.

    The file is whole only when this ends without an error. Raises CodecError, which names the
    block by its number, counted from 1. That a model block decodes to a text of ``text_crc`` is
    for the decoder to check.
    """
    number = 1
    while (kind := _exactly(stream, 1, f"block {number} or the end mark")) != b"\0":
        block = _read_block(stream, kind, f"block {number}")
        if block.kind == MODEL and header.stored_only:
            raise _damaged(f"block {number}", "a model block", "stored blocks only")
        yield block
        number += 1
    mark = kind + _exactly(stream, _END.size + 4 - 1, "the end mark")
    if mark != _end_mark(number - 1, header):
        raise _damaged("the end mark", wanted=f"the end of this file of {number - 1} blocks")
    if _read(stream, 1):
        raise _damaged("the file", "bytes after its end mark")


def _read_block(stream: BinaryIO, kind: bytes, name: str) -> Block:
    form = {MODEL: _MODEL_BLOCK, STORED: _STORED_BLOCK}.get(kind[0])
    if form is None:
        raise _damaged(name, f"kind {kind[0]}", f"{MODEL} or {STORED}")
    fields = kind + _exactly(stream, form.size - 1, name)
    _, text_bytes, *model_fields, text_crc = form.unpack(fields)
    n_tokens, lanes, payload_bytes = model_fields or (0, 0, text_bytes)
    if not _fits(text_bytes, n_tokens, payload_bytes):
        sizes = f"{payload_bytes} bytes and {n_tokens} tokens for {text_bytes} bytes of text"
        raise _damaged(name, sizes, f"at most {MAX_BLOCK} bytes of text, and hardly more for it")
    crc = _exactly(stream, 4, name)
    payload = _exactly(stream, payload_bytes, name)
    if crc != _crc(payload, after=fields):
        raise _damaged(name, "a wrong checksum")
    if form is _STORED_BLOCK and text_crc != zlib.crc32(payload):
        raise _damaged(name, "a wrong checksum of its text")
    return Block(kind[0], text_bytes, text_crc, payload, n_tokens, lanes)


def _fits(text_bytes: int, n_tokens: int, payload_bytes: int) -> bool:
    return text_bytes <= MAX_BLOCK and max(n_tokens, payload_bytes) <= text_bytes + SLACK


def _crc(data: bytes, *, after: bytes = b"") -> bytes:
    return zlib.crc32(data, zlib.crc32(after)).to_bytes(4, "little")


def _end_mark(n_blocks: int, header: Header) -> bytes:
    mark = _END.pack(0, n_blocks)
    return mark + _crc(mark, after=_header_bytes(header))


def _header_bytes(header: Header) -> bytes:
    """The header's bytes without its CRC."""
    flags = _ADAPTS * header.adapts | _PORTABLE * header.portable
    flags |= _SETTINGS * (header.settings is not None) | _STORED_ONLY * header.stored_only
    data = _START.pack(MAGIC, VERSION, flags)
    if m := header.machine:
        cpu = _CODES[m.instruction_set]
        pin = (*m.torch, cpu, m.threads, DTYPES.index(m.dtype), DEVICES.index(m.device))
        data += _MODEL_FIELDS.pack(header.artifact, *pin)
    if header.settings is not None:
        text = canonical_json(header.settings)
        data += struct.pack("<H", len(text)) + text
    return data


def _parse_header(data: bytes) -> Header:
    """The header in ``data``, its bytes without the CRC, if ``_header_bytes`` would write them."""
    flags, header = data[_START.size - 1], Header()
    try:
        if not flags & _STORED_ONLY:
            fields = data[_START.size : _START.size + _MODEL_FIELDS.size]
            artifact, *version, cpu, threads, dtype, device = _MODEL_FIELDS.unpack(fields)
            a, b, c = version
            cpu = {code: name for name, code in _CODES.items()}[cpu]
            machine = Machine((a, b, c), cpu, threads, DTYPES[dtype], DEVICES[device])
            modes = bool(flags & _ADAPTS), bool(flags & _PORTABLE)
            text = data[_START.size + _MODEL_FIELDS.size + 2 :]
            settings = json.loads(text) if flags & _SETTINGS else None
            header = Header(artifact, machine, *modes, settings)
        same = _header_bytes(header) == data and isinstance(header.settings, dict | None)
    except (CodecError, LookupError, ValueError, RecursionError):
        same = False
    if not same:
        raise _damaged("the header", "values that underpar does not write")
    return header


def _write(out: BinaryIO, data: bytes) -> int:
    out.write(data)
    return len(data)


def _read(stream: BinaryIO, n: int) -> bytes:
    """``n`` bytes, or as many as there are; memory grows with what arrives, not with ``n``."""
    pieces: list[bytes] = []
    while n and (piece := stream.read(min(n, _PIECE))):
        pieces.append(piece)
        n -= len(piece)
    return b"".join(pieces)


def _exactly(stream: BinaryIO, n: int, name: str) -> bytes:
    data = _read(stream, n)
    if len(data) < n:
        got, wanted = f"{len(data)} bytes and the end of the file", f"{n} bytes"
        raise CodecError(f"{name} is cut short", got=got, wanted=wanted, do="Fetch the file again.")
    return data


def _damaged(name: str, got: str | None = None, wanted: str | None = None) -> CodecError:
    return CodecError(f"{name} is damaged", got=got, wanted=wanted, do="Fetch the file again.")
