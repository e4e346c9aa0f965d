"""The search for the steps that fill a budget, on sizes like those of coded files."""

from __future__ import annotations

import math
import random

import pytest

from underpar.artifact.fill import FINEST, SLACK, WIDEST, search

CODES = 1_000_000


class Files:
    """Sizes as a coder gives them: the entropy of Gaussian codes, a frame, and some roughness."""

    def __init__(self, roughness: int) -> None:
        self.tried: list[float] = []
        self._roughness = roughness

    def size(self, factor: float) -> int:
        self.tried.append(factor)
        bits = math.log2(1 + 10 / factor)
        rough = random.Random(round(factor * 1e9)).randint(0, self._roughness)
        return round(CODES * bits / 8) + 60_000 + rough


@pytest.mark.parametrize("cap", [250_000, 380_000, 480_000, 500_000, 700_000])
@pytest.mark.parametrize("roughness", [0, 150])
def test_the_budget_is_filled_to_a_thousandth(cap: int, roughness: int) -> None:
    files = Files(roughness)
    factor = search(files.size, files.size(1.0), cap, CODES)
    assert cap * (1 - SLACK) <= files.size(factor) <= cap
    assert len(files.tried) <= 8


def test_a_file_that_fills_the_budget_is_left_alone() -> None:
    files = Files(0)
    assert search(files.size, files.size(1.0), files.size(1.0) + 10, CODES) == 1.0
    assert len(files.tried) == 2


def test_steps_stay_within_sense() -> None:
    files = Files(0)
    assert search(files.size, files.size(1.0), 10**9, CODES) == FINEST
    assert search(files.size, files.size(1.0), 1_000, CODES) == WIDEST
