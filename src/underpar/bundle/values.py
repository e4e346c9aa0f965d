"""Fields of dataclasses that nobody reads, or that are always the same constant.

Names decide: a field may go when no attribute of its name is read anywhere, and may become its
constant when that name is read on ``self`` in its class alone. Classes that are taken apart as a
whole (``asdict``), or made by a method of their own (``cls``), keep all their fields.
"""

from __future__ import annotations

import ast
from collections import Counter

from underpar.bundle.calls import Callee, given, take_out
from underpar.bundle.constants import PutAttribute, is_self
from underpar.bundle.fold import is_constant, is_pure
from underpar.bundle.nodes import walk


def drop_fields(tree: ast.Module) -> None:
    """Take such fields out, in place, with their arguments."""
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    reads = Counter(
        n.attr for n in walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)
    )
    stored = {
        n.attr for n in walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
    }
    for callee in constructors(tree):
        if callee.opaque:
            continue
        node = classes[callee.function.name]
        for arg in list(callee.function.args.args):
            values = [given(callee, call, arg) for call in callee.calls]
            same = {ast.unparse(v) for v in values if v is not None and is_constant(v)}
            here = sum(
                isinstance(n, ast.Attribute) and n.attr == arg.arg and is_self(n.value)
                for n in walk(node)
            )
            unread = not reads[arg.arg] and all(v is None or is_pure(v) for v in values)
            fixed = len(same) == 1 and all(v is not None and is_constant(v) for v in values)
            if unread and arg.arg not in stored:
                pass
            elif fixed and here == reads[arg.arg] and arg.arg not in stored and values[0]:
                PutAttribute(arg.arg, values[0]).visit(node)
            else:
                continue
            take_out(callee, arg)
            node.body = [n for n in node.body if _field(n) != arg.arg] or [ast.Pass()]


def constructors(tree: ast.Module) -> list[Callee]:
    """Of dataclasses, as the decorator makes them, with their calls."""
    calls: dict[str, list[ast.Call]] = {}
    for part in walk(tree):
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
            calls.setdefault(part.func.id, []).append(part)
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and _is_simple(node))
    return [_constructor(node, calls.get(node.name, [])) for node in classes]


def _is_simple(node: ast.ClassDef) -> bool:
    made = any("dataclass" in ast.unparse(d) for d in node.decorator_list)
    text = ast.unparse(node)
    return made and "asdict" not in text and "cls(" not in text and "InitVar" not in text


def _field(node: ast.stmt) -> str:
    named = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    return node.target.id if named else ""  # type: ignore[attr-defined]


def _constructor(node: ast.ClassDef, calls: list[ast.Call]) -> Callee:
    """The constructor that the decorator makes, as a function, with its calls."""
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and _field(n)]
    fields = [n for n in fields if "init=False" not in ast.unparse(n)]
    defaults = [n.value for n in fields if n.value is not None]
    args = ast.arguments([], [ast.arg(_field(n)) for n in fields], None, [], [], None, defaults)
    starred = any(isinstance(part, ast.Starred) for call in calls for part in call.args)
    starred |= any(k.arg is None for call in calls for k in call.keywords)
    function = ast.FunctionDef(node.name, args, [], [], None)
    return Callee(function, 0, calls, opaque=starred)
