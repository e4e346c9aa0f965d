import errno
import hashlib
import json
import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar import storage
from underpar.artifact import container
from underpar.artifact.check import sound
from underpar.artifact.container import write_container
from underpar.artifact.load import read_container
from underpar.errors import ArtifactError, MachineError

HEADER = {"b": [1, 2.5, None], "a": {"text": "café", "on": True}}
SECTIONS = {"codes": bytes(range(200)), "empty": b"", "tokenizer": b"\0\1\2" * 30}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.upar"
    write_container(path, HEADER, SECTIONS)
    return path


def test_what_is_written_is_read(path):
    header, sections = read_container(path)
    assert header == HEADER
    assert sections == SECTIONS
    assert list(sections) == list(SECTIONS)


@settings(max_examples=50)
@given(
    st.dictionaries(st.text(max_size=8).filter(lambda k: k != "sections"), st.integers()),
    st.dictionaries(st.text(max_size=8), st.binary(max_size=64)),
)
def test_round_trip(tmp_path_factory, header, sections):
    path = tmp_path_factory.mktemp("x") / "x.upar"
    write_container(path, header, sections)
    assert read_container(path) == (header, sections)


def test_the_same_content_gives_the_same_bytes(path, tmp_path):
    again = tmp_path / "again.upar"
    write_container(again, dict(reversed(HEADER.items())), SECTIONS)
    assert again.read_bytes() == path.read_bytes()


def test_the_bytes_of_version_1(tmp_path):
    """The layout byte by byte; when this has to change, VERSION and docs/format.md change too."""
    path = tmp_path / "x.upar"
    write_container(path, {"k": 1}, {"s": b"data"})
    text = b'{"k":1,"sections":[["s",4,%d]]}' % zlib.crc32(b"data")
    deflated = zlib.compress(text, 9)
    whole = struct.pack("<4sIII", b"UPAR", 1, len(deflated), len(text)) + deflated + b"data"
    assert path.read_bytes() == whole + hashlib.sha256(whole).digest()


def test_every_flipped_bit_is_noticed(path):
    data = path.read_bytes()
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(ArtifactError):
            sound(bytes(damaged), path)


def test_every_truncation_and_every_appendix_is_noticed(path):
    data = path.read_bytes()
    for length in range(len(data)):
        with pytest.raises(ArtifactError):
            sound(data[:length], path)
    for extra in (b"\0", b"UPAR", data):
        with pytest.raises(ArtifactError):
            sound(data + extra, path)


def test_random_damage_never_escapes_as_another_error(path):
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(1000):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 20)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            read = sound(bytes(damaged[: rng.randint(1, len(data))]), path)
        except ArtifactError:
            continue
        assert read == (HEADER, SECTIONS)


def test_the_damaged_section_is_named(path):
    data = bytearray(path.read_bytes())
    data[data.index(SECTIONS["codes"]) + 5] ^= 1
    with pytest.raises(ArtifactError, match="section 'codes'"):
        sound(bytes(data), path)


def forged(header_text, body=b"", *, length=None, version=1):
    """A file that is whole by its digest, with any header."""
    deflated = zlib.compress(header_text)
    length = len(header_text) if length is None else length
    data = struct.pack("<4sIII", b"UPAR", version, len(deflated), length) + deflated + body
    return data + hashlib.sha256(data).digest()


def listed(*rows):
    return json.dumps({"sections": rows}).encode()


CRC = zlib.crc32(b"abc")


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"null",
        b"{}",
        b"not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"sections":[],"x":NaN}',
        b'{"sections":[],"x":1,"x":2}',
        b'{"sections":[],"x":' + b"9" * 5000 + b"}",
        b'{"sections":3}',
        listed("s"),
        listed(["s", 3]),
        listed(["s", "3", CRC]),
        listed(["s", True, CRC]),
        listed(["s", 4, CRC]),
        listed(["s", 10**18, CRC]),
        listed(["s", -1, 0], ["t", 4, 0]),
        listed(["s", 3, CRC], ["s", 0, 0]),
        listed(["s", 3, CRC + 1]),
    ],
)
def test_a_malformed_header_is_an_error(tmp_path, header):
    with pytest.raises(ArtifactError):
        sound(forged(header, b"abc"), tmp_path)


def test_the_forger_of_these_tests_is_a_good_one(tmp_path):
    assert sound(forged(listed(["s", 3, CRC]), b"abc"), tmp_path) == ({}, {"s": b"abc"})


def test_a_header_inflates_to_its_declared_length_only(tmp_path):
    bomb = b" " * 10_000_000
    for length in (10, len(bomb) - 1, len(bomb) + 1, container.MAX_HEADER_JSON + 1):
        with pytest.raises(ArtifactError):
            sound(forged(bomb, length=length), tmp_path)


def test_a_newer_version_says_so(tmp_path):
    with pytest.raises(ArtifactError, match=r"version 2.*Update underpar"):
        sound(forged(b"{}", version=2), tmp_path)


def test_foreign_and_missing_files(tmp_path):
    other = tmp_path / "model.pt"
    other.write_bytes(b"PK\3\4" * 100)
    with pytest.raises(ArtifactError, match="not an underpar artifact"):
        read_container(other)
    with pytest.raises(ArtifactError, match="No such file"):
        read_container(tmp_path / "absent.upar")
    with pytest.raises(ArtifactError):
        read_container(tmp_path)


def test_a_full_disk_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()
    real = storage.Path.open

    def open_full(self, *args, **kwargs):
        handle = real(self, *args, **kwargs)
        if self.name.endswith(".part"):
            written = 0

            class Full:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    handle.close()

                def write(self, data):
                    nonlocal written
                    written += len(data)
                    if written > 100:
                        raise OSError(errno.ENOSPC, "No space left on device")
                    return handle.write(data)

            return Full()
        return handle

    monkeypatch.setattr(storage.Path, "open", open_full)
    with pytest.raises(MachineError, match="No space left"):
        write_container(path, HEADER, {"codes": bytes(1000)})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
