"""compress and decompress: every byte back, or an error; never a wrong one."""

from __future__ import annotations

import io
import random
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import children
from tests.coding import (
    ANY,
    LEARNS,
    OPTIONS,
    TINY,
    always_coded,
    bpe,
    compressed,
    decompressed,
    prose,
    tiny_file,
)
from underpar.artifact.load import load
from underpar.bits import LN2
from underpar.codec import blocks, machine
from underpar.codec import text as codec
from underpar.codec.blocks import MODEL, STORED, Block, Header
from underpar.codec.session import Session
from underpar.codec.text import BLOCK_BYTES, Options, Writer, header_for
from underpar.errors import ArtifactError, CodecError
from underpar.recipe.plain import section_to_json

NOISE = random.Random(0).randbytes(1 << 20)
FAST = Options(lanes=16)


def content(file: bytes) -> tuple[Header, list[Block]]:
    stream = io.BytesIO(file)
    header = blocks.read_header(stream)
    return header, list(blocks.read_blocks(stream, header))


def kinds(file: bytes) -> list[int]:
    return [block.kind for block in content(file)[1]]


# --- every byte back --------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(text=ANY, options=OPTIONS, anyway=st.booleans())
def test_any_bytes_come_back(tiny_model: Path, text: bytes, options: Options, anyway: bool) -> None:
    if anyway:
        with always_coded():
            file, report = compressed(text, tiny_model, options)
    else:
        file, report = compressed(text, tiny_model, options)
        limit = len(text) + 64 + 13 * max(report.blocks - 1, 0)
        assert len(file) <= limit
    assert decompressed(file, tiny_model) == text
    assert (report.text_bytes, report.file_bytes) == (len(text), len(file))
    assert report.stored == kinds(file).count(STORED)
    assert report.blocks == len(kinds(file))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0",
        b"a",
        b"\0" * 1000,
        b"\xff\xfe" * 300,
        b"\xed\xa0\x80 the old mill \xe2\x96" * 30,
        bytes(range(256)) * 3,
        "\U0001f600e\u0301\ufb01\u3000".encode() * 30,
        b"\r\n\t \0" * 100,
        NOISE[:300],
        NOISE[:50_000],
        zlib.compress(prose(20_000)),
    ],
    ids=["empty", "NUL", "a", "NULs", "not UTF-8", "partly UTF-8", "all bytes", "Unicode",
         "control", "little noise", "noise", "deflated"],
)  # fmt: skip
def test_nothing_grows(tiny_model: Path, text: bytes) -> None:
    file, _ = compressed(text, tiny_model, FAST)
    assert decompressed(file, tiny_model) == text
    assert len(file) <= 1.001 * len(text) + 64


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize(
    "options",
    [Options(exact=True), Options(lanes=3), Options(lanes=16), Options(portable=True, lanes=9)],
    ids=["exact", "three lanes", "lanes", "portable"],
)
def test_prose_in_every_mode(nano_run: object, options: Options, adapt: bool) -> None:
    model = nano_run["model.upar"]  # type: ignore[index]
    text, options = prose(300), replace(options, adapt=adapt)
    file, report = compressed(text, model, options)
    assert decompressed(file, model) == text
    assert len(file) < 0.65 * len(text)
    header, (block,) = content(file)
    assert header.adapts == (adapt and not options.portable)
    assert header.portable == options.portable
    assert (block.lanes, block.n_tokens) == (0 if options.exact else options.lanes, 300)
    assert (report.tokens, report.stored) == (300, 0)
    notes = options.portable
    assert len(block.payload) == pytest.approx(report.nats / LN2 / 8, abs=4 if not notes else 80)


@pytest.mark.parametrize("lossless", [True, False])
def test_with_a_sentencepiece_tokenizer(tmp_path: Path, lossless: bool) -> None:
    spec = replace(TINY, vocab_size=403)  # more than there are pieces, as padded models have
    model = tiny_file(tmp_path / "m.upar", tokenizer=bpe(lossless), spec=spec)
    texts = [prose(1000), b" a  b\xff\0\r\n\xe2\x96 c ", "e\u0301\ufb01 \u2581".encode()]
    with always_coded():
        for text in (*texts, b"".join(texts)):
            file, report = compressed(text, model, Options(lanes=8, block_bytes=700))
            assert report.stored == 0
            assert decompressed(file, model) == text
    assert report.tokens < 0.6 * report.text_bytes


