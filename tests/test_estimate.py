"""The Gaussian size model: against closed forms, simulated codes and published file sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from underpar.artifact.estimate import (
    ENTROPIES,
    OVERHEADS,
    code_entropy,
    describe,
    expected_bytes,
    expected_maximum,
    step_in_deviations,
)
from underpar.errors import RecipeError
from underpar.grid.grid import Grid
from underpar.quant.policy import Treatment
from underpar.recipe.load import resolve
from underpar.recipe.presets import PRESETS
from underpar.recipe.schema import QuantSpec

#: bytes of the published model file, and how far off the estimate may be
PUBLISHED = {
    "pr1413": (15_976_000, 0.01),
    "pr456": (15_913_211, 0.01),
    "naive_baseline": (15_815_847, 0.01),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_file_sizes(name: str) -> None:
    recipe = PRESETS[name]()
    actual, tolerance = PUBLISHED[name]
    assert expected_bytes(recipe.model, recipe.quant).total == pytest.approx(actual, rel=tolerance)


@pytest.mark.parametrize(("name", "n_params"), [("pr1413", 35_943_512), ("pr456", 25_517_137)])
def test_published_parameter_counts(name: str, n_params: int) -> None:
    recipe = PRESETS[name]()
    estimate = expected_bytes(recipe.model, recipe.quant)
    assert sum(estimate.parameters.values()) == n_params
    assert estimate.passthrough == {"pr1413": 2 * 29_784, "pr456": 2 * (655_360 + 23_633)}[name]


@pytest.mark.parametrize(
    ("grid", "step", "bits"),  # entropies of simulated rows, 31.7 and 4.2 million weights
    [
        (Grid(6, symmetric=True), 12.85 / 31, 3.3288),
        (Grid(5, symmetric=True), 12.85 / 15, 2.3140),
        (Grid(8, symmetric=True), 20 / 127, 4.7167),
    ],
)
def test_entropy_of_published_grids(grid: Grid, step: float, bits: float) -> None:
    assert code_entropy(grid, step) == pytest.approx(bits, abs=2e-3)


def test_entropy_of_fine_and_of_coarse_grids() -> None:
    fine = Grid(8, symmetric=True)
    assert code_entropy(fine, 0.05) == pytest.approx(math.log2(4.1327 / 0.05), abs=1e-3)
    assert code_entropy(fine, 100.0) == pytest.approx(0.0, abs=1e-9)
    sign = Grid(2, symmetric=True)  # codes -1, 0, 1: a tiny step leaves two equal tails
    assert code_entropy(sign, 1e-9) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("clip", ["max", "search"])
def test_steps_are_those_of_real_gaussian_rows(clip: str) -> None:
    import torch

    treatment = Treatment(5, clip)  # type: ignore[arg-type]
    rows = torch.randn(400, 512, generator=torch.Generator().manual_seed(1))
    steps = treatment.scales(rows)
    assert step_in_deviations(treatment, 512) == pytest.approx(float(steps.mean()), rel=0.03)


def test_expected_maximum() -> None:
    assert expected_maximum(1) == pytest.approx(math.sqrt(2 / math.pi), abs=1e-5)
    draws = np.abs(np.random.default_rng(0).standard_normal((4000, 128))).max(axis=1)
    assert expected_maximum(128) == pytest.approx(draws.mean(), abs=0.03)


def test_bits_are_paid_where_the_recipe_says() -> None:
    recipe = PRESETS["pr1413"]()
    base = expected_bytes(recipe.model, recipe.quant)
    path = "blocks.0.mlp.fc.weight"
    kept = expected_bytes(recipe.model, replace(recipe.quant, overrides={path: 16}))
    assert kept.passthrough - base.passthrough == 2 * 2048 * 512
    assert base.codes["mlp, 6 bits"] - kept.codes["mlp, 6 bits"] == pytest.approx(
        base.codes["mlp, 6 bits"] / 22
    )
    with pytest.raises(RecipeError, match=r"blocks\.0\.mlp\.fc\.weight"):
        expected_bytes(recipe.model, replace(recipe.quant, overrides={path + "s": 16}))


@pytest.mark.parametrize("compressor", OVERHEADS)
def test_every_compressor_of_the_schema_has_overheads(compressor: str) -> None:
    assert len(OVERHEADS[compressor]) == len(ENTROPIES)
    model = PRESETS["nano"]().model
    quant = QuantSpec(compressor=compressor, passthrough=0)  # type: ignore[arg-type]
    least = expected_bytes(model, replace(quant, compressor="rans")).total
    assert least <= expected_bytes(model, quant).total < 1.1 * least


@pytest.mark.parametrize("name", ["demo", "nano"])
def test_our_own_presets_fit_their_budget(name: str) -> None:
    recipe = PRESETS[name]()
    assert expected_bytes(recipe.model, recipe.quant).total < 0.99 * recipe.budget.bytes


def test_description_adds_up() -> None:
    text = describe(resolve("pr456"))
    assert "25,517,137 parameters" in text
    assert "16,000,000 bytes of budget" in text
    estimate = expected_bytes(resolve("pr456").model, resolve("pr456").quant)
    assert f"{estimate.total:,} bytes expected in all" in text
    assert all(line.startswith("#") for line in text.splitlines())
