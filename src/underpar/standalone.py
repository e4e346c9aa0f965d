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
from dataclasses import replace
from pathlib import Path
from typing import Any

from underpar import dist, progress, storage
from underpar.artifact.fill import total_bytes
from underpar.artifact.pack import file_sha256
from underpar.artifact.read import read_model
from underpar.data.dataset import Dataset
from underpar.data.detokenizer import Detokenizer, SentencePieceDetokenizer
from underpar.data.shards import shard_files
from underpar.data.tokenizer import ByteTokenizer
from underpar.errors import BudgetError, LegalityError, UnderparError
from underpar.model.gpt import GPT
from underpar.pipeline import Supplies, own_corpus, pack_to_budget
from underpar.recipe.plain import build, digest
from underpar.recipe.schema import Recipe
from underpar.score.scorer import Result, score_model
from underpar.stages import Stage, planned, score_line, size_lines
from underpar.train.loop import train_through

#: What the recipe changes of the schema's defaults; ``ship`` fills it in.
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
            sink = progress.Log(out if main else None, quiet=not main, stream=sys.stdout)
            with progress.use(sink):
                run(recipe, out, environment)
    except UnderparError as error:
        sys.stderr.write(f"error: {error}\n")
        code = 1
    dist.leave(code)
    return code


def frozen_recipe(environment: Mapping[str, str]) -> Recipe:
    """RECIPE with what the environment sets."""
    recipe = build(RECIPE)
    for name, (section, key) in SETTINGS.items():
        if name in environment:
            owner: Any = getattr(recipe, section) if section else recipe
            changed = replace(owner, **{key: type(getattr(owner, key))(environment[name])})
            recipe = replace(recipe, **{section: changed}) if section else changed
    return recipe


def run(recipe: Recipe, out: Path, environment: Mapping[str, str]) -> None:
    """The trunk: text, weights, file, bits. Collective."""
    dataset, say = open_data(recipe, out, environment), progress.current().line
    model, supplies = GPT(recipe.model, seed=recipe.seed), Supplies(recipe, dataset)
    trained = train_through(
        model.to(dist.device()),
        recipe.train,
        supplies.loader,
        supplies.fake_quantization if recipe.train.qat_below else None,
        supplies.validate,
    )
    scores: dict[str, dict[str, float | int]] = {}
    path, code = out / "model.upar", CODE_BYTES or Path(__file__).stat().st_size
    for stage in planned(recipe.score.ttt):
        if stage.name == "quantized":
            write_quantized(model, recipe, dataset, path, code)
        result = score_stage(stage, model, recipe, dataset, path)
        scores[stage.name] = result.score.to_json()
        say(score_line(stage, recipe.train.average, result.score))
    record = {
        "name": recipe.name,
        "seed": recipe.seed,
        "recipe_digest": digest(recipe),
        "steps": trained.step,
        "seconds": trained.elapsed,
        "losses": trained.losses,
        "code_bytes": code,
        "file_bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "stages": scores,
    }
    if dist.is_main():
        storage.write_text(out / "record.json", json.dumps(record, indent=1) + "\n")


def write_quantized(model: GPT, recipe: Recipe, dataset: Dataset, path: Path, code: int) -> None:
    """Quantize, pack and count. BudgetError when code plus file are over the cap."""
    pack_to_budget(model, recipe, dataset, path, code)
    total, cap = total_bytes(path, recipe.budget, code), recipe.budget.bytes
    if total > cap:
        raise BudgetError("code and artifact do not fit", got=f"{total} bytes", wanted=cap)
    for line in size_lines(recipe.quant.compressor, code, total - code):
        progress.current().line(line)


def score_stage(stage: Stage, model: GPT, recipe: Recipe, dataset: Dataset, path: Path) -> Result:
    """Of the model as trained, from then on of the file. LegalityError for a partial score."""
    spec = recipe.score
    if stage.name != "float":
        stored = read_model(path, dist.device(), compressor=recipe.quant.compressor)
        model, spec = stored.model, stored.score
    result = score_model(model, spec, dataset.validation(), stage.how)
    if not result.score.complete:
        raise LegalityError("score of part of the text", got=result.score, wanted="all of it")
    return result


def open_data(recipe: Recipe, out: Path, environment: Mapping[str, str]) -> Dataset:
    """The shards that DATA_PATH names, those where the competition puts them, or the own corpus."""
    folder = Path(f"data/datasets/fineweb10B_sp{recipe.model.vocab_size}")
    if "DATA_PATH" in environment:
        folder = Path(environment["DATA_PATH"])
    elif recipe.data.corpus != "shards":
        folder = own_corpus(recipe, out)
    if recipe.data.tokenizer == "bytes":
        tokenizer: Detokenizer = ByteTokenizer()
    else:
        path = folder / "tokenizer.model"
        if not path.exists():
            path = folder.parents[1] / f"tokenizers/fineweb_{recipe.model.vocab_size}_bpe.model"
        path = Path(environment.get("TOKENIZER_PATH", path))
        tokenizer = SentencePieceDetokenizer(path.read_bytes())
    train, val = shard_files(folder, "train"), shard_files(folder, "val")
    return Dataset(folder, train, val, tokenizer)


if __name__ == "__main__":
    sys.exit(main())
