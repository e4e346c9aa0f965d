"""The field's shard format: bytes as published, damage recognised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from underpar.data.opening import check_shard
from underpar.data.shards import HEADER_BYTES, read_shard, shard_files, shard_name, write_shard
from underpar.errors import DataError

TOKENS = np.array([1, 500, 65_535, 0, 7], dtype=np.uint16)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / shard_name("train", 3)
    write_shard(path, TOKENS)
    return path


def test_bytes_are_the_published_format(shard: Path) -> None:
    assert shard.name == "fineweb_train_000003.bin"
    data = shard.read_bytes()
    assert np.frombuffer(data[:1024], "<i4")[:4].tolist() == [20240520, 1, 5, 0]
    assert data[1024:] == b"\x01\x00\xf4\x01\xff\xff\x00\x00\x07\x00"


def test_round_trip_is_a_read_only_map(shard: Path) -> None:
    tokens = read_shard(shard)
    assert isinstance(tokens, np.memmap)
    assert tokens.dtype == np.uint16
    assert tokens.tolist() == TOKENS.tolist()
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1
    write_shard(shard, TOKENS.astype(np.int64)[:2])
    assert read_shard(shard).tolist() == [1, 500]


def header(word: int, value: int, data: bytes) -> bytes:
    words = np.frombuffer(data[:HEADER_BYTES], "<i4").copy()
    words[word] = value
    return words.tobytes() + data[HEADER_BYTES:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d[:100], "truncated.*got 100 bytes.*header of 1024"),
        (lambda d: b"", "truncated.*got 0 bytes"),
        (lambda d: d[:-1], "truncated.*got 1033 bytes.*wanted 1034 for its 5 tokens"),
        (lambda d: d + b"\0\0", "too long.*got 1036"),
        (lambda d: header(0, 99, d), "not a token shard.*got first word 99.*wanted 20240520"),
        (lambda d: header(1, 2, d), "unknown version.*got 2.*wanted 1"),
        (lambda d: header(2, 0, d)[:1024], "is empty"),
        (lambda d: header(2, -5, d), "is empty.*got -5"),
    ],
)
def test_damage_is_named(shard: Path, damage: object, message: str) -> None:
    shard.write_bytes(damage(shard.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        check_shard(shard)
    with pytest.raises(DataError, match="not a whole shard"):
        read_shard(shard)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        check_shard(tmp_path / "nothing.bin")


@pytest.mark.parametrize("tokens", [np.zeros(0, np.uint16), np.zeros((2, 2)), [-1], [65_536]])
def test_refuses_to_write(tmp_path: Path, tokens: object) -> None:
    with pytest.raises(DataError, match="writing shard"):
        write_shard(tmp_path / "x.bin", np.asarray(tokens))
    assert not list(tmp_path.iterdir())


def test_files_are_sorted_without_sidecars(tmp_path: Path) -> None:
    for name in ("val_000001", "val_000000", "val_bytes_000000", "train_000000"):
        (tmp_path / f"fineweb_{name}.bin").touch()
    names = [path.name for path in shard_files(tmp_path, "val")]
    assert names == ["fineweb_val_000000.bin", "fineweb_val_000001.bin"]
    assert len(shard_files(tmp_path, "train")) == 1
