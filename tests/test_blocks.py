"""The `.up` file: read back whole, refused when damaged, never trusted with memory."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.codec import blocks
from underpar.codec.blocks import (
    DEVICES,
    DTYPES,
    INSTRUCTION_SETS,
    MAX_BLOCK,
    MODEL,
    OTHER,
    SLACK,
    Block,
    Header,
    Machine,
)
from underpar.errors import CodecError

DIGEST = bytes(range(100, 116))
MACHINE = Machine((2, 13, 0), "AVX512", 2, "float32", "cpu")
PLAIN = Header(DIGEST, MACHINE)
FULL = replace(PLAIN, adapts=True, portable=True, settings={"stride": 64, "ttt": {"lr": 1e-3}})
HEADERS = [Header(), PLAIN, FULL]


class Pipe(io.RawIOBase):
    """A stream that cannot seek, hands out little at a time and keeps count."""

    def __init__(self, data: bytes, most: int = 7) -> None:
        self._data, self._most = io.BytesIO(data), most
        self.largest = 0

    def readable(self) -> bool:
        return True

    def read(self, n: int = -1) -> bytes:
        assert n >= 0
        self.largest = max(self.largest, n)
        return self._data.read(min(n, self._most))


def model_block(text: bytes, payload: bytes, n_tokens: int = 3, lanes: int = 2) -> Block:
    return Block(MODEL, len(text), zlib.crc32(text), payload, n_tokens, lanes)


def written(header: Header, content: list[Block]) -> bytes:
    out = io.BytesIO()
    blocks.write_header(out, header)
    for block in content:
        blocks.write_block(out, block)
    blocks.write_end(out, len(content), header)
    return out.getvalue()


def read(data: bytes) -> tuple[Header, list[Block]]:
    pipe = Pipe(data)
    header = blocks.read_header(pipe)  # type: ignore[arg-type]
    return header, list(blocks.read_blocks(pipe, header))  # type: ignore[arg-type]


TWO = [model_block(b"some text", b"code"), Block.stored(b"raw")]
SMALL = written(FULL, TWO)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
machines = st.builds(
    Machine,
    st.tuples(*[st.integers(0, 255)] * 3),
    st.sampled_from([*INSTRUCTION_SETS, OTHER]),
    st.integers(1, 255),
    st.sampled_from(DTYPES),
    st.sampled_from(DEVICES),
)
headers = st.just(Header()) | st.builds(
    Header,
    st.binary(min_size=16, max_size=16),
    machines,
    st.booleans(),
    st.booleans(),
    st.none() | st.dictionaries(st.text(max_size=4), json_values, max_size=3),
)
model_blocks = st.builds(
    model_block, st.binary(), st.binary(), st.integers(0, SLACK), st.integers(0, 65_535)
)
stored_blocks = st.builds(Block.stored, st.binary())


@settings(max_examples=100, deadline=None)
@given(headers, st.data())
def test_what_is_written_is_read(header: Header, data: st.DataObject) -> None:
    kinds = stored_blocks if header.stored_only else stored_blocks | model_blocks
    content = data.draw(st.lists(kinds, max_size=4))
    assert read(written(header, content)) == (header, content)


def test_the_bytes_of_version_1() -> None:
    """The layout byte by byte; when this has to change, VERSION and docs/format.md change too."""
    head = b"\xffUP\0\1\5" + DIGEST + bytes([2, 13, 0, 2, 2, 0, 0]) + b"\7\0" + b'{"a":1}'
    block_1 = struct.pack("<BIIHII", 1, 9, 3, 2, 4, zlib.crc32(b"some text"))
    block_2 = struct.pack("<BII", 2, 3, zlib.crc32(b"raw"))
    end = struct.pack("<BI", 0, 2)

    def crc(data: bytes, start: int = 0) -> bytes:
        return struct.pack("<I", zlib.crc32(data, start))

    whole = head + crc(head)
    whole += block_1 + crc(block_1 + b"code") + b"code"
    whole += block_2 + crc(block_2 + b"raw") + b"raw"
    whole += end + crc(end, zlib.crc32(head))
    assert written(replace(PLAIN, adapts=True, settings={"a": 1}), TWO) == whole


def test_the_overhead() -> None:
    text = bytes(1000)
    assert len(written(Header(), [])) == 19
    assert len(written(Header(), [Block.stored(text)])) == 32 + len(text)
    assert len(written(Header(), [Block.stored(text)] * 2)) == 45 + 2 * len(text)
    assert len(written(PLAIN, [Block.stored(text)])) == 55 + len(text)
    assert len(written(PLAIN, [model_block(text, b"code")])) == 65 + len(b"code")


def test_every_flipped_bit_is_noticed() -> None:
    for data in (SMALL, written(Header(), [Block.stored(b"raw")]), written(Header(), [])):
        for position in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[position // 8] ^= 1 << position % 8
            with pytest.raises(CodecError):
                read(bytes(damaged))


@pytest.mark.parametrize("header", HEADERS)
def test_every_truncation_and_every_appendix_is_noticed(header: Header) -> None:
    data = written(header, TWO[1:] if header.stored_only else TWO)
    for length in range(len(data)):
        with pytest.raises(CodecError):
            read(data[:length])
    for extra in (b"\0", b"\n", data, written(header, [])):
        with pytest.raises(CodecError, match=r"the file is damaged: got bytes after its end mark"):
            read(data + extra)


def test_random_damage_never_escapes_as_another_error() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        damaged = bytearray(SMALL)
        for _ in range(rng.randint(1, 20)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            found = read(bytes(damaged[: rng.randint(1, len(SMALL))]))
        except CodecError:
            continue
        assert found == (FULL, TWO)


def test_the_message_names_the_block() -> None:
    at = [SMALL.index(b"code"), SMALL.index(b"raw")]
    for number, where in enumerate(at, 1):
        damaged = bytearray(SMALL)
        damaged[where] ^= 1
        with pytest.raises(CodecError, match=rf"^block {number} is damaged: got a wrong checksum"):
            read(bytes(damaged))
        with pytest.raises(CodecError, match=rf"^block {number} is cut short"):
            read(SMALL[: where + 1])
    end = at[1] + len(b"raw")
    with pytest.raises(CodecError, match=r"^block 3 or the end mark is cut short: got 0 bytes"):
        read(SMALL[:end])
    with pytest.raises(CodecError, match=r"^the end mark is cut short: got 2 bytes"):
        read(SMALL[: end + 3])
    with pytest.raises(CodecError, match=r"^block 3 is damaged: got kind 7, wanted 1 or 2"):
        read(SMALL[:end] + b"\7" + SMALL[end + 1 :])
    with pytest.raises(CodecError, match=r"^the header is damaged: got a wrong checksum"):
        read(SMALL[:8] + b"?" + SMALL[9:])
    with pytest.raises(CodecError, match=r"^the header is cut short"):
        read(SMALL[:20])


def test_blocks_before_the_damage_are_read() -> None:
    stream = io.BytesIO(SMALL[:-12])
    header = blocks.read_header(stream)
    found = blocks.read_blocks(stream, header)
    assert next(found) == TWO[0]
    with pytest.raises(CodecError, match=r"block 2"):
        next(found)


def test_the_end_of_another_file_does_not_fit() -> None:
    other = written(replace(FULL, adapts=False), TWO)
    for data in (SMALL[:-9] + other[-9:], SMALL[:-9] + written(FULL, TWO[:1])[-9:]):
        with pytest.raises(CodecError, match=r"end mark is damaged: wanted .* of 2 blocks"):
            read(data)


def test_foreign_and_newer_files() -> None:
    for data in (b"", b"text", b"UPAR" + bytes(60), b"\x1f\x8b\x08", b"\xffUP"):
        with pytest.raises(CodecError, match=r"not text compressed by underpar"):
            read(data)
    with pytest.raises(CodecError, match=r"an empty file"):
        read(b"")
    for data in (SMALL[:4] + b"\2" + SMALL[5:], SMALL[:4] + b"\2"):
        with pytest.raises(CodecError, match=r"version 2.*Update underpar"):
            read(data)


def forged_header(*, flags: int = 0, machine: bytes = b"", text: bytes | None = None) -> bytes:
    """A header whole by its CRC, with any content."""
    data = b"\xffUP\0\1" + bytes([flags]) + (DIGEST + machine if machine else b"")
    data += b"" if text is None else struct.pack("<H", len(text)) + text
    return data + struct.pack("<I", zlib.crc32(data))


GOOD = bytes([2, 13, 0, 2, 2, 0, 0])


def test_the_forger_of_these_tests_is_a_good_one() -> None:
    assert blocks.read_header(io.BytesIO(forged_header(machine=GOOD))) == PLAIN
    assert blocks.read_header(io.BytesIO(forged_header(flags=8))) == Header()


@pytest.mark.parametrize(
    "data",
    [
        forged_header(flags=9),
        forged_header(flags=24),
        forged_header(flags=12, text=b"{}"),
        forged_header(flags=16, machine=GOOD),
        *[
            forged_header(machine=GOOD[:i] + bytes([bad]) + GOOD[i + 1 :])
            for i, bad in ((3, 7), (3, 254), (4, 0), (5, 3), (6, 2))
        ],
        *[
            forged_header(flags=4, machine=GOOD, text=text)
            for text in (
                b"",
                b"null",
                b"[1]",
                b'{"a": 1}',
                b'{"b":1,"a":1}',
                b'{"a":1,"a":2}',
                b'{"a":NaN}',
                b'{"a":' + b"9" * 5000 + b"}",
                b"[" * 60_000,
                b"\xff\xfe",
            )
        ],
    ],
)
def test_a_forged_header_is_an_error(data: bytes) -> None:
    with pytest.raises(CodecError, match=r"^the header is damaged: got values"):
        blocks.read_header(io.BytesIO(data))


def forged_block(text_bytes: int, n_tokens: int, payload_bytes: int, *, kind: int = MODEL) -> bytes:
    """A block that declares what it does not have."""
    if kind == MODEL:
        fields = struct.pack("<BIIHII", kind, text_bytes, n_tokens, 0, payload_bytes, 0)
    else:
        fields = struct.pack("<BII", kind, text_bytes, 0)
    return forged_header(machine=GOOD) + fields + bytes(4) + b"x" * 100


@pytest.mark.parametrize(
    "data",
    [
        forged_block(MAX_BLOCK, 5, MAX_BLOCK),
        forged_block(MAX_BLOCK, 5, MAX_BLOCK + SLACK),
        forged_block(MAX_BLOCK, 5, 0, kind=2),
    ],
)
def test_a_forged_size_takes_no_memory(data: bytes) -> None:
    pipe = Pipe(data, most=1 << 30)
    header = blocks.read_header(pipe)  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match=r"block 1 is cut short: got 100 bytes"):
            next(blocks.read_blocks(pipe, header))  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert pipe.largest <= 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        forged_block(MAX_BLOCK + 1, 5, 10),
        forged_block(MAX_BLOCK + 1, 0, 0, kind=2),
        forged_block((1 << 32) - 1, 5, 10),
        forged_block(10, 11 + SLACK, 10),
        forged_block(10, 5, 11 + SLACK),
    ],
)
def test_sizes_beyond_the_limits_are_refused_unread(data: bytes) -> None:
    pipe = Pipe(data)
    header = blocks.read_header(pipe)  # type: ignore[arg-type]
    with pytest.raises(CodecError, match=rf"block 1 is damaged: .*{MAX_BLOCK}"):
        next(blocks.read_blocks(pipe, header))  # type: ignore[arg-type]
    assert pipe.largest <= 23


def test_payloads_longer_than_a_piece() -> None:
    text = random.Random(0).randbytes((1 << 20) + 1)
    content = [Block.stored(text), model_block(text, text[::-1])]
    stream = io.BytesIO(written(PLAIN, content))
    assert list(blocks.read_blocks(stream, blocks.read_header(stream))) == content


def test_a_file_of_stored_blocks_has_no_model_block() -> None:
    data = written(Header(), TWO)
    with pytest.raises(CodecError, match=r"block 1 is damaged: got a model block"):
        read(data)


def test_a_stored_text_is_held_against_its_own_checksum() -> None:
    fields = struct.pack("<BII", 2, 3, zlib.crc32(b"war"))
    block = fields + struct.pack("<I", zlib.crc32(fields + b"raw")) + b"raw"
    with pytest.raises(CodecError, match=r"block 1 is damaged: got a wrong checksum of its text"):
        read(forged_header(flags=8) + block)


@pytest.mark.parametrize("threads", [0, 256])
def test_more_threads_than_the_header_can_say(threads: int) -> None:
    with pytest.raises(CodecError, match=rf"threads .*got {threads}, wanted 1 to 255"):
        replace(MACHINE, threads=threads)
