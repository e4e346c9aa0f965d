"""NumPy arrays that remember where their elements come from (see recorder_codes)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .recorder_codes import NONE
from .recorder_numbers import Origin, _replace, code_of, traced
from .recorder_state import current_recording

REARRANGE = {
    "repeat", "concatenate", "stack", "vstack", "hstack", "reshape", "ravel", "transpose", "take",
    "squeeze", "expand_dims", "copy", "split", "array_split", "flip", "roll", "tile", "append",
    "atleast_1d", "broadcast_to", "compress", "delete",
}  # fmt: skip
SUMS = {"sum", "mean", "nansum", "average", "dot", "vdot", "inner"}


class Tracked(np.ndarray):
    """An ndarray with `codes` int64 of the same shape, or None."""

    codes: np.ndarray | None = None

    def __array_finalize__(self, other: Any) -> None:
        self.codes = None

    def __getitem__(self, index: Any) -> Any:
        plain = self.view(np.ndarray)[_plain(index)]
        codes = None if self.codes is None else self.codes[_plain(index)]
        return wrap(plain, codes)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __setitem__(self, index: Any, value: Any) -> None:
        index = _plain(index)
        self.view(np.ndarray)[index] = _plain(value)
        codes = codes_of(value)
        if codes is None and self.codes is None:
            return
        if self.codes is None:
            self.codes = np.full(self.shape, NONE, np.int64)
        self.codes[index] = NONE if codes is None else codes

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out")
        if out is not None:
            kwargs["out"] = tuple(_plain(o) for o in out)
        result = getattr(ufunc, method)(*map(_plain, inputs), **_plain(kwargs))
        if result is None or method == "at":
            return result
        if method in ("reduce", "accumulate", "reduceat"):
            if ufunc is np.add and np.ndim(result) == 0:
                return _sum(inputs[0], result)
            return _along(inputs[0], result, kwargs.get("axis"))
        if isinstance(result, tuple):
            return result
        codes = _merged(inputs, np.shape(result))
        if out is not None:
            if isinstance(out[0], Tracked):
                out[0].codes = codes
            return out[0]
        return wrap(result, codes)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = func.__name__
        result = func(*_plain(args), **_plain(kwargs))
        if name in SUMS and np.ndim(result) == 0:
            return _sum(args[0], result)
        if name in REARRANGE:
            codes = _codes_like(args)
            moved = func(*codes, **_plain(kwargs))
            if isinstance(result, list):
                return [wrap(r, c) for r, c in zip(result, moved)]
            return wrap(result, moved)
        if isinstance(result, np.ndarray) and result.dtype.kind in "fc":
            return wrap(result, _merged(_flat(args), result.shape))
        return result

    def _moved(self, name: str, *args: Any, **kwargs: Any) -> Any:
        result = getattr(self.view(np.ndarray), name)(*args, **kwargs)
        codes = None if self.codes is None else getattr(self.codes, name)(*args, **kwargs)
        return wrap(result, codes)

    def reshape(self, *args: Any, **kwargs: Any) -> Any:
        return self._moved("reshape", *args, **kwargs)

    def ravel(self, *args: Any) -> Any:
        return self._moved("ravel", *args)

    def flatten(self, *args: Any) -> Any:
        return self._moved("flatten", *args)

    def copy(self, *args: Any) -> Any:
        return self._moved("copy", *args)

    def repeat(self, *args: Any, **kwargs: Any) -> Any:
        return self._moved("repeat", *args, **kwargs)

    def astype(self, *args: Any, **kwargs: Any) -> Any:
        result = self.view(np.ndarray).astype(*args, **kwargs)
        return wrap(result, self.codes if result.dtype.kind == "f" else None)

    def sum(self, *args: Any, **kwargs: Any) -> Any:
        result = self.view(np.ndarray).sum(*args, **kwargs)
        return (
            _sum(self, result) if np.ndim(result) == 0 else _along(self, result, (*args, None)[0])
        )

    def mean(self, *args: Any, **kwargs: Any) -> Any:
        result = self.view(np.ndarray).mean(*args, **kwargs)
        return (
            _sum(self, result) if np.ndim(result) == 0 else _along(self, result, (*args, None)[0])
        )

    def item(self, *args: Any) -> Any:
        value = self.view(np.ndarray).item(*args)
        return traced(value, NONE if self.codes is None else self.codes.item(*args))

    def tolist(self) -> Any:
        values = self.view(np.ndarray).tolist()
        if self.codes is None or self.ndim != 1:
            return values
        return [traced(v, c) for v, c in zip(values, self.codes.tolist())]

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()


def wrap(result: Any, codes: Any) -> Any:
    """`result` with codes; plain where there are none."""
    if np.ndim(result) == 0 and not isinstance(result, np.ndarray):
        if codes is not None and int(codes) != NONE and isinstance(result, np.floating):
            result = np.float64(result)
        return traced(result, NONE if codes is None else int(codes))
    if codes is None or not isinstance(result, np.ndarray) or result.dtype.kind != "f":
        return result if not isinstance(result, np.ndarray) else result.view(np.ndarray)
    out = result.view(Tracked)
    out.codes = np.asarray(codes)
    return out


def codes_of(value: Any) -> np.ndarray | None:
    """Codes of an array, a number or a list of numbers; None if nothing is known."""
    if isinstance(value, Tracked):
        return value.codes
    if isinstance(value, Origin):
        return np.array(value.code)
    if isinstance(value, list | tuple) and all(isinstance(v, float) for v in value):
        codes = [code_of(v) for v in value]
        return np.array(codes) if any(c != NONE for c in codes) else None
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, Tracked):
        return value.view(np.ndarray)
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _flat(args: Any) -> list[Any]:
    out: list[Any] = []
    for a in args:
        out.extend(_flat(a) if type(a) in (list, tuple) else [a])
    return out


def _codes_like(value: Any) -> Any:
    """The arguments of a rearranging call with every array replaced by its codes."""
    if isinstance(value, Tracked):
        return np.full(value.shape, NONE, np.int64) if value.codes is None else value.codes
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.full(value.shape, NONE, np.int64)
    if type(value) in (list, tuple):
        return type(value)(_codes_like(v) for v in value)
    return value


def _merged(inputs: Any, shape: Any) -> np.ndarray | None:
    codes = [(c, c.shape) for c in map(codes_of, inputs) if c is not None]
    return current_recording().merged(codes, shape) if codes else None


def _sum(source: Any, result: Any) -> Any:
    codes = codes_of(source)
    if codes is None:
        return result
    recording = current_recording()
    values = np.asarray(_plain(source))
    code = recording.lineage.sum(codes, values, float(result), recording.line())
    return traced(result, code)


def _along(source: Any, result: Any, axis: Any) -> Any:
    """A reduction along one axis: kept where all known elements of a line are one position."""
    codes = codes_of(source)
    if codes is None or not isinstance(axis, int) or codes.ndim < 1:
        return result
    return wrap(result, codes.max(axis)) if np.shape(result) == codes.max(axis).shape else result


def install(undo: list[Callable[[], None]], most: int) -> None:
    """Have fresh one-dimensional float arrays track what is later written into them."""
    for name in ("zeros", "empty", "full", "ones"):
        _replace(np, name, _fresh(getattr(np, name), most), undo)
    array = _made(np.array)
    for name in ("sum", "mean"):
        _replace(np, name, _listed(getattr(np, name), array), undo)
    _replace(np, "asarray", _made(np.asarray), undo)
    _replace(np, "array", array, undo)


def _fresh(function: Callable[..., Any], most: int) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        out = function(*args, **kwargs)
        if out.ndim == 1 and out.dtype.kind == "f" and 32 <= out.size <= most:
            return out.view(Tracked)
        return out

    return call


def _listed(function: Callable[..., Any], array: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction that also sees the origin of numbers in a list."""

    def call(value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, list | tuple) and codes_of(value) is not None:
            value = array(value)
        return function(value, *args, **kwargs)

    return call


def _made(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not args:
            return function(**kwargs)
        codes = codes_of(args[0]) if isinstance(args[0], list | tuple | Tracked) else None
        out = function(_plain(args[0]) if codes is not None else args[0], *args[1:], **kwargs)
        return wrap(out, codes) if codes is not None and out.shape == codes.shape else out

    return call
