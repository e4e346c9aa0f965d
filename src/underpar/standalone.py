"""The whole line as a program of its own: the entry of a submission's ``train_gpt.py``.

    python train_gpt.py                                     torchrun --nproc-per-node 8 train_gpt.py

Trains the recipe that is frozen into the file, quantizes, packs, and scores the file it wrote.
Settings come from the environment, under the names that the competition's scripts read: SEED,
ITERATIONS, MAX_WALLCLOCK_SECONDS, WARMUP_STEPS, VAL_LOSS_EVERY, TRAIN_LOG_EVERY; DATA_PATH (a
folder of shards), TOKENIZER_PATH, and RUN_ID, the folder of the results: log.txt, model.upar and
record.json. Nothing is resumed here; for that there is the package.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from underpar import dist, progress, storage
from underpar.artifact.pack import file_sha256
from underpar.bits import Score
from underpar.bundle.labels import score_line, size_lines
from underpar.data.build import Dataset
from underpar.data.loader import Loader, make_loader
from underpar.errors import UnderparError
from underpar.model import GPT
from underpar.pipeline import fitted, prepare
from underpar.quant.qat import install
from underpar.recipe.load import digest, from_json
from underpar.recipe.schema import Recipe
from underpar.score.scorer import Stage, score, score_model
from underpar.train.loop import TrainResult, train

#: The recipe as JSON; a bundle has it filled in.
RECIPE: dict[str, Any] = {}

#: Bytes of code that count; 0: this file's own.
CODE_BYTES = 0

#: name in the environment -> (section, key) of the recipe
SETTINGS = {
    "SEED": ("", "seed"),
    "ITERATIONS": ("train", "iterations"),
    "MAX_WALLCLOCK_SECONDS": ("train", "seconds"),
    "TRAIN_LOG_EVERY": ("train", "log_every"),
    "VAL_LOSS_EVERY": ("train", "val_every"),
    "WARMUP_STEPS": ("train", "warmup_steps"),
}


def main() -> int:
    """Run; returns the exit status: 0, or 1 with a one-line reason on stderr."""
    environment, code = dist.environment(), 0
    try:
        recipe = frozen_recipe(environment)
        out = Path(environment.get("RUN_ID", recipe.name))
        with dist.processes():
            main = dist.is_main()
            sink = progress.Progress(out if main else None, quiet=not main, stream=sys.stdout)
            with progress.use(sink):
                run(recipe, out, environment)
    except UnderparError as error:
        sys.stderr.write(f"error: {error}\n")
        code = 1
    dist.leave(code)
    return code


def frozen_recipe(environment: Mapping[str, str]) -> Recipe:
    """RECIPE with what the environment sets. RecipeError for a value that the schema refuses."""
    data = json.loads(json.dumps(RECIPE))
    for name, (section, key) in SETTINGS.items():
        if name in environment:
            table = data[section] if section else data
            table[key] = type(table[key])(environment[name])
    return from_json(data)


def run(recipe: Recipe, out: Path, environment: Mapping[str, str]) -> None:
    """The trunk: text, weights, file, bits. Collective."""
    tokenizer = environment.get("TOKENIZER_PATH")
    folder, say = data_folder(recipe, environment), progress.current().line
    dataset = prepare(recipe, out, folder, Path(tokenizer) if tokenizer else None)
    model = GPT(recipe.model, seed=recipe.seed).to(dist.device())
    trained = fit(model, recipe, dataset)
    validation, average, scores = dataset.validation(), recipe.train.average, {}
    scores["float"] = score_model(model, recipe.score, validation, "plain").score
    say(score_line("float", average, scores["float"]))
    path, code = out / "model.upar", CODE_BYTES or Path(__file__).stat().st_size
    counted = fitted(model, recipe, dataset, path, code, "this file")[1]
    for line in size_lines(recipe.quant.compressor, code, counted.total - code):
        say(line)
    stages: list[tuple[str, Stage]] = [("quantized", "plain"), ("sliding", "sliding")]
    if recipe.score.ttt:
        stages.append(("ttt", "ttt"))
    for name, how in stages:
        scores[name] = score(path, validation, how).score
        say(score_line(name, average, scores[name]))
    record = {
        "name": recipe.name,
        "seed": recipe.seed,
        "recipe_digest": digest(recipe),
        "steps": trained.steps,
        "seconds": trained.seconds,
        "losses": trained.losses,
        "code_bytes": code,
        "file_bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "stages": {name: result.to_json() for name, result in scores.items()},
    }
    if dist.is_main():
        storage.write_text(out / "record.json", json.dumps(record, indent=1) + "\n")


def data_folder(recipe: Recipe, environment: Mapping[str, str]) -> Path | None:
    """Where the shards are: told, or where the competition puts them. None: built from text."""
    if "DATA_PATH" in environment:
        return Path(environment["DATA_PATH"])
    if recipe.data.corpus == "shards":
        return Path(f"data/datasets/fineweb10B_sp{recipe.model.vocab_size}")
    return None


def fit(model: GPT, recipe: Recipe, dataset: Dataset) -> TrainResult:
    """Train in place, validating if the recipe says so. KeyboardInterrupt when a signal came."""

    def loader() -> Loader:
        return make_loader(
            recipe.data,
            dataset.train_files,
            seq_len=recipe.model.seq_len,
            micro_tokens=recipe.train.micro_tokens,
        )

    def validate(live: GPT) -> Score:
        return score_model(live, recipe.score, dataset.validation(), "plain").score

    def qat(live: GPT) -> None:
        install(live, recipe.quant)

    result = train(model, recipe.train, loader, seed=recipe.seed, qat=qat, validate=validate)
    if result.stop_reason == "interrupted":
        raise KeyboardInterrupt
    return result
