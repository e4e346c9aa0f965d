"""A folder of shards opened for training and scoring: our own builds, and downloads as they are.

Our builds carry dataset.json, which binds shards, tokenizer and the byte counts of the raw text. A
folder downloaded for the competition has none: its tokenizer lies in a folder beside it, and the
bytes of its raw text are not known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from underpar.data.shards import read_shard, shard_files
from underpar.data.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer
from underpar.data.validation import ValidationSet
from underpar.errors import DataError

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Dataset:
    """A folder of shards with its tokenizer. ``info`` is dataset.json, empty for a download."""

    folder: Path
    train_files: list[Path]
    val_files: list[Path]
    tokenizer: Tokenizer
    info: Mapping[str, Any] = field(default_factory=dict)

    def validation(self) -> ValidationSet:
        """All validation documents, checked; counted once and kept. Raises DataError."""
        return self._validation

    @cached_property
    def _validation(self) -> ValidationSet:
        raw = self.info["val"]["document_bytes"] if self.info else None
        return ValidationSet.from_shards(self.val_files, self.tokenizer, raw)


def open_dataset(folder: Path, tokenizer_path: Path | None = None) -> Dataset:
    """A built folder, or one downloaded for the competition as it is.

    The tokenizer is ``tokenizer_path``, else FOLDER/tokenizer.model, else (downloads) the model in
    ../tokenizers or ../../tokenizers whose vocabulary is the one in the folder's name. Raises
    DataError when shards or tokenizer are missing, or do not belong together.
    """
    folder = Path(folder)
    train_files, val_files = shard_files(folder, "train"), shard_files(folder, "val")
    if not train_files and not val_files:
        raise DataError(
            f"no shards in {folder}",
            got="no such folder" if not folder.is_dir() else "no fineweb_{train,val}_*.bin",
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
    if info and info["tokenizer"]["digest"] != tokenizer.digest():
        raise DataError(
            f"tokenizer of {folder}",
            got=f"digest {tokenizer.digest()[:12]}",
            wanted=f"{info['tokenizer']['digest'][:12]}, with which its shards were made",
            do="Leave the tokenizer path out, or build the data again.",
        )
    _check_ids(train_files[:1] + val_files[:1], tokenizer)
    return Dataset(folder, train_files, val_files, tokenizer, info)


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
        "tokenizer_digest": tokenizer.digest(),
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
