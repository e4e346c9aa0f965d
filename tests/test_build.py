"""Builds: complete, reused when identical, opened with the right tokenizer; and downloads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from underpar.data.build import (
    Dataset,
    build,
    build_for,
    build_source,
    describe,
    open_dataset,
    summary,
)
from underpar.data.corpus import Document, generated_documents, split
from underpar.data.shards import read_shard, write_shard
from underpar.data.tokenizer import ByteTokenizer, train_bpe
from underpar.errors import DataError
from underpar.recipe.schema import DataSpec

TRAIN, VAL = split(generated_documents(0), 2)
GENERATED = DataSpec(corpus="generated", held_out=2)


def stream(files: list[Path]) -> np.ndarray:
    return np.concatenate([read_shard(file) for file in files])


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def decoded(dataset: Dataset, files: list[Path]) -> list[str]:
    tokens = stream(files)
    starts = np.flatnonzero(tokens == dataset.tokenizer.bos_id)
    return [dataset.tokenizer.decode(part) for part in np.split(tokens, starts)[1:]]


def test_build_keeps_every_document(tmp_path: Path) -> None:
    dataset = build(TRAIN, VAL, ByteTokenizer(), tmp_path, shard_tokens=10_000)
    assert [f.name for f in dataset.train_files][:2] == [
        "fineweb_train_000000.bin",
        "fineweb_train_000001.bin",
    ]
    assert all(len(read_shard(f)) == 10_000 for f in dataset.train_files[:-1])
    assert decoded(dataset, dataset.train_files) == [d.text for d in TRAIN]
    assert decoded(dataset, dataset.val_files) == [d.text for d in VAL]
    assert dataset.validation().raw_bytes == sum(d.n_bytes for d in VAL)
    assert dataset.validation() is dataset.validation()
    assert not (tmp_path / "tokenizer.model").exists()
    assert dataset.info["train"]["raw_bytes"] == sum(d.n_bytes for d in TRAIN)


def test_build_for_trains_on_the_training_split_only(tmp_path: Path) -> None:
    dataset = build_for(GENERATED, 400, tmp_path)
    alone = train_bpe([d.text for d in TRAIN], 400)
    assert dataset.tokenizer.fingerprint() == alone.fingerprint()
    assert (tmp_path / "tokenizer.model").read_bytes() == alone.to_bytes()
    assert decoded(dataset, dataset.val_files) == [d.text for d in VAL]
    info = describe(dataset)
    assert info["val_bytes"] == info["val_raw_bytes"] == sum(d.n_bytes for d in VAL)
    assert info["train_documents"] == len(TRAIN)
    assert "sentencepiece, 400 pieces" in summary(dataset)


def test_identical_build_is_reused(tmp_path: Path) -> None:
    build_for(GENERATED, 400, tmp_path)
    before = stamps(tmp_path)
    build_for(GENERATED, 400, tmp_path)
    assert stamps(tmp_path) == before
    assert build_for(GENERATED, 401, tmp_path).tokenizer.vocab_size == 401
    assert stamps(tmp_path) != before


def test_damaged_or_unfinished_build_is_made_again(tmp_path: Path) -> None:
    wanted = stream(build(TRAIN, VAL, ByteTokenizer(), tmp_path).train_files).tolist()
    shard = tmp_path / "fineweb_train_000000.bin"
    for damage in (
        lambda: shard.write_bytes(shard.read_bytes()[:-2]),
        lambda: write_shard(shard, np.arange(5)),
        shard.unlink,
        lambda: (tmp_path / "dataset.json").write_text('{"unfinished": true}'),
    ):
        damage()
        assert stream(build(TRAIN, VAL, ByteTokenizer(), tmp_path).train_files).tolist() == wanted


def test_fewer_shards_leave_no_old_ones(tmp_path: Path) -> None:
    build(TRAIN, VAL, ByteTokenizer(), tmp_path, shard_tokens=5_000)
    dataset = build_for(GENERATED, 400, tmp_path)
    assert len(dataset.train_files) == len(dataset.val_files) == 1
    assert len(build(TRAIN, VAL, ByteTokenizer(), tmp_path).train_files) == 1
    assert not (tmp_path / "tokenizer.model").exists()


def test_interrupted_build_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(TRAIN, VAL, ByteTokenizer(), tmp_path)

    def interrupt(self: object, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ByteTokenizer, "encode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(TRAIN[:5], VAL, ByteTokenizer(), tmp_path)
    with pytest.raises(DataError, match="no shards"):
        open_dataset(tmp_path)


def test_sources(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": t}) for t in ("one", " two ", "three")))
    dataset = build_source(
        str(texts), tmp_path / "a", vocab_size=0, byte_tokenizer=True, held_out=1
    )
    assert decoded(dataset, dataset.train_files) == ["one", " two "]
    lossy = build_source("generated", tmp_path / "b", vocab_size=400, lossless=False, held_out=2)
    assert lossy.validation().normalized
    model = tmp_path / "b" / "tokenizer.model"
    again = build_source(str(texts), tmp_path / "c", vocab_size=0, tokenizer_path=model, held_out=1)
    assert again.tokenizer.fingerprint() == lossy.tokenizer.fingerprint()
    assert decoded(again, again.train_files) == ["one", "two"]
    with pytest.raises(DataError, match="trains on shards"):
        build_for(DataSpec(), 400, tmp_path / "d")


def competition_folder(root: Path, vocab: int) -> Path:
    """The layout of the published cache: shards without dataset.json, tokenizers beside."""
    folder = root / "datasets" / f"fineweb10B_sp{vocab}"
    tokenizer = train_bpe([d.text for d in TRAIN], vocab, lossless=False)
    (root / "tokenizers").mkdir(parents=True)
    (root / "tokenizers" / f"fineweb_{vocab}_bpe.model").write_bytes(tokenizer.to_bytes())
    (root / "tokenizers" / f"fineweb_1{vocab}_bpe.model").write_bytes(b"another")
    for name, documents in (("train", TRAIN), ("val", VAL)):
        parts = [np.append(np.uint16(1), tokenizer.encode(d.text)) for d in documents]
        write_shard(folder / f"fineweb_{name}_000000.bin", np.concatenate(parts))
    return folder


def test_download_opens_as_it_is(tmp_path: Path) -> None:
    folder = competition_folder(tmp_path, 400)
    dataset = open_dataset(folder)
    assert dataset.tokenizer.vocab_size == 400
    validation = dataset.validation()
    assert validation.normalized
    assert validation.raw_bytes is None
    assert describe(dataset)["train_documents"] is None
    assert "train documents" not in summary(dataset)
    with pytest.raises(DataError, match="not built here"):
        build(TRAIN, VAL, ByteTokenizer(), folder)
    assert open_dataset(folder).val_files == dataset.val_files


def test_tokenizer_missing_or_wrong(tmp_path: Path) -> None:
    folder = competition_folder(tmp_path, 400)
    small = tmp_path / "small.model"
    small.write_bytes(train_bpe([d.text for d in TRAIN], 330).to_bytes())
    with pytest.raises(DataError, match=r"a model of 330 pieces, and token id \d+"):
        open_dataset(folder, small)
    (tmp_path / "tokenizers" / "fineweb_400_bpe.model").unlink()
    with pytest.raises(DataError, match=r"no tokenizer for.*--tokenizer"):
        open_dataset(folder)
    with pytest.raises(DataError, match=r"no shards.*no such folder"):
        open_dataset(tmp_path / "nothing")


def test_tokenizer_of_another_build(tmp_path: Path) -> None:
    build_for(GENERATED, 400, tmp_path / "a")
    other = train_bpe([d.text for d in VAL], 400)
    (tmp_path / "other.model").write_bytes(other.to_bytes())
    with pytest.raises(DataError, match=r"got digest .*with which its shards were made"):
        open_dataset(tmp_path / "a", tmp_path / "other.model")
    with pytest.raises(DataError, match="no documents"):
        build([], [Document("x", "y")], ByteTokenizer(), tmp_path / "b")
