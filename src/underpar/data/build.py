"""From documents to a folder that training and scoring read.

    fineweb_train_000000.bin ...    BOS + tokens of every training document
    fineweb_val_000000.bin ...      the held-out documents
    tokenizer.model                 the SentencePiece model (absent for the byte tokenizer)
    dataset.json                    what they were made from: digests and counts

The names are the field's, so that its scripts read our folders. dataset.json is written last: it
says that everything else is complete, and by the digest of its inputs a second build knows that
there is nothing to do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from underpar import progress, storage
from underpar.data.corpus import (
    Document,
    generated_documents,
    read_documents,
    sotu_documents,
    split,
)
from underpar.data.dataset import Dataset
from underpar.data.opening import FORMAT, describe, open_dataset, summary
from underpar.data.shards import Tokens, read_shard, shard_files, shard_name, write_shard
from underpar.data.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer, train_bpe
from underpar.errors import DataError
from underpar.recipe.schema import DataSpec

__all__ = ["Dataset", "build", "build_for", "build_source", "describe", "open_dataset", "summary"]

SHARD_TOKENS = 100_000_000
GENERATED_SEED = 0


def build(
    train: Sequence[Document],
    val: Sequence[Document],
    tokenizer: Tokenizer,
    out_dir: Path,
    *,
    shard_tokens: int = SHARD_TOKENS,
) -> Dataset:
    """Tokenize both splits into ``out_dir``; an identical earlier build is opened instead."""
    out_dir = Path(out_dir)
    inputs = _inputs_digest(tokenizer.fingerprint(), shard_tokens, train, val)
    return _reuse(out_dir, inputs) or _write(train, val, tokenizer, out_dir, shard_tokens, inputs)


def build_for(spec: DataSpec, vocab_size: int, out_dir: Path) -> Dataset:
    """The recipe's own corpus: documents, a tokenizer trained on the training split, shards.

    vocab_size: of a SentencePiece tokenizer; the byte tokenizer always has 257.
    """
    if spec.corpus == "shards":
        raise DataError(
            "this recipe trains on shards",
            got="no folder",
            wanted="a folder with fineweb_train_*.bin and fineweb_val_*.bin",
            do="Give --data DIR, or set data.corpus to 'sotu'.",
        )
    return build_source(
        spec.corpus,
        out_dir,
        vocab_size=vocab_size,
        byte_tokenizer=spec.tokenizer == "bytes",
        held_out=spec.held_out,
    )


def documents_of(source: str) -> list[Document]:
    """'sotu', 'generated', or a path to a folder of texts or a JSONL file."""
    if source == "sotu":
        return sotu_documents()
    if source == "generated":
        return generated_documents(GENERATED_SEED)
    return read_documents(Path(source))


def build_source(
    source: str,
    out_dir: Path,
    *,
    vocab_size: int,
    tokenizer_path: Path | None = None,
    byte_tokenizer: bool = False,
    lossless: bool = True,
    held_out: int = 10,
) -> Dataset:
    """Documents of 'sotu', 'generated' or a path, split, tokenized into ``out_dir``.

    The tokenizer is bytes, the model at ``tokenizer_path``, or a BPE model of ``vocab_size`` pieces
    trained on the training split alone, lossless or with the competition's normalisation.
    """
    train, val = split(documents_of(source), held_out)
    if byte_tokenizer:
        return build(train, val, ByteTokenizer(), out_dir)
    if tokenizer_path is not None:
        return build(train, val, load_tokenizer(tokenizer_path), out_dir)
    out_dir, kind = Path(out_dir), "lossless" if lossless else "normalizing"
    inputs = _inputs_digest(f"train_bpe {kind} {vocab_size}", SHARD_TOKENS, train, val)
    earlier = _reuse(out_dir, inputs)
    if earlier is not None:
        return earlier
    progress.current().line(f"training a {kind} tokenizer of {vocab_size} pieces")
    with progress.busy("training the tokenizer"):
        tokenizer = train_bpe((d.text for d in train), vocab_size, lossless=lossless)
    return _write(train, val, tokenizer, out_dir, SHARD_TOKENS, inputs)


def _inputs_digest(
    tokenizer: str, shard_tokens: int, train: Sequence[Document], val: Sequence[Document]
) -> str:
    hasher = hashlib.sha256(f"{FORMAT} {tokenizer} {shard_tokens}".encode())
    for documents in (train, val):
        hasher.update(f"/{len(documents)}".encode())
        for document in documents:
            data = document.text.encode("utf-8")
            hasher.update(f":{len(data)}:".encode())
            hasher.update(data)
    return hasher.hexdigest()


def _reuse(out_dir: Path, inputs: str) -> Dataset | None:
    """The dataset in ``out_dir`` if it was built from these inputs and is still whole."""
    try:
        dataset = open_dataset(out_dir)
        found = {f.name: len(read_shard(f)) for f in dataset.train_files + dataset.val_files}
    except DataError:
        return None
    if dataset.info.get("inputs") != inputs or dataset.info["files"] != found:
        return None
    progress.current().line(f"data: {out_dir} is up to date")
    return dataset


def _write(
    train: Sequence[Document],
    val: Sequence[Document],
    tokenizer: Tokenizer,
    out_dir: Path,
    shard_tokens: int,
    inputs: str,
) -> Dataset:
    _claim(out_dir)
    files: dict[str, int] = {}
    info: dict[str, Any] = {
        "format": FORMAT,
        "inputs": inputs,
        "tokenizer": {
            "kind": tokenizer.kind,
            "digest": tokenizer.fingerprint(),
            "vocab_size": tokenizer.vocab_size,
            "lossless": tokenizer.lossless,
        },
        "files": files,
    }
    if tokenizer.to_bytes():
        storage.write_bytes(out_dir / "tokenizer.model", tokenizer.to_bytes())
    splits: tuple[tuple[Literal["train", "val"], Sequence[Document]], ...]
    splits = (("train", train), ("val", val))
    for name, documents in splits:
        stream = _tokenize(name, documents, tokenizer)
        for start in range(0, len(stream), shard_tokens):
            path = out_dir / shard_name(name, start // shard_tokens)
            write_shard(path, stream[start : start + shard_tokens])
            files[path.name] = len(stream[start : start + shard_tokens])
        sizes = [d.n_bytes for d in documents]
        info[name] = {
            "documents": len(documents), "tokens": len(stream), "raw_bytes": sum(sizes)
        }  # fmt: skip
        if name == "val":
            info[name]["document_bytes"] = sizes
        progress.current().line(_summary(name, info[name]))
    storage.write_text(out_dir / "dataset.json", json.dumps(info, indent=1) + "\n")
    return open_dataset(out_dir)


def _claim(out_dir: Path) -> None:
    """Empty the folder of an earlier build, and mark it unfinished; never touch a download."""
    shards = shard_files(out_dir, "train") + shard_files(out_dir, "val")
    if shards and not (out_dir / "dataset.json").exists():
        raise DataError(
            f"building into {out_dir}",
            got=f"{len(shards)} shards that were not built here (no dataset.json)",
            wanted="an empty folder, or one of an earlier build",
            do="Choose another folder.",
        )
    storage.write_text(out_dir / "dataset.json", '{"unfinished": true}\n')
    for path in [*shards, out_dir / "tokenizer.model"]:
        path.unlink(missing_ok=True)


def _tokenize(name: str, documents: Sequence[Document], tokenizer: Tokenizer) -> Tokens:
    """BOS + tokens of every document, uint16 [N]."""
    bos = np.array([tokenizer.bos_id], dtype=np.uint16)
    parts: list[Tokens] = []
    for i, document in enumerate(documents):
        parts += [bos, tokenizer.encode(document.text)]
        progress.current().update(f"tokenizing {name}", i + 1, len(documents), unit="documents")
    if not parts:
        raise DataError(f"building data: split '{name}'", got="no documents", wanted="1 or more")
    return np.concatenate(parts)


def _summary(name: str, counts: Mapping[str, int]) -> str:
    per_token = counts["raw_bytes"] / counts["tokens"]
    return (
        f"{name}: {counts['documents']} documents, {counts['raw_bytes']:,} bytes, "
        f"{counts['tokens']:,} tokens, {per_token:.3f} bytes a token"
    )
