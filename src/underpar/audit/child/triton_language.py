"""`triton.language` on CPU tensors: pointers are `Pointer`, blocks are tensors.

See `stubs_triton`, which launches what is written in it.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch

_tensor = torch.as_tensor  # as it is now: whoever watches torch need not watch kernels
PROGRAM: list[tuple[int, ...]] = [(0, 0, 0)]
GRID: list[tuple[int, ...]] = [(1, 1, 1)]


class Pointer:
    """Elements of one storage: `base` is the storage as a flat tensor, `at` the offsets."""

    def __init__(self, base: torch.Tensor, at: Any) -> None:
        self.base, self.at = base, _tensor(at).long()

    @classmethod
    def to_tensor(cls, tensor: torch.Tensor) -> Pointer:
        """Pointer to the first element of `tensor`."""
        size = tensor.untyped_storage().nbytes() // tensor.element_size()
        flat = torch.as_strided(tensor.detach(), (size,), (1,), 0)
        return cls(flat, tensor.storage_offset())

    @property
    def dtype(self) -> Any:
        return types.SimpleNamespace(element_ty=self.base.dtype)

    def __add__(self, other: Any) -> Pointer:
        return Pointer(self.base, self.at + _tensor(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Pointer:
        return Pointer(self.base, self.at - _tensor(other))

    def __getitem__(self, index: Any) -> Pointer:
        return Pointer(self.base, self.at[index])

    def to(self, *_args: Any, **_kwargs: Any) -> Pointer:
        return self


class Descriptor:
    """A tensor descriptor: blocks that read as zero, and are not written, outside the tensor."""

    def __init__(
        self, base: torch.Tensor, shape: Any = None, strides: Any = None, block_shape: Any = None
    ) -> None:
        self.base, self.block_shape = base.detach(), list(block_shape or base.shape)

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor, block_shape: list[int], *_a: Any) -> Descriptor:
        return cls(tensor, block_shape=block_shape)

    def _slices(self, offsets: Any) -> tuple[slice, ...]:
        starts = [int(o) for o in offsets]
        return tuple(slice(o, o + n) for o, n in zip(starts, self.block_shape))

    def load(self, offsets: Any) -> torch.Tensor:
        part = self.base[self._slices(offsets)]
        block = torch.zeros(self.block_shape, dtype=self.base.dtype)
        block[tuple(slice(0, n) for n in part.shape)] = part
        return block

    def store(self, offsets: Any, value: torch.Tensor) -> None:
        part = self.base[self._slices(offsets)]
        part.copy_(value[tuple(slice(0, n) for n in part.shape)])


def _load(pointer: Pointer, mask: Any = None, other: Any = None, **_kwargs: Any) -> torch.Tensor:
    if mask is None:
        return pointer.base.take(pointer.at)
    at, allowed = torch.broadcast_tensors(pointer.at, _tensor(mask))
    if _all(allowed):
        return pointer.base.take(at)
    got = pointer.base.take(torch.where(allowed, at, 0))
    filler = torch.zeros((), dtype=got.dtype) if other is None else _tensor(other)
    return torch.where(allowed, got, filler.to(got.dtype))


def _all(mask: torch.Tensor) -> bool:
    """Whether the mask masks nothing: most blocks lie wholly inside."""
    return bool(mask.all())


def _chosen(pointer: Pointer, value: Any, mask: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets to write and the values for them."""
    at, values = torch.broadcast_tensors(pointer.at, _tensor(value))
    if mask is not None:
        allowed = _tensor(mask)
        if not _all(allowed):
            allowed = allowed.expand(at.shape)
            at, values = at[allowed], values[allowed]
    return at, values.to(pointer.base.dtype)


def _store(pointer: Pointer, value: Any, mask: Any = None, **_kwargs: Any) -> None:
    at, values = _chosen(pointer, value, mask)
    pointer.base[at] = values


def _atomic_add(pointer: Pointer, value: Any, mask: Any = None, **_kwargs: Any) -> None:
    at, values = _chosen(pointer, value, mask)
    pointer.base.index_put_((at.reshape(-1),), values.reshape(-1), accumulate=True)


def _dot(a: torch.Tensor, b: torch.Tensor, acc: Any = None, **_kwargs: Any) -> torch.Tensor:
    product = a.float() @ b.float()
    return product if acc is None else acc + product


