"""What is refused, what is noted: limits of the tracks, runs that are no one submission."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Run
from tests.submitting import CODE, Make, changed, edit, load, make, proof, three
from underpar.errors import BudgetError, DataError, LegalityError, UnderparError

__all__ = ["make", "three"]  # fixtures


def attempt(make: Make, runs: list[Run], **options: Any) -> UnderparError | None:
    try:
        make(runs, **options)
    except UnderparError as error:
        return error
    return None


# --- tracks -----------------------------------------------------------------------------------


def test_tracks_and_their_limits(three: list[Run], make: Make, tmp_path: Path) -> None:
    slow = edit(three[1], train__seconds=600.01)
    for track in ("10min_16mb", "non-record-16mb", "non-record-unlimited-compute-16mb"):
        done = attempt(make, three, track=track)
        assert (done is None) == (track != "10min_16mb"), done
        if done:
            assert isinstance(done, DataError)
            for part in ("seed42", "600.010 s of training", "600 s", "--track non-record-16mb"):
                assert part in str(done)
            continue
        assert load(tmp_path / "out")["track"] == track
        assert load(tmp_path / "out")["compliance"]["train_under_600s"] is False
        (tmp_path / "out").rename(tmp_path / track)
    edit(slow, train__stop_reason="seconds")  # the clock stopped it, after the step that crossed
    make(three, track="10min_16mb")
    assert "after the step that crossed 600 s" in (tmp_path / "out" / "README.md").read_text()


def test_evaluation_has_a_limit_too(three: list[Run], make: Make) -> None:
    edit(three[0], stages__ttt__seconds=600.5)
    done = attempt(make, three, track="10min_16mb")
    assert "600.500 s of evaluation" in str(done)
    assert attempt(make, three, track="record") is not None


def test_the_track_follows_the_hardware(three: list[Run], make: Make, tmp_path: Path) -> None:
    for run in three:
        edit(run, machine__gpu="8 x NVIDIA H100 80GB HBM3")
    assert load(make(three))["track"] == "10min_16mb"
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "SEED=42 RUN_ID=seed42 torchrun --standalone --nproc-per-node 8 train_gpt.py" in readme
    assert "| hardware" not in readme
    (tmp_path / "out").rename(tmp_path / "first")
    edit(three[0], machine__gpu="")
    make(three, track="10min_16mb")
    assert "| hardware" in (tmp_path / "out" / "README.md").read_text()


# --- refused ----------------------------------------------------------------------------------


def _another_file(run: Run) -> Run:
    run["model.upar"].write_bytes(run["model.upar"].read_bytes()[:-1])
    return run


def _without(run: Run, name: str) -> Run:
    run[name].unlink()
    return run


def _log(run: Run, text: str) -> Run:
    run["log.txt"].write_text(text)
    return run


def _proof_of_another_text(run: Run) -> Run:
    claim = {"nats": 6931.0, "tokens": 500, "bytes": 7, "coverage": 1.0}
    return edit(run, diagnostics={"proof": proof(run, claim=claim)})


REFUSED: dict[str, tuple[Callable[[Run], object], str]] = {
    "seed twice": (lambda run: changed(run, ("seed", 0)), "seed 0 a second time"),
    "recipe": (
        lambda run: changed(run, ("train.min_lr", 0.25)),
        "different recipes: train.min_lr 0.25 and 0.0",
    ),
    "data": (lambda run: edit(run, data__val_digest="f" * 64), "different data: val_digest"),
    "training data": (lambda run: edit(run, data__train_tokens=5), "train_tokens 5 and"),
    "missing stage": (lambda run: run.forget("sliding"), "wanted sliding as well"),
    "partial": (lambda run: edit(run, stages__ttt__coverage=0.5), "coverage 0.5"),
    "tokens": (lambda run: edit(run, stages__ttt__tokens=7), "7 tokens"),
    "no training": (lambda run: edit(run, train=None), "without training"),
    "digest": (lambda run: edit(run, recipe_digest="0" * 64), "not the one of its digest"),
    "seed": (lambda run: edit(run, seed=5), "not the one of its digest and seed"),
    "file": (_another_file, "another model.upar"),
    "no file": (lambda run: _without(run, "model.upar"), "no model.upar"),
    "no log": (lambda run: _without(run, "log.txt"), "no log.txt"),
    "no record": (lambda run: _without(run, "record.json"), "cannot read record"),
    "a longer log": (lambda run: _log(run, "step:31/30 train_loss:1.0"), "last step 31 of 30"),
    "a foreign log": (lambda run: _log(run, "step:1/99 train_loss:1.0"), "last step 1 of 99"),
    "an empty log": (lambda run: _log(run, ""), "last step none"),
    "damaged proof": (lambda run: edit(run, diagnostics={"proof": {"claim": 3}}), "damaged"),
    "a proof of another text": (_proof_of_another_text, "500 tokens, 7 bytes, wanted of the"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_runs_that_do_not_belong_together_are_refused(
    case: str, three: list[Run], make: Make, tmp_path: Path
) -> None:
    spoil, told = REFUSED[case]
    spoil(three[2])
    with pytest.raises(DataError) as caught:
        make(three)
    assert told in str(caught.value)
    assert "seed1234" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_over_the_cap(three: list[Run], make: Make, tmp_path: Path) -> None:
    facts = three[0].record.artifact
    assert facts is not None
    fits = 16_000_000 - len(CODE) + facts.code_bytes
    edit(three[0], artifact__total_bytes=fits)
    assert load(make(three))["bytes_total"] == 16_000_000
    (tmp_path / "out").rename(tmp_path / "runs" / "out")
    edit(three[0], artifact__total_bytes=fits + 1)
    with pytest.raises(BudgetError) as caught:
        make(three)
    for part in ("seed0", "16,000,001 bytes", "1 too many", "at most 16,000,000"):
        assert part in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_what_the_runs_counted_is_held_against_what_is_shipped(
    three: list[Run], make: Make, tmp_path: Path
) -> None:
    make(three)
    counted = three[0].record.artifact
    assert counted is not None
    first = (tmp_path / "out" / "README.md").read_text()
    note = rf"\| code +\| {counted.code_bytes:,} bytes as in the record +\| 340 bytes +\| note"
    assert re.search(note, first)
    for run in three:
        total = counted.total_bytes - counted.code_bytes + len(CODE)
        edit(run, artifact__code_bytes=len(CODE), artifact__total_bytes=total)
    (tmp_path / "out").rename(tmp_path / "first")
    make(three)
    again = (tmp_path / "out" / "README.md").read_text()
    assert re.search(r"\| code +\| 340 bytes as in the record +\| 340 bytes +\| passed", again)
    assert re.search(r"\| recipe's own budget +\| at most 39,500 +\| .* bytes +\| passed", again)


def test_wider_steps_than_the_recipe_says_are_told(
    three: list[Run], make: Make, tmp_path: Path
) -> None:
    edit(three[1], diagnostics={"step_factor": 1.3})
    make(three)
    note = r"\| the recipe's steps, .* \| .*1\.3 x with seed 42.* \| note"
    assert re.search(note, (tmp_path / "out" / "README.md").read_text())


def test_a_failed_proof_is_refused(three: list[Run], make: Make) -> None:
    edit(three[1], diagnostics={"proof": proof(three[1], text_same=False, holds=False)})
    with pytest.raises(LegalityError, match=r"seed42: got a proof that failed: .* another text"):
        make(three)


def test_no_run_is_no_submission(make: Make) -> None:
    with pytest.raises(DataError, match="no run"):
        make([])
