"""train, score, pack, demo as a person types them; interrupted, killed, on two processes."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests import children
from tests.children import wait_until
from tests.coding import decompressed
from tests.commands import Run, metrics, on_two, start, torchrun, underpar
from underpar import rerun
from underpar.codec import prove as proof
from underpar.codec.prove import Proof, prove
from underpar.codec.text import Options
from underpar.data.validation import ValidationSet
from underpar.recipe.presets import PRESETS, nano
from underpar.report.record import Record
from underpar.score.file import score
from underpar.stages import STAGES

#: a training of two seconds or so, with checkpoints several times a second
LONGER = ("--set", "train.iterations=100", "--set", "train.checkpoint_seconds=0.1")


@pytest.fixture(scope="module")
def longer_run(nano_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A longer training that nobody interrupted."""
    out = tmp_path_factory.mktemp("longer") / "n"
    done = underpar("train", "nano", "--data", nano_run.data, "--out", out, *LONGER)
    assert done.code == 0, done.err
    return Run(out, nano_run.data)


def same_outcome(run: Run, other: Run) -> bool:
    """Same files to the last byte, same scores to the last bit."""
    files = all(run[n].read_bytes() == other[n].read_bytes() for n in ("float.upar", "model.upar"))
    mine, theirs = (
        {stage: result.nats for stage, result in r.record.stages.items()} for r in (run, other)
    )
    return files and len(mine) == 4 and mine == theirs


# --- one command, one run folder --------------------------------------------------------------


def test_train_shows_its_table_and_moves_an_earlier_run_aside(
    nano_run: Run, tmp_path: Path
) -> None:
    run = nano_run.copy(tmp_path / "n")
    settings = ("--set", "train.iterations=2", "--set", "score.ttt=false", "--seed", 5)
    done = underpar("train", "nano", "--data", run.data, "--out", run.out, *settings)
    assert done.code == 0, done.err
    kept = tmp_path / "n-1"
    assert f"the earlier run in {run.out} is now {kept}\n" in done.err
    assert same_outcome(Run(kept, run.data), nano_run)
    assert run.record.seed == 5
    table = done.err.partition("before quantization")[2]
    assert list(run.record.stages) == ["float", "quantized", "sliding"]
    for result in run.record.stages.values():
        assert f" {result.bpb:.5f} " in table
    assert done.err.endswith(run["log.txt"].read_text()[-200:])


def test_resume_after_the_end_does_nothing_and_shows_the_table(
    nano_run: Run, tmp_path: Path
) -> None:
    run = nano_run.copy(tmp_path / "n")
    done = underpar("train", "nano", "--data", run.data, "--out", run.out, "--resume")
    assert done.code == 0, done.err
    assert "training was finished at step 30" in done.err
    assert "before quantization" in done.err
    assert run.record == nano_run.record
    assert not (tmp_path / "n-1").exists()


def test_score_says_what_it_found(nano_run: Run, tmp_path: Path) -> None:
    record = nano_run["record.json"].read_bytes()
    (tmp_path / "alone.upar").write_bytes(nano_run["model.upar"].read_bytes())
    sliding = nano_run.record.stages["sliding"]
    answer = tmp_path / "score.json"
    done = underpar("score", tmp_path / "alone.upar", "--data", nano_run.data, "--json", answer)
    assert done.code == 0, done.err
    assert f"sliding: {sliding.bpb:.5f} bpb  ({sliding.nats:.3f} nats, " in done.err
    assert f"{sliding.tokens:,} tokens, {sliding.bytes:,} bytes, coverage 1, " in done.err
    saved = json.loads(answer.read_text())
    assert (saved["stage"], saved["nats"], saved["coverage"]) == ("sliding", sliding.nats, 1.0)
    changed = ("--stage", "ttt", "--set", "score.ttt_lr=0.0", "--json", answer)
    done = underpar("score", nano_run["model.upar"], "--data", nano_run.data, *changed)
    assert json.loads(answer.read_text())["nats"] == pytest.approx(sliding.nats, rel=1e-6)
    assert nano_run["record.json"].read_bytes() == record
    refused = underpar(
        "score", nano_run["model.upar"], "--data", nano_run.data, "--set", "model.n_layer=2"
    )
    assert refused.failed_with("model.n_layer", "score.*")


def test_pack_counts_the_bytes(nano_run: Run, tmp_path: Path) -> None:
    run = nano_run.copy(tmp_path / "n")
    done = underpar("pack", run.out, "--data", run.data, "--set", "quant.matrix_bits=5")
    assert done.code == 0, done.err
    facts = run.record.artifact
    assert facts is not None
    for size in (facts.code_bytes, facts.total_bytes, facts.budget_bytes):
        assert f" {size:,} B " in done.err
    assert facts.file_bytes < nano_run["model.upar"].stat().st_size
    float_file = run["float.upar"].read_bytes()
    over = underpar("pack", run.out, "--data", run.data, "--set", "budget.bytes=1000")
    assert over.code == 1
    assert "underpar: code and artifact do not fit in the budget: got " in over.err
    assert "Traceback" not in over.err
    assert run["float.upar"].read_bytes() == float_file
    run["float.upar"].write_bytes(float_file[:-1])
    assert underpar("pack", run.out, "--data", run.data).failed_with("float.upar", "damaged")


