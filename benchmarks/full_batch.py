"""Optimizer steps of a recipe's own batch on a GPU; ``full_size.py --gpu-steps`` calls this."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from underpar import dist, pipeline, progress
from underpar.data.build import Dataset
from underpar.model import GPT
from underpar.recipe.load import override
from underpar.recipe.schema import Recipe

#: the full rate, without fake quantization, as in most of a run
OVERRIDES = (
    "train.seconds=0",
    "train.val_every=0",
    "train.warmup_steps=2",
    "train.warmdown_iters=0",
    "train.warmdown_frac=0",
)


def measure(recipe: Recipe, dataset: Dataset, steps: int, out: Path) -> dict[str, Any]:
    """Time ``steps`` steps, with ``train.batch_tokens`` and ``micro_tokens`` as they are."""
    overrides = [f"train.iterations={steps}", *OVERRIDES]
    recipe = override(recipe, overrides)
    model = GPT(recipe.model, seed=recipe.seed).to(dist.device())
    torch.cuda.reset_peak_memory_stats()
    with progress.use(progress.Progress(out)):
        result = pipeline.train_model(model, recipe, dataset, out, resume=False)
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-steps:]
    ends = [0.0, *(json.loads(line)["seconds"] for line in lines)]
    milliseconds = [1000 * (end - start) for start, end in pairwise(ends)]
    losses = {"first_loss": result.losses[0], "last_loss": result.losses[-1]}
    return {
        **{key: value for key, value in asdict(result).items() if key != "losses"},
        **losses,
        "overrides": overrides,
        "batch_tokens": recipe.train.batch_tokens,
        "micro_tokens": recipe.train.micro_tokens,
        "ms_per_step": 1000 * result.seconds / result.steps,
        # where the recipe loops layers, it does so in the second half
        "median_ms_first_half": statistics.median(milliseconds[: steps // 2]),
        "median_ms_second_half": statistics.median(milliseconds[steps // 2 :]),
        "tokens_per_second": result.tokens / result.seconds,
        "peak_gpu_gib": torch.cuda.max_memory_allocated() / 2**30,
    }
