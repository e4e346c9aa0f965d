"""Groups by role, and one step of each group against torch's own optimizers."""

import dataclasses

import pytest
import torch
from torch import nn

from underpar.model import GPT, Role, loss, role_of
from underpar.recipe.schema import ModelSpec, TrainSpec
from underpar.train.muon import Muon
from underpar.train.optimizers import Optimizers, group_of, grouped

MODEL = ModelSpec(
    vocab_size=32,
    seq_len=8,
    n_layer=2,
    d_model=16,
    n_head=2,
    n_kv_head=1,
    d_ff=24,
    bigram_buckets=16,
    bigram_dim=8,
    smear=True,
    skip_gates=True,
    tied=False,
)
TRAIN = TrainSpec(
    token_lr=0.05,
    head_lr=0.01,
    matrix_lr=0.03,
    scalar_lr=0.02,
    token_wd=0.1,
    matrix_wd=0.2,
    scalar_wd=0.3,
)


def model_with_gradients(spec: ModelSpec = MODEL) -> GPT:
    model = GPT(spec, seed=1)
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    put_gradients(model, 3)
    return model


def put_gradients(model: GPT, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=g).to(p.dtype)


def test_every_parameter_is_in_the_group_of_its_role():
    model = model_with_gradients()
    groups = grouped(model)
    paths = [path for group in groups.values() for path in group]
    assert sorted(paths) == sorted(dict(model.named_parameters()))
    assert len(set(paths)) == len(paths)
    assert set(groups["token"]) == {"tok_emb.weight", "bigram.embed.weight"}
    assert set(groups["head"]) == {"lm_head.weight"}
    assert "bigram.proj.weight" in groups["muon"]
    assert all(p.dim() == 2 for p in groups["muon"].values())
    assert {group_of(role) for role in Role} == set(groups)
    scalar = {role_of(model)[path] for path in groups["scalar"]}
    assert scalar == {Role.GAIN, Role.SCALE, Role.MIX, Role.SKIP, Role.GATE}


def test_an_undeclared_parameter_is_refused():
    model = model_with_gradients()
    model.extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(TypeError, match="extra"):
        Optimizers(model, TRAIN)


def test_each_group_steps_as_its_own_optimizer():
    ours, theirs = model_with_gradients(), model_with_gradients()
    optimizers = Optimizers(ours, TRAIN)
    groups = grouped(theirs)
    plain = {
        name: torch.optim.AdamW(
            list(groups[name].values()),
            lr=0.5 * lr,
            betas=(0.9, 0.95),
            eps=1e-8,
            weight_decay=wd,
            foreach=False,
        )
        for name, lr, wd in (("token", 0.05, 0.1), ("head", 0.01, 0.0), ("scalar", 0.02, 0.3))
    }
    muon = Muon(groups["muon"], lr=0.03, weight_decay=0.2)
    for step in range(3):
        for model in (ours, theirs):
            put_gradients(model, step)
        optimizers.step(0.5, 0.9)
        muon.step(0.5, 0.9)
        for optimizer in plain.values():
            optimizer.step()
    for (path, a), b in zip(ours.named_parameters(), theirs.parameters()):
        assert torch.allclose(a, b, atol=1e-6), path
    optimizers.zero_grad()
    assert all(p.grad is None for p in ours.parameters())


def test_zero_multiplier_moves_nothing():
    model = model_with_gradients()
    before = [p.detach().clone() for p in model.parameters()]
    Optimizers(model, TRAIN).step(0.0, 0.9)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("tables", ["float32", "bfloat16"])
def test_state_continues_bit_for_bit(steps, tables):
    spec = dataclasses.replace(MODEL, table_dtype=tables)
    a = model_with_gradients(spec)
    first = Optimizers(a, TRAIN)
    for step in range(steps):
        put_gradients(a, step)
        first.step(1.0, 0.9)
    state = {k: t.clone() for k, t in first.saved().items()}
    assert all(t.isfinite().all() for t in state.values())
    b = model_with_gradients(spec)
    with torch.no_grad():
        for x, y in zip(a.parameters(), b.parameters()):
            y.copy_(x)
    second = Optimizers(b, TRAIN)
    second.restore(state)
    for model, optimizers in ((a, first), (b, second)):
        put_gradients(model, 9)
        optimizers.step(0.7, 0.95)
    for (path, x), y in zip(a.named_parameters(), b.parameters()):
        assert torch.equal(x, y), path


def test_a_model_learns():
    model = GPT(dataclasses.replace(MODEL, tied=True), seed=1)
    optimizers = Optimizers(model, TrainSpec())
    ids = torch.randint(0, 32, (4, 9), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(30):
        value = loss(model, ids[:, :-1], ids[:, 1:])
        value.backward()
        optimizers.step(0.3, 0.9)
        optimizers.zero_grad()
        losses.append(value.item())
    assert losses[-1] < 0.5 * losses[0]
