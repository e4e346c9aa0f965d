"""What happens to the ids before the first block: token table, hashed bigrams, smear gate.

Shapes: B batch, T tokens, D model width.

The bigram table gives each pair (previous id, id) a row of a small table by hashing, so the first
block starts with knowledge of the pair. The smear gate blends each position with the one before it,
channel by channel, after the norm. Both look one token back; a cache therefore has to carry the
last id and the last vector *before* smearing, or decoding step by step would differ from the
parallel pass at every chunk border. Both follow PR #456.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underpar.model.layers import Linear, Table, blend, scaled
from underpar.model.roles import Role, parameter
from underpar.recipe.schema import ModelSpec

#: multipliers of the current and the previous id
HASH_CURRENT, HASH_PREVIOUS = 36_313, 27_191
BIGRAM_SCALE = 0.05


def bigram_rows(ids: Tensor, buckets: int, previous: Tensor | None = None) -> Tensor:
    """Table rows [B, T] int64 of ids [B, T]; ``previous`` [B] holds the ids before the first.

    ((36313 * id) xor (27191 * previous id)) mod (buckets - 1), where the products wrap as signed
    32-bit numbers and the remainder is never negative. A position without a previous id gets the
    last bucket, which nothing else can reach.
    """
    ids = ids.long()
    before = ids[:, :1] if previous is None else previous.long()[:, None]
    shifted = torch.cat((before, ids[:, :-1]), dim=1)
    mixed = (HASH_CURRENT * ids) ^ (HASH_PREVIOUS * shifted)
    # Computed in 64 bits and wrapped once: xor works bit by bit, so the low 32 bits are the same as
    # with wrapping products, and signed overflow (undefined in the kernels' language) never occurs.
    wrapped = ((mixed + 2**31) & 0xFFFF_FFFF) - 2**31
    rows = torch.remainder(wrapped, buckets - 1)
    if previous is None:
        rows = torch.cat((torch.full_like(rows[:, :1], buckets - 1), rows[:, 1:]), dim=1)
    return rows


class BigramHash(nn.Module):
    """ids [B, T] -> scale * projected table rows [B, T, D] in the given dtype."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        dtype = getattr(torch, spec.table_dtype)
        self.buckets = spec.bigram_buckets
        self.embed = Table(self.buckets, spec.bigram_dim, Role.HASH, dtype, zero_init=True)
        wide = spec.bigram_dim == spec.d_model
        self.proj = None if wide else Linear(spec.bigram_dim, spec.d_model, Role.PROJECTION)
        self.scale = parameter(torch.tensor(BIGRAM_SCALE), Role.SCALE)

    def forward(self, ids: Tensor, previous: Tensor | None, dtype: torch.dtype) -> Tensor:
        x = self.embed(bigram_rows(ids, self.buckets, previous)).to(dtype)
        if self.proj is not None:
            x = self.proj(x)
        return scaled(x, self.scale)


class SmearGate(nn.Module):
    """x_t -> (1 - g) x_t + g x_(t-1), g = sigmoid(gate) per channel; g starts at one half.

    ``before`` [B, D] is x_(t-1) of the first position; without it that is zero.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.gate = parameter(torch.zeros(d_model), Role.GATE)

    def forward(self, x: Tensor, before: Tensor | None) -> Tensor:
        first = torch.zeros_like(x[:, :1]) if before is None else before[:, None]
        shifted = torch.cat((first, x[:, :-1]), dim=1)
        g = torch.sigmoid(self.gate)
        return blend(x, 1 - g, shifted, g)
