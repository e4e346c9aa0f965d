"""Python and NumPy numbers that remember where they come from.

`.item()` of a tracked tensor gives a `Number`, a float with a code; sums of Numbers are chains as
sums of tensors are. `float(x)` and `math.log(x)` would forget the code, so calls of `float` in the
script's source become calls of `keep`, and the functions of `math` are wrapped.
"""

from __future__ import annotations

import ast
import builtins
import math
from collections.abc import Callable
from types import CodeType
from typing import Any

import numpy as np

from .recorder_codes import NONE
from .recorder_state import current_recording

KEEP = "_number_with_origin"


class Origin:
    """Arithmetic that carries `code` along; mixed into float and numpy.float64."""

    code = NONE

    def __add__(self, other: Any) -> Any:
        return _sum(self, other, super().__add__(other), 1.0)  # type: ignore[misc]

    def __radd__(self, other: Any) -> Any:
        return _sum(other, self, super().__radd__(other), 1.0)  # type: ignore[misc]

    def __sub__(self, other: Any) -> Any:
        return _sum(self, other, super().__sub__(other), -1.0)  # type: ignore[misc]

    def __rsub__(self, other: Any) -> Any:
        return _sum(other, self, super().__rsub__(other), -1.0)  # type: ignore[misc]

    def __mul__(self, other: Any) -> Any:
        return _carry(super().__mul__(other), self, other)  # type: ignore[misc]

    def __rmul__(self, other: Any) -> Any:
        return _carry(super().__rmul__(other), self, other)  # type: ignore[misc]

    def __truediv__(self, other: Any) -> Any:
        return _carry(super().__truediv__(other), self, other)  # type: ignore[misc]

    def __rtruediv__(self, other: Any) -> Any:
        return _carry(super().__rtruediv__(other), self, other)  # type: ignore[misc]

    def __pow__(self, other: Any, *rest: Any) -> Any:
        return _carry(super().__pow__(other, *rest), self, other)  # type: ignore[misc]

    def __neg__(self) -> Any:
        return _carry(super().__neg__(), self)  # type: ignore[misc]

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return _carry(super().__abs__(), self)  # type: ignore[misc]

    def __round__(self, digits: Any = None) -> Any:
        plain = float(self)  # type: ignore[arg-type]
        return round(plain) if digits is None else traced(round(plain, digits), self.code)

    def __format__(self, spec: str) -> str:
        text = float(self).__format__(spec)  # type: ignore[arg-type]
        return _shown(self, text)

    def __str__(self) -> str:
        return _shown(self, repr(float(self)))  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return _shown(self, repr(float(self)))  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return float, (float(self),)  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return hash(float(self))  # type: ignore[arg-type]

    def __eq__(self, other: object) -> Any:
        return super().__eq__(other)

    def item(self) -> Any:
        return traced(float(self), self.code)  # type: ignore[arg-type]


class Number(Origin, float):
    """A float with a code."""

    __hash__ = Origin.__hash__


class ArrayNumber(Origin, np.float64):  # type: ignore[misc]
    """What NumPy gives for an element of a tracked array."""

    __hash__ = Origin.__hash__


def traced(value: float, code: int) -> float:
    """`value` as a float with a code; plain where there is none."""
    if code == NONE or not isinstance(value, float):
        return value
    out = (ArrayNumber if isinstance(value, np.float64) else Number)(value)
    out.code = code
    return out


def code_of(value: Any) -> int:
    return value.code if isinstance(value, Origin) else NONE


def _shown(value: Any, text: str) -> str:
    recording = current_recording()
    recording.formatted.append((text, float(value), value.code))
    del recording.formatted[:-64]
    return text


def _carry(result: Any, *sources: Any) -> Any:
    if result is NotImplemented or not isinstance(result, float):
        return result
    codes = [c for c in map(code_of, sources) if c != NONE]
    if len(codes) == 2 and codes[0] != codes[1]:
        merged = current_recording().lineage.merge(np.array([codes[0]]), np.array([codes[1]]))
        return traced(result, int(merged[0]))
    return traced(result, codes[0] if codes else NONE)


def _sum(a: Any, b: Any, result: Any, sign: float) -> Any:
    if result is NotImplemented or not isinstance(result, float):
        return result
    first, second = code_of(a), code_of(b)
    if NONE in (first, second):
        return traced(result, first if second == NONE else second)
    recording = current_recording()
    code = recording.lineage.join(first, second, float(a), sign * float(b), recording.line())
    return traced(result, code)


def keep(*args: Any) -> Any:
    """`float(...)` that keeps the code; stands in for it in the script."""
    if len(args) == 1:
        code = code_of(args[0])
        if code != NONE:
            return traced(float(args[0]), code)
        origin = getattr(args[0], "item", None)
        if origin is not None and not isinstance(args[0], type):
            value: Any = origin()
            if code_of(value) != NONE:
                return traced(float(value), code_of(value))
    return float(*args)


class _FloatCalls(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "float":
            node.func = ast.copy_location(ast.Name(KEEP, ast.Load()), node.func)
        return node


def install(undo: list[Callable[[], None]]) -> None:
    """Wrap `math`, and have `compile` rewrite calls of float in code of the scratch folder."""
    for name in ("exp", "log", "log2", "log10", "log1p", "expm1", "sqrt", "fsum", "pow"):
        _replace(math, name, _wrap(getattr(math, name)), undo)
    plain = builtins.compile
    scratch = str(current_recording().scratch)

    def rewrite(source: Any, filename: Any, mode: str, *args: Any, **kwargs: Any) -> Any:
        where = str(filename)
        flags = args[0] if args else kwargs.get("flags", 0)
        ours = where.endswith("script.py") or where.startswith(scratch)
        if ours and not flags & ast.PyCF_ONLY_AST and not isinstance(source, CodeType):
            if not isinstance(source, ast.AST):
                source = plain(source, filename, mode, ast.PyCF_ONLY_AST)
            source = ast.fix_missing_locations(_FloatCalls().visit(source))
        return plain(source, filename, mode, *args, **kwargs)

    _replace(builtins, "compile", rewrite, undo)
    _replace(builtins, KEEP, keep, undo)


def _wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        result = function(*args)
        if isinstance(args[0], Origin) and isinstance(result, float):
            return traced(result, args[0].code)
        return result

    return call


def _replace(owner: Any, name: str, value: Any, undo: list[Callable[[], None]]) -> None:
    missing = object()
    old = getattr(owner, name, missing)
    setattr(owner, name, value)
    undo.append(
        (lambda: delattr(owner, name)) if old is missing else (lambda: setattr(owner, name, old))
    )
