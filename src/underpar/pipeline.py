"""The trunk: a recipe and some text in, a record out. Read ``run`` first.

    text -> tokens -> model -> training -> quantized weights -> one file -> bits -> record

Everything after packing starts from the path of a file: no live model crosses. Each step leaves its
result in the run folder, so an interrupted run goes on where it stopped. The program that is handed
in (``standalone``) is made of the same steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from underpar import dist, progress, storage
from underpar.artifact import compressors
from underpar.artifact.budget import account
from underpar.artifact.fill import search, total_bytes
from underpar.artifact.layout import Stored
from underpar.artifact.pack import file_sha256, pack
from underpar.bits import Score
from underpar.data.build import Dataset, build_for, open_dataset
from underpar.data.loader import Loader, make_loader
from underpar.errors import DataError
from underpar.grid.tensors import QuantizedModel, QuantizedTensor
from underpar.model import GPT
from underpar.quant.qat import install
from underpar.quant.quantize import Quantizer, relative_errors
from underpar.recipe.check import check
from underpar.recipe.plain import digest, to_json
from underpar.recipe.schema import Recipe
from underpar.report.curves import save_losses
from underpar.report.record import ArtifactFacts, DataFacts, Record, TrainFacts
from underpar.score.file import score
from underpar.score.scorer import score_model
from underpar.stages import Stage, planned
from underpar.train.run import TrainResult, train


def run(
    recipe: Recipe,
    out: Path,
    *,
    code_bytes: Callable[[], int],
    data: Path | None = None,
    tokenizer: Path | None = None,
    resume: bool = False,
    command: str = "",
) -> Record:
    """The whole line; leaves the run folder in ``out``. Collective.

    code_bytes: length of the program that would be handed in (``ship.code_bytes``); asked for after
    training, on rank 0. data: a folder of shards; None builds the recipe's own corpus. tokenizer: a
    SentencePiece model, where it does not lie beside the shards. resume: go on where an earlier run
    in ``out`` stopped.
    """
    dataset = prepare(check(recipe), out, data, tokenizer)
    model = GPT(recipe.model, seed=recipe.seed).to(dist.device())
    trained = train_model(model, recipe, dataset, out, resume=resume)
    record = begin(recipe, dataset, trained, out, resume=resume, command=command)
    if record.artifact is None:
        write_float(model, recipe, dataset, out)
        record = write_quantized(model, recipe, dataset, out, record, code_bytes)
    for stage in planned(recipe.score.ttt):
        if stage.name not in record.stages:
            record = score_stage(stage, dataset, out, record)
    return record


def prepare(recipe: Recipe, out: Path, data: Path | None, tokenizer: Path | None) -> Dataset:
    """Open the shards, or build the recipe's own corpus.

    What only the end of the run needs is looked for here, too: a missing compressor should not show
    after the training.
    """
    if recipe.quant.compressor != "rans":
        compressors.require(recipe.quant.compressor)
    dataset = open_dataset(data or own_corpus(recipe, out), tokenizer)
    if not dataset.train_files:
        raise DataError(
            f"no training shards in {dataset.folder}",
            got="0 files",
            wanted="fineweb_train_*.bin",
            do="Download or build the data first: underpar data --help.",
        )
    if dataset.tokenizer.vocab_size != recipe.model.vocab_size:
        raise DataError(
            f"tokenizer of {dataset.folder}",
            got=f"{dataset.tokenizer.vocab_size} pieces",
            wanted=f"model.vocab_size = {recipe.model.vocab_size}",
            do="Choose the data of that vocabulary, or set model.vocab_size.",
        )
    return dataset


def own_corpus(recipe: Recipe, out: Path) -> Path:
    """The folder of the recipe's own text, built beside the run folder on rank 0."""
    spec, vocab = recipe.data, recipe.model.vocab_size
    folder = out.parent / "data" / f"{spec.corpus}-{spec.tokenizer}-{vocab}-{spec.held_out}"
    if dist.is_main():
        build_for(spec, vocab, folder)
    dist.barrier()
    return folder


