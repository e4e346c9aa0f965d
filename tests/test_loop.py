"""The training loop: budget, latches, averages, resume, kill, two processes."""

import itertools
import json
import math
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import children, training
from tests.commands import slow
from tests.training import run, spec
from underpar import progress
from underpar.bits import Score
from underpar.errors import RecipeError, TrainingError
from underpar.model.layers import Linear
from underpar.train import checkpoint as files
from underpar.train import prune, schedule
from underpar.train.averaging import EMA


@pytest.fixture
def shard(tmp_path):
    return training.make_shard(tmp_path)


@pytest.fixture
def log(tmp_path):
    """The lines logged so far, read when called."""
    with progress.use(progress.Progress(tmp_path / "log", quiet=True)):
        yield lambda: (tmp_path / "log" / "log.txt").read_text()


def coarse(weight: Tensor) -> Tensor:
    """A fake quantization coarse enough to see: straight-through rounding to eighths."""
    return weight + ((weight * 8).round() / 8 - weight).detach()


def install_coarse(model):
    for module in model.modules():
        if isinstance(module, Linear):
            module.weight_hook = coarse


@pytest.fixture(autouse=True)
def _one_thread():
    """As the child processes run: the number of threads changes the order of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def child(folder: Path, job: dict, code: int = 0) -> None:
    """``tests.training`` with this job in a process of its own."""
    children.end(children.call(training.main, [str(folder), json.dumps(job)]), code=code)


def outcome(folder: Path, name: str, rank: int = 0) -> dict:
    return json.loads((folder / f"{name}.{rank}.json").read_text())


def test_it_learns_and_says_how(shard, log):
    trained = run(shard, spec(iterations=60, warmdown_iters=20))
    result = trained.result
    assert (result.steps, result.stop_reason) == (60, "iterations")
    assert result.tokens == 60 * 8 * training.T
    assert (result.dtype, result.compiled) == ("float32", False)
    assert len(result.losses) == 60
    assert abs(result.losses[0] - math.log(training.V)) < 0.1
    assert sum(result.losses[-5:]) / 5 < 2.0
    assert not trained.model.training
    assert "step:1/60 train_loss:" in log()
    assert "step:11/60" not in log()


def test_the_clock_stops_it_and_sets_the_rate(shard, log):
    seen = []
    budget = spec(seconds=0.6, reserve_seconds=0.1, iterations=10**6, warmdown_iters=0,
                  warmdown_frac=0.5)  # fmt: skip
    result = run(shard, budget, on_step=seen.append).result
    assert result.stop_reason == "seconds"
    assert 0.5 <= result.seconds < 1.5
    assert seen[-1].multiplier < 0.2
    assert seen[0].multiplier == 1.0
    for before, after in itertools.pairwise(seen):  # the rate of a step follows the clock before it
        assert after.multiplier == schedule.multiplier(budget, before.step, before.elapsed)
    assert "stopping_early: wallclock_cap" in log()


def test_validation_is_off_the_clock_and_in_eval_mode(shard, log):
    calls = []

    def validate(model):
        calls.append(model.training)
        time.sleep(0.2)
        return Score(nats=10.0, tokens=5, bytes=7, coverage=1.0 if len(calls) % 2 else 0.5)

    result = run(shard, spec(iterations=4, val_every=2), validate=validate).result
    assert calls == [False] * 4  # before step 1, after 2, after 4, and the final weights
    assert result.seconds < 0.6
    assert "val_loss:2.0000 val_bpb:" in log()
    assert "PARTIAL" in log()


@pytest.mark.parametrize("model", [slow("plain"), "looped"])
def test_warmup_leaves_no_trace(model, shard):
    plain = run(shard, spec(qat_below=0.5), model, qat=install_coarse)
    warmed = run(shard, spec(qat_below=0.5, warmup_steps=3), model, qat=install_coarse)
    assert warmed.result.losses == plain.result.losses
    assert warmed.digest == plain.digest


def test_loops_are_switched_on_once(shard, log):
    states = []
    gpt = training.GPT(training.LOOPED, seed=7)
    training.train(
        gpt,
        spec(loop_at=0.5),
        training.loader_factory(shard),
        seed=7,
        on_step=lambda info: states.append(gpt.looping),
    )
    assert states == [False] * 6 + [True] * 6
    assert log().count("layer_loop:enabled step:6 frac:0.500") == 1
    without = run(shard, spec(loop_at=1.0), "looped").result.losses
    looped = run(shard, spec(loop_at=0.5), "looped").result.losses
    assert without[:6] == looped[:6]
    assert without[6] != looped[6]


def test_late_qat_starts_one_step_after_its_latch(shard):
    """Multipliers 1 x 6, 6/6, 5/6, ... 1/6: below 0.5 first in step 11, so step 12 is quantized."""
    without = run(shard, spec()).result.losses
    trained = run(shard, spec(qat_below=0.5), qat=install_coarse)
    assert trained.result.losses[:11] == without[:11]
    assert trained.result.losses[11] != without[11]
    assert all(m.weight_hook is None for m in trained.model.modules() if isinstance(m, Linear))
    never = run(shard, spec(qat_below=0.0), qat=install_coarse)
    assert never.result.losses == without


def test_the_average_replaces_the_weights(shard):
    gpt = training.GPT(training.PLAIN, seed=7)
    twin = EMA(gpt, decay=0.9)
    training.train(
        gpt,
        spec(average="ema", ema_decay=0.9),
        training.loader_factory(shard),
        seed=7,
        on_step=lambda info: twin.update(gpt, info.step, info.multiplier),
    )
    other = training.GPT(training.PLAIN, seed=7)
    twin.apply(other)
    assert all(torch.equal(a, b) for a, b in zip(gpt.parameters(), other.parameters()))


def test_pruning_comes_last(shard, monkeypatch):
    monkeypatch.setattr(prune, "SMALL", 300)
    trained = run(shard, spec(average="swa", swa_start=0.9, swa_every=2, prune=0.25))
    weight = trained.model.cores[0].mlp.fc.weight
    assert (weight == 0).float().mean() == pytest.approx(0.25, abs=0.01)


def test_a_batch_that_does_not_divide_is_a_clear_error(shard):
    with pytest.raises(RecipeError, match=r"multiple of 1 ranks x train\.micro_tokens = 64"):
        run(shard, spec(batch_tokens=5 * training.T))


def test_non_finite_stops_and_keeps_the_last_good_checkpoint(shard, tmp_path):
    gpt = training.GPT(training.PLAIN, seed=7)
    folder = tmp_path / "c"

    def poison(info):
        if info.step == 5:  # after step 5's update, before its checkpoint would be written
            gpt.skip_weights.data[0, 0] = float("nan")

    def go(**changes):
        training.train(
            gpt, spec(**changes), training.loader_factory(shard), seed=7,
            checkpoint=folder, on_step=poison,
        )  # fmt: skip

    with pytest.raises(TrainingError, match="weights are not finite after step 5: got skip_weig"):
        go(checkpoint_seconds=1e-9)
    path = files.newest(folder)
    assert path.name == "step_000000004.npz"
    assert all(t.isfinite().all() for t in files.load(path)[0].values())
    gpt = training.GPT(training.PLAIN, seed=7)
    with pytest.raises(TrainingError, match="training loss at step 6: got nan"):
        go()


FEATURES = {
    "plain": ("plain", {}),
    "ema": ("plain", {"average": "ema"}),
    "swa, qat": ("plain", {"average": "swa", "swa_start": 0.9, "swa_every": 2, "qat_below": 0.7}),
    "loops": ("looped", {"loop_at": 0.3, "dtype": "bfloat16", "muon_row_norm": True}),
}


@pytest.mark.parametrize("name", [slow("plain"), slow("ema"), "swa, qat", "loops"])
def test_interrupted_and_resumed_is_uninterrupted(name, shard, tmp_path):
    """SIGTERM in step 5 and SIGINT in step 10: three parts, the same bits as one.

    The signals come after step 4 and 9, so it is the next step that is finished.
    """
    model, changes = FEATURES[name]
    kind = "shuffled" if model == "looped" else "sequential"

    def part(folder, resume, stop_at, number=signal.SIGTERM):
        def on_step(info):
            if info.step + 1 == stop_at:
                signal.raise_signal(number)

        return run(
            shard, spec(**changes), model, kind=kind, qat=install_coarse,
            checkpoint=folder, resume=resume, on_step=on_step,
        )  # fmt: skip

    whole = part(None, False, None)
    folder = tmp_path / "c"
    first = part(folder, True, 5)  # nothing to resume from: starts
    assert (first.result.stop_reason, first.result.steps) == ("interrupted", 5)
    second = part(folder, True, 10, signal.SIGINT)
    assert (second.result.stop_reason, second.result.steps) == ("interrupted", 10)
    third = part(folder, True, None)
    assert third.result.stop_reason == "iterations"
    assert third.result.losses == whole.result.losses
    assert third.digest == whole.digest
    assert third.result.seconds > second.result.seconds > first.result.seconds
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_killed_and_resumed_is_uninterrupted(shard, tmp_path):
    train = {"checkpoint_seconds": 1e-9, "average": "ema"}
    job = {"out": "part", "train": train, "model": "looped", "checkpoint": "c", "kill_at": 7}
    child(tmp_path, job, code=-signal.SIGKILL)
    assert files.newest(tmp_path / "c").name == "step_000000006.npz"
    resumed = run(shard, spec(**train), "looped", checkpoint=tmp_path / "c", resume=True)
    assert resumed.report == run(shard, spec(**train), "looped").report


def test_a_finished_training_is_given_back(shard, tmp_path, log):
    first = run(shard, spec(average="ema", loop_at=0.2), "looped", checkpoint=tmp_path / "c")
    again = run(
        shard, spec(average="ema", loop_at=0.2), "looped", checkpoint=tmp_path / "c", resume=True
    )
    assert again.digest == first.digest
    assert again.result.losses == first.result.losses
    assert again.result.stop_reason == "iterations"
    assert again.model.looping
    assert not again.model.training
    assert "training was finished at step 12" in log()


def test_another_runs_checkpoint_is_refused(shard, tmp_path):
    run(shard, spec(), checkpoint=tmp_path / "c")
    with pytest.raises(TrainingError, match=r"another run: train.matrix_lr: got 0.02, wanted 0.5"):
        run(shard, spec(matrix_lr=0.5), checkpoint=tmp_path / "c", resume=True)
    run(shard, spec(log_every=7), checkpoint=tmp_path / "c", resume=True)  # does not touch weights
    run(shard, spec(matrix_lr=0.5), checkpoint=tmp_path / "c")  # not resumed: started over


def test_a_damaged_checkpoint_is_said_and_the_older_one_works(shard, tmp_path):
    def part(stop_at, resume):
        def on_step(info):
            if info.step + 1 == stop_at:
                signal.raise_signal(signal.SIGTERM)

        return run(
            shard, spec(checkpoint_seconds=1e-9), checkpoint=tmp_path / "c",
            resume=resume, on_step=on_step,
        )  # fmt: skip

    part(6, False)
    last = files.newest(tmp_path / "c")
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"step_000000006.npz is damaged.*from step_000000005"):
        part(None, True)
    last.unlink()
    assert part(None, True).digest == run(shard, spec()).digest


def test_two_processes_equal_one(shard, tmp_path):
    trains = {d: {"iterations": 20, "dtype": d, "average": "ema"} for d in ("float32", "bfloat16")}
    jobs = ({"out": d, "train": t} for d, t in trains.items())
    children.ranks(training.main, [str(tmp_path), *map(json.dumps, jobs)])
    for dtype, train in trains.items():
        want = run(shard, spec(**train)).result.losses
        got = outcome(tmp_path, dtype)
        assert got == outcome(tmp_path, dtype, rank=1)
        assert len(got["losses"]) == 20
        assert all(abs(a - b) <= 1e-6 * abs(b) for a, b in zip(got["losses"], want)), dtype


@pytest.mark.slow
def test_compiled_killed_and_resumed_is_uninterrupted(shard, tmp_path):
    train = {"checkpoint_seconds": 1e-9, "compile": "on", "loop_at": 0.3}
    job = {"train": train, "model": "looped", "checkpoint": "c"}
    child(tmp_path, {**job, "out": "whole", "checkpoint": ""})
    child(tmp_path, {**job, "out": "part", "kill_at": 7}, code=-signal.SIGKILL)
    child(tmp_path, {**job, "out": "part", "resume": True})
    assert outcome(tmp_path, "part") == outcome(tmp_path, "whole")