def test_a_tokenizer_that_cannot_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_file(tmp_path / "m.upar")
    monkeypatch.setattr(codec.Session, "stream", lambda self, text: None)
    with always_coded():
        file, report = compressed(prose(500), model)
    assert report.stored == 1
    assert decompressed(file, None) == prose(500)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_process_writes_and_another_reads(tiny_model: Path, tmp_path: Path) -> None:
    count = 2000
    for side in ("write", "read"):
        words = ("-m", "tests.coding", side, tiny_model, tmp_path, count)
        children.python(*words, cwd=children.ROOT, timeout=900)
    coded = 0
    for i in range(count):
        text = (tmp_path / f"{i}.text").read_bytes()
        assert (tmp_path / f"{i}.back").read_bytes() == text
        coded += MODEL in kinds((tmp_path / f"{i}.up").read_bytes())
    assert coded > count / 2


# --- blocks -----------------------------------------------------------------------------------


def test_blocks_end_after_a_line_or_a_character(tiny_model: Path) -> None:
    lines = b"".join(b"line %d\n" % i for i in range(40))
    umlauts = "\u00e4\U0001f600".encode() * 30
    for text, whole in ((lines, lambda t: t.endswith(b"\n")), (umlauts, bytes.decode)):
        file, _ = compressed(text, tiny_model, Options(block_bytes=50))
        pieces = [block.payload for block in content(file)[1]]
        assert b"".join(pieces) == text
        assert all(len(piece) <= 50 for piece in pieces)
        assert all(whole(piece) for piece in pieces)


def test_one_block_if_asked_and_few_by_default(tiny_model: Path) -> None:
    text = NOISE + NOISE[:700_000]
    assert len(content(compressed(text, tiny_model, Options(block_bytes=0))[0])[1]) == 1
    assert len(content(compressed(text, tiny_model)[0])[1]) == 2
    assert BLOCK_BYTES == 1 << 20


def test_a_later_block_profits_from_the_ones_before(tiny_model: Path) -> None:
    text = prose(2400)
    options = replace(FAST, block_bytes=600)
    with always_coded():
        sizes, fixed = (
            [len(b.payload) for b in content(compressed(text, tiny_model, o)[0])[1]]
            for o in (options, replace(options, adapt=False))
        )
        alone = len(content(compressed(text[-540:], tiny_model, options)[0])[1][0].payload)
    assert sizes[-1] < 0.75 * alone
    assert sum(sizes) < 0.8 * sum(fixed)
    assert sizes[-1] < 0.8 * sizes[0]


def in_blocks(model: Path, texts: list[bytes], options: Options = FAST) -> bytes:
    """A file of just these blocks."""
    out, loaded = io.BytesIO(), load(model, torch.device("cpu"))
    session = Session(loaded, header_for(loaded, options))
    Writer(out, session, options).write(iter(texts))
    return out.getvalue()


def test_after_a_stored_block_both_sides_begin_anew(tiny_model: Path) -> None:
    learned, noise, later = prose(900), NOISE[:2000], prose(1800)[900:]
    with patch.object(codec, "_MODEL_OVERHEAD", -(1 << 30)):  # noise is not even tried
        file = in_blocks(tiny_model, [learned, noise, later])
        straight = in_blocks(tiny_model, [learned, later])
        alone = in_blocks(tiny_model, [later])
        noise_first = in_blocks(tiny_model, [noise, later])
    assert kinds(file) == [MODEL, STORED, MODEL]
    assert kinds(noise_first) == [STORED, MODEL]
    assert decompressed(file, tiny_model) == learned + noise + later
    assert decompressed(noise_first, tiny_model) == noise + later
    (lonely,) = content(alone)[1]
    assert content(file)[1][-1] == content(noise_first)[1][-1] == lonely
    assert len(content(straight)[1][-1].payload) < 0.9 * len(lonely.payload)


def test_a_coded_block_that_is_no_gain_leaves_no_trace(tiny_model: Path) -> None:
    """The model has tried, and adapted: the decoder, which only copies, has not."""
    texts, coded = [prose(800), prose(1600)[800:]], Writer._coded

    def regretting(self: Writer, text: bytes) -> Block | None:
        block = coded(self, text)
        return None if text == texts[0] else block

    with always_coded(), patch.object(Writer, "_coded", regretting):
        file = in_blocks(tiny_model, texts)
    assert kinds(file) == [STORED, MODEL]
    assert decompressed(file, tiny_model) == b"".join(texts)


# --- streams ----------------------------------------------------------------------------------


class Counted(io.RawIOBase):
    """A source that cannot seek and says how much of it was read."""

    def __init__(self, data: bytes, most: int = 1 << 30) -> None:
        self._data, self._most = io.BytesIO(data), most
        self.read_so_far = self.largest = 0

    def read(self, n: int = -1) -> bytes:
        assert n >= 0, "all of it at once"
        self.largest = max(self.largest, n)
        data = self._data.read(min(n, self._most))
        self.read_so_far += len(data)
        return data


