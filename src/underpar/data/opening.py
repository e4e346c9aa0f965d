"""Open a folder of shards for training and scoring: our own builds, and downloads as they are.

Our builds carry dataset.json, which binds shards, tokenizer and the byte counts of the raw text. A
folder downloaded for the competition has none: its tokenizer lies in a folder beside it, and the
bytes of its raw text are not known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from underpar.data.dataset import Dataset
from underpar.data.shards import HEADER_BYTES, MAGIC, VERSION, read_shard, shard_files
from underpar.data.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer
from underpar.data.validation import ValidationSet
from underpar.errors import DataError

FORMAT = 1


def open_dataset(folder: Path, tokenizer_path: Path | None = None) -> Dataset:
    """A built folder, or one downloaded for the competition as it is.

    The tokenizer is ``tokenizer_path``, else FOLDER/tokenizer.model, else (downloads) the model in
    ../tokenizers or ../../tokenizers whose vocabulary is the one in the folder's name. Raises
    DataError when shards or tokenizer are missing, or do not belong together.
    """
    folder = Path(folder)
    train_files, val_files = shard_files(folder, "train"), shard_files(folder, "val")
    if not val_files:
        what = "validation shards" if train_files else "shards"
        raise DataError(
            f"no {what} in {folder}",
            got="no such folder" if not folder.is_dir() else "no fineweb_val_*.bin",
            wanted="a folder of token shards",
            do="Download or build the data first: underpar data --help.",
        )
    info = _read_info(folder / "dataset.json")
    if tokenizer_path is not None:
        tokenizer: Tokenizer = load_tokenizer(tokenizer_path)
    elif info.get("tokenizer", {}).get("kind") == ByteTokenizer.kind:
        tokenizer = ByteTokenizer()
    else:
        tokenizer = load_tokenizer(_find_tokenizer(folder))
    if info and info["tokenizer"]["digest"] != tokenizer.fingerprint():
        raise DataError(
            f"tokenizer of {folder}",
            got=f"digest {tokenizer.fingerprint()[:12]}",
            wanted=f"{info['tokenizer']['digest'][:12]}, with which its shards were made",
            do="Leave the tokenizer path out, or build the data again.",
        )
    for path in train_files + val_files:
        check_shard(path)
    _check_ids(train_files[:1] + val_files[:1], tokenizer)
    return _Opened(folder, train_files, val_files, tokenizer, info)


class _Opened(Dataset):
    """Validation documents are held against the raw bytes of each, where dataset.json has them."""

    @cached_property
    def _validation(self) -> ValidationSet:
        raw = self.info["val"]["document_bytes"] if self.info else None
        return ValidationSet.from_shards(self.val_files, self.tokenizer, document_bytes=raw)


def _read_info(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        info = json.loads(path.read_bytes())
        known = info["format"] == FORMAT and info["tokenizer"]["digest"] and info["files"]
        known = known and info["val"]["document_bytes"]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path} is damaged, or of an unfinished build",
            got=repr(error),
            do="Build the data again.",
        ) from error
    if not known:
        raise DataError(f"{path}", got=f"format {info['format']}", wanted=f"format {FORMAT}")
    return info


def _find_tokenizer(folder: Path) -> Path:
    """The model file of a folder of shards that does not name one."""
    own = folder / "tokenizer.model"
    if own.exists():
        return own
    size = re.search(r"(\d+)$", folder.resolve().name)  # fineweb10B_sp1024
    parent = folder.resolve().parent
    places = [parent / "tokenizers", parent.parent / "tokenizers"]
    models: Iterable[Path] = (m for place in places for m in sorted(place.glob("*.model")))
    for model in models:
        if size and re.search(rf"(?<!\d){size[1]}(?!\d)", model.name):
            return model
    raise DataError(
        f"no tokenizer for the shards in {folder}",
        wanted=f"{own}, or a *{size[1] if size else 'VOCAB'}*.model in {places[1]}",
        do="Give its path with --tokenizer.",
    )


def check_shard(path: Path) -> None:
    """DataError with the reason for anything but a complete shard; its tokens are not read."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            head = handle.read(HEADER_BYTES)
    except OSError as error:
        raise DataError(f"shard {path}", got=error.strerror or str(error)) from error
    if len(head) < HEADER_BYTES:
        raise DataError(
            f"shard {path} is truncated",
            got=f"{len(head)} bytes",
            wanted=f"a header of {HEADER_BYTES} bytes",
            do="Download or build it again.",
        )
    magic, version, count = (int(word) for word in np.frombuffer(head, dtype="<i4")[:3])
    if magic != MAGIC:
        raise DataError(
            f"{path} is not a token shard",
            got=f"first word {magic}",
            wanted=MAGIC,
            do="Give the folder with the fineweb_*.bin files.",
        )
    if version != VERSION:
        raise DataError(
            f"shard {path} has an unknown version",
            got=version,
            wanted=VERSION,
            do="Build it again from the text.",
        )
    if count <= 0:
        raise DataError(
            f"shard {path} is empty", got=f"{count} tokens", wanted="1 or more", do="Delete it."
        )
    if size != HEADER_BYTES + 2 * count:
        raise DataError(
            f"shard {path} is {'truncated' if size < HEADER_BYTES + 2 * count else 'too long'}",
            got=f"{size} bytes",
            wanted=f"{HEADER_BYTES + 2 * count} for its {count} tokens",
            do="Download or build it again.",
        )


def _check_ids(files: Iterable[Path], tokenizer: Tokenizer) -> None:
    """A look at the first million ids of each file: a wrong tokenizer shows at once."""
    for path in files:
        largest = int(read_shard(path)[:1_000_000].max())
        if largest >= tokenizer.vocab_size:
            raise DataError(
                f"tokenizer of {path}",
                got=f"a model of {tokenizer.vocab_size} pieces, and token id {largest}",
                wanted="the tokenizer that the shards were made with",
                do="Give its path with --tokenizer.",
            )


def describe(dataset: Dataset) -> dict[str, object]:
    """What is in a dataset, as flat printable values. Counts and checks the validation set."""
    validation = dataset.validation()
    tokenizer = dataset.tokenizer
    train = dataset.info.get("train", {})
    return {
        "folder": str(dataset.folder),
        "tokenizer": f"{tokenizer.kind}, {tokenizer.vocab_size} pieces",
        "tokenizer_digest": tokenizer.fingerprint(),
        "tokenizer_lossless": tokenizer.lossless,
        "train_shards": len(dataset.train_files),
        "train_tokens": sum(len(read_shard(f)) for f in dataset.train_files),
        "train_documents": train.get("documents"),
        "train_bytes": train.get("raw_bytes"),
        "val_shards": len(dataset.val_files),
        "val_tokens": len(validation.tokens),
        "val_documents": len(validation.documents),
        "val_bytes": validation.true_bytes,
        "val_raw_bytes": validation.raw_bytes,
        "val_text": "normalized by the tokenizer" if validation.normalized else "raw",
        "val_bytes_per_token": validation.true_bytes / validation.n_targets,
    }


def summary(dataset: Dataset) -> str:
    """``describe`` as aligned lines; what is not known is left out."""
    rows = {key: value for key, value in describe(dataset).items() if value is not None}
    width = max(map(len, rows))
    return "\n".join(f"{key.replace('_', ' '):<{width}}  {_shown(rows[key])}" for key in rows)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
