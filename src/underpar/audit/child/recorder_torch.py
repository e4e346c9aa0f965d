"""Torch tensors that remember where their elements come from (see recorder_codes).

A TorchFunctionMode sees every call on tensors without changing the tensors; codes live in a table
beside them (recorder_tensors). Loss calls are recognised by what they do, not by name alone: an
integer argument that is a run of the validation stream, beside one row of a vocabulary's width for
each of its elements (recorder_losses). That covers cross entropy, NLL, gathers of logits or log
probabilities, indexing with targets, and custom autograd functions and operators. What happens to
tracked elements afterwards is in recorder_moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from . import recorder_arrays as arrays
from .recorder_codes import NONE
from .recorder_losses import LOSSES, PICKS, loss_call
from .recorder_moves import FORGET, GROW, carry_codes
from .recorder_numbers import _replace
from .recorder_steps import STEPS
from .recorder_tensors import (
    TABLE,
    any_tracked,
    code_array,
    number_in,
    put,
    scalar_value,
    tensor_codes,
)


class TensorWatch(TorchFunctionMode):
    """Follows every torch call of this thread."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return _getter(func, args)
        if name in STEPS:
            STEPS[name](name, args, kwargs)
        tracked = bool(TABLE) and any_tracked(args, kwargs)
        tracked = tracked or number_in(args)
        before = scalar_value(args[0]) if tracked and name in GROW else 0.0
        out = func(*args, **kwargs)
        picks = name in LOSSES or name in PICKS or _foreign(func)
        if picks and loss_call(name, func, args, kwargs, out):
            return out
        if tracked:
            return carry_codes(name, func, args, kwargs, out, before)
        if name in FORGET or name == "copy_":
            put(args[0], None)
        return out


def _foreign(func: Any) -> bool:
    return not (getattr(func, "__module__", None) or "torch").startswith("torch") or isinstance(
        func, torch._ops.OpOverload | torch._ops.OpOverloadPacket
    )


def _getter(func: Any, args: Any) -> Any:
    out = func(*args)
    if TABLE and isinstance(out, torch.Tensor) and isinstance(args[0], torch.Tensor):
        codes = tensor_codes(args[0])
        if codes is not None and out.numel() == codes.numel():
            put(out, codes if out.shape == codes.shape else codes.t())
    return out


def install(undo: list[Callable[[], None]]) -> None:
    """Start watching; wrap what does not reach the mode."""
    watch = TensorWatch()
    watch.__enter__()
    undo.append(lambda: watch.__exit__(None, None, None))
    undo.append(TABLE.clear)
    for name in ("tensor", "as_tensor", "from_numpy"):
        _replace(torch, name, _made(getattr(torch, name)), undo)
    for name in ("all_reduce", "reduce"):
        _replace(torch.distributed, name, _same(getattr(torch.distributed, name)), undo)
    plain = torch.autograd.Function.apply.__func__  # type: ignore[attr-defined]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        out = plain(cls, *args, **kwargs)
        if isinstance(out, torch.Tensor):
            with torch._C.DisableTorchFunction():
                loss_call("apply", None, args, kwargs, out)
        return out

    _replace(torch.autograd.Function, "apply", classmethod(apply), undo)


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    """A sum over ranks: each rank keeps its own part of the contributions."""

    def call(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        codes = tensor_codes(tensor)
        out = function(tensor, *args, **kwargs)
        if codes is not None:
            put(tensor, codes)
        return out

    return call


def _made(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(value: Any, *args: Any, **kwargs: Any) -> Any:
        codes = arrays.codes_of(value)
        if isinstance(value, list | tuple) and codes is None and value:
            found = [code_array(v) for v in value]
            if any(c is not None and np.size(c) == 1 for c in found):
                codes = np.array([NONE if c is None else int(c) for c in found])
        out = function(arrays._plain(value), *args, **kwargs)
        if codes is not None and out.is_floating_point():
            put(out, codes)
        return out

    return call
