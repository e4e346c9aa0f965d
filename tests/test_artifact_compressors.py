import random
import sys
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.artifact import compressors
from underpar.artifact.compressors import NAMES, compress, decompress, shuffle, unshuffle
from underpar.errors import ArtifactError, DependencyError

TEXT = b"the quick brown fox jumps over the lazy dog. " * 200


@pytest.fixture(params=NAMES)
def codec(request):
    if request.param in ("brotli", "zstd"):
        pytest.importorskip({"brotli": "brotli", "zstd": "zstandard"}[request.param])
    return request.param


@pytest.mark.parametrize("data", [b"", b"a", bytes(100_000), TEXT])
def test_round_trip(codec, data):
    assert decompress(compress(data, codec=codec), len(data), codec=codec) == data


def test_all_but_raw_compress(codec):
    assert codec == "raw" or len(compress(TEXT, codec=codec)) < len(TEXT) / 20


@pytest.mark.parametrize("error", [-len(TEXT), -1, 1, 10**12])
def test_any_other_size_than_the_true_one_is_an_error(codec, error):
    with pytest.raises(ArtifactError):
        decompress(compress(TEXT, codec=codec), len(TEXT) + error, codec=codec)


def test_damage_is_an_error_or_the_right_size(codec):
    packed, rng = compress(TEXT, codec=codec), random.Random(1)
    for _ in range(200):
        damaged = bytearray(packed[: rng.randint(0, len(packed))])
        if damaged and rng.random() < 0.7:
            damaged = bytearray(packed)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        with suppress(ArtifactError):
            assert len(decompress(bytes(damaged), len(TEXT), codec=codec)) == len(TEXT)


def test_trailing_bytes_are_an_error(codec):
    with pytest.raises(ArtifactError):
        decompress(compress(TEXT, codec=codec) + b"more", len(TEXT), codec=codec)


def test_a_bomb_takes_no_more_memory_than_was_declared(codec):
    if codec == "raw":
        return
    bomb = compress(bytes(15_000_000), codec=codec)
    tracemalloc.start()
    with pytest.raises(ArtifactError):
        decompress(bomb, 1000, codec=codec)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000  # lzma's dictionary of 8 MB, the same for every stream


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ArtifactError, match="brotli"):
        decompress(b"", 0, codec="zip")


@pytest.mark.parametrize(("name", "package"), [("zstd", "zstandard"), ("brotli", "brotli")])
def test_a_missing_package_names_the_command(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    for use in (lambda: compress(b"", codec=name), lambda: compressors.require(name)):
        with pytest.raises(DependencyError, match=f"pip install '{package}"):
            use()
    compressors.require("lzma")


@settings(max_examples=50)
@given(st.binary(max_size=50), st.integers(1, 9))
def test_shuffle_round_trip(data, stride):
    assert unshuffle(shuffle(data, stride), stride) == data


def test_shuffle_is_the_published_frame():
    assert shuffle(b"abcde", 2) == b"BSHF\x02acebd"


@pytest.mark.parametrize("data", [b"", b"BSHF", b"BSHF\3abc", b"XSHF\2abc"])
def test_no_shuffle_frame_is_an_error(data):
    with pytest.raises(ArtifactError):
        unshuffle(data)


def test_shuffle_helps_floats():
    scales = (0.02 * np.random.default_rng(0).lognormal(0, 0.1, 5000)).astype(np.float16).tobytes()
    assert len(compress(shuffle(scales), codec="lzma")) < 0.96 * len(compress(scales, codec="lzma"))
