"""Roles: what each parameter is for, said where the parameter is made.

The optimizer, the quantizer and the packer all treat parameters by kind: Muon takes matrices, the
embedding table gets its own learning rate and its own bits, gains and gates stay in float. They ask
for the role and never look at the name. A parameter without a role is a bug of ours, and the first
walk over the model says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from torch import Tensor, nn


class Role(Enum):
    """The kinds of parameters. The value is the word that reports print."""

    ATTENTION = "attention"  # 2-D core matrices: q, k, v, output
    MLP = "mlp"  # 2-D core matrices: up, down
    PROJECTION = "projection"  # bigram vectors to model width
    EMBEDDING = "embedding"  # token table, also the head when tied
    HASH = "hash"  # bigram table
    HEAD = "head"  # output matrix when untied
    GAIN = "gain"  # per-head factor of the queries
    SCALE = "scale"  # factors of what a branch adds to the residual stream
    MIX = "mix"  # blend of the residual stream with the embedding
    SKIP = "skip"  # factors of the U-Net skips
    GATE = "gate"  # logits of a sigmoid

    @property
    def is_matrix(self) -> bool:
        """True for what Muon trains."""
        return self in (Role.ATTENTION, Role.MLP, Role.PROJECTION)

    @property
    def is_table(self) -> bool:
        """True for lookup tables, whose gradients touch few rows."""
        return self in (Role.EMBEDDING, Role.HASH)


def parameter(tensor: Tensor, role: Role) -> nn.Parameter:
    """A trainable parameter that knows its role; the only way this package makes one."""
    made = nn.Parameter(tensor)
    made.role = role  # type: ignore[attr-defined]
    return made


def _walk(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, Role]]:
    for path, weight in model.named_parameters():
        role = getattr(weight, "role", None)
        if not isinstance(role, Role):
            raise TypeError(f"parameter {path} has no role: make it with roles.parameter()")
        yield path, weight, role


def role_of(model: nn.Module) -> dict[str, Role]:
    """Parameter path -> role, in the order of ``named_parameters``.

    Raises TypeError on a parameter that was made without a role.
    """
    return {path: role for path, _, role in _walk(model)}


def parameters_by_role(model: nn.Module) -> dict[Role, int]:
    """Number of trained values under each role that occurs in the model."""
    counts: dict[Role, int] = {}
    for _, weight, role in _walk(model):
        counts[role] = counts.get(role, 0) + weight.numel()
    return counts


def n_params(model: nn.Module) -> int:
    """Number of trained values; a tied head is counted once."""
    return sum(weight.numel() for weight in model.parameters())
