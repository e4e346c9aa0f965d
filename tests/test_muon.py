"""Muon: Newton-Schulz against a readable twin and the SVD, Muon against torch's own."""

import math

import pytest
import torch
from torch import nn

from underpar.train.muon import COEFFICIENTS, NORM_EPS, Muon, newton_schulz

SHAPES = [(8, 8), (24, 16), (16, 24), (5, 1)]


def one_matrix(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The twin: one matrix at a time, spelt out."""
    a, b, c = COEFFICIENTS
    x = x / (x.norm() + NORM_EPS)
    if x.shape[0] > x.shape[1]:
        return one_transposed(x.T.contiguous(), a, b, c, steps).T
    return one_transposed(x, a, b, c, steps)


def one_transposed(x: torch.Tensor, a: float, b: float, c: float, steps: int) -> torch.Tensor:
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, c * gram, gram, beta=b), x, beta=a)
    return x


def matrices(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [*SHAPES, (96, 64), (64, 160)])
def test_the_stack_is_bit_equal_to_the_loop(shape):
    x = matrices(4, *shape)
    want = torch.stack([one_matrix(m) for m in x])
    assert torch.equal(newton_schulz(x), want)
    assert torch.equal(newton_schulz(x[0]), want[0])


@pytest.mark.parametrize("shape", [(32, 32), (48, 32), (32, 80)])
def test_singular_vectors_stay_and_values_go_to_one(shape):
    x = matrices(1, *shape)[0].double()
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    y = newton_schulz(x, dtype=torch.float64)
    got = u.T @ y @ v.T  # the diagonal is p(s), all the rest zero
    assert torch.allclose(got, torch.diag(got.diagonal()), atol=1e-10)
    inside = s / s.norm() > 0.01  # the smallest need more rounds than five
    assert got.diagonal()[inside].min() > 0.6
    assert got.diagonal().max() < 1.25


def test_bfloat16_stays_near_and_zero_stays_zero():
    x = matrices(3, 64, 32)
    full, half = newton_schulz(x), newton_schulz(x, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).norm() / full.norm() < 0.05
    assert not newton_schulz(torch.zeros(2, 4, 6)).any()


def make(shapes: list[tuple[int, int]], seed: int = 1) -> dict[str, nn.Parameter]:
    return {f"m{i}": nn.Parameter(matrices(1, *s, seed=seed + i)[0]) for i, s in enumerate(shapes)}


def set_gradients(parameters: dict[str, nn.Parameter], step: int) -> None:
    for i, p in enumerate(parameters.values()):
        p.grad = matrices(1, *p.shape, seed=100 * step + i)[0]


def test_equals_torch_optim_muon():
    """torch's averages its momentum instead of summing: scaled, that is the same direction."""
    shapes = [(16, 16), (32, 16), (16, 16), (16, 40)]
    ours, theirs = make(shapes), make(shapes)
    muon = Muon(ours, lr=0.02, weight_decay=0.1, dtype=torch.bfloat16)
    oracle = torch.optim.Muon(
        list(theirs.values()),
        lr=0.02,
        weight_decay=0.1,
        momentum=0.9,
        nesterov=True,
        adjust_lr_fn="original",
    )
    for step in range(1, 4):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        before = {k: p.detach().clone() for k, p in ours.items()}
        muon.step(1.0, 0.9)
        oracle.step()
        for key, p in ours.items():
            update = (p - before[key]).norm()
            # bfloat16 rounds differently with another order of operations; 5% is its usual noise
            assert (p - theirs[key]).norm() < 0.05 * update * step


def plain_step(w, g, buf, *, lr, wd, mu, row_norm):
    """The update as the published description reads, one matrix at a time."""
    buf = mu * buf + g
    u = g + mu * buf
    if row_norm:
        u = u / u.norm(dim=1, keepdim=True).clamp_min(1e-7)
    u = one_matrix(u) * math.sqrt(max(1.0, w.shape[0] / w.shape[1]))
    return w * (1 - lr * wd) - lr * u, buf


@pytest.mark.parametrize("row_norm", [False, True])
def test_step_is_the_published_update(row_norm):
    shapes = [(16, 16), (24, 16), (16, 16), (16, 24), (24, 16)]
    parameters = make(shapes)
    weights = {k: p.detach().clone() for k, p in parameters.items()}
    buffers = {k: torch.zeros_like(p) for k, p in weights.items()}
    muon = Muon(parameters, lr=0.04, weight_decay=0.5, row_norm=row_norm)
    for step, (multiplier, mu) in enumerate([(1.0, 0.85), (0.5, 0.9), (0.25, 0.95)], 1):
        set_gradients(parameters, step)
        for key, p in parameters.items():
            weights[key], buffers[key] = plain_step(
                weights[key], p.grad, buffers[key],
                lr=0.04 * multiplier, wd=0.5, mu=mu, row_norm=row_norm,
            )  # fmt: skip
        gradients = {k: p.grad.clone() for k, p in parameters.items()}
        muon.step(multiplier, mu)
        for key, p in parameters.items():
            assert torch.allclose(p, weights[key], atol=1e-6, rtol=0)
            assert torch.equal(p.grad, gradients[key])  # a step only reads gradients
    state = muon.saved()
    assert set(state) == set(buffers)
    assert all(torch.allclose(state[k], b, atol=1e-6) for k, b in buffers.items())


def test_state_goes_over_to_another_muon():
    shapes = [(8, 8), (12, 8), (8, 8)]
    a, b = make(shapes), make(shapes)
    one, two = (Muon(p, lr=0.1, weight_decay=0.1) for p in (a, b))
    set_gradients(a, 1)
    one.step(1.0, 0.9)
    with torch.no_grad():
        for k in a:
            b[k].copy_(a[k])
    two.restore(one.saved())
    for p in (a, b):
        set_gradients(p, 2)
    one.step(1.0, 0.9)
    two.step(1.0, 0.9)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_no_matrices_is_no_work():
    muon = Muon({}, lr=0.1)
    muon.step(1.0, 0.9)
    assert muon.saved() == {}
