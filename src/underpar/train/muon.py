"""Muon: momentum whose update is made orthogonal, one matrix at a time.

A gradient of a weight matrix is dominated by a few singular directions; stepping along it moves the
weights a long way in those and hardly at all in the others. Muon keeps the momentum's singular
vectors and replaces its singular values by (about) one, so every direction moves equally far. The
size of the gradient drops out: only the learning rate decides the length of a step.

The exact answer, U V^T of the SVD, is slow on a GPU. Newton-Schulz gets near it with matrix
products alone. An odd polynomial p(x) = a x + b x^3 + c x^5 of a matrix, X -> a X + (b A + c A^2) X
with A = X X^T, acts on the singular values and leaves the singular vectors alone. Dividing by the
Frobenius norm first puts all of them in [0, 1]; (a, b, c) below were chosen (K. Jordan, 2024) for
the steepest climb from zero, not for convergence: after five rounds they lie in about 0.7 .. 1.15
and stay there, which trains as well as exact ones. The products tolerate bfloat16.

Details that matter:

* The polynomial works on the smaller Gram matrix, so tall matrices are transposed on the way.
* A factor sqrt(max(1, rows / cols)) keeps the RMS change of an output independent of the shape.
* MuonEq-R (#1413) first scales every row, i.e. every output neuron, to length one.
* Equal shapes are stacked and run as one batched product: a few large calls instead of hundreds of
  small ones. ``baddbmm`` adds the scaled matrix inside the product. (c A) A, not c (A A), is the
  published order of rounding.
* With several processes each matrix belongs to one of them, which alone holds its momentum and
  orthogonalises it; a sum in which all others contribute zeros hands the update to everyone. x + 0
  is exact, so the number of processes changes no bit.

Letters: N matrices in a stack, R rows (output features), C columns (input features).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from underpar import dist

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
#: floor under the norms: of a whole matrix before the iteration, of a row in MuonEq-R
NORM_EPS = 1e-7


def newton_schulz(x: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Move all singular values of each matrix close to one; the singular vectors stay.

    x: [R, C] or [N, R, C], any float dtype. The whole iteration, norm included, runs in ``dtype``,
    and so does the result, of x's shape. A zero matrix stays zero.
    """
    a, b, c = COEFFICIENTS
    y = x.to(dtype)
    y = y / (y.norm(dim=(-2, -1), keepdim=True) + NORM_EPS)
    tall = x.shape[-2] > x.shape[-1]
    y = (y.mT if tall else y).contiguous()
    if x.dim() == 2:
        y = y.unsqueeze(0)
    for _ in range(steps):
        gram = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(gram, c * gram, gram, beta=b), y, beta=a)
    y = y[0] if x.dim() == 2 else y
    return y.mT if tall else y


class _Stack:
    """All matrices of one shape, and the momentum of those that this process owns."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], first: int) -> None:
        self.paths = list(parameters)
        self.parameters: list[Tensor] = list(parameters.values())
        rank, world = dist.rank(), dist.world_size()
        self.own = [i for i in range(len(self.paths)) if (first + i) % world == rank]
        self.shape = self.parameters[0].shape
        self.momentum = self.parameters[0].new_zeros((len(self.own), *self.shape))

    @torch.no_grad()
    def directions(self, momentum: float, row_norm: bool, steps: int, dtype: torch.dtype) -> Tensor:
        """Own updates [N, R, C] in ``dtype``: Nesterov momentum, orthogonalised, shape factor."""
        gradients = torch.stack([self._gradient(i) for i in self.own])
        self.momentum.mul_(momentum).add_(gradients)
        update = gradients.add_(self.momentum, alpha=momentum)
        if row_norm:
            update.div_(update.norm(dim=-1, keepdim=True).clamp_min(NORM_EPS))
        rows, cols = self.shape
        return newton_schulz(update, steps, dtype).mul(max(1.0, rows / cols) ** 0.5)

    def _gradient(self, i: int) -> Tensor:
        gradient = self.parameters[i].grad
        assert gradient is not None, f"no gradient for {self.paths[i]}"
        return gradient


class Muon:
    """Muon over named matrices, shared out over the processes.

    parameters: path -> float32 [R, C]. dtype: of Newton-Schulz and of the exchanged updates;
    bfloat16 on GPUs and on CPUs that multiply it fast, else float32. Decay is decoupled and scaled
    by the scheduled rate: p <- p (1 - lr wd) - lr update.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        lr: float,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        row_norm: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.lr, self.weight_decay, self.row_norm = lr, weight_decay, row_norm
        self.ns_steps, self.dtype = ns_steps, dtype
        shapes: dict[torch.Size, dict[str, nn.Parameter]] = {}
        for path, parameter in parameters.items():
            shapes.setdefault(parameter.shape, {})[path] = parameter
        self._stacks: list[_Stack] = []
        first = 0  # counting on across stacks spreads the large matrices over the ranks
        for group in shapes.values():
            self._stacks.append(_Stack(group, first))
            first += len(group)

    @torch.no_grad()
    def step(self, multiplier: float, momentum: float) -> None:
        """One update at ``multiplier`` times the base rate. Every matrix needs its gradient."""
        lr = self.lr * multiplier
        for stack, updates in zip(self._stacks, self._updates(momentum)):
            wide = updates.to(stack.parameters[0].dtype)
            torch._foreach_mul_(stack.parameters, 1.0 - lr * self.weight_decay)
            torch._foreach_add_(stack.parameters, list(wide.unbind()), alpha=-lr)

    def _updates(self, momentum: float) -> list[Tensor]:
        """Each stack's updates [N, R, C] on every process, after one collective for all."""
        own = [
            stack.directions(momentum, self.row_norm, self.ns_steps, self.dtype)
            if stack.own
            else stack.momentum.to(self.dtype)
            for stack in self._stacks
        ]
        if dist.world_size() == 1:
            return own
        sizes = [len(stack.paths) * stack.shape.numel() for stack in self._stacks]
        flat = torch.zeros(sum(sizes), dtype=self.dtype, device=own[0].device)
        shared = [
            part.view(-1, *stack.shape) for part, stack in zip(flat.split(sizes), self._stacks)
        ]
        for part, stack, update in zip(shared, self._stacks, own):
            part[stack.own] = update
        dist.all_reduce_sum(flat)
        return shared

    def saved(self) -> dict[str, Tensor]:
        """Path -> momentum [R, C], complete on every process (collective)."""
        state: dict[str, Tensor] = {}
        for stack in self._stacks:
            full = stack.momentum.new_zeros((len(stack.paths), *stack.shape))
            full[stack.own] = stack.momentum
            state.update(zip(stack.paths, dist.all_reduce_sum(full).unbind()))
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``saved`` gave, on any number of processes."""
        for stack in self._stacks:
            for row, i in enumerate(stack.own):
                stack.momentum[row].copy_(state[stack.paths[i]])
