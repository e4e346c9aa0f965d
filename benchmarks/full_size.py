"""A published recipe at full model size through the whole line, and what each stage takes.

    python benchmarks/full_size.py --preset pr1413 --text TEXT [--tokenizer MODEL] [--out DIR]

TEXT is what ``underpar data build`` reads: JSONL with ``text`` (and ``split``), or a folder. Two
million characters of it are for training, 71,000 tokens are scored. Without MODEL a tokenizer of
the recipe's vocabulary is trained.

Model, quantizer, compressor and scorer are the recipe's own, and the line is ``pipeline.run`` with
a stopwatch around its steps. What is smaller, so that two CPU cores need minutes and 24 GiB are
enough, is in SMALLER; the result names every override, and ``--set`` adds to them or takes them
back. First one sequence is timed in both number formats: the faster one is used, and the whole time
estimated. On a GPU, steps of the recipe's own batch are timed as well.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import full_batch
import underpar.quant.quantize as quantizer
from common import write
from underpar import pipeline, progress, ship
from underpar.artifact import compressors
from underpar.data.build import Dataset, build
from underpar.data.corpus import Document, read_documents, split
from underpar.data.tokenizer import load_tokenizer, train_bpe
from underpar.errors import DataError
from underpar.model import GPT, n_params
from underpar.recipe.load import override
from underpar.recipe.presets import PRESETS
from underpar.recipe.schema import Recipe
from underpar.score.windows import WindowPlan
from underpar.train.compute import eager_loss, micro_step_seconds

TRAIN_CHARACTERS = 2_000_000
VAL_TOKENS, LEAST_VAL_TOKENS = 71_000, 70_000

SMALLER = (
    "train.seconds=0",
    "train.iterations=3",
    "train.batch_tokens=4096",
    "train.micro_tokens=4096",
    "train.warmup_steps=0",
    "train.val_every=0",
    "train.compile=off",
    "quant.calibration_batches=8",
    "score.stride=1024",
    "score.window_batch=4",
    # hardly trained weights are Gaussian: not pruned, few large ones; they compress worse
    "budget.bytes=17000000",
)
OF_PRESET: dict[str, tuple[str, ...]] = {
    "pr1413": (),
    # late fake quantization from the third step on, and a weight average of all three
    "pr456": ("train.warmdown_iters=30", "train.swa_every=1"),
}


class Stopwatch:
    """Seconds of each stage and peak memory up to its end, in the order in which they end."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self.hessians = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds, peak = time.perf_counter() - start, peak_gib()
        self.stages[name] = {"seconds": round(seconds, 2), "peak_gib": round(peak, 3)}
        progress.current().line(f"[{name}: {seconds:.1f} s, peak {peak:.2f} GiB]")

    @contextmanager
    def on_the_line(self) -> Iterator[None]:
        """Time the steps of ``pipeline.run`` where it calls them. 'quantize' holds 'calibrate'."""
        steps: list[tuple[Any, str, Callable[..., str]]] = [
            (pipeline, "fit", lambda *_: "train"),
            (quantizer, "hessians", lambda *_: "calibrate"),
            (pipeline, "quantize", lambda *_: "quantize"),
            (pipeline, "pack", lambda path, *_: f"pack {path.name}"),
            (pipeline, "score", lambda path, _, how: f"score {path.name} {how}"),
        ]
        with ExitStack() as stack:
            for module, name, label in steps:
                timed = self._timed(getattr(module, name), label)
                stack.enter_context(patch.object(module, name, timed))
            yield

    def _timed(self, function: Callable[..., Any], label: Callable[..., str]) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            with self.stage(label(*arguments)):
                result = function(*arguments, **keywords)
            if function.__name__ == "hessians":
                self.hessians = len(result)
            return result

        return timed


