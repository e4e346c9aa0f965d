"""A small training for the tests of the loop; as a program, one that can be killed or spread.

    python -m tests.training FOLDER JOB ...   (under torchrun or not)

trains once a JOB (JSON, see ``main``) on the shard in FOLDER and writes FOLDER/<out>.<rank>.json
with losses and weight digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from underpar import dist
from underpar.data.loader import Loader, make_loader
from underpar.data.shards import write_shard
from underpar.model import GPT
from underpar.recipe.schema import DataSpec, ModelSpec, TrainSpec
from underpar.train.run import StepInfo, TrainResult, train

V, T = 32, 16
PLAIN = ModelSpec(
    vocab_size=V,
    seq_len=T,
    n_layer=2,
    layout="cores",
    d_model=16,
    n_head=2,
    n_kv_head=1,
    d_ff=32,
    bigram_buckets=16,
    bigram_dim=8,
    smear=True,
    xsa_last=1,
)
LOOPED = ModelSpec(
    vocab_size=V,
    seq_len=T,
    n_layer=3,
    d_model=16,
    n_head=2,
    n_kv_head=1,
    d_ff=32,
    skip_gates=True,
    loop_start=1,
    loop_end=1,
    loop_extra=1,
)
MODELS = {"plain": PLAIN, "looped": LOOPED}


def spec(**changes: Any) -> TrainSpec:
    """Twelve steps of two micro-steps of four rows, float32, eager, no warmup."""
    base: dict[str, Any] = {
        "seconds": 0,
        "iterations": 12,
        "batch_tokens": 8 * T,
        "micro_tokens": 4 * T,
        "warmup_steps": 0,
        "warmdown_iters": 6,
        "matrix_lr": 0.02,
        "muon_momentum_warmup": 6,
        "grad_clip": 0.3,
        "checkpoint_seconds": 0,
        "compile": "off",
        "dtype": "float32",
        "deterministic": True,
    }
    return TrainSpec(**{**base, **changes})


def make_shard(folder: Path) -> Path:
    """Tokens of a sticky random walk, so that there is something to learn."""
    g = np.random.default_rng(0)
    path = folder / "fineweb_train_000000.bin"
    write_shard(path, (np.cumsum(g.integers(0, 3, 4000)) % V).astype(np.uint16))
    return path


def loader_factory(shard: Path, kind: str = "sequential") -> Callable[[], Loader]:
    return lambda: make_loader(DataSpec(loader=kind), [shard], seq_len=T, micro_tokens=4 * T)


def run(shard: Path, train_spec: TrainSpec, model: str = "plain", **keywords: Any) -> Trained:
    """Train a fresh model of seed 7."""
    gpt = GPT(MODELS[model], seed=7)
    kind = keywords.pop("kind", "sequential")
    result = train(gpt, train_spec, loader_factory(shard, kind), seed=7, **keywords)
    return Trained(gpt, result)


class Trained:
    """A trained model, the result of its training, and a digest of its weights."""

    def __init__(self, model: GPT, result: TrainResult) -> None:
        self.model, self.result = model, result

    @property
    def digest(self) -> str:
        sha = hashlib.sha256()
        for weight in self.model.parameters():
            sha.update(weight.detach().flatten().view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()

    @property
    def report(self) -> dict:
        return {"losses": self.result.losses, "digest": self.digest}


def main(arguments: list[str]) -> None:
    """A job has ``out`` and ``train`` (changes of the spec), and perhaps ``kill_at`` and keywords

    of ``run``: ``model``, ``resume``, ``checkpoint`` (a name in the folder).
    """
    folder, jobs = Path(arguments[0]), [json.loads(job) for job in arguments[1:]]
    torch.set_num_threads(1)
    with dist.processes():
        for job in jobs:
            report = _one(folder, **job)
            (folder / f"{job['out']}.{dist.rank()}.json").write_text(json.dumps(report))


def _one(
    folder: Path, out: str, train: dict, kill_at: int = 0, checkpoint: str = "", **keywords: Any
) -> dict:
    def on_step(info: StepInfo) -> None:
        if info.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if checkpoint:
        keywords["checkpoint"] = folder / checkpoint
    shard = next(folder.glob("fineweb_train_*.bin"))
    return run(shard, spec(**train), on_step=on_step, **keywords).report


if __name__ == "__main__":
    main(sys.argv[1:])
