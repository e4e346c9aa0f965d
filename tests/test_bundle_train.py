"""A recipe as one file: it trains, packs and scores by itself, and gives what the package gives."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from underpar import bundle, pipeline
from underpar.artifact.pack import file_sha256
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
""".split()

#: preset -> what makes it small enough for a test, every part of it still in use
CHANGES = {
    "pr1413": """
        model.seq_len=544 model.n_layer=4 model.xsa_last=4 model.rope_dims=4 model.loop_start=1
        model.loop_end=2 train.reserve_seconds=0 train.iterations=6 train.batch_tokens=1088
        train.micro_tokens=544 score.stride=272 score.ttt_chunk=1088
    """.split(),
    "pr456": """
        model.seq_len=64 model.n_layer=3 model.xsa_last=2 model.bigram_buckets=64
        model.bigram_dim=16 train.iterations=8 train.batch_tokens=512 train.micro_tokens=256
        train.warmdown_iters=6 train.swa_every=2 train.swa_start=0.9 train.qat_below=0.7
        train.prune=0.1 score.stride=32 score.ttt_chunk=512 score.ttt_batch=4
    """.split(),
    "demo": """
        model.seq_len=64 model.bigram_buckets=64 model.bigram_dim=16 train.iterations=6
        train.batch_tokens=256 train.micro_tokens=256 score.stride=32 score.ttt_chunk=512
        data.corpus=shards
    """.split(),
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
    return resolve(preset, [*SMALL, *CHANGES[preset]])


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
    labels = ["pre-quantization post-ema", r"final_int\d_roundtrip_exact"]
    labels += ["quantized_sliding_window", "legal_ttt_exact"]
    for label, stage in zip(labels, record["stages"].values(), strict=True):
        found = re.search(rf"^{label} val_loss:(\S+) val_bpb:(\S+) eval_time:\d+ms$", text, re.M)
        assert found is not None
        assert found[2] == f"{stage['bpb']:.8f}"
    for what in ("Code size: ", "Serialized model int6", "Total submission size int6"):
        assert re.search(rf"^{re.escape(what)}.*\d+ bytes$", text, re.M)


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
