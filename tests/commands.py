"""The command line for tests: in this process, where torch is loaded, or in one that can be killed.

A folder that a run left is shared by tests (``nano_run`` in conftest.py); who changes one, copies.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tests import children
from underpar import storage
from underpar.cli.main import main
from underpar.data.build import Dataset, build, open_dataset
from underpar.data.corpus import Document
from underpar.data.tokenizer import ByteTokenizer
from underpar.report.record import Record

#: Stands for the length of a packed program, which takes seconds to find out.
CODE = 30_000


def counted(recipe: object = None) -> Callable[[], int]:
    """In place of ``ship.counting``."""
    return lambda: CODE


def slow(*values: object) -> Any:
    """A set of values of ``parametrize`` that is left to ``-m slow``."""
    return pytest.param(*values, marks=pytest.mark.slow)


@dataclass(frozen=True)
class Finished:
    """How a command ended. out, err: what it said on stdout and stderr."""

    code: int
    out: str
    err: str

    def failed_with(self, *parts: str) -> bool:
        """Exit code 1, all of ``parts`` in its last line on stderr, and no traceback."""
        last = self.err.rstrip().rpartition("\n")[2]
        told = last.startswith("underpar: ") and all(part in last for part in parts)
        return self.code == 1 and told and "Traceback" not in self.err


@dataclass(frozen=True)
class Run:
    """A run folder and the shards it was trained on."""

    out: Path
    data: Path

    def __getitem__(self, name: str) -> Path:
        return self.out / name

    @property
    def record(self) -> Record:
        return Record.read(self["record.json"])

    @property
    def dataset(self) -> Dataset:
        return open_dataset(self.data)

    def copy(self, folder: Path) -> Run:
        """The same run in ``folder``, to be changed."""
        return Run(Path(shutil.copytree(self.out, folder)), self.data)

    def forget(self, *stages: str) -> Run:
        """Itself, with these scores taken out of its record: a run that was stopped before them."""
        data = json.loads(self["record.json"].read_text())
        for stage in stages:
            del data["stages"][stage]
        self["record.json"].write_text(json.dumps(data))
        return self


def underpar(*arguments: object) -> Finished:
    """The command in this process, as ``main`` runs it; an exception that escapes is a failure."""
    out, err, argv = io.StringIO(), io.StringIO(), ["underpar", *map(str, arguments)]
    code = 0
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Finished(code, out.getvalue(), err.getvalue())


def start(*arguments: object) -> children.Child:
    """The command in a process of its own, which ``children.end`` waits for."""
    return children.call(_main, *map(str, arguments))


def on_two(*arguments: object) -> children.Ended:
    """The command on two processes; what the first of them said."""
    return children.ranks(_main, *map(str, arguments))


def torchrun(*arguments: object) -> children.Ended:
    """The same, started as a person would start it."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    return children.python(*launcher, "-m", "underpar", *arguments)


def _main(*arguments: str) -> None:
    sys.argv = ["underpar", *arguments]
    with patch("underpar.cli.run.counting", counted):
        main()


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl so far."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def byte_data(folder: Path, *held_out: str) -> Path:
    """Shards of the byte tokenizer with these documents to score."""
    train = [Document("train", "In the beginning was the word. " * 40)]
    val = [Document(f"val{i}", text) for i, text in enumerate(held_out)]
    build(train, val, ByteTokenizer(), folder)
    return folder


def numbers(record: Record) -> dict[str, tuple[float, int, int]]:
    """stage -> (nats, tokens, bytes)."""
    return {name: (s.nats, s.tokens, s.bytes) for name, s in record.stages.items()}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` but the logs."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p): p.read_bytes() for p in files if p.name not in ("log.txt", "metrics.jsonl")}


def fill_disk(patch: pytest.MonkeyPatch, largest: int) -> None:
    """From now on no file of more than ``largest`` bytes reaches the disk."""
    fsync = os.fsync

    def full(handle: int) -> None:
        if os.fstat(handle).st_size > largest:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    patch.setattr(storage.os, "fsync", full)
