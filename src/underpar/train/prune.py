"""Magnitude pruning after training (#456): small weights become zeros, which code cheaply."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

#: matrices up to this many elements are left alone, as published
SMALL = 65_536


def quantile(x: Tensor, q: float) -> float:
    """The q-quantile of all elements, linear between neighbours, in float64.

    torch.quantile refuses more than 16 M elements and ranks in float32; a partition has no limit.
    """
    flat = x.detach().float().cpu().numpy().ravel()
    position = q * (flat.size - 1)
    low = int(position)
    high = min(low + 1, flat.size - 1)
    parts = np.partition(flat, (low, high))
    return float(parts[low]) + (position - low) * (float(parts[high]) - float(parts[low]))


def prune(model: nn.Module, fraction: float) -> int:
    """Zero the entries of each large matrix below its own quantile of |w|; returns how many.

    Strictly below, in float32 also for bfloat16 tables (published: the threshold rounded to
    bfloat16). Tensors that are not 2-D or have at most 65,536 elements keep all their weights.
    """
    zeroed = 0
    for weight in model.parameters():
        if fraction > 0 and weight.dim() == 2 and weight.numel() > SMALL:
            magnitude = weight.detach().float().abs()
            mask = magnitude < quantile(magnitude, fraction)
            weight.data.masked_fill_(mask, 0.0)
            zeroed += int(mask.sum())
    return zeroed