def test_the_demo_ends_with_both_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(artifact: Path, validation: ValidationSet, _: Options) -> Proof:
        return prove(artifact, validation.beginning(500), Options(lanes=16))

    monkeypatch.setattr(rerun, "prove", short)
    monkeypatch.setattr(proof, "_decoded_elsewhere", decompressed)
    recipe = nano()
    small = replace(recipe, name="demo", train=replace(recipe.train, iterations=2))
    monkeypatch.setitem(PRESETS, "demo", lambda: small)
    out = tmp_path / "runs" / "demo"
    done = underpar("demo", "--out", out)
    assert done.code == 0, done.err
    record = Record.read(out / "record.json")
    assert len(record.stages) == 4
    for name in ("before quantization", "gzip", "xz", "zpaq", "Everything shipped", "decoded "):
        assert name in done.err
    run = Run(out, next((tmp_path / "runs" / "data").glob("generated-*"))).forget("ttt")
    again = underpar("demo", "--out", out)  # unfinished: it goes on by itself
    assert "training was finished at step 2" in again.err
    assert run.record.stages["ttt"].nats == record.stages["ttt"].nats
    assert not (tmp_path / "runs" / "demo-1").exists()


# --- stopped in the middle --------------------------------------------------------------------


def test_ctrl_c_keeps_a_checkpoint_and_resume_ends_as_if_nothing_had_been(
    nano_run: Run, longer_run: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path / "n", nano_run.data)
    command = ("train", "nano", "--data", run.data, "--out", run.out, *LONGER)
    process = start(*command)
    wait_until(lambda: len(metrics(run.out)) >= 5, process)
    process.send_signal(signal.SIGINT)
    stopped = children.end(process, code=130)
    assert "Traceback" not in stopped.err
    assert stopped.err.splitlines()[-1].startswith("nothing is lost")
    (*_, newest) = sorted(run["checkpoint"].iterdir())
    done_before = len(metrics(run.out))
    assert newest.name == f"step_{done_before:09d}.npz"
    assert done_before < 100
    assert not run["float.upar"].exists()
    done = underpar(*command, "--resume")
    assert done.code == 0, done.err
    assert [row["step"] for row in metrics(run.out)] == list(range(1, 101))
    assert same_outcome(run, longer_run)


@pytest.mark.slow  # test_loop.py kills a training on every change
def test_killed_and_resumed_ends_as_if_nothing_had_been(
    nano_run: Run, longer_run: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path / "n", nano_run.data)
    command = ("train", "nano", "--data", run.data, "--out", run.out, *LONGER)
    process = start(*command)
    wait_until(lambda: any(run["checkpoint"].glob("step_*.npz")), process)
    process.kill()
    children.end(process, code=-signal.SIGKILL)
    assert len(metrics(run.out)) < 100
    assert not run["record.json"].exists()
    done = underpar(*command, "--resume")
    assert done.code == 0, done.err
    assert "resum" in done.err
    assert same_outcome(run, longer_run)


# --- two processes ----------------------------------------------------------------------------


def test_two_processes_run_the_line_and_score_as_one(nano_run: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "n", nano_run.data)
    halves = ("--set", "train.micro_tokens=512")  # of a batch: one on each process, or two on one
    command = ("train", "nano", "--data", run.data, *halves, "--out")
    done = on_two(*command, run.out)
    assert underpar(*command, tmp_path / "alone").code == 0
    losses = ([row["loss"] for row in metrics(folder)] for folder in (run.out, tmp_path / "alone"))
    for of_two, of_one in zip(*losses, strict=True):
        assert of_two == pytest.approx(of_one, rel=1e-6)
    assert done.err.count("training in float32, eager, on cpu: 2 process(es)") == 1
    for stage, file, how, *_ in STAGES:
        two = run.record.stages[stage]
        one = score(run[file], run.dataset.validation(), how).score
        assert (two.tokens, two.bytes, two.coverage) == (one.tokens, one.bytes, 1.0)
        assert two.nats == pytest.approx(one.nats, rel=1e-4 if how == "ttt" else 1e-6)


@pytest.mark.slow
def test_score_on_two_processes(nano_run: Run, tmp_path: Path) -> None:
    for stage in ("plain", "sliding", "ttt"):
        found = []
        for i, how in enumerate((underpar, torchrun)):
            answer = tmp_path / f"{stage}-{i}.json"
            command = ("score", nano_run["model.upar"], "--data", nano_run.data)
            assert how(*command, "--stage", stage, "--json", answer).code == 0
            found.append(json.loads(answer.read_text()))
        one, two = found
        assert (one["tokens"], one["bytes"]) == (two["tokens"], two["bytes"])
        assert two["nats"] == pytest.approx(one["nats"], rel=1e-4 if stage == "ttt" else 1e-6)
