"""The trunk: a recipe and some text in, a record out. Read ``run`` first.

    text -> tokens -> model -> training -> quantized weights -> one file -> bits -> record

Everything after packing starts from the path of a file: no live model crosses. Each step leaves its
result in the run folder, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from underpar import bundle, dist, progress, storage
from underpar.artifact import codecs
from underpar.artifact.budget import Account, account
from underpar.artifact.layout import Stored
from underpar.artifact.pack import file_sha256, pack
from underpar.bits import Score
from underpar.data.build import Dataset, build_for, open_dataset
from underpar.data.loader import make_loader
from underpar.errors import DataError
from underpar.grid.tensors import QuantizedModel
from underpar.model import GPT
from underpar.quant.qat import install
from underpar.quant.quantize import quantize
from underpar.recipe.load import digest, to_json
from underpar.recipe.schema import QuantSpec, Recipe
from underpar.report.curves import save_losses
from underpar.report.record import ArtifactFacts, DataFacts, Record, TrainFacts
from underpar.score.scorer import Stage, score, score_model
from underpar.train.loop import TrainResult, train

#: stage of the record -> (file in the run folder, how it is scored)
STAGES: dict[str, tuple[str, Stage]] = {
    "float": ("float.upar", "plain"),
    "quantized": ("model.upar", "plain"),
    "sliding": ("model.upar", "sliding"),
    "ttt": ("model.upar", "ttt"),
}

#: An artifact over the budget is fitted by widening its quantization steps up to this factor.
WIDEST_FIT = 1.25


def run(
    recipe: Recipe,
    out: Path,
    *,
    data: Path | None = None,
    tokenizer: Path | None = None,
    resume: bool = False,
    command: str = "",
) -> Record:
    """The whole line; leaves the run folder in ``out``. Collective.

    data: a folder of shards; None builds the recipe's own corpus. tokenizer: a SentencePiece model,
    where it does not lie beside the shards. resume: go on where an earlier run in ``out`` stopped.
    """
    dataset = prepare(recipe, out, data, tokenizer)
    model = GPT(recipe.model, seed=recipe.seed).to(dist.device())
    trained = fit(model, recipe, dataset, out, resume=resume)
    record = begin(recipe, dataset, trained, out, resume=resume, command=command)
    if record.artifact is None:
        write_float(model, recipe, dataset, out)
        record = write_quantized(model, recipe, dataset, out, record)
    for stage in stages_of(recipe):
        if stage not in record.stages:
            record = score_stage(stage, dataset, out, record)
    return record


def stages_of(recipe: Recipe) -> list[str]:
    """The stages that a run of this recipe scores, in order."""
    return [stage for stage in STAGES if stage != "ttt" or recipe.score.ttt]


def prepare(recipe: Recipe, out: Path, data: Path | None, tokenizer: Path | None) -> Dataset:
    """Open the shards, or build the recipe's own corpus beside the run folder, on rank 0.

    What only the end of the run needs is looked for here, too: a missing compressor should not show
    after the training.
    """
    if recipe.quant.compressor != "rans":
        codecs.require(recipe.quant.compressor)
    if data is None:
        spec, vocab = recipe.data, recipe.model.vocab_size
        data = out.parent / "data" / f"{spec.corpus}-{spec.tokenizer}-{vocab}-{spec.held_out}"
        if dist.is_main():
            build_for(spec, vocab, data)
        dist.barrier()
    dataset = open_dataset(data, tokenizer)
    if dataset.tokenizer.vocab_size != recipe.model.vocab_size:
        raise DataError(
            f"tokenizer of {data}",
            got=f"{dataset.tokenizer.vocab_size} pieces",
            wanted=f"model.vocab_size = {recipe.model.vocab_size}",
            do="Choose the data of that vocabulary, or set model.vocab_size.",
        )
    return dataset


def fit(model: GPT, recipe: Recipe, dataset: Dataset, out: Path, *, resume: bool) -> TrainResult:
    """Train in place. KeyboardInterrupt when a signal ended it: its checkpoint is in ``out``."""
    if dist.is_main():
        storage.write_text(out / "recipe.json", json.dumps(to_json(recipe), indent=1) + "\n")
    spec = recipe.train
    validate: Callable[[GPT], Score] | None = None
    if spec.val_every:

        def validate(live: GPT) -> Score:
            return score_model(live, recipe.score, dataset.validation(), "plain").score

    result = train(
        model,
        spec,
        lambda: make_loader(
            recipe.data,
            dataset.train_files,
            seq_len=recipe.model.seq_len,
            micro_tokens=spec.micro_tokens,
        ),
        seed=recipe.seed,
        qat=lambda live: install(live, recipe.quant),
        validate=validate,
        checkpoint=out / "checkpoint",
        resume=resume,
    )
    if result.stop_reason == "interrupted":
        progress.current().line("nothing is lost: the same command with --resume goes on")
        raise KeyboardInterrupt
    return result


def begin(
    recipe: Recipe, dataset: Dataset, trained: TrainResult, out: Path, *, resume: bool, command: str
) -> Record:
    """A fresh record, or with ``resume`` the one in ``out`` if it is of these very weights."""
    path = out / "record.json"
    if resume and path.exists():
        record = Record.read(path)
        model = out / "model.upar"
        same = record.recipe_digest == digest(recipe) and model.exists()
        if same and record.artifact and record.artifact.sha256 == file_sha256(model):
            return record
    return Record.start(
        recipe, command=command, train=TrainFacts.of(trained), data=DataFacts.of(dataset)
    )


def write_float(model: GPT, recipe: Recipe, dataset: Dataset, out: Path) -> None:
    """float.upar: the weights as trained, so that "before quantization" is scored from a file."""
    weights = {path: tensor.detach().cpu() for path, tensor in model.state_dict().items()}
    _pack(out / "float.upar", weights, model, recipe, dataset, "raw")


def write_quantized(
    model: GPT, recipe: Recipe, dataset: Dataset, out: Path, record: Record
) -> Record:
    """Quantize, pack and count model.upar. BudgetError when code plus file are over the cap."""
    path = out / "model.upar"
    quantized, counted, spec = fitted(
        model, recipe, dataset, path, bundle.code_bytes(), bundle.CODE_METHOD
    )
    facts = ArtifactFacts(
        file_bytes=counted.file_bytes,
        code_bytes=counted.code_bytes,
        code_method=counted.code_method,
        total_bytes=counted.total,
        budget_bytes=recipe.budget.bytes,
        sha256=file_sha256(path),
    )
    errors = {error.path: error.relative_error for error in quantized.errors}
    record = record.with_artifact(facts).with_diagnostic("quantization_error", errors)
    return save(record.with_diagnostic("matrix_k", spec.matrix_k), out)


def fitted(
    model: GPT, recipe: Recipe, dataset: Dataset, path: Path, code: int, method: str
) -> tuple[QuantizedModel, Account, QuantSpec]:
    """Quantize and pack to ``path``: how, and the account with ``code`` bytes of code.

    A file that is over by a little, and whose steps follow the rows' deviations, is quantized again
    with steps just wide enough: a trained model is not lost over the last kilobyte. Raises
    BudgetError when code plus file are over the cap all the same.
    """
    spec = recipe.quant
    for tries_left in (2, 1, 0):
        quantized = quantize(model, spec, calibration(recipe, dataset))
        _pack(path, quantized, model, recipe, dataset, spec.compressor)
        counted = account(path, recipe.budget, code, method)
        factor = counted.k_factor
        if factor == 1 or factor > WIDEST_FIT or spec.clip != "std" or not tries_left:
            break
        spec = replace(
            spec,
            matrix_k=spec.matrix_k * factor,
            mlp_k=spec.mlp_k * factor,
            embed_k=spec.embed_k * factor,
        )
        progress.current().line(
            f"{-counted.left:,} bytes over budget: again with quant.matrix_k = {spec.matrix_k:.3f}"
        )
    for line in counted.table():
        progress.current().line(line)
    counted.require()
    return quantized, counted, spec


def calibration(recipe: Recipe, dataset: Dataset) -> Iterator[Tensor]:
    """The first training batches once more, inputs only."""
    loader = make_loader(
        recipe.data,
        dataset.train_files,
        seq_len=recipe.model.seq_len,
        micro_tokens=recipe.train.micro_tokens,
    )
    for _ in range(recipe.quant.calibration_batches):
        yield loader.next_batch()[0].to(dist.device())


def score_stage(stage: str, dataset: Dataset, out: Path, record: Record) -> Record:
    """Score one stage from its file and write it into the record."""
    file, how = STAGES[stage]
    result = score(out / file, dataset.validation(), how)
    progress.current().line(f"{stage}: {result.score}")
    if dist.is_main():
        save_losses(out, stage, result.nll)
    return save(record.with_stage(stage, result.score), out)


def save(record: Record, out: Path) -> Record:
    if dist.is_main():
        record.write(out / "record.json")
    return record


def _pack(
    path: Path,
    weights: Mapping[str, Stored],
    model: GPT,
    recipe: Recipe,
    data: Dataset,
    compressor: str,
) -> None:
    if dist.is_main():
        pack(
            path,
            weights,
            model_spec=recipe.model,
            score_spec=recipe.score,
            looping=model.looping,
            dtype=str(model.compute_dtype).removeprefix("torch."),
            tokenizer=data.tokenizer,
            recipe_digest=digest(recipe),
            compressor=compressor,
            byte_shuffle=recipe.quant.byte_shuffle,
        )
    dist.barrier()