@dataclass(frozen=True)
class Supplies:
    """What training takes besides model and settings, from a recipe and its data."""

    recipe: Recipe
    dataset: Dataset

    def loader(self) -> Loader:
        """At the beginning of the training text."""
        recipe = self.recipe
        return make_loader(
            recipe.data,
            self.dataset.train_files,
            seq_len=recipe.model.seq_len,
            micro_tokens=recipe.train.micro_tokens,
        )

    def validate(self, live: GPT) -> Score:
        """Score the model as it is, without overlap."""
        return score_model(live, self.recipe.score, self.dataset.validation(), "plain").score

    def fake_quantization(self, live: GPT) -> None:
        """Install the weight hooks of the recipe's grids."""
        install(live, self.recipe.quant)

    def calibration(self) -> Iterator[Tensor]:
        """The first training batches once more, inputs only."""
        loader = self.loader()
        for _ in range(self.recipe.quant.calibration_batches):
            yield loader.next_batch()[0].to(dist.device())


def train_model(
    model: GPT, recipe: Recipe, dataset: Dataset, out: Path, *, resume: bool
) -> TrainResult:
    """Train in place. KeyboardInterrupt when a signal ended it: its checkpoint is in ``out``."""
    if dist.is_main():
        storage.write_text(out / "recipe.json", json.dumps(to_json(recipe), indent=1) + "\n")
    supplies = Supplies(recipe, dataset)
    result = train(
        model,
        recipe.train,
        supplies.loader,
        seed=recipe.seed,
        qat=supplies.fake_quantization,
        validate=supplies.validate,
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
    write_artifact(out / "float.upar", weights, model, recipe, dataset, compressor="raw")


def write_quantized(
    model: GPT,
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    record: Record,
    code_bytes: Callable[[], int],
) -> Record:
    """Quantize, pack and count model.upar. BudgetError when code plus file are over the cap."""
    path, say = out / "model.upar", progress.current().line
    code = dist.broadcast(code_bytes() if dist.is_main() else 0)
    quantized, factor = pack_to_budget(model, recipe, dataset, path, code)
    counted = account(path, recipe.budget, code)
    if factor != 1:
        say(f"steps {factor:.4f} times the recipe's: the budget is filled")
    for line in counted.table():
        say(line)
    counted.require()
    facts = ArtifactFacts(
        file_bytes=counted.file_bytes,
        code_bytes=code,
        total_bytes=counted.total,
        budget_bytes=recipe.budget.bytes,
        sha256=file_sha256(path),
    )
    errors = relative_errors(model, quantized)
    record = record.with_artifact(facts).with_diagnostic("quantization_error", errors)
    return save(record.with_diagnostic("step_factor", round(factor, 4)), out)


def pack_to_budget(
    model: GPT, recipe: Recipe, dataset: Dataset, path: Path, code: int
) -> tuple[QuantizedModel, float]:
    """Quantize and pack to ``path``: the weights, and the factor on the recipe's steps.

    With ``quant.fill``, and steps that follow the rows' deviations, that factor is searched so that
    file and ``code`` bytes of code fill the budget; else it is 1, and the file as large as it is.
    """
    spec, written = recipe.quant, dict[float, QuantizedModel]()
    quantizer = Quantizer(model, spec, Supplies(recipe, dataset).calibration())

    def size_at(factor: float) -> int:
        written.clear()
        written[factor] = quantizer.quantize(spec, factor)
        write_artifact(path, written[factor], model, recipe, dataset, compressor=spec.compressor)
        total = dist.broadcast(total_bytes(path, recipe.budget, code) if dist.is_main() else 0)
        progress.current().line(
            f"packed at {factor:.4f} x the steps: {total:,} of {recipe.budget.bytes:,} bytes"
        )
        return total

    first, factor = size_at(1.0), 1.0
    codes = sum(t.codes.numel() for t in written[1.0].values() if isinstance(t, QuantizedTensor))
    if spec.fill and spec.clip == "std" and codes:
        factor = search(size_at, first, recipe.budget.bytes, codes)
        if factor not in written:
            size_at(factor)
    return written[factor], factor


def score_stage(stage: Stage, dataset: Dataset, out: Path, record: Record) -> Record:
    """Score one stage from its file and write it into the record."""
    result = score(out / stage.file, dataset.validation(), stage.how)
    progress.current().line(f"{stage.name}: {result.score}")
    nll = result.nll  # of all ranks, so all of them ask
    if dist.is_main():
        save_losses(out, stage.name, nll)
    return save(record.with_stage(stage.name, result.score), out)


def save(record: Record, out: Path) -> Record:
    if dist.is_main():
        record.write(out / "record.json")
    return record


def write_artifact(
    path: Path,
    weights: Mapping[str, Stored],
    model: GPT,
    recipe: Recipe,
    data: Dataset,
    *,
    compressor: str,
) -> None:
    """Pack ``weights`` of ``model`` with all that scoring needs, on rank 0."""
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
