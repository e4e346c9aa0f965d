"""The files and the environment of the tiny world, and the paths that lead there.

Everything lies under SCRATCH/data. A path or pattern that the script spells out and that leads
nowhere is led to its counterpart by what its last part looks like: training shards, validation
shards, byte counts beside them, tokenizer models and tables.
"""

from __future__ import annotations

import glob
import os
import pathlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import hits, places, shards
from .modelproto import model_file
from .pieces import Pieces
from .places import Places, first
from .swap import swap

TRAIN_SHARDS = 3
TRAIN_TOKENS = 12_288


class World:
    """Paths of the tiny files, made from a stream."""

    def __init__(self, scratch: Path, spec: dict[str, Any], rank: int) -> None:
        self.root = scratch / "data"
        self.places = Places(scratch)
        self.shards = self.root / "shards"
        self.bytes = self.root / "bytes"
        self.model = self.root / "tokenizer.model"
        self.vocab = self.root / "tokenizer.vocab"
        self.table = self.root / "tokenizer.meta.npz"
        self.tokens = shards.stream(spec)
        self.pieces = Pieces(int(spec["vocab"]))
        self._ready = self.root / f"ready-{rank}"
        self._make(spec)

    def _make(self, spec: dict[str, Any]) -> None:
        """Write all files; ranks write the same bytes, each to its own folder name first."""
        train = shards.train_stream(spec, TRAIN_SHARDS * TRAIN_TOKENS)
        files = {self.shards / "fineweb_val_000000.bin": self.tokens}
        for i, part in enumerate(np.split(train, TRAIN_SHARDS)):
            files[self.shards / f"fineweb_train_{i:06d}.bin"] = part
        counts = shards.byte_lengths(self.tokens, self.pieces)
        files[self.bytes / "fineweb_val_bytes_000000.bin"] = counts
        for path, tokens in files.items():
            part_path = path.with_name(f"{self._ready.name}.{path.name}.part")
            shards.write_shard(part_path, tokens)
            os.replace(part_path, path)
        self.model.write_bytes(model_file(self.pieces))
        self.vocab.write_text("".join(f"{n}\t{-i}\n" for i, n in enumerate(self.pieces.names)))
        np.savez(
            self.table,
            base_bytes=np.array(self.pieces.base_bytes(), dtype=np.int16),
            has_leading_space=np.array(self.pieces.leading_space()),
            is_boundary_token=np.array(self.pieces.boundary()),
            tokenizer_kind=np.array("tiny"),
            vocab_size=np.array(self.pieces.vocab),
        )

    def environment(self, rank: int, world: int, seed: int) -> dict[str, str]:
        """What torchrun and the user would have set."""
        out = self.root.parent / "out"
        out.mkdir(exist_ok=True)
        folder = str(self.shards)
        return {
            "DATA_PATH": folder,
            "DATASETS_DIR": folder,
            "DATA_DIR": str(self.root),
            "TOKENIZER_PATH": str(self.model),
            "TOKENIZER_META_PATH": str(self.table),
            "RUN_ID": "tiny",
            "SEED": str(seed),
            "RANK": str(rank),
            "LOCAL_RANK": "0",
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            "ARTIFACT_DIR": str(out),
            "OUT_DIR": str(out),
            "OUTPUT_DIR": str(out),
            "CKPT_DIR": str(out),
            "LOG_DIR": str(out),
        }

    def lead(self, path: Any) -> Any:
        """`path`, or its counterpart when it leads nowhere."""
        if not isinstance(path, str | os.PathLike):
            return path
        path = self.places.reading(path)
        name = os.path.basename(os.fspath(path))
        if _exists(path) or not isinstance(name, str):
            return path
        target = None
        if re.search(r"\.(bin|npy|npz|model|vocab)$", name):
            found = self.match(name)
            same = [p for p in found if os.path.basename(p) == name]
            target = next(iter(same or found), None)
        elif re.fullmatch(r"fineweb\w*|data|datasets?|shards?|tokenizers?", name):
            target = str(self.shards)
        elif self.places.twin(path) and _exists(self.root.parent / name):
            target = str(self.root.parent / name)  # ships with the script
        if target is None:
            return path
        hits.hit("paths")
        return target if isinstance(path, str) else Path(target)

    def match(self, name: str) -> list[str]:
        """Tiny files that a file name or pattern stands for."""
        lower = name.lower()
        if lower.endswith(".model"):
            return [str(self.model)]
        if lower.endswith(".vocab"):
            return [str(self.vocab)]
        if lower.endswith(".npz"):
            return [str(self.table)] if re.search("meta|token|table|lut", lower) else []
        if not lower.endswith((".bin", ".npy", "*")):
            return []
        if "val" in lower and "byte" in lower:
            return sorted(str(p) for p in self.bytes.iterdir())
        for kind in ("train", "val"):
            if kind in lower:
                return sorted(str(p) for p in self.shards.iterdir() if f"_{kind}_" in p.name)
        return []


