"""The trunk: whole, interrupted, repeated, with a full disk, a damaged file, a tiny text."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import nano_curve
from tests.commands import CODE, Run, byte_data, contents, counted, fill_disk, numbers, slow
from underpar import pipeline, rerun
from underpar.artifact.load import load, read_container
from underpar.bits import LN2
from underpar.data.build import build_source, open_dataset
from underpar.data.validation import ValidationSet
from underpar.errors import ArtifactError, BudgetError, DataError, MachineError
from underpar.model import GPT
from underpar.recipe.load import resolve
from underpar.recipe.plain import digest, to_json
from underpar.score.file import score
from underpar.stages import NAMES, STAGES, How, Stage

FILES = {"recipe.json", "log.txt", "metrics.jsonl", "checkpoint", "float.upar", "model.upar"}
WAYS: tuple[How, ...] = ("plain", "sliding", "ttt")


whole_line = partial(pipeline.run, code_bytes=counted())


# --- a whole run ------------------------------------------------------------------------------


def test_what_a_run_leaves(nano_run: Run) -> None:
    losses = {f"nll_{stage}.npy" for stage in NAMES}
    told = {"record.json", "report.html"}
    assert {path.name for path in nano_run.out.iterdir()} == FILES | losses | told
    assert resolve(str(nano_run["recipe.json"])) == resolve("nano")
    assert [p.name for p in nano_run["checkpoint"].iterdir()] == ["step_000000030.npz"]
    rows = [json.loads(line) for line in nano_run["metrics.jsonl"].read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    log = nano_run["log.txt"].read_text()
    for stage, result in nano_run.record.stages.items():
        assert f"{stage}: {result.bpb:.5f} bpb\n" in log


@pytest.mark.skipif(torch.cuda.is_available(), reason="the golden losses are a CPU's")
def test_the_losses_of_training_are_the_golden_ones(nano_run: Run) -> None:
    """Other kernels and threads move them by 1e-6, a schedule off by one step by 1e-3."""
    assert nano_curve.worst(nano_curve.losses(nano_run.out)) < 1e-4


def test_every_stage_scores_every_target_once(nano_run: Run) -> None:
    record, validation = nano_run.record, nano_run.dataset.validation()
    assert list(record.stages) == ["float", "quantized", "sliding", "ttt"]
    for result in record.stages.values():
        assert result.coverage == 1.0
        assert (result.tokens, result.bytes) == (validation.n_targets, validation.true_bytes)
    assert record.data is not None
    assert record.data.val_bytes == validation.true_bytes
    bpb = {stage: result.bpb for stage, result in record.stages.items()}
    assert 0 < bpb["quantized"] - bpb["float"] < 0.1  # six bits cost something, but little
    assert bpb["ttt"] < bpb["sliding"]


def test_what_the_record_says_of_training_and_recipe(nano_run: Run) -> None:
    record, recipe = nano_run.record, resolve("nano")
    assert record.train is not None
    assert (record.train.steps, record.train.tokens) == (30, 30 * 1024)
    assert record.train.stop_reason == "iterations"
    assert record.recipe == to_json(recipe)
    assert record.recipe_digest == digest(recipe) == load(nano_run["model.upar"]).header["recipe"]
    assert record.command == f"underpar train nano --out {nano_run.out}"


def test_what_counts_against_the_budget(nano_run: Run) -> None:
    facts = nano_run.record.artifact
    assert facts is not None
    assert facts.file_bytes == nano_run["model.upar"].stat().st_size
    assert facts.code_bytes == CODE
    assert facts.total_bytes == facts.code_bytes + facts.file_bytes  # bytes need no tokenizer file
    assert facts.total_bytes < facts.budget_bytes == resolve("nano").budget.bytes
    assert facts.sha256 == load(nano_run["model.upar"]).sha256


def test_the_same_recipe_gives_the_same_bytes_and_scores(nano_run: Run, tmp_path: Path) -> None:
    again = whole_line(resolve("nano"), tmp_path / "n", data=nano_run.data)
    assert numbers(again) == numbers(nano_run.record)
    for name in ("float.upar", "model.upar"):
        assert (tmp_path / "n" / name).read_bytes() == nano_run[name].read_bytes()


def test_another_seed_gives_another_model(nano_run: Run, tmp_path: Path) -> None:
    recipe = resolve("nano", ["train.iterations=2", "score.ttt=false"], seed=1)
    record = whole_line(recipe, tmp_path / "n", data=nano_run.data)
    assert list(record.stages) == ["float", "quantized", "sliding"]  # as the recipe says
    assert not rerun.unfinished(tmp_path / "n", recipe)
    other = resolve("nano", ["train.iterations=2", "score.ttt=false"])
    whole_line(other, tmp_path / "m", data=nano_run.data)
    a, b = (tmp_path / name / "float.upar" for name in "nm")
    assert a.read_bytes() != b.read_bytes()


def test_a_tokenizer_in_the_file_is_not_counted(tmp_path: Path) -> None:
    build_source("generated", tmp_path / "data", vocab_size=384, held_out=2)
    changes = ["model.vocab_size=384", "train.iterations=2", "train.val_every=1"]
    recipe = resolve("nano", changes)
    record = whole_line(recipe, tmp_path / "n", data=tmp_path / "data")
    _, sections = read_container(tmp_path / "n" / "model.upar")
    facts = record.artifact
    assert facts is not None
    assert len(sections["tokenizer"]) > 100
    tokenizer = len(sections["tokenizer"])
    assert facts.total_bytes == facts.code_bytes + facts.file_bytes - tokenizer
    assert all(result.complete for result in record.stages.values())
    bytes_of_text = open_dataset(tmp_path / "data").validation().raw_bytes
    assert {result.bytes for result in record.stages.values()} == {bytes_of_text}


# --- from the file alone ----------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_score_from_the_path_is_the_one_in_the_record(nano_run: Run, stage: Stage) -> None:
    result = score(nano_run[stage.file], nano_run.dataset.validation(), stage.how)
    recorded = nano_run.record.stages[stage.name]
    assert (result.score.nats, result.score.tokens) == (recorded.nats, recorded.tokens)


def one_position_at_a_time(model: GPT, validation: ValidationSet, stride: int) -> float:
    """Nats of the stream: for each target one pass over the tokens that its window shows it."""
    ids = torch.from_numpy(validation.tokens.astype(np.int64))
    context, nats = model.spec.seq_len, 0.0
    for position in range(validation.n_targets):
        window = max(-(-(position + 1 - context) // stride), 0)
        with torch.no_grad():
            logits = model(ids[None, window * stride : position + 1])[0, -1]
        nats -= float(torch.log_softmax(logits.double(), 0)[ids[position + 1]])
    return nats


@pytest.mark.parametrize("length", [1, 40, *(slow(n) for n in (2, 150))])
def test_texts_of_any_length_from_two_tokens_on(nano_run: Run, tmp_path: Path, length: int) -> None:
    text = ("The state of the union is strong. " * 9)[:length]
    data = byte_data(tmp_path / "data", text)
    validation, model = open_dataset(data).validation(), load(nano_run["model.upar"]).model
    for stage in WAYS:
        result = score(nano_run["model.upar"], validation, stage).score
        assert (result.tokens, result.bytes, result.coverage) == (length, length, 1.0)
        nats = one_position_at_a_time(model, validation, 64 if stage == "plain" else 16)
        assert result.nats == pytest.approx(nats, rel=1e-5)  # so short that TTT takes no step
        assert result.bpb == pytest.approx(nats / LN2 / length, rel=1e-5)


def test_one_token_is_nothing_to_score(nano_run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing to predict: got 1 token.*at least 2"):
        rerun.rescore(
            nano_run["model.upar"], byte_data(tmp_path / "data", ""), "plain", tokenizer=None
        )


def test_flipped_bits_are_an_error_or_change_nothing(nano_run: Run, tmp_path: Path) -> None:
    data, path = nano_run["model.upar"].read_bytes(), tmp_path / "model.upar"
    weights = load(nano_run["model.upar"]).model.state_dict()
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), 1000):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with suppress(ArtifactError):  # as it is for every bit; no other error gets through here
            loaded = load(path).model.state_dict()
            assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_data_of_another_tokenizer_is_refused(nano_run: Run, tmp_path: Path) -> None:
    other = build_source("generated", tmp_path / "data", vocab_size=384, held_out=2)
    with pytest.raises(DataError, match="another tokenizer than the model's"):
        score(nano_run["model.upar"], other.validation(), "plain")
    recipe = resolve("nano", ["model.vocab_size=300"])
    with pytest.raises(DataError, match=r"got 257 pieces, wanted model.vocab_size = 300"):
        whole_line(recipe, tmp_path / "n", data=nano_run.data)


# --- interrupted and resumed ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost_files", "lost_stages"),
    [
        ((), ("ttt",)),
        (("record.json", "model.upar", "float.upar"), ()),
        slow(("record.json",), ()),
        slow(("model.upar",), ()),
    ],
)
def test_a_run_goes_on_where_it_stopped(
    nano_run: Run, tmp_path: Path, lost_files: tuple[str, ...], lost_stages: tuple[str, ...]
) -> None:
    run = nano_run.copy(tmp_path / "n").forget(*lost_stages)
    for name in lost_files:
        run[name].unlink()
    record = whole_line(resolve("nano"), run.out, data=run.data, resume=True)
    assert numbers(record) == numbers(nano_run.record) == numbers(run.record)
    assert run["model.upar"].read_bytes() == nano_run["model.upar"].read_bytes()
    trained, before = record.train, nano_run.record.train
    assert trained is not None
    assert before is not None
    assert trained.seconds == before.seconds  # to the last bit: it was not done again


def test_a_finished_run_is_not_touched(nano_run: Run, tmp_path: Path) -> None:
    run = nano_run.copy(tmp_path / "n")
    before = contents(run.out)
    record = whole_line(resolve("nano"), run.out, data=run.data, resume=True)
    assert record == nano_run.record
    assert contents(run.out) == before


def test_scores_of_another_file_are_not_kept(nano_run: Run, tmp_path: Path) -> None:
    run = nano_run.copy(tmp_path / "n")
    run["model.upar"].write_bytes(run["float.upar"].read_bytes())
    record = whole_line(resolve("nano"), run.out, data=run.data, resume=True)
    assert run["model.upar"].read_bytes() == nano_run["model.upar"].read_bytes()
    assert numbers(record) == numbers(nano_run.record)


# --- no room ----------------------------------------------------------------------------------


def test_a_little_over_budget_is_fitted(nano_run: Run, tmp_path: Path) -> None:
    run = nano_run.copy(tmp_path / "n")
    facts = nano_run.record.artifact
    assert facts is not None
    recipe = resolve("nano", [f"budget.bytes={facts.total_bytes - 60}"])
    record = whole_line(recipe, run.out, data=run.data, resume=True)
    assert record.artifact is not None
    assert facts.total_bytes - 200 < record.artifact.total_bytes <= facts.total_bytes - 60
    assert record.diagnostics["step_factor"] > nano_run.record.diagnostics["step_factor"]
    assert record.stages["quantized"].bpb < nano_run.record.stages["quantized"].bpb + 0.05


def test_far_over_budget_after_training_loses_nothing(nano_run: Run, tmp_path: Path) -> None:
    recipe = resolve("nano", ["budget.bytes=1000", "train.iterations=2"])
    with pytest.raises(BudgetError):
        whole_line(recipe, tmp_path / "n", data=nano_run.data)
    assert score(tmp_path / "n" / "float.upar", nano_run.dataset.validation(), "plain")


def test_a_run_on_a_full_disk_goes_on_when_there_is_room(nano_run: Run, tmp_path: Path) -> None:
    run = nano_run.copy(tmp_path / "n")
    for name in ("record.json", "model.upar", "float.upar"):
        run[name].unlink()
    before = contents(run.out)
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, largest=10_000)  # room for recipe.json, not for the weights
        with pytest.raises(MachineError, match=r"float\.upar: got No space left on device"):
            whole_line(resolve("nano"), run.out, data=run.data, resume=True)
    assert contents(run.out) == before
    record = whole_line(resolve("nano"), run.out, data=run.data, resume=True)
    assert numbers(record) == numbers(nano_run.record)
