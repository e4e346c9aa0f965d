"""data build, info: from texts to shards, as a person types it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.commands import underpar
from underpar.data.build import open_dataset
from underpar.data.corpus import generated_documents

DOCUMENTS = generated_documents(1)[:8]
TEXTS = [document.text for document in DOCUMENTS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = tmp_path / "texts"
    texts.mkdir()
    for i, text in enumerate(TEXTS):
        (texts / f"{i}.txt").write_bytes(text.encode())
    return texts


def shown(text: str) -> dict[str, str]:
    """The rows of a summary, name -> value."""
    rows = (line.split("  ", 1) for line in text.splitlines() if "  " in line)
    return {name.strip(): value.strip() for name, value in rows}


def test_a_folder_of_texts_with_a_tokenizer_of_its_own(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    done = underpar("data", "build", folder, "--vocab", 400, "--held-out", 2, "--out", out)
    assert done.code == 0, done.err
    rows = shown(underpar("data", "info", out).out)
    held_out = sum(len(text.encode()) for text in TEXTS[-2:])
    assert rows["tokenizer"] == "sentencepiece, 400 pieces"
    assert rows["tokenizer lossless"] == "yes"
    assert rows["train documents"] == "6"
    assert rows["val documents"] == "2"
    assert rows["val bytes"] == rows["val raw bytes"] == f"{held_out:,}"
    assert rows["val text"] == "raw"
    assert rows.items() <= shown(done.err).items()
    tokens = open_dataset(out).validation().tokens
    assert rows["val tokens"] == f"{len(tokens):,}"
    again = underpar("data", "build", folder, "--vocab", 400, "--held-out", 2, "--out", out)
    assert f"data: {out} is up to date" in again.err


def test_the_competitions_tokenizer_says_that_it_normalizes(folder: Path, tmp_path: Path) -> None:
    (folder / "9.txt").write_text("two  spaces and a ﬁne ligature ", encoding="utf-8")
    out = tmp_path / "data"
    done = underpar(
        "data", "build", folder, "--vocab", 400, "--competition", "--held-out", 1, "--out", out
    )
    assert done.code == 0, done.err
    rows = shown(underpar("data", "info", out).out)
    assert rows["tokenizer lossless"] == "no"
    assert rows["val text"] == "normalized by the tokenizer"
    assert rows["val bytes"] < rows["val raw bytes"] == "33"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_jsonl_with_splits_and_the_byte_tokenizer(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": text, "split": "val" if i == 3 else "train"} for i, text in enumerate(TEXTS)]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if suffix == ".gz":
        data = gzip.compress(data)
    if suffix == ".zst":
        data = pytest.importorskip("zstandard").compress(data)
    source, out = tmp_path / f"texts.jsonl{suffix}", tmp_path / "data"
    source.write_bytes(data)
    done = underpar("data", "build", source, "--bytes", "--out", out)
    assert done.code == 0, done.err
    validation = open_dataset(out).validation()
    np.testing.assert_array_equal(validation.tokens, [256, *TEXTS[3].encode()])
    assert shown(done.err)["tokenizer"] == "bytes, 257 pieces"


def test_another_folders_tokenizer_can_be_used(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    underpar("data", "build", folder, "--vocab", 400, "--held-out", 1, "--out", first)
    model = first / "tokenizer.model"
    done = underpar("data", "build", folder, "--tokenizer", model, "--held-out", 3, "--out", second)
    assert done.code == 0, done.err
    assert (second / "tokenizer.model").read_bytes() == model.read_bytes()
    assert len(open_dataset(second).validation().documents) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere.jsonl",), "nowhere.jsonl"),
        (("{texts}", "--held-out", "8"), "held"),
        (("{texts}", "--vocab", "100"), "too few pieces"),
        (("{texts}", "--vocab", "60000"), "model.vocab_size"),
        (("{texts}", "--tokenizer", "{texts}/0.txt"), "SentencePiece cannot read"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    words = [word.format(texts=folder) for word in arguments]
    done = underpar("data", "build", "--held-out", "1", *words, "--out", tmp_path / "data")
    assert done.failed_with(told), done
    info = underpar("data", "info", tmp_path / "data")
    assert info.failed_with(str(tmp_path / "data")), info


def test_a_truncated_shard_is_one_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    underpar("data", "build", folder, "--bytes", "--held-out", 1, "--out", out)
    shard = out / "fineweb_val_000000.bin"
    shard.write_bytes(shard.read_bytes()[:-10])
    done = underpar("data", "info", out)
    assert done.failed_with("fineweb_val_000000.bin"), done


def test_a_hub_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    done = underpar(
        "data", "download", "--variant", "sp1024", "--train-shards", 1, "--out", tmp_path,
        "--endpoint", "http://127.0.0.1:9",
    )  # fmt: skip
    assert done.failed_with("127.0.0.1:9") or done.failed_with("sp1024"), done
