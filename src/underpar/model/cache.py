"""What a model must remember to go on where it stopped.

Shapes: L virtual layers, B batch lanes, K key/value heads, S positions so far, E head width,
D model width.

Keys and values per *virtual* layer: a looped layer runs several times on different inputs, so each
run has its own. Two more things look one token back before the first block and are easily
forgotten: the previous id (bigram hash) and the last vector before the smear gate. With all four,
step-wise equals parallel. No gradient flows through a cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from underpar.errors import RecipeError


class Cache:
    """State of B independent lanes that advance together. ``GPT.new_cache`` makes one."""

    def __init__(self, keys_values: Tensor, limit: int | None) -> None:
        self.keys_values = keys_values  # [2, L, B, K, capacity, E]
        self.limit = limit
        self.length = 0
        self.previous_id: Tensor | None = None  # [B] int64
        self.before_smear: Tensor | None = None  # [B, D]

    def reserve(self, n: int, batch: int, layers: int) -> None:
        """Make room for n more positions. Raises RecipeError where positions cannot go on."""
        _, mine, lanes, *_, capacity, _ = self.keys_values.shape
        assert (mine, lanes) == (layers, batch), "cache of another model, batch or looping state"
        wanted = self.length + n
        if self.limit is not None and wanted > self.limit:
            raise RecipeError(
                "a cached sequence longer than model.seq_len with model.rope_ntk on",
                got=f"{wanted} tokens",
                wanted=f"at most {self.limit}",
                do="The rescale would change keys that are already rotated; start a new cache.",
            )
        if wanted > capacity:
            shape = list(self.keys_values.shape)
            shape[4] = max(wanted - capacity, capacity)
            with torch.inference_mode(False):
                self.keys_values = torch.cat(
                    (self.keys_values, self.keys_values.new_zeros(shape)), 4
                )

    def append(self, slot: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v [B, K, T, E] of virtual layer ``slot``; returns all S + T so far."""
        assert not k.requires_grad, "decode with a cache under torch.no_grad()"
        end = self.length + k.shape[2]
        self.keys_values[0, slot, :, :, self.length : end] = k
        self.keys_values[1, slot, :, :, self.length : end] = v
        keys, values = self.keys_values[:, slot, :, :, :end]
        return keys, values

    def advance(self, ids: Tensor) -> None:
        """Count the tokens in, once all layers have stored theirs."""
        self.previous_id = ids[:, -1]
        self.length += ids.shape[1]
