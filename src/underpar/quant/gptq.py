"""GPTQ: round a matrix column by column, and let later columns repair what earlier ones broke.

A layer computes y = W x. Rounding W to W + E costs, over the calibration inputs,

    sum ||E x||^2 = trace(E H E^T),   H = sum x x^T    [I, I]

so errors in directions that inputs never take are free, and the error of one column can be made up
for by the columns that its input is correlated with. Given that column j was rounded with error
e_j, the best change of the columns still free is

    w_later -= e_j / U_jj * U_j,later      with U upper triangular, H^-1 = U^T U

(Frantar et al. 2022, arXiv 2210.17323): one triangular factor holds the inverse of every trailing
part of H, so nothing is ever inverted again. Rows of W do not interact: all work on one column is
vectorised over them, and W is kept transposed so that a column is contiguous.

* Order. Columns with the largest H_jj (the strongest inputs) go first: most freedom is left then.
* Dead columns (H_jj = 0: an input that is always zero) get weight 0 and H_jj = 1.
* Damping. A hundredth of the mean diagonal is added to the diagonal: with fewer calibration tokens
  than columns H is singular. If the factorisation still fails we damp ten times more, and say so.
* The factor. H = R R^T with R upper triangular is a Cholesky factorisation of H read backwards, and
  then U = R^-1: the unique upper Cholesky factor of the inverse, without forming the inverse. So
  one thing only can fail, the factorisation of H itself.
* Blocks. Inside a block of 128 columns the error is fed forward at once, to later columns by one
  matrix product at the block's end. That is an order of summation, not another method.

The row steps come from the original weights and stay; only the choice of the codes uses H.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from underpar import progress
from underpar.errors import TrainingError
from underpar.grid.grid import Grid

ATTEMPTS = 4  # damping x 1, 10, 100, 1000


class Factor(NamedTuple):
    """What GPTQ needs of the inputs' second moment; it does not depend on the steps.

    order [I]: columns as they are rounded. dead [I]: those whose input is always zero. upper
    [I, I]: U, in that order.
    """

    order: Tensor
    dead: Tensor
    upper: Tensor


def factor(hessian: Tensor, damp: float) -> Factor:
    """Of hessian [I, I], in any unit. damp: added to the diagonal, in units of its mean.

    Raises TrainingError when ``hessian`` cannot be factored.
    """
    h = hessian.float().clone()
    diagonal = h.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1.0
    # The damping shifts all diagonal entries alike, so the order may be taken before it.
    order = diagonal.argsort(descending=True)
    return Factor(order, dead, inverse_factor(h[order][:, order], damp))


def gptq(
    weight: Tensor, hessian: Tensor, scale: Tensor, grid: Grid, damp: float, block_size: int
) -> Tensor:
    """``rounded`` under ``factor(hessian, damp)``: codes int8 [O, I]."""
    return rounded(weight, factor(hessian, damp), scale, grid, block_size)


def rounded(weight: Tensor, h: Factor, scale: Tensor, grid: Grid, block_size: int) -> Tensor:
    """Codes int8 [O, I] of weight [O, I] at steps float32 [O]. All in float32."""
    order, u = h.order, h.upper
    w_IO = weight.float().t().clone()
    w_IO[h.dead] = 0.0
    w_IO = w_IO[order]
    codes_IO = torch.empty_like(w_IO, dtype=torch.int8)
    n = len(w_IO)
    for start in range(0, n, block_size):
        end = min(start + block_size, n)
        within = u[start:end, start:end]
        codes_IO[start:end], error = _round_block(w_IO[start:end], within, scale, grid)
        w_IO[end:].addmm_(u[start:end, end:].t(), error, alpha=-1)
    codes = torch.empty_like(codes_IO)
    codes[order] = codes_IO
    return codes.t().contiguous()


def _round_block(w_JO: Tensor, u_JJ: Tensor, scale: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Round the J columns of a block in turn; consumes w_JO. Codes and scaled errors, [J, O]."""
    codes, errors = torch.empty_like(w_JO, dtype=torch.int8), torch.empty_like(w_JO)
    for j, (column, diagonal) in enumerate(zip(w_JO, u_JJ.diagonal())):
        code = (column / scale).round_().clamp_(grid.low, grid.high)
        codes[j] = code
        torch.div(column - code * scale, diagonal, out=errors[j])
        w_JO[j + 1 :].addr_(u_JJ[j, j + 1 :], errors[j], alpha=-1)
    return codes, errors


def inverse_factor(h: Tensor, damp: float) -> Tensor:
    """Upper triangular U [I, I] with (h + damp * mean(diag h) * 1)^-1 = U^T U, float32.

    Raises TrainingError when h is not finite, or not positive definite at 1000 times the damping.
    """
    mean = h.diagonal().mean()
    if torch.isfinite(h).all():
        for attempt in range(ATTEMPTS):
            damped = h.clone()
            damped.diagonal().add_(damp * 10**attempt * mean)
            lower, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
            if not failed:
                eye = torch.eye(len(h), device=h.device)
                return torch.linalg.solve_triangular(lower.flip(0, 1), eye, upper=True)
            progress.current().line(
                f"gptq: Hessian not positive definite at damping {damp * 10**attempt:g}"
            )
    raise TrainingError(
        "GPTQ calibration",
        got=f"a {len(h)} x {len(h)} Hessian that cannot be factored, mean diagonal {mean:.3g}",
        wanted="finite, positive definite",
        do="Check the model's activations for infinities, or raise quant.damp above 0.",
    )