def _pointwise(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **_kwargs: function(
        *(_tensor(a) if not isinstance(a, bool) else a for a in args)
    )


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, axis: int | None = None, **kwargs: Any) -> Any:
        x = _tensor(x)
        return function(x) if axis is None else function(x, axis)

    return call


def _full(shape: Any, value: Any = 0, dtype: Any = torch.float32, **_kwargs: Any) -> torch.Tensor:
    return torch.full([int(n) for n in shape], value, dtype=dtype)


def _zeros(shape: Any, dtype: Any = torch.float32, **_kwargs: Any) -> torch.Tensor:
    return _full(shape, 0, dtype)


def _cdiv(a: Any, b: Any) -> Any:
    return (a + b - 1) // b


class _Constexpr:
    """Annotation of compile-time arguments; as a call it returns its value."""

    def __new__(cls, value: Any = None) -> Any:
        return value


def language() -> types.ModuleType:
    tl: Any = types.ModuleType("triton.language")
    tl.__path__ = []
    for name in (
        "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8",
    ):  # fmt: skip
        setattr(tl, name, getattr(torch, name))
    tl.bfloat16, tl.int1 = torch.float32, torch.bool
    tl.constexpr, tl.dtype = _Constexpr, torch.dtype
    tl.program_id = lambda axis=0: torch.tensor(PROGRAM[-1][axis])
    tl.num_programs = lambda axis=0: GRID[-1][axis]
    tl.arange = lambda start, end: torch.arange(int(start), int(end))
    tl.load, tl.store, tl.atomic_add, tl.dot = _load, _store, _atomic_add, _dot
    tl.zeros, tl.full, tl.cdiv = _zeros, _full, _cdiv
    tl.range = lambda *args, **_k: range(*(int(a) for a in args))
    tl.static_range = tl.range
    for name in (
        "exp", "log", "exp2", "log2", "sqrt", "rsqrt", "sin", "cos", "abs", "floor", "ceil",
        "sigmoid", "tanh", "erf",
    ):  # fmt: skip
        setattr(tl, name, _pointwise(getattr(torch, name)))
    for name in ("where", "maximum", "minimum", "fma"):
        setattr(tl, name, _pointwise(getattr(torch, name, lambda a, b, c: a * b + c)))
    tl.sum, tl.max, tl.min = _reduced(torch.sum), _reduced(torch.amax), _reduced(torch.amin)
    tl.argmax, tl.argmin = _reduced(torch.argmax), _reduced(torch.argmin)
    tl.cumsum = lambda x, axis=0, **_k: torch.cumsum(x, axis)
    tl.reshape = tl.view = lambda x, *shape: x.reshape(*shape)
    tl.permute = lambda x, *dims: x.permute(*dims)
    tl.trans = lambda x, *_d: x.T
    tl.split = lambda x: x.unbind(-1)
    tl.join = lambda a, b: torch.stack((a, b), -1)
    tl.cat = lambda a, b, **_k: torch.cat((a, b))
    tl.broadcast_to = lambda x, *shape: _tensor(x).broadcast_to(*shape)
    tl.expand_dims = torch.unsqueeze
    tl.cast = lambda x, dtype, **_k: _tensor(x).to(dtype)
    tl.static_assert = tl.device_assert = tl.debug_barrier = lambda *_a, **_k: None
    tl.multiple_of = tl.max_contiguous = tl.assume = lambda x=None, *_a: x
    tl.make_tensor_descriptor = _descriptor
    tl.math = tl
    tl.extra = types.SimpleNamespace(cuda=types.SimpleNamespace(libdevice=_libdevice()))
    return tl


def _descriptor(pointer: Pointer, shape: Any, strides: Any, block_shape: Any) -> Descriptor:
    sizes, steps = [int(n) for n in shape], [int(n) for n in strides]
    return Descriptor(
        torch.as_strided(pointer.base, sizes, steps, int(pointer.at)), block_shape=block_shape
    )


def _libdevice() -> Any:
    numbers = torch.arange(1 << 16)
    ones = (numbers[:, None] >> torch.arange(16) & 1).sum(1).to(torch.int32)

    def popc(x: torch.Tensor) -> torch.Tensor:
        """Set bits of each 32-bit integer."""
        return ones.take((x & 0xFFFF).long()) + ones.take((x >> 16 & 0xFFFF).long())

    return types.SimpleNamespace(
        popc=popc, tanh=_pointwise(torch.tanh), pow=_pointwise(torch.pow), erf=_pointwise(torch.erf)
    )