def peak_gib() -> float:
    """Most memory resident so far, in this process or its largest child; Linux counts in KiB."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(w).ru_maxrss for w in who) / 2**20


def make_data(text: Path, model: Path | None, vocab_size: int, out: Path) -> Dataset:
    """Shards in ``out``: some training text, and about VAL_TOKENS of held-out text."""
    train, val = split(read_documents(text), 10)
    train = opening(train, TRAIN_CHARACTERS, len)
    trained = None if model else train_bpe((d.text for d in train), vocab_size)
    tokenizer = trained or load_tokenizer(model)
    val = opening(val, VAL_TOKENS, lambda text: len(tokenizer.encode(text)))
    dataset = build(train, val, tokenizer, out)
    if (n := len(dataset.validation().tokens)) < LEAST_VAL_TOKENS:
        raise DataError(f"held-out text of {text}", got=f"{n} tokens", wanted=LEAST_VAL_TOKENS)
    return dataset


def opening(
    documents: Sequence[Document], wanted: int, size: Callable[[str], int]
) -> list[Document]:
    """The first documents of ``wanted`` size together, the last of them cut a little generously."""
    taken: list[Document] = []
    for document in documents:
        n = size(document.text)
        share = 1.01 * wanted / max(n, 1)
        taken.append(replace(document, text=document.text[: math.ceil(share * len(document.text))]))
        if share <= 1:
            break
        wanted -= n
    return taken


def probe(recipe: Recipe, dataset: Dataset) -> dict[str, float]:
    """Seconds of one sequence forward and backward, by number format."""
    model = GPT(recipe.model, seed=recipe.seed)
    model.looping = recipe.model.loop_extra > 0
    ids = next(pipeline.calibration(recipe, dataset))[:1]
    seconds = {}
    for name in ("float32", "bfloat16"):
        model.compute_dtype = getattr(torch, name)
        seconds[name] = micro_step_seconds(model, eager_loss(model), (ids, ids), repeats=1)
    return seconds


def estimate(recipe: Recipe, n_targets: int, pass_seconds: float) -> float:
    """Seconds of the line without GPTQ, from those of one sequence forward and backward."""
    train, score, length = recipe.train, recipe.score, recipe.model.seq_len
    sliding = WindowPlan(n_targets, length, score.stride)
    chunks = sliding.n_chunks(score.ttt_chunk) - 1
    both_ways = chunks * (score.ttt_chunk // length) * score.ttt_epochs
    both_ways += train.iterations * train.batch_tokens // length
    forward = 2 * len(sliding) + 2 * len(WindowPlan(n_targets, length, length))
    if recipe.quant.method == "gptq":
        forward += recipe.quant.calibration_batches * train.micro_tokens // length
    sample = np.random.default_rng(0).normal(0, 4, 1 << 18).round().astype(np.int8).tobytes()
    start = time.perf_counter()
    compressors.compress(recipe.quant.compressor, sample)
    per_byte = (time.perf_counter() - start) / len(sample)
    codes = n_params(GPT(recipe.model))
    return (both_ways + 0.4 * forward) * pass_seconds + codes * per_byte


def measure(arguments: argparse.Namespace, out: Path, command: str) -> dict[str, Any]:
    """Run everything; the figures."""
    preset, watch, gpu = PRESETS[arguments.preset](), Stopwatch(), torch.cuda.is_available()
    overrides = [*SMALLER, *OF_PRESET[arguments.preset], *arguments.set]
    recipe, figures = override(preset, overrides), {}
    with watch.stage("data"):
        vocab = recipe.model.vocab_size
        dataset = make_data(arguments.text, arguments.tokenizer, vocab, out / "data")
    n_targets = dataset.validation().n_targets
    if not gpu and recipe.train.dtype == "auto":
        with watch.stage("probe"):
            seconds = probe(recipe, dataset)
        faster = min(seconds, key=seconds.__getitem__)
        overrides.append(f"train.dtype={faster}")
        recipe = override(recipe, overrides[-1:])
        expected = estimate(recipe, n_targets, seconds[faster])
        figures = {"probe_seconds": seconds, "estimated_seconds": expected}
        progress.current().line(f"{faster}; without GPTQ about {progress.duration(expected)} to go")
    start = time.perf_counter()
    with watch.on_the_line():
        record = pipeline.run(
            recipe,
            out,
            code_bytes=ship.counting(recipe),
            data=dataset.folder,
            command=command,
        ).to_json()
    figures |= {
        "parameters": n_params(GPT(recipe.model)),
        "overrides": overrides,
        "line_seconds": time.perf_counter() - start,
        "peak_gib": peak_gib(),
        "stages": watch.stages,
        "hessians": watch.hessians,
        "ttt_chunks": math.ceil(n_targets / recipe.score.ttt_chunk),
        "within_own_budget": record["artifact"]["total_bytes"] <= preset.budget.bytes,
        "scores": record["stages"],
        **{key: record[key] for key in ("data", "train", "artifact", "recipe_digest")},
    }
    if gpu and arguments.gpu_steps:
        own, folder = override(preset, arguments.set), out / "full_batch"
        figures["full_batch"] = full_batch.measure(own, dataset, arguments.gpu_steps, folder)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=OF_PRESET, required=True)
    parser.add_argument("--text", type=Path, required=True, help="JSONL, or a folder of texts")
    parser.add_argument("--tokenizer", type=Path, help="SentencePiece model; default: trained")
    parser.add_argument("--out", type=Path, help="run folder; default: runs/full_size_PRESET")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--gpu-steps", type=int, default=30, help="on a GPU; 0: none")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    out = arguments.out or Path("runs") / f"full_size_{arguments.preset}"
    command = shlex.join(["python", *sys.argv])
    with progress.use(progress.Progress(out)):
        figures = measure(arguments, out, command)
    settings = {"command": command, "preset": arguments.preset, "threads": arguments.threads}
    payload = {**settings, **figures}
    print(json.dumps(payload, indent=1))
    if not arguments.no_write:
        device = "gpu" if torch.cuda.is_available() else "cpu"
        print(write(f"full_size_{arguments.preset}_{device}", payload))


if __name__ == "__main__":
    main()
