"""The table of codes beside the tensors of the script, keyed by the tensor object."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch

from . import recorder_arrays as arrays

TABLE: dict[int, tuple[Any, torch.Tensor]] = {}


def tensor_codes(value: Any) -> torch.Tensor | None:
    """Codes of a tensor, int64 of its shape, or None."""
    entry = TABLE.get(id(value))
    return entry[1] if entry is not None and entry[0]() is value else None


def put(tensor: torch.Tensor, codes: Any) -> None:
    """Attach codes (None: forget)."""
    key = id(tensor)
    if codes is None:
        TABLE.pop(key, None)
        return
    if isinstance(codes, np.ndarray):
        codes = torch.from_numpy(np.array(codes, np.int64))
    if codes.shape != tensor.shape:
        if codes.numel() != tensor.numel():
            return
        codes = codes.reshape(tensor.shape)
    TABLE[key] = (weakref.ref(tensor, lambda _: TABLE.pop(key, None)), codes)


def any_tracked(args: Any, kwargs: Any) -> bool:
    for a in args:
        if id(a) in TABLE or (type(a) in (list, tuple) and any(id(x) in TABLE for x in a)):
            return True
    return bool(kwargs) and any(id(a) in TABLE for a in kwargs.values())


def number_in(args: Any) -> bool:
    return any(isinstance(a, arrays.Origin | arrays.Tracked) for a in args)


def scalar_value(value: Any) -> float:
    if isinstance(value, torch.Tensor):
        return float(value.detach()) if value.numel() == 1 else 0.0
    return float(value) if isinstance(value, int | float) else 0.0


def code_array(value: Any) -> Any:
    """Codes of a tensor, array or number, or None."""
    return tensor_codes(value) if isinstance(value, torch.Tensor) else arrays.codes_of(value)
