"""A run folder after its run: packed again, scored again, moved aside; what is kept."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from tests.commands import Run, byte_data, contents, counted, fill_disk, numbers
from underpar import rerun
from underpar.artifact.load import load
from underpar.bits import Score
from underpar.errors import BudgetError, MachineError, RecipeError
from underpar.recipe.load import resolve
from underpar.recipe.plain import digest
from underpar.stages import stage_of

repack = partial(rerun.repack, code_bytes=counted)


def test_unfinished(nano_run: Run, tmp_path: Path) -> None:
    recipe = resolve("nano")
    assert not rerun.unfinished(tmp_path / "nothing", recipe)
    run = nano_run.copy(tmp_path / "n")
    assert not rerun.unfinished(run.out, recipe)
    run.forget("ttt")
    assert rerun.unfinished(run.out, recipe)
    assert not rerun.unfinished(run.out, resolve("nano", seed=1))
    assert not rerun.unfinished(run.out, resolve("nano", ["train.iterations=31"]))
    run["record.json"].write_text("{")
    assert not rerun.unfinished(run.out, recipe)  # nothing to build on: start over
    run["record.json"].unlink()
    assert rerun.unfinished(run.out, recipe)


def test_move_aside(tmp_path: Path) -> None:
    out = tmp_path / "n"
    assert rerun.move_aside(out) is None
    out.mkdir()
    (out / "notes.txt").write_text("no run")
    assert rerun.move_aside(out) is None
    assert out.exists()
    for name in ("n-1", "n-2"):
        (out / "recipe.json").parent.mkdir(exist_ok=True)
        (out / "recipe.json").write_text(name)
        assert rerun.move_aside(out) == tmp_path / name
        assert not out.exists()
    assert [(tmp_path / n / "recipe.json").read_text() for n in ("n-1", "n-2")] == ["n-1", "n-2"]
    assert (tmp_path / "n-1" / "notes.txt").exists()


def test_repacked_with_other_bits(nano_run: Run, tmp_path: Path) -> None:
    run = nano_run.copy(tmp_path / "n")
    record = rerun.repack(
        run.out, code_bytes=counted, data=run.data, overrides=["quant.matrix_bits=4"]
    )
    assert record == run.record
    assert list(record.stages) == ["float"]  # the other scores were of another file
    assert record.train == nano_run.record.train
    recipe = resolve(str(run["recipe.json"]))
    assert recipe.quant.matrix_bits == 4
    assert record.recipe_digest == digest(recipe) == load(run["model.upar"]).header["recipe"]
    assert record.artifact is not None
    assert record.artifact.sha256 == load(run["model.upar"]).sha256
    assert run["model.upar"].stat().st_size < nano_run["model.upar"].stat().st_size
    again = rerun.repack(
        run.out, code_bytes=counted, data=run.data, overrides=["quant.matrix_bits=6"]
    )
    assert again.recipe_digest == nano_run.record.recipe_digest
    assert run["model.upar"].read_bytes() == nano_run["model.upar"].read_bytes()


def test_repacking_changes_nothing_but_quantization_and_budget(
    nano_run: Run, tmp_path: Path
) -> None:
    run = nano_run.copy(tmp_path / "n")
    before = contents(run.out)
    with pytest.raises(RecipeError, match=r"override of 'train.iterations': wanted quant"):
        repack(run.out, data=run.data, overrides=["train.iterations=31"])
    assert contents(run.out) == before


def test_a_new_score_goes_into_the_record_of_this_very_file(nano_run: Run, tmp_path: Path) -> None:
    stages = ("float", "quantized", "sliding", "ttt")
    run = nano_run.copy(tmp_path / "n").forget(*stages)
    for i, stage in enumerate(stages):
        file, how = stage_of(stage).file, stage_of(stage).how
        result = rerun.rescore(run[file], run.data, how, tokenizer=None)
        assert list(run.record.stages) == list(stages[: i + 1])
        assert run.record.stages[stage] == result.score
    assert numbers(run.record) == numbers(nano_run.record)


def test_a_score_of_something_else_stays_out_of_the_record(nano_run: Run, tmp_path: Path) -> None:
    run = nano_run.copy(tmp_path / "n").forget("sliding")
    before = run["record.json"].read_bytes()

    def rescore(file: str, data: Path, *overrides: str) -> Score:
        path = run[file]
        return rerun.rescore(path, data, "sliding", tokenizer=None, overrides=overrides).score

    other_settings = rescore("model.upar", run.data, "score.stride=64")
    assert other_settings.nats == run.record.stages["quantized"].nats  # that stride is plain
    rescore("float.upar", run.data)  # the float file has no stage with sliding windows
    rescore("model.upar", byte_data(tmp_path / "other", "Another text."))
    assert run["record.json"].read_bytes() == before
    mine = run["model.upar"].read_bytes()
    repack(run.out, data=run.data, overrides=["quant.matrix_bits=4"])
    run["record.json"].write_bytes(before)
    rescore("model.upar", run.data)  # the record is of the file before it was packed again
    assert run["record.json"].read_bytes() == before
    run["model.upar"].write_bytes(mine)
    rescore("model.upar", run.data)
    assert numbers(run.record) == numbers(nano_run.record)


def test_over_budget(nano_run: Run, tmp_path: Path) -> None:
    run = nano_run.copy(tmp_path / "n")
    before = contents(run.out)
    with pytest.raises(BudgetError) as caught:
        repack(run.out, data=run.data, overrides=["budget.bytes=1000"])
    facts = nano_run.record.artifact
    assert facts is not None
    table = str(caught.value)
    for part in ("code ", "codes ", "scales ", "float16 ", "header ", "budget ", "left "):
        assert f"\n{part}" in table
    total = int(re.search(r"got ([\d,]+) bytes", table)[1].replace(",", ""))  # type: ignore[index]
    assert f"{total - 1000:,} too many" in table
    assert total < facts.total_bytes  # the smallest that the steps can make it
    kept = {path: data for path, data in contents(run.out).items() if "model" not in path}
    assert kept.items() <= before.items()
    assert f"{run['float.upar']}" in kept


def test_a_full_disk_while_packing_loses_nothing(nano_run: Run, tmp_path: Path) -> None:
    run = nano_run.copy(tmp_path / "n")
    before = contents(run.out)
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, largest=0)
        with pytest.raises(MachineError, match=r"model\.upar: got No space left on device"):
            rerun.repack(
                run.out, code_bytes=counted, data=run.data, overrides=["quant.matrix_bits=4"]
            )
    assert contents(run.out) == before
