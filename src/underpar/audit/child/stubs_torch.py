"""`torch` as the script expects it, on a CPU: one float type, no compiler, no devices.

bfloat16 becomes float32: the witness of a leak is a small difference of losses, and rounding to
8 bits would drown it. `inference_mode` becomes `no_grad`, because tensors made under it may not
take part in a later backward pass, and caches built in evaluation do. Matrices that scripts set to
zero at the start get small values instead: the few steps of a tiny run may leave the attention
branch at zero, and a branch at zero hides every dependence.
"""

from __future__ import annotations

import contextlib
import sys
import types
from typing import Any

import torch

from . import hits
from .swap import swap


class _NoGrad(torch.no_grad):
    """inference_mode as no_grad: context manager, decorator, with or without call."""

    def __new__(cls, mode: Any = True) -> Any:
        if callable(mode):
            return torch.no_grad()(mode)
        return object.__new__(cls if mode else _Nothing)

    def __init__(self, mode: Any = True) -> None:
        super().__init__()


class _Nothing(contextlib.ContextDecorator):
    """A context manager, decorator and anything else that does nothing."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_exc: Any) -> None:
        return None


def identity(*args: Any, **_kwargs: Any) -> Any:
    """A decorator that changes nothing, used with or without arguments."""
    if args and callable(args[0]):
        return args[0]
    return lambda function: function


class Loose(types.ModuleType):
    """A module of settings: any attribute can be set, read or called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = Loose(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value

    def __call__(self, *args: Any, **_kwargs: Any) -> Any:
        return args[0] if args and callable(args[0]) else None

    def __bool__(self) -> bool:
        return False


def _compiler() -> None:
    def compile_(model: Any = None, **_kwargs: Any) -> Any:
        hits.hit("torch.compile")
        return model if model is not None else (lambda function: function)

    swap(torch, compile=compile_)
    for name in ("disable", "allow_in_graph", "assume_constant_result"):
        setattr(torch.compiler, name, identity)
    swap(
        torch.compiler,
        cudagraph_mark_step_begin=lambda: None,
        reset=lambda: None,
        is_compiling=lambda: False,
    )
    for name in ("_dynamo", "_inductor"):
        fake: Any = Loose(f"torch.{name}")
        fake.__path__ = []
        fake.config = Loose(f"torch.{name}.config")
        sys.modules[f"torch.{name}"] = fake
        sys.modules[f"torch.{name}.config"] = fake.config
        setattr(torch, name, fake)
    dynamo: Any = torch._dynamo
    for name in ("disable", "optimize", "allow_in_graph", "mark_dynamic"):
        setattr(dynamo, name, identity)
    dynamo.is_compiling = lambda: False
    dynamo.reset = lambda: None


def _autocast() -> None:
    class Autocast(_Nothing):
        def __init__(self, *_args: Any, **_kwargs: Any) -> None:
            hits.hit("autocast")

    swap(torch, autocast=Autocast)
    swap(torch.amp, autocast=Autocast)
    swap(torch.cuda.amp, autocast=Autocast)


def _one_float_type() -> None:
    storage: Any = torch.storage
    storage._dtype_to_storage_type_map()  # kept tables that name both types: made beforehand
    storage._storage_type_to_dtype_map()
    swap(torch, bfloat16=torch.float32)
    swap(torch.Tensor, bfloat16=torch.Tensor.float)
    swap(torch.nn.Module, bfloat16=torch.nn.Module.float)
    swap(torch, set_float32_matmul_precision=lambda *_a: None)


def _loading() -> None:
    load = torch.load

    def load_here(f: Any, map_location: Any = None, **kwargs: Any) -> Any:
        kwargs.setdefault("weights_only", False)  # files that the script itself has written
        return load(f, map_location="cpu", **kwargs)

    swap(torch, load=load_here)


def _starting_values(seed: int) -> None:
    zeros = torch.nn.init.zeros_

    def zeros_(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() < 2:
            return zeros(tensor)
        own = torch.Generator().manual_seed(seed + tensor.numel())
        noise = torch.randn(tensor.shape, generator=own) * 0.02
        with torch.no_grad():
            return tensor.copy_(noise.to(tensor.dtype))

    swap(torch.nn.init, zeros_=zeros_)


def _devices() -> None:
    def same(self: Any, *_args: Any, **_kwargs: Any) -> Any:
        return self

    for name in ("cuda", "pin_memory"):
        setattr(torch.Tensor, name, same)
    swap(torch.Tensor, record_stream=lambda *_a: None)
    swap(torch.nn.Module, cuda=same)
    swap(torch.nn.attention, sdpa_kernel=_Nothing)
    for name in ("flash", "mem_efficient", "math", "cudnn"):
        setattr(torch.backends.cuda, f"enable_{name}_sdp", lambda *_a: None)
    swap(torch.backends.cuda, sdp_kernel=_Nothing)
    fork = torch.random.fork_rng
    swap(torch.random, fork_rng=lambda *_a, **_k: fork(devices=[]))


def install(seed: int) -> None:
    """Patch `torch`; call once, before the script is executed."""
    import torch.nn.attention
    import torch.utils.checkpoint
    import torch.utils.data

    swap(torch, inference_mode=_NoGrad)
    torch.set_num_threads(1)
    _compiler()
    _autocast()
    _one_float_type()
    _loading()
    _starting_values(seed)
    _devices()
