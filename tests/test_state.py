"""The state of a training as a whole: nothing missing, nothing foreign."""

import dataclasses

import pytest
import torch

from tests import training
from tests.training import PLAIN, spec
from underpar.errors import TrainingError
from underpar.model import GPT, loss
from underpar.train import checkpoint
from underpar.train.averaging import make_average
from underpar.train.counters import Counters
from underpar.train.loop import State
from underpar.train.optimizers import Optimizers
from underpar.train.state import identity_of, read, restore, save

TRAIN = spec(average="ema")


def state(shard, seed=1):
    model = GPT(PLAIN, seed=seed)
    loader = training.loader_factory(shard)()
    return State(model, Optimizers(model, TRAIN), make_average(TRAIN, model), loader, Counters())


def step(s):
    inputs, targets = s.loader.next_batch()
    value = loss(s.model, inputs, targets)
    value.backward()
    s.optimizers.step(1.0, 0.9)
    s.optimizers.zero_grad()
    s.counters.step += 1
    s.average.update(s.model, s.counters.step, 1.0)
    return value.item()


@pytest.fixture
def shard(tmp_path):
    return training.make_shard(tmp_path)


def test_restored_goes_on_as_the_original(shard, tmp_path):
    one, other = state(shard), state(shard, seed=99)
    identity = identity_of(one.model, TRAIN, 1)
    for _ in range(3):
        step(one)
    save(one, tmp_path / "c", identity)
    restore(other, read(tmp_path / "c", identity))
    assert other.counters == one.counters
    assert [step(one) for _ in range(3)] == [step(other) for _ in range(3)]
    for s in (one, other):
        s.average.apply(s.model)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters()))


def test_a_finished_state_is_weights_only(shard, tmp_path):
    s = state(shard)
    step(s)
    s.counters.stop_reason = "iterations"
    save(s, tmp_path / "c", {})
    tensors, meta = checkpoint.load(checkpoint.newest(tmp_path / "c"))
    assert {key.split("/")[0] for key in tensors} == {"model"}
    assert meta["counters"]["stop_reason"] == "iterations"


def test_identity_is_model_recipe_and_seed(shard, tmp_path):
    s = state(shard)
    identity = identity_of(s.model, TRAIN, 1)
    save(s, tmp_path / "c", identity)
    assert read(tmp_path / "none", identity) is None
    assert read(tmp_path / "c", identity) is not None
    free = dataclasses.replace(TRAIN, log_every=9, val_every=9, checkpoint_seconds=9.0)
    assert identity_of(s.model, free, 1) == identity
    wider = GPT(dataclasses.replace(PLAIN, d_ff=48), seed=1)
    for other, key in (
        (identity_of(s.model, TRAIN, 2), r"another run: seed: got 1, wanted 2"),
        (identity_of(s.model, dataclasses.replace(TRAIN, token_lr=0.5), 1), r"train\.token_lr"),
        (identity_of(wider, TRAIN, 1), r"model\.d_ff: got 32, wanted 48"),
    ):
        with pytest.raises(TrainingError, match=key):
            read(tmp_path / "c", other)


def test_non_finite_weights_are_not_saved(shard, tmp_path):
    s = state(shard)
    s.model.skip_weights.data[0, 0] = float("inf")
    with pytest.raises(TrainingError, match="skip_weights"):
        save(s, tmp_path / "c", {})
    assert checkpoint.newest(tmp_path / "c") is None
