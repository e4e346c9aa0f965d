"""Grids: ranges, the rows that broke the published code, and the straight-through gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.grid.grid import (
    FLOAT16_TINY,
    Grid,
    dequantize,
    fake_quantize,
    quantize,
    row_scales,
    scale_max,
    scale_search,
    scale_std,
)


def rows(seed: int, n: int = 12, width: int = 40) -> torch.Tensor:
    """Rows whose sizes span nine decades, with a zero row."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(n, width, generator=generator) * torch.logspace(-6, 3, n)[:, None]
    w[3] = 0.0
    return w


def test_code_ranges() -> None:
    assert (Grid(6).low, Grid(6).high, Grid(6).clip) == (-32, 31, 31)
    assert (Grid(6, symmetric=True).low, Grid(6, symmetric=True).high) == (-31, 31)
    assert (Grid(8).low, Grid(8).high) == (-128, 127)
    assert (Grid(2, symmetric=True).low, Grid(2, symmetric=True).high) == (-1, 1)


@pytest.mark.parametrize("clip", ["max", "search", "std"])
@given(seed=st.integers(0, 999), bits=st.integers(2, 8), symmetric=st.booleans())
@settings(max_examples=20, deadline=None)
def test_every_row_gets_a_storable_step_and_codes_in_range(
    clip: str, seed: int, bits: int, symmetric: bool
) -> None:
    w, grid = rows(seed), Grid(bits, symmetric)
    scale = row_scales(w, grid, clip, k=12.85)
    assert torch.equal(scale.half().float(), scale)
    assert (scale >= FLOAT16_TINY).all()
    codes = quantize(w, scale, grid)
    assert codes.min() >= grid.low
    assert codes.max() <= grid.high
    assert codes[3].eq(0).all()


@given(seed=st.integers(0, 999), bits=st.integers(2, 8))
@settings(max_examples=20, deadline=None)
def test_max_steps_are_off_by_half_a_step_at_most(seed: int, bits: int) -> None:
    w, grid = rows(seed), Grid(bits)
    scale = scale_max(w, grid)
    error = (dequantize(quantize(w, scale, grid), scale) - w).abs()
    # Rounding the step to float16 moves the largest code by up to clip * 2^-11 steps.
    assert (error <= scale[:, None] * (0.5 + grid.clip * 2**-11)).all()


def test_half_rounds_to_even() -> None:
    w = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5]])
    assert quantize(w, torch.ones(1), Grid(6)).tolist() == [[0, 2, 2, 0, -2]]


def test_search_is_never_worse_than_max_and_clips_outliers() -> None:
    w, grid = rows(1, width=100), Grid(5)
    w[5, 0] = 20 * w[5].abs().max()

    def error(scale: torch.Tensor) -> torch.Tensor:
        return (dequantize(quantize(w, scale, grid), scale) - w).square().sum(dim=1)

    search, largest = scale_search(w, grid), scale_max(w, grid)
    assert (error(search) <= error(largest)).all()
    assert (search <= largest).all()


def test_std_steps_follow_the_unbiased_deviation() -> None:
    w = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    expected = (12.85 * (5 / 3) ** 0.5 / 31, 1e-3)
    assert scale_std(w, Grid(6, True), 12.85).item() == pytest.approx(expected[0], rel=expected[1])


def test_fake_quantize_is_the_exported_value_with_the_gradient_of_the_identity() -> None:
    w = rows(2).requires_grad_()
    grid = Grid(6)
    scale = scale_max(w.detach(), grid)
    fake = fake_quantize(w, scale, grid)
    assert torch.equal(fake, dequantize(quantize(w.detach(), scale, grid), scale))
    upstream = torch.randn(w.shape, generator=torch.Generator().manual_seed(0))
    fake.backward(upstream)
    assert torch.equal(w.grad, upstream)


def test_published_training_grid_is_coarse_where_the_export_grid_is_not() -> None:
    w, grid = 0.01 * torch.linspace(-1, 1, 50)[None], Grid(6)
    assert scale_max(w, grid, floor=1 / 31).item() == pytest.approx(1 / 31)
    assert quantize(w, scale_max(w, grid, floor=1 / 31), grid).eq(0).all()
    assert quantize(w, scale_max(w, grid), grid).unique().numel() > 45
