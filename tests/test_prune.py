"""Pruning: the exact quantile, and which tensors it touches."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from underpar.train.prune import prune, quantile

GOLDEN = Path(__file__).parent / "data" / "golden" / "quant_456.npz"


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=60), st.floats(0, 1))
def test_quantile_is_numpys(values, q):
    x = torch.tensor(values)
    want = np.quantile(x.numpy().astype(np.float64), q)
    assert abs(quantile(x, q) - want) < 1e-6


def test_quantile_has_no_size_limit():
    """torch.quantile stops at 2^24 elements, where float32 ranks also stop being integers."""
    n = 2**24 + 3
    x = torch.arange(n, dtype=torch.int32).flip(0).to(torch.float32).remainder_(1024)
    assert quantile(x, 0.5) in (511.0, 511.5, 512.0)


def test_threshold_and_result_are_the_published_ones():
    data = np.load(GOLDEN, allow_pickle=False)
    weight = torch.from_numpy(data["prune_weight"])
    threshold = quantile(weight.abs(), float(data["prune_frac"]))
    assert abs(threshold - float(data["prune_threshold"])) < 1e-7
    pruned = weight.masked_fill(weight.abs() < threshold, 0.0)
    assert torch.equal(pruned, torch.from_numpy(data["prune_out"]))


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.large = nn.Parameter(torch.randn(300, 300, generator=g))
        self.table = nn.Parameter(torch.randn(300, 256, generator=g).bfloat16())
        self.edge = nn.Parameter(torch.randn(256, 256, generator=g))  # 65,536: just not large
        self.vector = nn.Parameter(torch.randn(70_000, generator=g))


def test_large_matrices_only():
    model = Mixed()
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    zeroed = prune(model, 0.03)
    assert (model.large == 0).sum() == 2700
    assert zeroed == (model.large == 0).sum() + (model.table == 0).sum()
    assert 0.025 < (model.table == 0).float().mean() < 0.03
    kept = model.large != 0
    assert torch.equal(model.large[kept], before["large"][kept])
    assert before["large"][~kept].abs().max() < before["large"][kept].abs().min()
    assert torch.equal(model.edge, before["edge"])
    assert torch.equal(model.vector, before["vector"])


def test_fraction_zero_does_nothing():
    model = Mixed()
    before = model.large.detach().clone()
    assert prune(model, 0.0) == 0
    assert torch.equal(model.large, before)
