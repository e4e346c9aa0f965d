"""Uniform quantization grids as pure tensor functions. O: output rows, I: input columns.

A matrix is stored as one small integer a weight and one float16 step a row, ``w ~ codes * scale``.
There is no zero point: trained rows are centred, and a zero that stays zero costs the entropy coder
least. Two decisions make a grid:

* the codes. b bits give c = 2^(b-1) - 1 and the range [-c-1, c] (#456) or [-c, c] (#1413);
* the step. ``scale_max`` covers the largest weight of the row with c steps. ``scale_search`` tries
  five smaller clips and keeps the best by squared error. ``scale_std`` takes k standard deviations:
  with k = 12.85 and 6 bits no trained weight reaches the clip, the step is 0.41 deviations, and
  the codes hold about 3.3 bits each, whatever "6 bits" says. Only the step matters.

The step is rounded to float16 *before* the codes are computed, because the reader of the file has
nothing else; and it is never below the smallest normal float16. Both published quantizers stumble
here: 1e-10 and 1e-12 are zero in float16, so a zero row divides zero by zero. With the floor such a
row gets code 0 and a finite step.

Training with fake quantization must use the grid that the exporter will use: the same functions,
bits and step. #456 did not: its steps were unrounded and at least 1/c, so rows of small weights
were trained on a far coarser grid than they were stored on. ``floor`` of ``scale_max`` reproduces
that grid, for comparison with published numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Clip = Literal["max", "search", "std"]

#: The smallest normal float16, 2^-14: no stored step is smaller.
FLOAT16_TINY = 6.103515625e-05

#: Clips tried by ``scale_search``: the entry at int(p * (I - 1)) of the sorted |row| (#456).
SEARCH_QUANTILES = (0.95, 0.975, 0.99, 0.995, 1.0)


@dataclass(frozen=True)
class Grid:
    """The integer codes of a tensor: ``bits`` 2 to 8, symmetric or with one more negative code."""

    bits: int
    symmetric: bool = False

    @property
    def clip(self) -> int:
        """c, the largest code: 31 for 6 bits."""
        return 2 ** (self.bits - 1) - 1

    @property
    def low(self) -> int:
        return -self.clip - (not self.symmetric)

    @property
    def high(self) -> int:
        return self.clip


def _stored(scale: Tensor) -> Tensor:
    """The float32 value of the step that float16 will hold, never below the smallest normal one."""
    return scale.half().float().clamp_min(FLOAT16_TINY)


def scale_max(w: Tensor, grid: Grid, *, floor: float | None = None) -> Tensor:
    """Steps [O] with which the largest |weight| of each row of w [O, I] has code c.

    ``floor``: #456's training grid instead (unrounded float32, at least floor = 1/c).
    """
    scale = w.float().abs().amax(dim=1) / grid.clip
    return _stored(scale) if floor is None else scale.clamp_min(floor)


def scale_search(w: Tensor, grid: Grid) -> Tensor:
    """Steps [O] of the five clips of w [O, I] with the least squared error, the first on ties.

    Source: "GPTQ-lite" of #456. No calibration data: it trades the tails of a row for its middle.
    """
    w = w.float()
    magnitudes = w.abs().sort(dim=1).values
    best = torch.empty(len(w), device=w.device)
    least = torch.full_like(best, torch.inf)
    for p in SEARCH_QUANTILES:
        scale = _stored(magnitudes[:, int(p * (w.shape[1] - 1))] / grid.clip)
        error = (w - dequantize(quantize(w, scale, grid), scale)).square().mean(dim=1)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def scale_std(w: Tensor, grid: Grid, k: float) -> Tensor:
    """Steps [O] with which k unbiased standard deviations of each row of w [O, I] have code c.

    Source: SDClip of #1413, k = 12.85 for matrices at 6 bits, 20 for the token table at 8.
    """
    return _stored(k * w.float().std(dim=1) / grid.clip)


def row_scales(w: Tensor, grid: Grid, clip: Clip, k: float = 0.0) -> Tensor:
    """Float16-representable float32 steps [O] of w [O, I]; ``k`` is for the clip 'std' alone."""
    if clip == "max":
        return scale_max(w, grid)
    return scale_search(w, grid) if clip == "search" else scale_std(w, grid, k)


def quantize(w: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Codes int8 [O, I] of w [O, I] at steps [O]: nearest, ties to even, clamped to the grid."""
    return (w.float() / scale[:, None]).round().clamp_(grid.low, grid.high).to(torch.int8)


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """Weights float32 [O, I] of codes int8 [O, I] at steps [O]."""
    return codes.float() * scale.float()[:, None]


def fake_quantize(w: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """w [O, I] rounded to the grid in float32, with the gradient of the identity.

    The value is exactly what export will store: w - w is zero, where the usual w + (q - w) would
    round once more. No clip mask: codes beyond the range still pass their gradient (#456).
    """
    with torch.no_grad():
        rounded = dequantize(quantize(w, scale, grid), scale)
    return rounded + (w - w.detach())
