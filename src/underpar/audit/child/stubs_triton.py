"""A small `triton` that runs kernels as Python on CPU tensors, one program at a time.

A kernel is an ordinary function: pointers become `Pointer` (a storage and element offsets), blocks
become tensors, `tl.*` the functions of `triton_language`. Slow, but exact, and the tiny run needs
few programs. A kernel that did nothing would leave uninitialised memory in the scores.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable
from typing import Any

import torch

from . import hits
from .triton_language import GRID, PROGRAM, Descriptor, Pointer, language


class Kernel:
    """A jitted function: `kernel[grid](arguments)` runs every program in turn."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        code = function.__code__
        self.names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **kwargs: Any) -> None:
            hits.hit("triton")
            given = dict(zip(self.names, args)) | kwargs
            sizes = grid(given) if callable(grid) else grid
            sizes = (sizes,) if isinstance(sizes, int) else tuple(int(n) for n in sizes)
            known = {k: _argument(v) for k, v in given.items() if k in self.names}
            GRID.append((*sizes, 1, 1)[:3])
            for program in itertools.product(*(range(n) for n in GRID[-1])):
                PROGRAM.append(program)
                with torch.no_grad(), torch._C.DisableTorchFunction():
                    self.function(**known)
                PROGRAM.pop()
            GRID.pop()

        return launch


def _argument(value: Any) -> Any:
    return Pointer.to_tensor(value) if isinstance(value, torch.Tensor) else value


def _jit(function: Any = None, **_kwargs: Any) -> Any:
    return Kernel(function) if function is not None else Kernel


class _Config:
    """An autotuning choice; the first one is taken."""

    def __init__(self, kwargs: dict[str, Any], **_rest: Any) -> None:
        self.kwargs = kwargs


class _Tuned(Kernel):
    def __init__(self, kernel: Kernel, kwargs: dict[str, Any]) -> None:
        super().__init__(kernel.function)
        self.kwargs = kwargs

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        launch = super().__getitem__(grid)
        return lambda *args, **kwargs: launch(*args, **self.kwargs, **kwargs)


def _autotune(configs: list[_Config], **_kwargs: Any) -> Any:
    return lambda kernel: _Tuned(kernel, configs[0].kwargs)


def _power_of_two(n: int) -> int:
    return 1 << (int(n) - 1).bit_length()


def modules() -> dict[str, types.ModuleType]:
    """`triton` and the parts of it that scripts import."""
    triton: Any = types.ModuleType("triton")
    triton.__path__ = []
    triton.__version__ = "3.4.0"
    triton.jit, triton.next_power_of_2 = _jit, _power_of_two
    triton.autotune, triton.Config = _autotune, _Config
    triton.heuristics = lambda *_a, **_k: lambda kernel: kernel
    triton.set_allocator = lambda *_a: None
    triton.language = language()
    triton.cdiv = triton.language.cdiv
    tools: Any = types.ModuleType("triton.tools")
    tools.__path__ = []
    descriptor: Any = types.ModuleType("triton.tools.tensor_descriptor")
    descriptor.TensorDescriptor = Descriptor
    triton.tools, tools.tensor_descriptor = tools, descriptor
    extra: Any = types.ModuleType("triton.language.extra")
    extra.libdevice = triton.language.extra.cuda.libdevice
    return {
        "triton": triton,
        "triton.language": triton.language,
        "triton.language.extra": extra,
        "triton.tools": tools,
        "triton.tools.tensor_descriptor": descriptor,
    }