class Sink(io.RawIOBase):
    """Calls ``arrived`` with the bytes so far, before what was written counts."""

    def __init__(self, arrived: Callable[[int], None]) -> None:
        self._arrived, self.data = arrived, bytearray()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._arrived(len(self.data))
        self.data += data
        return len(data)


def test_no_more_is_read_than_a_block_needs(tiny_model: Path) -> None:
    size, text = 4096, NOISE[: 12 * 4096]
    source = Counted(text, most=1000)
    ahead: list[int] = []
    sink = Sink(lambda written: ahead.append(source.read_so_far - written))
    codec.compress(source, sink, tiny_model, Options(block_bytes=size))  # type: ignore[arg-type]
    assert source.largest <= size
    assert max(ahead) <= 3 * size  # the block that is written, the next, and one being filled
    file, back = Counted(bytes(sink.data)), bytearray()
    ahead.clear()
    out = Sink(lambda written: ahead.append(file.read_so_far - written))
    codec.decompress(file, out, None if content(bytes(sink.data))[0].stored_only else tiny_model)  # type: ignore[arg-type]
    back = out.data
    assert bytes(back) == text
    assert max(ahead) <= 2 * size


def test_memory_does_not_grow_with_the_text(tiny_model: Path, tmp_path: Path) -> None:
    source, file, back = tmp_path / "text", tmp_path / "text.up", tmp_path / "back"
    peaks = []
    for n in (1, 4):
        source.write_bytes(NOISE[: 1 << 19] * n)
        tracemalloc.start()
        with source.open("rb") as a, file.open("wb") as b:
            codec.compress(a, b, tiny_model, Options(block_bytes=1 << 17))
        with file.open("rb") as a, back.open("wb") as b:
            codec.decompress(a, b, tiny_model)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert back.stat().st_size == source.stat().st_size
    assert peaks[1] < peaks[0] + (1 << 17)


# --- refusals ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coded(tiny_model: Path) -> bytes:
    """Prose in model blocks, with all that a header can hold."""
    with always_coded():
        settings = replace(LEARNS, ttt_lr=0.3)
        file, _ = compressed(
            prose(200), tiny_model, Options(lanes=8, block_bytes=120, settings=settings)
        )
    assert kinds(file) == [MODEL, MODEL]
    return file


def test_another_model_is_refused(coded: bytes, tiny_model: Path, tmp_path: Path) -> None:
    other = tiny_file(tmp_path / "other.upar", seed=1)
    with pytest.raises(CodecError, match="another model") as caught:
        decompressed(coded, other)
    assert load(tiny_model).sha256[:16] in str(caught.value)
    with pytest.raises(CodecError, match="--artifact"):
        decompressed(coded, None)
    with pytest.raises(ArtifactError, match=r"nowhere\.upar"):
        decompressed(coded, tmp_path / "nowhere.upar")
    with pytest.raises(ArtifactError, match=r"nowhere\.upar"):
        compressed(b"text", tmp_path / "nowhere.upar")


def test_stored_blocks_need_no_model() -> None:
    out = io.BytesIO()
    blocks.write_header(out, Header())
    blocks.write_block(out, Block.stored(b"\0noise"))
    blocks.write_end(out, 1, Header())
    assert decompressed(out.getvalue(), None) == b"\0noise"


def test_noise_is_said_without_a_model(tiny_model: Path, tmp_path: Path) -> None:
    for text in (b"", b"hello", NOISE[:5000]):
        file, _ = compressed(text, tiny_model)
        assert decompressed(file, None) == text
        assert decompressed(file, tmp_path / "nowhere.upar") == text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"torch": (1, 2, 3)}, r"torch \d.*, here 1\.2\.3"),
        ({"instruction_set": "VSX"}, "instruction set .*, here VSX"),
        ({"device": "cuda"}, "device cpu, here cuda"),
    ],
)
def test_another_machine_is_refused(
    coded: bytes, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, change: dict, why: str
) -> None:
    here = machine.this_machine(torch.float32)
    monkeypatch.setattr(machine, "this_machine", lambda dtype: replace(here, **change))
    with pytest.raises(CodecError, match=why) as caught:
        decompressed(coded, tiny_model)
    assert "--portable" in str(caught.value)
    assert "--try-anyway" in str(caught.value)
    assert decompressed(coded, tiny_model, force=True) == prose(200)  # it adds the same after all


