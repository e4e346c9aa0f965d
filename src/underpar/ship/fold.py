"""Constant folding: what an expression of constants is worth, and the branches that then are dead.

Comparisons are Python's own, done now instead of later. Nothing is folded that could raise.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from underpar.ship.scopes import walk

_UNKNOWN = object()

_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def fold(tree: ast.Module) -> ast.Module:
    """The tree with constant expressions folded and dead branches gone, in place."""
    return _Fold().visit(tree)


def constant(value: object) -> ast.expr:
    """The expression of a plain value."""
    return ast.parse(repr(value), mode="eval").body


def value_of(node: ast.AST | None) -> Any:
    """The value of a literal (numbers, texts, None, tuples of them), or ``UNKNOWN``."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = value_of(node.operand)
        return -value if isinstance(value, int | float) else _UNKNOWN
    if isinstance(node, ast.Tuple):
        values = tuple(value_of(part) for part in node.elts)
        return _UNKNOWN if _UNKNOWN in values else values
    return _UNKNOWN


def is_constant(node: ast.AST | None) -> bool:
    return value_of(node) is not _UNKNOWN


class _Fold(ast.NodeTransformer):
    """Bottom up: a node's parts are folded before it is looked at."""

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and is_constant(node.operand):
            return constant(not value_of(node.operand))
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """A constant that decides ends the row, one that does not goes, unless it is the last."""
        self.generic_visit(node)
        deciding = isinstance(node.op, ast.Or)
        kept: list[ast.expr] = []
        for i, part in enumerate(node.values):
            if is_constant(part):
                if bool(value_of(part)) == deciding:
                    kept.append(part)
                    break
                if i < len(node.values) - 1:
                    continue
            kept.append(part)
        node.values = kept
        return node if len(kept) > 1 else kept[0]

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) == 1 and is_constant(node.left) and is_constant(node.comparators[0]):
            left, right = value_of(node.left), value_of(node.comparators[0])
            try:
                return constant(bool(_COMPARE[type(node.ops[0])](left, right)))
            except TypeError:
                return node
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        node.test = _as_test(node.test)
        if is_constant(node.test):
            return node.body if value_of(node.test) else node.orelse
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        node.test = _as_test(self.visit(node.test))
        if is_constant(node.test):
            taken = node.body if value_of(node.test) else node.orelse
            return self._block(taken)
        node.body, node.orelse = self._block(node.body), self._block(node.orelse)
        if not _does(node.body) and not node.orelse:
            return [] if is_pure(node.test) else ast.Expr(node.test)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_For(self, node: ast.For) -> ast.AST | list[ast.stmt]:
        """A loop over an empty table or row never begins."""
        self.generic_visit(node)
        over = node.iter.func.value if _asks_items(node.iter) else node.iter  # type: ignore[attr-defined]
        empty = isinstance(over, ast.Dict) and not over.keys
        return node.orelse if empty or value_of(over) == () else node

    def visit_Match(self, node: ast.Match) -> ast.AST | list[ast.stmt]:
        """A constant subject against constant patterns chooses its case."""
        self.generic_visit(node)
        for case in node.cases:
            case.body = case.body or [ast.Pass()]
        subject = value_of(node.subject)
        if subject is _UNKNOWN:
            return node
        for case in node.cases:
            if not isinstance(case.pattern, ast.MatchValue) or case.guard:
                return node
            if value_of(case.pattern.value) == subject:
                return case.body
        return []

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        self.generic_visit(node)
        return None if is_pure(node.value) else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, _alive(block))
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def _block(self, block: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for node in block:
            new = self.visit(node)
            out += new if isinstance(new, list) else [new] if new is not None else []
        return _alive(out)


def _asks_items(node: ast.expr) -> bool:
    call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return call and node.func.attr == "items"  # type: ignore[attr-defined]


def _as_test(node: ast.expr) -> ast.expr:
    """Of which only the truth is asked: ``x and True`` is x, ``x and False`` False if x is pure."""
    if isinstance(node, ast.BoolOp) and is_constant(node.values[-1]):
        decided = bool(value_of(node.values[-1])) == isinstance(node.op, ast.Or)
        if decided and all(map(is_pure, node.values)):
            return constant(isinstance(node.op, ast.Or))
        if not decided:
            node.values.pop()
            return node if len(node.values) > 1 else _as_test(node.values[0])
    return node


def is_pure(node: ast.AST) -> bool:
    """Whether evaluating it surely has no effect: anything but a call or an assignment."""
    active = (ast.Await, ast.Call, ast.NamedExpr, ast.Yield, ast.YieldFrom)
    return not any(isinstance(part, active) for part in walk(node))


def _alive(block: list[ast.stmt]) -> list[ast.stmt]:
    """The statements up to the first that leaves the block; without idle ones."""
    kept: list[ast.stmt] = []
    for node in block:
        if isinstance(node, ast.Pass):
            continue
        kept.append(node)
        if isinstance(node, ast.Return | ast.Raise | ast.Continue | ast.Break):
            break
    return kept


def _does(block: list[ast.stmt]) -> bool:
    return any(not isinstance(node, ast.Pass) for node in block)
