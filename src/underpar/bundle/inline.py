"""Calls made plain: arguments by position, and one-line functions put where they are called.

Only functions that are called by name and never handed on are touched. A body takes the place of a
call when that is shorter, and when nothing is evaluated twice, left out or in another order.
"""

from __future__ import annotations

import ast

from underpar.bundle.calls import Callee, Substitute, callees, given
from underpar.bundle.fold import is_pure
from underpar.bundle.nodes import walk
from underpar.bundle.values import constructors

_DEFERS = (ast.IfExp, ast.BoolOp, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp)
_BINDS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.NamedExpr)


def by_position(tree: ast.Module) -> None:
    """Give all arguments by position, in place: what they are called is then nobody's business."""
    for callee in [*callees(tree).values(), *constructors(tree)]:
        a = callee.function.args
        if callee.opaque or a.vararg or a.kwarg or a.posonlyargs or not callee.calls:
            continue
        plain = len(a.args) - len(a.defaults)
        required = [*a.args[:plain], *(p for p, d in zip(a.kwonlyargs, a.kw_defaults) if not d)]
        optional = list(zip(a.args[plain:], a.defaults))
        optional += [(p, d) for p, d in zip(a.kwonlyargs, a.kw_defaults) if d]
        order = [*required, *(p for p, _ in optional)]
        values = [
            {p.arg: given(callee, call, p) for p in order[callee.implied :]}
            for call in callee.calls
        ]
        for call, by_name in zip(callee.calls, values):
            _rewrite(call, by_name)
        a.args, a.defaults = order, [d for _, d in optional]
        a.kwonlyargs, a.kw_defaults = [], []


def _rewrite(call: ast.Call, values: dict[str, ast.expr | None]) -> None:
    """All arguments by position, up to the last that the call gives itself."""
    mine = {id(part) for part in [*call.args, *(k.value for k in call.keywords)]}
    ordered = list(values.values())
    while ordered and id(ordered[-1]) not in mine:
        ordered.pop()
    call.args, call.keywords = [value for value in ordered if value is not None], []


def inline(tree: ast.Module) -> None:
    """Replace calls of one-line functions by what they return, in place, where that is shorter."""
    bodies: dict[int, tuple[Callee, ast.expr]] = {}
    for name, callee in callees(tree).items():
        function = callee.function
        body = function.body[0]
        fits = not callee.opaque and not callee.implied and not function.decorator_list
        if not fits or len(function.body) > 1 or not isinstance(body, ast.Return):
            continue
        if body.value is None or any(isinstance(n, _BINDS) for n in walk(body.value)):
            continue
        names = [n.id for n in walk(body.value) if isinstance(n, ast.Name)]
        if name in names or function.args.vararg or function.args.kwarg:
            continue
        bodies |= {id(call): (callee, body.value) for call in callee.calls}
    if bodies:
        _Inline(bodies).visit(tree)


class _Inline(ast.NodeTransformer):
    """Calls by the expressions of their functions."""

    def __init__(self, bodies: dict[int, tuple[Callee, ast.expr]]) -> None:
        self._bodies = bodies

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if id(node) not in self._bodies:
            return node
        callee, body = self._bodies[id(node)]
        a = callee.function.args
        values = {p.arg: given(callee, node, p) for p in [*a.args, *a.kwonlyargs]}
        if any(v is None or not _can_move(body, p, v, len(a.args)) for p, v in values.items()):
            return node
        fresh = Substitute({p: v for p, v in values.items() if v is not None})
        new = fresh.visit(ast.parse(ast.unparse(body), mode="eval").body)
        longer = len(ast.unparse(new)) - len(ast.unparse(node))
        spare = len(ast.unparse(callee.function)) / max(len(callee.calls), 1)
        return new if longer <= spare else node


def _can_move(body: ast.expr, parameter: str, value: ast.expr, n_parameters: int) -> bool:
    """Whether an argument may be evaluated where its parameter stands."""
    used = sum(isinstance(n, ast.Name) and n.id == parameter for n in walk(body))
    if isinstance(value, ast.Name | ast.Constant):
        return True
    if used != 1 or is_pure(value):
        return used == 1
    deferred = any(isinstance(n, _DEFERS) for n in walk(body))
    calls = sum(isinstance(n, ast.Call) for n in walk(body))
    return not deferred and calls <= 1 and n_parameters == 1
