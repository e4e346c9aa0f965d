"""A recipe as one file: it trains, packs and scores by itself, and gives what the package gives."""

from __future__ import annotations

import ast
import base64
import bz2
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
import torch.distributed

from underpar import bundle, pipeline
from underpar.artifact.pack import file_sha256
from underpar.bundle.fold import fold
from underpar.bundle.foreign import FOREIGN
from underpar.data.build import build_source
from underpar.recipe.load import resolve
from underpar.recipe.schema import Recipe

#: Runs a file as a program would, and says afterwards which of our modules were imported.
PROBE = """
import runpy, sys
code = 0
try:
    runpy.run_path("train_gpt.py", run_name="__main__")
except SystemExit as end:
    code = end.code or 0
assert "underpar" not in sys.modules, "the file imported the package"
sys.exit(code)
"""

SMALL = """
model.vocab_size=384 model.d_model=32 model.n_head=4 model.n_kv_head=2 model.d_ff=64
train.seconds=0 train.warmup_steps=1 train.compile=off train.dtype=float32
train.deterministic=true train.log_every=2 train.val_every=4
quant.calibration_batches=2 quant.passthrough=512
score.dtype=float32 score.window_batch=4
"""

#: preset -> what makes it small enough for a test, every part of it still in use
CHANGES = {
    "pr1413": """
        model.seq_len=544 model.n_layer=4 model.xsa_last=4 model.rope_dims=4 model.loop_start=1
        model.loop_end=2 train.reserve_seconds=0 train.iterations=6 train.batch_tokens=1088
        train.micro_tokens=544 score.stride=272 score.ttt_chunk=1088
    """,
    "pr456": """
        model.seq_len=64 model.n_layer=3 model.xsa_last=2 model.bigram_buckets=64
        model.bigram_dim=16 train.iterations=8 train.batch_tokens=512 train.micro_tokens=256
        train.warmdown_iters=6 train.swa_every=2 train.swa_start=0.9 train.qat_below=0.7
        train.prune=0.1 score.stride=32 score.ttt_chunk=512 score.ttt_batch=4
    """,
    "demo": """
        model.seq_len=64 model.bigram_buckets=64 model.bigram_dim=16 train.iterations=6
        train.batch_tokens=256 train.micro_tokens=256 score.stride=32 score.ttt_chunk=512
        data.corpus=shards
    """,
}


@dataclass(frozen=True)
class Ended:
    """How a run of the file ended, and what it left."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "record.json").read_text())


def run(text: str | bytes, folder: Path, name: str, **environment: str) -> Ended:
    """The file in an otherwise empty folder, in a process that finds torch but not our sources."""
    folder.mkdir(exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    (folder / "train_gpt.py").write_bytes(data)
    command = [sys.executable, "-I", "-W", "error::SyntaxWarning", "-c", PROBE]
    known = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "OMP_NUM_THREADS")}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=200, env=known | environment
    )
    return Ended(done.returncode, done.stdout, done.stderr, folder / name)


@cache
def packed(recipe: str) -> bytes:
    return bundle.packed(small(recipe))


def small(preset: str) -> Recipe:
    if preset == "nano":
        return resolve("nano", ["train.val_every=10"])
    return resolve(preset, [*SMALL.split(), *CHANGES[preset].split()])


def same_as(done: Ended, recipe: Recipe, tmp_path: Path, data: Path | None) -> None:
    """The file's results are those of the package: losses, artifact and all scores."""
    assert (done.code, done.err) == (0, "")
    record = pipeline.run(recipe, tmp_path / "package" / recipe.name, data=data)
    theirs, out = done.record, tmp_path / "package" / recipe.name
    assert theirs["sha256"] == file_sha256(out / "model.upar")
    assert file_sha256(done.folder / "model.upar") == theirs["sha256"]
    assert theirs["recipe_digest"] == record.recipe_digest
    scores = {name: (s.nats, s.bytes, s.bpb) for name, s in record.stages.items()}
    assert scores == {n: (s["nats"], s["bytes"], s["bpb"]) for n, s in theirs["stages"].items()}
    assert theirs["steps"] == len(theirs["losses"]) == recipe.train.iterations


@pytest.mark.slow
def test_the_packed_nano_does_what_the_package_does(tmp_path: Path) -> None:
    recipe = small("nano")
    done = run(packed("nano"), tmp_path / "empty", "nano")
    same_as(done, recipe, tmp_path, None)
    assert done.record["code_bytes"] == (tmp_path / "empty" / "train_gpt.py").stat().st_size
    assert (done.folder / "log.txt").read_text() == done.out
    check_log(done.out, done.record)


