"""What a call on tracked tensors does to their codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from . import recorder_arrays as arrays
from .recorder_codes import NONE
from .recorder_numbers import Origin, traced
from .recorder_state import current_recording
from .recorder_tensors import code_array, put, scalar_value, tensor_codes

REARRANGE = {
    "reshape", "view", "flatten", "ravel", "squeeze", "unsqueeze", "transpose", "permute", "t",
    "contiguous", "clone", "detach", "cpu", "expand", "expand_as", "select", "narrow", "chunk",
    "split", "unbind", "cat", "concat", "concatenate", "stack", "index_select", "masked_select",
    "repeat", "repeat_interleave", "movedim", "flip", "roll", "take", "hstack", "vstack",
    "view_as", "reshape_as", "unflatten", "gather", "tile", "swapaxes", "detach_", "squeeze_",
    "unsqueeze_",
}  # fmt: skip
SUMS = {"sum", "mean", "nansum", "nanmean", "dot", "vdot", "inner", "logsumexp"}
GROW = {"add": 1.0, "add_": 1.0, "__add__": 1.0, "__radd__": 1.0, "__iadd__": 1.0,
        "sub": -1.0, "sub_": -1.0, "__sub__": -1.0, "__isub__": -1.0}  # fmt: skip
FORGET = {"zero_", "fill_"}


def carry_codes(name: str, func: Any, args: Any, kwargs: Any, out: Any, before: float) -> Any:
    """Give the result of a call on tracked operands its codes."""
    if name in ("item", "__float__", "tolist", "numpy", "__array__"):
        return _leave(args[0], out, name)
    if name == "__setitem__":
        _write(args[0], args[1], args[2])
        return out
    if name == "copy_":
        _copy(args[0], args[1])
        return out
    if name in FORGET:
        put(args[0], None)
        return out
    if isinstance(out, tuple | list):
        if name in REARRANGE:
            for piece, codes in zip(out, _moved(func, args, kwargs) or ()):
                put(piece, codes)
        return out
    if not isinstance(out, torch.Tensor) or not (out.is_floating_point() or _counts(args[0])):
        return out
    if name in GROW and out.numel() == 1:
        _grow(args, out, before, GROW[name])
    elif name in REARRANGE or name == "__getitem__":
        codes = _moved(func, args, kwargs)
        put(out, codes)
    elif name in ("index_add_", "scatter_add_", "index_copy_", "scatter_"):
        _scatter(func, args, kwargs)
    elif out.numel() == 1 and out.dim() == 0 and _size(args) > 1:
        _total(name, args, kwargs, out)
    elif name in SUMS and ("dim" in kwargs or len(args) > 1):
        _reduce(args, kwargs, out)
    else:
        _elementwise(args, kwargs, out)
    return out


def _counts(value: Any) -> bool:
    """Whether a tensor of integers or booleans is a tracked byte count."""
    return tensor_codes(value) is not None


def _size(args: Any) -> int:
    return max((a.numel() for a in args if isinstance(a, torch.Tensor)), default=1)


def _leave(source: Any, out: Any, name: str) -> Any:
    codes = tensor_codes(source)
    if codes is None:
        return out
    if name in ("item", "__float__"):
        return traced(out, int(codes.reshape(-1)[0]))
    if name == "tolist" and isinstance(out, list) and codes.dim() == 1:
        return [traced(v, c) for v, c in zip(out, codes.tolist())]
    if isinstance(out, np.ndarray):
        return arrays.wrap(out, codes.numpy())
    return out


def _all_codes(args: Any, kwargs: Any) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    found = []
    for a in (*args, *kwargs.values()):
        if isinstance(a, torch.Tensor):
            codes = tensor_codes(a)
            if codes is not None:
                found.append((codes.numpy(), tuple(codes.shape)))
        elif isinstance(a, Origin | arrays.Tracked):
            code = arrays.codes_of(a)
            if code is not None:
                found.append((code, code.shape))
        elif type(a) in (list, tuple):
            found += _all_codes(a, {})
    return found


def _elementwise(args: Any, kwargs: Any, out: torch.Tensor) -> None:
    put(out, current_recording().merged(_all_codes(args, kwargs), tuple(out.shape)))


def _moved(func: Any, args: Any, kwargs: Any) -> Any:
    """Do to the codes what the call does to the tensors."""

    def swap(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            codes = tensor_codes(value)
            if codes is not None:
                return codes
            return torch.full(value.shape, NONE) if value.is_floating_point() else value
        if type(value) in (list, tuple):
            return type(value)(swap(v) for v in value)
        return value

    first = swap(args[0])
    many = type(args[0]) in (list, tuple)
    rest = args[1:] if not many else tuple(swap(a) for a in args[1:])
    try:
        return func(first, *rest, **kwargs)
    except (RuntimeError, TypeError, IndexError):
        return None


def _grow(args: Any, out: torch.Tensor, before: float, sign: float) -> None:
    recording = current_recording()
    codes = [int(c.reshape(-1)[0]) if (c := code_array(a)) is not None else NONE for a in args[:2]]
    if NONE in codes:
        code = max(codes) if codes.count(NONE) == 2 else next(c for c in codes if c != NONE)
    else:
        delta = sign * scalar_value(args[1])
        code = recording.lineage.join(codes[0], codes[1], before, delta, recording.line())
    put(out, None if code == NONE else np.array(code).reshape(tuple(out.shape)))


def _total(name: str, args: Any, kwargs: Any, out: torch.Tensor) -> None:
    """A full reduction: a bag of the tracked operand's elements."""
    recording = current_recording()
    source = next((a for a in args if code_array(a) is not None), None)
    codes = code_array(source)
    if codes is None or name not in SUMS:
        return
    values = source.detach().cpu().numpy() if isinstance(source, torch.Tensor) else source
    code = recording.lineage.sum(
        np.asarray(codes), np.asarray(values), scalar_value(out), recording.line()
    )
    put(out, None if code == NONE else np.array(code))


