"""EMA and SWA against their definitions in float64."""

import pytest
import torch
from torch import nn

from underpar.recipe.schema import TrainSpec
from underpar.train.averaging import EMA, SWA, make_average


class Two(nn.Module):
    """A float32 and a bfloat16 parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))
        self.table = nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16))

    def draw(self, seed: int) -> torch.Tensor:
        """New weights; returns what the parameters then hold, in float64."""
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=g))
        return self.vector()

    def vector(self) -> torch.Tensor:
        return torch.cat([p.detach().double().flatten() for p in self.parameters()])


def averaged(average, model) -> torch.Tensor:
    """What ``apply`` writes, before bfloat16 rounds it: read from the float32 part."""
    average.apply(model)
    return model.w.detach().double()


@pytest.mark.parametrize("debias", [False, True])
def test_ema_is_the_weighted_mean(debias):
    model, decay = Two(), 0.9
    seen = [model.draw(0)]
    average = EMA(model, decay=decay, debias=debias)
    for step in range(1, 8):
        seen.append(model.draw(step))
        average.update(model, step, 1.0)
    weights = [0.1 * decay ** (7 - t) for t in range(1, 8)]
    want = sum(w * x for w, x in zip(weights, seen[1:]))
    want = want / sum(weights) if debias else want + decay**7 * seen[0]
    average.apply(model)
    assert torch.allclose(model.w.detach().double(), want[:3], atol=1e-6)
    assert model.table.dtype == torch.bfloat16
    assert torch.equal(model.table.detach().flatten(), want[3:].bfloat16())


def test_debiased_ema_of_a_constant_is_that_constant():
    model = Two()
    model.draw(1)
    average = EMA(model, decay=0.997)
    for step in range(3):
        average.update(model, step, 1.0)
    before = model.vector()
    average.apply(model)
    assert torch.allclose(model.vector(), before, rtol=1e-5)


def test_swa_is_the_plain_mean_of_snapshots():
    model = Two()
    average = SWA(model, start=0.5, every=2)
    kept = []
    for step in range(1, 9):
        x = model.draw(step)
        multiplier = 1 - (step - 1) / 8
        average.update(model, step, multiplier)
        if multiplier < 0.5 and step % 2 == 0:
            kept.append(x)
    assert len(kept) == average.count == 2
    average.apply(model)
    assert torch.allclose(model.w.detach().double(), torch.stack(kept).mean(0)[:3], atol=1e-6)


@pytest.mark.parametrize("snapshots", [0, 1])
def test_swa_needs_two_snapshots(snapshots):
    model = Two()
    average = SWA(model, start=2.0, every=1)
    for step in range(snapshots):
        model.draw(step)
        average.update(model, step + 1, 1.0)
    last = model.draw(9)
    average.apply(model)
    assert torch.equal(model.vector(), last)


def test_sums_are_float32_whatever_the_weights_are():
    """256 + 1/256 is lost in bfloat16 sums after the first snapshot; float32 keeps it."""
    model = Two()
    average = SWA(model, start=2.0, every=1)
    for step in range(256):
        with torch.no_grad():
            model.table.fill_(256.0 if step == 0 else 1.0)
        average.update(model, step + 1, 1.0)
    assert average.tensors[1].unique().tolist() == [511.0]


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_state_continues_bit_for_bit(kind):
    spec = TrainSpec(average=kind, swa_start=2.0, swa_every=1)
    model = Two()
    straight = make_average(spec, model)
    broken = make_average(spec, model)
    for step in range(1, 7):
        model.draw(step)
        straight.update(model, step, 1.0)
        broken.update(model, step, 1.0)
        if step == 3:
            state = {k: t.clone() for k, t in broken.saved().items()}
            broken = make_average(spec, model)
            broken.restore(state)
    assert torch.equal(averaged(straight, model), averaged(broken, model))


def test_none_is_none():
    assert make_average(TrainSpec(average="none"), Two()) is None
