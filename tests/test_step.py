"""A step is one step of the mean gradient; the clock stands still when told to."""

import time

import pytest
import torch

from tests import training
from tests.training import PLAIN, spec
from underpar.errors import RecipeError
from underpar.model import GPT, loss
from underpar.train.compute import eager_loss
from underpar.train.optimizers import Optimizers
from underpar.train.step import Stepper, TrainingClock, micro_steps


def test_micro_steps_divide_the_batch():
    assert micro_steps(spec(batch_tokens=1024, micro_tokens=128), 1) == 8
    assert micro_steps(spec(batch_tokens=1024, micro_tokens=128), 4) == 2
    with pytest.raises(RecipeError, match="3 ranks"):
        micro_steps(spec(batch_tokens=1024, micro_tokens=128), 3)


def test_accumulated_micro_steps_are_one_large_batch(tmp_path):
    shard = training.make_shard(tmp_path)
    train = spec(batch_tokens=16 * training.T, grad_clip=0.05)
    model, twin = GPT(PLAIN, seed=1), GPT(PLAIN, seed=1)
    stepper = Stepper(model, train, eager_loss(model), Optimizers(model, train))
    optimizers = Optimizers(twin, train)
    one, other = (training.loader_factory(shard)() for _ in range(2))
    for step in range(3):
        got = stepper(one, 0.5, 0.9)
        batches = [other.next_batch() for _ in range(4)]
        value = loss(twin, *(torch.cat(part) for part in zip(*batches)))
        value.backward()
        norm = sum(p.grad.square().sum() for p in twin.parameters()).sqrt()
        assert norm > 0.05  # else the clip is not tested
        for p in twin.parameters():
            p.grad.mul_(0.05 / norm)
        optimizers.step(0.5, 0.9)
        optimizers.zero_grad()
        assert got == pytest.approx(value.item(), rel=1e-5), step
    for (path, a), b in zip(model.named_parameters(), twin.parameters()):
        assert torch.allclose(a, b, atol=2e-4), path
    assert all(p.grad is None for p in model.parameters())


def test_the_clock_pauses_and_goes_on():
    clock = TrainingClock(100.0)
    assert 100.0 <= clock.elapsed < 100.1
    with clock.paused():
        time.sleep(0.15)
    assert clock.elapsed < 100.1
    time.sleep(0.02)
    assert clock.elapsed >= 100.02
