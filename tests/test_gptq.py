"""GPTQ against a readable float64 twin, plain rounding, and the properties that define it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from underpar import progress
from underpar.errors import TrainingError
from underpar.grid.grid import Grid, quantize, scale_std
from underpar.quant.gptq import gptq, inverse_factor

GRID = Grid(6, symmetric=True)


def problem(
    rows: int, columns: int, seed: int = 0, tokens: int = 400
) -> tuple[Tensor, Tensor, Tensor]:
    """A weight, the second moments of correlated inputs, and row steps."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5
    x = torch.randn(tokens, columns, generator=generator) @ mix
    weight = torch.randn(rows, columns, generator=generator)
    return weight, x.t() @ x, scale_std(weight, GRID, 12.85)


def twin(weight: Tensor, hessian: Tensor, scale: Tensor, grid: Grid, damp: float) -> Tensor:
    """The method as the paper tells it: a row and a column at a time, float64, new inverses."""
    h = hessian.double().clone()
    dead = h.diagonal() == 0
    h.diagonal()[dead] = 1.0
    h.diagonal().add_(damp * h.diagonal().mean())
    order = h.diagonal().argsort(descending=True).tolist()
    codes = torch.zeros(weight.shape, dtype=torch.int8)
    for row in range(len(weight)):
        w = weight[row].double().masked_fill(dead, 0.0)
        step = scale[row].double()
        free = list(order)
        while free:
            j = free[0]
            inverse = torch.linalg.inv(h[free][:, free])
            code = (w[j] / step).round().clamp(grid.low, grid.high)
            codes[row, j] = int(code)
            w[free] -= (w[j] - code * step) / inverse[0, 0] * inverse[0]
            free = free[1:]
    return codes


def cost(weight: Tensor, codes: Tensor, scale: Tensor, hessian: Tensor) -> float:
    error = (weight - codes * scale[:, None]).double()
    return torch.trace(error @ hessian.double() @ error.t()).item()


@pytest.mark.parametrize("block_size", [1, 7, 128])
def test_equals_the_readable_twin_for_any_block_size(block_size: int) -> None:
    weight, hessian, scale = problem(4, 24)
    hessian[5], hessian[:, 5] = 0.0, 0.0
    codes = gptq(weight, hessian, scale, GRID, 0.01, block_size)
    assert torch.equal(codes, twin(weight, hessian, scale, GRID, 0.01))


def test_identity_hessian_is_plain_rounding() -> None:
    weight, _, scale = problem(8, 50)
    codes = gptq(weight, torch.eye(50), scale, GRID, 0.01, 16)
    assert torch.equal(codes, quantize(weight, scale, GRID))


@pytest.mark.parametrize("seed", range(3))
def test_costs_less_than_plain_rounding(seed: int) -> None:
    weight, hessian, scale = problem(16, 96, seed)
    ours = cost(weight, gptq(weight, hessian, scale, GRID, 0.01, 32), scale, hessian)
    plain = cost(weight, quantize(weight, scale, GRID), scale, hessian)
    assert ours < 0.7 * plain


def test_the_unit_of_the_hessian_does_not_matter() -> None:
    weight, hessian, scale = problem(6, 40)
    assert torch.equal(
        gptq(weight, hessian, scale, GRID, 0.01, 16),
        gptq(weight, hessian / 64, scale, GRID, 0.01, 16),
    )


def test_dead_columns_and_zero_rows_get_code_zero() -> None:
    weight, hessian, _ = problem(6, 40)
    hessian[9], hessian[:, 9] = 0.0, 0.0
    weight[2] = 0.0
    codes = gptq(weight, hessian, scale_std(weight, GRID, 12.85), GRID, 0.01, 16)
    assert codes[:, 9].eq(0).all()
    assert codes[2].eq(0).all()
    assert codes.ne(0).any()


def test_inputs_are_left_alone() -> None:
    weight, hessian, scale = problem(4, 20)
    before = weight.clone(), hessian.clone(), scale.clone()
    gptq(weight, hessian, scale, GRID, 0.01, 8)
    assert all(torch.equal(a, b) for a, b in zip(before, (weight, hessian, scale)))


def test_factor_is_the_upper_cholesky_factor_of_the_inverse() -> None:
    _, hessian, _ = problem(1, 30)
    damped = hessian.double()
    damped.diagonal().add_(0.01 * damped.diagonal().mean())
    expected = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    torch.testing.assert_close(
        inverse_factor(hessian, 0.01).double(), expected, rtol=1e-3, atol=1e-5
    )


def test_fewer_tokens_than_columns_are_enough() -> None:
    weight, hessian, scale = problem(4, 60, tokens=10)
    codes = gptq(weight, hessian, scale, GRID, 0.01, 16)
    plain = quantize(weight, scale, GRID)
    assert cost(weight, codes, scale, hessian) < cost(weight, plain, scale, hessian)


def test_an_indefinite_hessian_is_damped_more_and_said_so(tmp_path) -> None:  # type: ignore[no-untyped-def]
    h = torch.diag(torch.cat([torch.ones(9), torch.tensor([-0.05])]))
    with progress.use(progress.Progress(tmp_path, quiet=True)):
        factor = inverse_factor(h, 0.01)
    assert torch.isfinite(factor).all()
    assert "not positive definite at damping 0.01" in (tmp_path / "log.txt").read_text()


def test_a_hopeless_hessian_is_a_clear_error() -> None:
    for h in (torch.full((3, 3), torch.nan), torch.diag(torch.tensor([1.0, 1.0, -100.0]))):
        with pytest.raises(TrainingError, match="Hessian that cannot be factored"):
            inverse_factor(h, 0.01)