_exists = os.path.exists
_iglob = glob.iglob


def _patterns(world: World) -> None:
    path_glob = pathlib.Path.glob

    def glob_(pattern: Any, **kwargs: Any) -> list[str]:
        found = list(_iglob(pattern, **kwargs))
        if not found:
            found = world.match(os.path.basename(str(pattern)))
            if found:
                hits.hit("paths")
        return found

    def path_glob_(self: Path, pattern: str, **kwargs: Any) -> Iterator[Path]:
        found = list(path_glob(self, pattern, **kwargs)) if _exists(self) else []
        return iter(found or [Path(p) for p in world.match(os.path.basename(pattern))])

    def listdir(path: Any = ".") -> list[str]:
        if isinstance(path, str | os.PathLike) and not _exists(path) and "data" in os.fspath(path):
            return sorted(p.name for p in world.shards.iterdir())
        return _listdir(path)

    _listdir = os.listdir
    swap(glob, glob=glob_, iglob=lambda pattern, **kwargs: iter(glob_(pattern, **kwargs)))
    swap(pathlib.Path, glob=path_glob_)
    swap(os, listdir=listdir)


def _headless(function: Any, folder: Path) -> Any:
    """np.fromfile for scripts that know of no header: their shards are bare tokens."""

    def call(path: Any, dtype: Any = float, *args: Any, **kwargs: Any) -> Any:
        whole = not args and not kwargs.get("offset")
        if whole and np.dtype(dtype).itemsize == 2 and Path(path).parent == folder:
            kwargs["offset"] = 4 * shards.HEADER
        return function(path, dtype, *args, **kwargs)

    return call


def _readers(world: World, header: bool) -> None:
    lead = world.lead
    fromfile = np.fromfile if header else _headless(np.fromfile, world.shards)
    plain = np.memmap

    class Memmap(np.memmap):
        def __new__(
            cls, filename: Any, dtype: Any = np.uint8, mode: Any = "r+", *rest: Any, **kwargs: Any
        ) -> Any:
            making = mode in ("w+", "write")
            filename = (world.places.writing if making else world.lead)(filename)
            return plain.__new__(cls, filename, dtype, mode, *rest, **kwargs)

    swap(np, fromfile=first(lead, fromfile), load=first(lead, np.load), memmap=Memmap)
    for name in ("exists", "isfile", "isdir", "getsize"):
        setattr(os.path, name, first(lead, getattr(os.path, name)))
    for name in ("exists", "is_file", "is_dir", "stat", "read_bytes", "read_text"):
        setattr(pathlib.Path, name, first(lead, getattr(pathlib.Path, name)))


class _Parents(tuple[Path, ...]):
    """Folders above a path, up to the scratch folder, above which there is only itself."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and index >= len(self) > 0:
            index = -1
        return super().__getitem__(index)


def _climbing(scratch: Path) -> None:
    """Scripts stand three folders deep in the repository, and look for its root from there."""
    real: Any = pathlib.PurePath.parents

    def parents(self: pathlib.PurePath) -> Any:
        found = real.fget(self)
        inside = [p for p in found if p == scratch or scratch in real.fget(p)]
        return _Parents(inside or [scratch]) if inside or self == scratch else found

    swap(pathlib.PurePath, parents=property(parents))


def redirect(world: World, source: str) -> None:
    """Lead the paths of the script `source` into `world`."""
    _climbing(world.root.parent)
    places.install(world.places, world.lead)
    _patterns(world)
    told = re.search(r"(?i)header|20240520|\[\s*(512|1024|256 \* 2)\s*:", source)
    _readers(world, header=bool(told) or "fromfile" not in source)