def check_log(text: str, record: dict[str, Any]) -> None:
    """The lines that a submission's log is read for."""
    assert re.search(r"^step:1/\d+ train_loss:\d+\.\d{4} train_time:\d+ms step_avg:", text, re.M)
    assert re.search(r"^step:0/\d+ train_time:0ms .*val_loss:\d+\.\d{4} val_bpb:\d+", text, re.M)
    labels = ["pre-quantization(?: post-(?:ema|swa))?", "quantized", "quantized_sliding_window"]
    labels += ["legal_ttt_exact"]
    for label, stage in zip(labels, record["stages"].values(), strict=True):
        line = rf"^{label} val_loss:(\S+) val_bpb:(?P<bpb>\S+) eval_time:\d+ms$"
        found = re.search(line, text, re.M)
        assert found is not None, label
        assert found["bpb"] == f"{stage['bpb']:.8f}"
    sizes = re.findall(r"^(Code|Serialized|Total) .*: (\d+) bytes$", text, re.M)
    code, model, total = (int(size) for _, size in sizes)
    assert code == record["code_bytes"]
    assert total == code + model


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated text as shards of a tokenizer of 384 pieces."""
    folder = tmp_path_factory.mktemp("shards") / "data"
    build_source("generated", folder, vocab_size=384, held_out=2, lossless=False)
    return folder


@pytest.mark.parametrize(
    "preset",
    ["pr1413", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pr456", "demo"))],
)
def test_packed_published_recipes_do_what_the_package_does(
    preset: str, shards: Path, tmp_path: Path
) -> None:
    recipe = small(preset)
    done = run(packed(preset), tmp_path / "empty", preset, DATA_PATH=str(shards))
    same_as(done, recipe, tmp_path, shards)
    check_log(done.out, done.record)


@pytest.mark.slow
def test_two_processes_do_the_same_with_either_file(tmp_path: Path) -> None:
    recipe = resolve("nano", ["train.batch_tokens=2048", "train.iterations=4"])
    records = []
    for text in (bundle.packed(recipe), bundle.readable(recipe).encode()):
        folder = tmp_path / str(len(text))
        done = torchrun(text, folder)
        assert done.returncode == 0, done.stderr
        records.append(json.loads((folder / "nano" / "record.json").read_text()))
    for key in ("recipe_digest", "losses", "file_bytes", "sha256", "code_bytes"):
        assert records[0][key] == records[1][key], key
    first, second = ([s["bpb"] for s in r["stages"].values()] for r in records)
    assert first == second


@pytest.mark.slow
def test_processes_that_do_not_divide_the_batch_are_refused(tmp_path: Path) -> None:
    recipe = resolve("nano", ["train.batch_tokens=1024", "train.micro_tokens=1024"])
    done = torchrun(bundle.packed(recipe), tmp_path / "packed")
    assert done.returncode != 0
    assert "error: recipe key 'train.batch_tokens'" in done.stderr


def torchrun(text: bytes, folder: Path) -> subprocess.CompletedProcess[str]:
    """Two processes of the file, in a folder of its own."""
    folder.mkdir()
    (folder / "train_gpt.py").write_bytes(text)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    known = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")}
    return subprocess.run(
        [sys.executable, *command, "train_gpt.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=known | {"OMP_NUM_THREADS": "1"},
    )


def unpacked(data: bytes) -> str:
    return bz2.decompress(base64.b85decode(data.split(b'"')[1])).decode()


@pytest.mark.slow
def test_packed_errors_say_what_failed_and_no_more() -> None:
    text = unpacked(packed("nano"))
    assert "a position was scored twice" in text
    for advice in ("wanted=", "do=", "cannot be replaced or repeated", "recipe key 'model"):
        assert advice not in text


@pytest.mark.slow
def test_the_packed_bytes_are_repeatable() -> None:
    code = "import sys; from underpar import bundle; from underpar.recipe.load import resolve\n"
    code += "sys.stdout.buffer.write(bundle.packed(resolve('pr1413')))"
    packs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "12"
    ]
    assert packs[0] == packs[1]
    assert len(packs[0]) < 16_719  # the competitor's


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("def f(x):\n if x:\n  return 1\n return 2", "def f(x):\n return 1 if x else 2"),
        ("def f():\n try:\n  g()\n finally:\n  pass", "def f():\n g()"),
        ("def f():\n if 2 > 1:\n  g()\n else:\n  h()", "def f():\n g()"),
    ],
)
def test_folding(text: str, wanted: str) -> None:
    assert ast.dump(fold(ast.parse(text))) == ast.dump(ast.parse(wanted))


def test_names_that_others_have_too_are_known() -> None:
    """Every attribute of a class in the file that some other package's object has is listed."""
    others: list[object] = [torch, torch.Tensor, torch.nn.Module, torch.optim.SGD, torch.cuda]
    others += [torch.device("cpu"), torch.distributed, torch.linalg, torch.Size, np, np.memmap]
    others += [np.dtype("u2"), np.random, np.random.Generator, np.zeros(1).flags, Path, str, bytes]
    others += [list, dict, set, float, slice, range, io.BytesIO, os, json, re, sys]
    others += [hashlib, sentencepiece.SentencePieceProcessor]
    taken = {name for other in others for name in dir(other)}
    own = set()
    for preset in ("pr1413", "nano"):
        for node in ast.walk(ast.parse(bundle.readable(resolve(preset), 0))):
            own |= set(own_names(node)) if isinstance(node, ast.ClassDef) else set()
    kinds = {"kind"}  # numpy's dtypes have one that nobody asks for
    assert {name for name in own & taken if not name.startswith("__")} <= FOREIGN | kinds


def own_names(node: ast.ClassDef) -> Iterator[str]:
    """Methods, fields and attributes that a class sets."""
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef):
            yield part.name
        elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
            yield part.attr
    for part in node.body:
        if isinstance(part, ast.AnnAssign | ast.Assign):
            target = part.target if isinstance(part, ast.AnnAssign) else part.targets[0]
            yield ast.unparse(target)