def _reduce(args: Any, kwargs: Any, out: torch.Tensor) -> None:
    """A reduction along a dimension: kept if each line is one position, else a bag a line."""
    recording = current_recording()
    codes = tensor_codes(args[0])
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if codes is None or not isinstance(dim, int) or not codes.dim():
        return
    lines = codes.movedim(dim, -1).reshape(-1, codes.shape[dim]).numpy()
    values = args[0].detach().movedim(dim, -1).reshape(lines.shape).float().cpu().numpy()
    top = lines.max(-1, keepdims=True)
    if ((lines == top) | (lines == NONE)).all() or ((top >= 0).all() and lines.shape[1] <= 8):
        put(out, top.reshape(-1))
        return
    totals = out.detach().reshape(-1).tolist()
    line = recording.line()
    each = [recording.lineage.sum(c, v, t, line) for c, v, t in zip(lines, values, totals)]
    put(out, np.array(each))


def _write(target: torch.Tensor, index: Any, value: Any) -> None:
    codes = code_array(value)
    mine = tensor_codes(target)
    if codes is None and mine is None:
        return
    if mine is None:
        mine = torch.full(target.shape, NONE)
        put(target, mine)
    if codes is None:
        mine[index] = NONE
    else:
        mine[index] = codes if isinstance(codes, torch.Tensor) else torch.from_numpy(codes)


def _copy(target: torch.Tensor, source: Any) -> None:
    """`copy_`, also into a view of something that was not tracked so far."""
    codes = code_array(source)
    base = target._base
    if tensor_codes(target) is None and base is not None and codes is not None:
        whole = tensor_codes(base)
        if whole is None:
            whole = torch.full(base.shape, NONE)
            put(base, whole)
        offset = target.storage_offset() - base.storage_offset()
        put(target, whole.as_strided(target.size(), target.stride(), offset))
    mine = tensor_codes(target)
    if mine is not None and codes is not None:
        mine.copy_(torch.as_tensor(codes).broadcast_to(mine.shape))
    else:
        put(target, None if codes is None else torch.as_tensor(codes).broadcast_to(target.shape))


def _scatter(func: Any, args: Any, kwargs: Any) -> None:
    """Elements added at places: known where each place gets one."""
    source = next((tensor_codes(a) for a in args[3:] if isinstance(a, torch.Tensor)), None)
    if source is None or args[2].numel() != source.numel():
        return
    mine = tensor_codes(args[0])
    mine = torch.full(args[0].shape, NONE) if mine is None else mine
    if mine.dim() == 1:
        mine[args[2].reshape(-1)] = source.reshape(-1)
        put(args[0], mine)
