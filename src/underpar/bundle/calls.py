"""Parameters that every call gives the same constant, and parameters that nobody reads.

Both go: the constant into the body, the argument out of the calls. This is done for what cannot be
called behind the file's back: functions and classes that are only ever called by name, and methods
of a name that no other class has, ours or another package's.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from underpar.bundle.fold import is_constant, is_pure
from underpar.bundle.foreign import FOREIGN
from underpar.bundle.nodes import walk
from underpar.bundle.shake import FUNCTIONS

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Callee:
    """A function, how many of its first parameters no call mentions (self), and its calls."""

    function: Function
    implied: int = 0
    calls: list[ast.Call] = field(default_factory=list)
    opaque: bool = False


def drop_parameters(tree: ast.Module) -> bool:
    """Take constant and unread parameters out, in place; whether there were any."""
    changed = False
    for callee in callees(tree).values():
        if callee.opaque or not callee.calls:
            continue
        for arg in list(_parameters(callee)):
            changed |= _drop(callee, arg)
    return changed


def drop_idle(tree: ast.Module) -> None:
    """Take out, in place, calls for nothing: the function does nothing, nobody asks its result."""
    empty = {name for name, c in callees(tree).items() if not c.opaque and _is_empty(c.function)}
    for node in walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                kept = [part for part in block if not _is_idle(part, empty)]
                if len(kept) < len(block):
                    setattr(node, name, kept or [ast.Pass()])
        if isinstance(node, FUNCTIONS):
            read = {n.id for n in walk(node) if isinstance(n, ast.Name)}
            kept = [b for b in node.body if not isinstance(b, FUNCTIONS) or b.name in read]
            node.body = kept or [ast.Pass()]


def _is_empty(function: Function) -> bool:
    return all(
        isinstance(part, ast.Pass)
        or (isinstance(part, ast.Return) and (part.value is None or is_constant(part.value)))
        for part in function.body
    )


def _is_idle(node: ast.AST, empty: set[str]) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or _called(call) not in empty:
        return False
    return all(is_pure(part) for part in [*call.args, *(k.value for k in call.keywords)])


def callees(tree: ast.Module) -> dict[str, Callee]:
    """Name -> what is called by it; methods as '.name'."""
    found: dict[str, Callee] = {}
    bases = {ast.unparse(b) for n in tree.body if isinstance(n, ast.ClassDef) for b in n.bases}
    methods: dict[str, list[Function]] = {}
    for node in tree.body:
        if isinstance(node, FUNCTIONS):
            found[node.name] = Callee(node)
        elif isinstance(node, ast.ClassDef):
            own = {part.name: part for part in node.body if isinstance(part, FUNCTIONS)}
            for name, method in own.items():
                methods.setdefault(name, []).append(method)
            if "__init__" in own and node.name not in bases and "cls(" not in ast.unparse(node):
                found[node.name] = Callee(own["__init__"], 1)
    for name, defined in methods.items():
        plain = not any(d for d in defined[0].decorator_list if "static" in ast.unparse(d))
        if not name.startswith("__") and name not in FOREIGN and len(defined) == 1 and plain:
            found[f".{name}"] = Callee(defined[0], 1)
    _collect_calls(tree, found)
    return found


def _collect_calls(tree: ast.Module, found: dict[str, Callee]) -> None:
    harmless: set[int] = set()  # names that are not handed on to anybody
    for node in walk(tree):
        if isinstance(node, ast.Call):
            name = _called(node)
            if name in found:
                harmless.add(id(node.func))
                found[name].calls.append(node)
                starred = any(isinstance(a, ast.Starred) for a in node.args)
                found[name].opaque |= starred or any(k.arg is None for k in node.keywords)
            if name in ("isinstance", "issubclass"):
                harmless |= {id(part) for part in walk(node.args[1])}
        elif isinstance(node, ast.Attribute):
            harmless.add(id(node.value))  # Class.method
        elif isinstance(node, ast.MatchClass):
            harmless.add(id(node.cls))
    for node in walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in harmless:
            name = node.id if isinstance(node, ast.Name) else f".{node.attr}"
            if name in found and isinstance(node.ctx, ast.Load):
                found[name].opaque = True


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Name):
        return call.func.id
    return f".{call.func.attr}" if isinstance(call.func, ast.Attribute) else ""


def _parameters(callee: Callee) -> Iterator[ast.arg]:
    a = callee.function.args
    yield from [*a.posonlyargs, *a.args][callee.implied :]
    yield from a.kwonlyargs


def _default(callee: Callee, arg: ast.arg) -> ast.expr | None:
    a = callee.function.args
    if arg in a.kwonlyargs:
        return a.kw_defaults[a.kwonlyargs.index(arg)]
    back = len(a.args) - a.args.index(arg)
    return a.defaults[-back] if back <= len(a.defaults) else None


def given(callee: Callee, call: ast.Call, arg: ast.arg) -> ast.expr | None:
    """What a call gives for a parameter, written or by default."""
    for keyword in call.keywords:
        if keyword.arg == arg.arg:
            return keyword.value
    a = callee.function.args
    if arg in a.args:
        index = a.args.index(arg) - callee.implied
        if index < len(call.args):
            return call.args[index]
    return _default(callee, arg)


def _drop(callee: Callee, arg: ast.arg) -> bool:
    function = callee.function
    names = [n for n in walk(function) if isinstance(n, ast.Name) and n.id == arg.arg]
    rebound = any(not isinstance(n.ctx, ast.Load) for n in names) or _bound_inside(function, arg)
    values = [given(callee, call, arg) for call in callee.calls]
    constants = {ast.unparse(g) for g in values if g is not None and is_constant(g)}
    if (
        all(g is not None and is_constant(g) for g in values)
        and len(constants) == 1
        and not rebound
    ):
        value = values[0]
        assert value is not None
        function.body = [Substitute({arg.arg: value}).visit(part) for part in function.body]
    elif names or any(g is not None and not is_pure(g) for g in values):
        return False
    take_out(callee, arg)
    return True


def _bound_inside(function: Function, arg: ast.arg) -> bool:
    """Whether an inner function has a parameter of the same name."""
    inner = (n for n in walk(function) if isinstance(n, ast.arg) and n is not arg)
    return any(n.arg == arg.arg for n in inner)


def take_out(callee: Callee, arg: ast.arg) -> None:
    a = callee.function.args
    for call in callee.calls:
        call.keywords = [k for k in call.keywords if k.arg != arg.arg]
        if arg in a.args:
            index = a.args.index(arg) - callee.implied
            del call.args[index : index + 1]
    if arg in a.kwonlyargs:
        index = a.kwonlyargs.index(arg)
        del a.kwonlyargs[index], a.kw_defaults[index]
        return
    index = a.args.index(arg)
    first = len(a.args) - len(a.defaults)
    if index >= first:
        del a.defaults[index - first]
    del a.args[index]


class Substitute(ast.NodeTransformer):
    """Names by expressions."""

    def __init__(self, values: dict[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._values.get(node.id, node) if isinstance(node.ctx, ast.Load) else node
