"""What is known from all uses of a global, and from all calls that name a parameter.

A global that is assigned a literal once is that literal wherever it is read. A keyword-only
parameter can be given by its name alone, whatever is called: so all parameters of one name are
looked at together with all calls that name it. Where defaults and arguments are one and the same
literal, or the parameter handed on to another of its name, it is that literal, and goes.

Nothing is decided by what a name is called; where a value cannot be followed, the name stays.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from underpar.ship.fold import constant, is_constant, value_of
from underpar.ship.freeze import assigned
from underpar.ship.scopes import FUNCTIONS, Scope, binds, locals_of, references, walk

_FILE = "file"


def propagate(tree: ast.Module) -> None:
    """Put literals in the place of such globals and parameters, in place."""
    scope = Scope(_FILE, tree, {_FILE: tree})
    stores = Counter(name for node in tree.body for name in _bound_at_top(node))
    stores.update(name for n in walk(tree) if isinstance(n, ast.Global) for name in n.names * 2)
    pairs = (pair for node in tree.body for pair in assigned(node))
    values = {t.id: v for t, v in pairs if isinstance(t, ast.Name) and _is_literal(v)}
    uses = (use for use in references(scope, {_FILE: scope}) if stores[use.text] == 1)
    _Put({id(use.node): values[use.text] for use in uses if _reads(use.node) in values}).visit(tree)
    functions = [node for node in walk(tree) if isinstance(node, ast.FunctionDef)]
    fixed = _fixed(functions, [n for n in walk(tree) if isinstance(n, ast.Call)])
    for function in functions:
        a, pairs_ = function.args, list(zip(function.args.kwonlyargs, function.args.kw_defaults))
        mine = {arg.arg: fixed[arg.arg] for arg, _ in pairs_ if arg.arg in fixed}
        _Put({id(n): mine[_reads(n)] for n in walk(function) if _reads(n) in mine}).visit(function)
        a.kwonlyargs = [arg for arg, _ in pairs_ if arg.arg not in mine]
        a.kw_defaults = [default for arg, default in pairs_ if arg.arg not in mine]
    for call in (node for node in walk(tree) if isinstance(node, ast.Call)):
        call.keywords = [k for k in call.keywords if k.arg not in fixed]


def by_position(tree: ast.Module) -> None:
    """Make positional-only, in place, what no call can name: its name may then be shortened."""
    named = {k.arg for node in walk(tree) if isinstance(node, ast.Call) for k in node.keywords}
    for node in walk(tree):
        if isinstance(node, ast.FunctionDef):
            a = node.args
            free = next((i for i, arg in enumerate(a.args) if arg.arg in named), len(a.args))
            a.posonlyargs, a.args = [*a.posonlyargs, *a.args[:free]], a.args[free:]


def _fixed(functions: list[ast.FunctionDef], calls: list[ast.Call]) -> dict[str, ast.expr]:
    """Name of keyword-only parameters -> the literal that all of that name are."""
    seen: dict[str, dict[str, ast.expr | None]] = {}  # by their text; None: not a literal
    handed_on: set[tuple[int, str]] = set()
    for function in functions:
        inside = list(walk(function))
        inner = [f for f in inside[1:] if isinstance(f, (*FUNCTIONS, ast.Lambda))]
        rebound = {n for f in inner for n in locals_of(f)} | {n for p in inside for n in binds(p)}
        for arg, default in zip(function.args.kwonlyargs, function.args.kw_defaults):
            known = seen.setdefault(arg.arg, {})
            if arg.arg in rebound:
                known[""] = None
            if default is not None:
                known[ast.dump(default)] = default if _is_literal(default) else None
            keywords = (part for part in inside if isinstance(part, ast.keyword))
            handed_on |= {(id(k), arg.arg) for k in keywords if _reads(k.value) == arg.arg}
    for keyword in (k for call in calls for k in call.keywords if k.arg in seen):
        name = str(keyword.arg)
        if (id(keyword), name) not in handed_on:
            value = keyword.value
            seen[name][ast.dump(value)] = value if _is_literal(value) else None
    only = {name: next(iter(values.values())) for name, values in seen.items() if len(values) == 1}
    return {name: value for name, value in only.items() if value is not None}


def _reads(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else ""


def _bound_at_top(node: ast.AST) -> Iterator[str]:
    """Names that a statement of the file binds in the file's own scope."""
    yield from binds(node)
    if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        for child in ast.iter_child_nodes(node):
            yield from _bound_at_top(child)


def _is_literal(value: ast.expr) -> bool:
    """A number, truth value, text or None: worth its place wherever the name stood."""
    return is_constant(value) and not isinstance(value_of(value), tuple)


class _Put(ast.NodeTransformer):
    """Nodes by identity, replaced by constants."""

    def __init__(self, found: dict[int, ast.expr]) -> None:
        self._found = found

    def visit(self, node: ast.AST) -> ast.AST:
        value = self._found.get(id(node))
        return super().visit(node) if value is None else constant(value_of(value))