def test_threads_and_dtype_are_the_decoders_to_set(
    coded: bytes, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine.this_machine(torch.float32)
    other = replace(here, threads=7, dtype="float64")
    monkeypatch.setattr(machine, "this_machine", lambda dtype: other)
    assert decompressed(coded, tiny_model) == prose(200)


def test_settings_of_ones_own_travel(tiny_model: Path, coded: bytes) -> None:
    assert content(coded)[0].settings is not None
    plain = Options(lanes=8, settings=LEARNS)
    with always_coded():
        assert content(compressed(prose(200), tiny_model, plain)[0])[0].settings is None
        half = replace(LEARNS, dtype="bfloat16")
        file, _ = compressed(prose(200), tiny_model, replace(plain, settings=half))
    header = content(file)[0]
    assert header.machine is not None
    assert header.machine.dtype == "bfloat16"
    assert decompressed(file, tiny_model) == prose(200)


def damages(file: bytes, count: int) -> list[bytes]:
    """Flipped bits, lost and inserted bytes, cuts, exchanged pieces; none of them the file."""
    rng, found = random.Random(7), list[bytes]()
    while len(found) < count:
        data, at = bytearray(file), rng.randrange(len(file))
        match rng.randrange(6):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + rng.randrange(1, 9)]
            case 3:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                other = rng.randrange(len(file))
                data[at], data[other] = data[other], data[at]
            case _:
                data[at : at + 20] = rng.randbytes(20)
        if data != file:
            found.append(bytes(data))
    return found


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_damage_is_an_error(tiny_model: Path, coded: bytes, count: int, portable: bool) -> None:
    if portable:
        with always_coded():
            coded, _ = compressed(
                prose(150) + NOISE[:99], tiny_model, Options(portable=True, lanes=16)
            )
    for damaged in damages(coded, count):
        out = io.BytesIO()
        with pytest.raises(CodecError):
            codec.decompress(io.BytesIO(damaged), out, tiny_model)
        assert (prose(150) + NOISE[:99] if portable else prose(200)).startswith(out.getvalue())


def test_blocks_of_another_file_do_not_fit(tiny_model: Path) -> None:
    with always_coded():
        one, other = (
            compressed(prose(300)[a : a + 150], tiny_model, replace(FAST, portable=True))[0]
            for a in (0, 150)
        )
    (header, mine), (_, theirs) = content(one), content(other)
    assert header == content(other)[0]
    out = io.BytesIO()
    blocks.write_header(out, header)
    mixed = replace(mine[0], payload=theirs[0].payload)
    blocks.write_block(out, mixed)
    blocks.write_end(out, 1, header)
    with pytest.raises(CodecError, match="block 1 does not decode"):
        decompressed(out.getvalue(), tiny_model)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        {"n_tokens": 0},
        {"n_tokens": 3},
        {"n_tokens": 151},
        {"lanes": 0},
        {"lanes": 9},
        {"lanes": 65_535},
        {"text_bytes": 149},
        {"text_crc": 0},
        {"payload": b""},
        {"payload": b"\1\0\0\0"},
        {"payload": b"\1\0\0\0" + b"\0\0\0\0" + b"\xff\xff\1" + NOISE[:20]},
    ],
    ids=lambda change: " ".join(map(str, change.items()))[:40],
)
def test_sound_checksums_around_nonsense(tiny_model: Path, change: dict, portable: bool) -> None:
    """Not an accident but a forgery: no garbage, and no exception of the library's innards."""
    with always_coded():
        file, _ = compressed(prose(150), tiny_model, Options(lanes=8, portable=portable))
    header, (block,) = content(file)
    out = io.BytesIO()
    blocks.write_header(out, header)
    blocks.write_block(out, replace(block, **change))
    blocks.write_end(out, 1, header)
    with pytest.raises(CodecError):
        decompressed(out.getvalue(), tiny_model)


@pytest.mark.parametrize(
    "settings_",
    [
        section_to_json(LEARNS) | {"stride": 33},  # the context is 32
        section_to_json(LEARNS) | {"stride": "x"},
        section_to_json(LEARNS) | {"nonsense": 1},
        {},
    ],
    ids=["long stride", "no number", "unknown", "nothing"],
)
def test_settings_that_cannot_be(tiny_model: Path, settings_: dict) -> None:
    header = replace(header_for(load(tiny_model), Options()), settings=settings_)
    out = io.BytesIO()
    blocks.write_header(out, header)
    blocks.write_block(out, Block(MODEL, 5, 0, b"abcd", 5, 1))
    blocks.write_end(out, 1, header)
    with pytest.raises(CodecError):
        decompressed(out.getvalue(), tiny_model)
