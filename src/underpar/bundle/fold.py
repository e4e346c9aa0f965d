"""Constant folding: what an expression of constants is worth, and the branches that then are dead.

The arithmetic is Python's own, done now instead of later, so the result is the same to the last
bit. Nothing is folded that could raise.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from underpar.bundle.blocks import alive, does
from underpar.bundle.nodes import walk

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
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_PURE = """
Clock WeightHooks all any bool count_nonzero current dict diagonal enumerate finditer float get
getattr hexdigest int isinstance items join keys len list map max min monotonic named_modules
named_parameters numel parameters perf_counter range removeprefix round set sha256 sorted str sum
tolist tuple type values zip
"""
#: functions and methods without effects, wherever they are called
PURE = frozenset(_PURE.split())


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

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        left, right = value_of(node.left), value_of(node.right)
        if all(isinstance(v, int | float) for v in (left, right)) and type(node.op) in _BINARY:
            try:
                value = _BINARY[type(node.op)](left, right)
            except (ArithmeticError, ValueError):
                return node
            if isinstance(value, int | float) and len(repr(value)) < len(ast.unparse(node)) + 4:
                return constant(value)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        node.test = _as_test(node.test)
        if is_constant(node.test):
            return node.body if value_of(node.test) else node.orelse
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Constants in braces become part of the text."""
        self.generic_visit(node)
        parts: list[ast.expr] = []
        for part in node.values:
            if isinstance(part, ast.FormattedValue) and part.conversion == -1:
                value = value_of(part.value)
                if part.format_spec is None and isinstance(value, str | int | float):
                    part = ast.Constant(str(value))
            if isinstance(part, ast.Constant) and parts and isinstance(parts[-1], ast.Constant):
                parts[-1] = ast.Constant(str(parts[-1].value) + str(part.value))
            else:
                parts.append(part)
        node.values = parts
        if len(parts) == 1 and isinstance(parts[0], ast.Constant):
            return parts[0]
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        node.value = self.visit(node.value)  # a format spec is a JoinedStr that must stay one
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        node.test = _as_test(self.visit(node.test))
        if is_constant(node.test):
            taken = node.body if value_of(node.test) else node.orelse
            return self._block(taken)
        node.body, node.orelse = self._block(node.body), self._block(node.orelse)
        if not does(node.body) and not node.orelse:
            return [] if is_pure(node.test) else ast.Expr(node.test)
        if not does(node.body):
            node.test, node.body, node.orelse = _negated(node.test), node.orelse, []
        return node

    def visit_For(self, node: ast.For) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        idle = not does(node.body) and is_pure(node.iter) and not node.orelse
        if idle or ast.unparse(node.iter) in ("()", "{}.items()", "[]", "range(0)"):
            return node.orelse
        node.body = node.body or [ast.Pass()]
        return node

    def visit_Try(self, node: ast.Try) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if not node.handlers and not does(node.finalbody):
            return [*node.body, *node.orelse]
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        tests = [_as_test(test) for test in node.ifs]
        node.ifs = [test for test in tests if not (is_constant(test) and value_of(test))]
        return node

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

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """``getattr(x, "name")`` is ``x.name``, ``bool(True)`` is True."""
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        values = [value_of(part) for part in node.args]
        if name == "getattr" and len(values) == 2 and isinstance(values[1], str):
            return ast.Attribute(node.args[0], values[1], ast.Load())
        if name == "bool" and len(values) == 1 and is_constant(node.args[0]):
            return constant(bool(values[0]))
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        self.generic_visit(node)
        if isinstance(node.value, ast.Compare) and all(map(is_pure, node.value.comparators)):
            node.value = node.value.left
        return None if is_pure(node.value) else node

    def visit_Assert(self, node: ast.Assert) -> ast.AST | None:
        """An assertion is for us; what it may do besides is for the program."""
        return None if is_pure(node.test) else ast.Expr(node.test)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, alive(block))
        needs = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.With, ast.While)
        if isinstance(node, (*needs, ast.ExceptHandler)) and not node.body:
            node.body = [ast.Pass()]
        return node

    def _block(self, block: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for node in block:
            new = self.visit(node)
            out += new if isinstance(new, list) else [new] if new is not None else []
        return alive(out)


def _negated(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(ast.Not(), test)


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
    """Whether evaluating it has no effect: calls of ``PURE`` functions and methods at most."""
    for part in walk(node):
        if isinstance(part, ast.Await | ast.NamedExpr | ast.Yield | ast.YieldFrom):
            return False
        if isinstance(part, ast.Call):
            name = getattr(part.func, "id", getattr(part.func, "attr", ""))
            fresh = name == "next" and isinstance(part.args[0], ast.Call | ast.GeneratorExp)
            if name not in PURE and not fresh:
                return False
    return True
