"""Quantized weights as values: codes and steps of one tensor, and a whole model of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from underpar.grid.grid import dequantize


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """codes int8 [O, I], scales float16 [O], bits 2 to 8: the weight is codes * scale."""

    codes: Tensor
    scales: Tensor
    bits: int

    def __post_init__(self) -> None:
        assert self.codes.dtype == torch.int8, self.codes.dtype
        assert self.scales.dtype == torch.float16, self.scales.dtype
        assert self.codes.shape[:1] == self.scales.shape, (self.codes.shape, self.scales.shape)

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    @property
    def packed_bytes(self) -> int:
        """Bytes at ``bits`` a code and two a row, before any entropy coding."""
        return -(-self.codes.numel() * self.bits // 8) + 2 * len(self.scales)

    def dequantize(self) -> Tensor:
        """The weights, float32 [O, I]."""
        return dequantize(self.codes, self.scales)


class QuantizedModel(Mapping[str, QuantizedTensor | Tensor]):
    """Parameter path -> codes and steps, or a float tensor that is stored as it is. Immutable."""

    def __init__(self, tensors: Mapping[str, QuantizedTensor | Tensor]) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, path: str) -> QuantizedTensor | Tensor:
        return self._tensors[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def packed_bytes(self) -> int:
        """Bytes of all tensors at their nominal widths, before any entropy coding."""
        return sum(
            t.packed_bytes if isinstance(t, QuantizedTensor) else t.nbytes
            for t in self._tensors.values()
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor as float32: what the shipped model computes with."""
        return {
            path: t.dequantize() if isinstance(t, QuantizedTensor) else t.float()
            for path, t in self._tensors.items()
        }
