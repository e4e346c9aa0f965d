"""The small layers: linear maps, tables, the norm, the activations.

Shapes: B batch, T tokens, O output features, I input features, F MLP width, D model width.

Two habits keep mixed precision simple enough to do without autocast. Parameters are stored once, as
float32 masters (the tables may be bfloat16). The activations carry the compute dtype, and every
matrix is cast to the dtype of the activation it meets, at the place where they meet. So the same
code is a float32 reference and a bfloat16 run, and no framework version decides which operation
runs in which precision.

Scales, mixes and gates are the other way round: the activation meets them in float32, and the
result is cast back. Rounded to 8 bits they are wrong by the same amount in every position, which
cost the demo model 0.2 % of its score; and a compiler that fuses the cast away had trained it
without that rounding. The norm squares and sums, so it computes in float32 as well. Its
epsilon is an argument and not a default, because the published models ran with float32's machine
epsilon and the low-norm rows of a fresh embedding table make 1e-5 visible.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underpar.model.roles import Role, parameter

WeightHook = Callable[[Tensor], Tensor]


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis, in float32 or wider, returned in x's dtype."""
    wide = x if x.dtype == torch.float64 else x.float()
    return F.rms_norm(wide, x.shape[-1:], eps=eps).to(x.dtype)


def scaled(x: Tensor, weight: Tensor) -> Tensor:
    """weight * x in the wider dtype of the two, returned in x's dtype."""
    return (weight * x).to(x.dtype)


def blend(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Tensor:
    """a * x + b * y in the widest dtype of all, returned in x's dtype."""
    return (a * x + b * y).to(x.dtype)


class Norm(nn.Module):
    """``rms_norm`` as a module, for the one place whose output others may want to hook."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.eps)


class Linear(nn.Module):
    """x [..., I] -> [..., O] without bias. The weight [O, I] is a float32 master.

    weight_hook: when set, and in train mode only, replaces the float32 weight by what it returns
    before the cast to x's dtype. Quantization-aware training enters here.
    zero_init: the weight starts at zero, so that the branch it ends adds nothing at first.
    """

    def __init__(self, n_in: int, n_out: int, role: Role, *, zero_init: bool = False) -> None:
        super().__init__()
        self.weight = parameter(torch.zeros(n_out, n_in), role)
        self.zero_init = zero_init
        self.weight_hook: WeightHook | None = None

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        if self.weight_hook is not None and self.training:
            weight = self.weight_hook(weight)
        return F.linear(x, weight.to(x.dtype))


class Table(nn.Module):
    """ids [...] -> vectors [..., D] in the table's own dtype."""

    def __init__(
        self, rows: int, dim: int, role: Role, dtype: torch.dtype, *, zero_init: bool = False
    ) -> None:
        super().__init__()
        self.weight = parameter(torch.zeros(rows, dim, dtype=dtype), role)
        self.zero_init = zero_init

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)


def relu2(x: Tensor) -> Tensor:
    """relu(x)^2 (So et al. 2021, "Primer")."""
    return F.relu(x).square()


def leaky_relu2(x: Tensor) -> Tensor:
    """leaky_relu(x, 0.5)^2: a negative input gives 0.25 x^2, not 0, and a slope of 0.5 x."""
    return F.leaky_relu(x, 0.5).square()


#: ``ModelSpec.activation`` -> function; the keys are all that the schema admits
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu2": relu2, "leaky_relu2": leaky_relu2}


class MLP(nn.Module):
    """x [B, T, D] -> act(x Wup^T) Wdown^T [B, T, D], through width F."""

    def __init__(self, d_model: int, d_ff: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc = Linear(d_model, d_ff, Role.MLP)
        self.proj = Linear(d_ff, d_model, Role.MLP, zero_init=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.activation(self.fc(x)))
