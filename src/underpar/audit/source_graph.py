"""What of a script can run under given settings: flags, dead branches, calls.

A reader who flags code that never runs is wrong half of the time. So branches on settings are
decided with the settings of the run (defaults where they say nothing), statements after a decided
return are dropped, and only functions that something live mentions are looked at.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from underpar.audit.knobs import knobs

_VAL = re.compile(r"(^|_)val(id|idation)?(_|$)")
_BYTES = re.compile(r"byte|(^|_)bc$", re.IGNORECASE)
_BYTE_SUM = re.compile(r"byte_?(sum|count|total)|(total|sum|n)_?bytes", re.IGNORECASE)

FlagValue = float | str
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(eq=False)
class CodeUnit:
    """The module's own statements, or one function with the functions inside it."""

    name: str
    node: ast.AST
    nodes: list[ast.AST] = field(default_factory=list)

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """(last part of the called name, call)."""
        for node in self.nodes:
            if isinstance(node, ast.Call):
                yield last_name(node.func), node

    def names(self) -> set[str]:
        return {identifier(node) for node in self.nodes} - {""}


class Program:
    """A parsed script under settings. `units` are the live ones."""

    def __init__(self, tree: ast.Module, settings: Mapping[str, str]) -> None:
        self.tree = tree
        self.knobs = knobs(tree)
        self._environment = dict(settings)
        self.flags: dict[str, FlagValue] = {}
        self._read_flags(settings)
        self.functions: dict[str, list[Function]] = {}
        for node in ast.walk(tree):
            if isinstance(node, Function):
                self.functions.setdefault(node.name, []).append(node)
        self.units = self._reachable()

    def _read_flags(self, settings: Mapping[str, str]) -> None:
        homes: dict[str, int] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    homes[identifier(target)] = homes.get(identifier(target), 0) + 1
        for knob in self.knobs:
            text = settings.get(knob.name, knob.default)
            if text is None:
                continue
            self._environment.setdefault(knob.name, text)
            if knob.attribute and homes.get(knob.attribute, 0) <= 1:
                self.flags[knob.attribute] = parsed_flag(text)

    def value(self, node: ast.expr) -> FlagValue | None:
        """What `node` is under the settings; None if that cannot be said."""
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
            return node.value if isinstance(node.value, str) else float(node.value)
        if isinstance(node, ast.Name | ast.Attribute):
            return self.flags.get(identifier(node))
        if isinstance(node, ast.Call):
            if last_name(node.func) in ("int", "float", "bool") and len(node.args) == 1:
                inner = self.value(node.args[0])
                return parsed_flag(inner) if isinstance(inner, str) else inner
            if last_name(node.func) in ("get", "getenv") and node.args:
                name = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
                if isinstance(name, str) and "env" in ast.unparse(node.func):
                    return self._environment.get(name)
        return None

    def truth(self, node: ast.expr) -> bool | None:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(node.operand)
            return None if inner is None else not inner
        if isinstance(node, ast.BoolOp):
            parts = [self.truth(value) for value in node.values]
            decisive = isinstance(node.op, ast.Or)
            if decisive in parts:
                return decisive
            return None if None in parts else not decisive
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self._compare(node)
        value = self.value(node)
        return None if value is None else value not in (0.0, "", "0")

    def _compare(self, node: ast.Compare) -> bool | None:
        left, right, op = self.value(node.left), self.value(node.comparators[0]), node.ops[0]
        if left is None or right is None:
            return None
        if isinstance(left, str) != isinstance(right, str):
            left, right = parsed_flag(str(left)), parsed_flag(str(right))
        if isinstance(op, ast.Eq | ast.NotEq):
            return (left == right) == isinstance(op, ast.Eq)
        if isinstance(left, str) or isinstance(right, str):
            return None
        results = {ast.Gt: left > right, ast.GtE: left >= right, ast.Lt: left < right}
        return {**results, ast.LtE: left <= right}.get(type(op))

    def live(self, statements: list[ast.stmt]) -> Iterator[ast.AST]:
        """All nodes of statements that can run."""
        for statement in statements:
            if isinstance(statement, ast.If):
                truth = self.truth(statement.test)
                if truth is None:
                    yield statement
                    yield from ast.walk(statement.test)
                    yield from self.live(statement.body)
                    yield from self.live(statement.orelse)
                    continue
                chosen = statement.body if truth else statement.orelse
                yield from self.live(chosen)
                if chosen and isinstance(chosen[-1], ast.Return | ast.Raise | ast.Continue):
                    return
                continue
            yield statement
            yield from self._parts(statement)
            if isinstance(statement, ast.Return | ast.Raise):
                return

    def _parts(self, statement: ast.stmt) -> Iterator[ast.AST]:
        for name, value in ast.iter_fields(statement):
            items = value if isinstance(value, list) else [value]
            if name in ("body", "orelse", "finalbody"):
                yield from self.live(items)
                continue
            for item in items:
                if isinstance(item, ast.ExceptHandler):
                    yield from self.live(item.body)
                elif isinstance(item, ast.AST):
                    yield from self._expression(item)

    def _expression(self, node: ast.AST) -> Iterator[ast.AST]:
        """Nodes of an expression, without the branch of `a if b else c` that is not taken."""
        yield node
        if isinstance(node, ast.IfExp) and (truth := self.truth(node.test)) is not None:
            yield from self._expression(node.body if truth else node.orelse)
            return
        for child in ast.iter_child_nodes(node):
            yield from self._expression(child)

    def _reachable(self) -> list[CodeUnit]:
        top = [s for s in self.tree.body if not isinstance(s, Function | ast.ClassDef)]
        units = [CodeUnit("<module>", self.tree, list(self.live(top)))]
        for statement in self.tree.body:
            if isinstance(statement, ast.ClassDef):
                inner = [s for s in statement.body if not isinstance(s, Function)]
                units[0].nodes += list(self.live(inner))
        queue, seen = [units[0]], set()
        while queue:
            for name in queue.pop().names() | {"forward", "__init__", "__call__"}:
                for function in self.functions.get(name, []) if name not in seen else []:
                    unit = CodeUnit(name, function, list(self.live(function.body)))
                    units.append(unit)
                    queue.append(unit)
                seen.add(name)
        return units

    def callers(self, name: str) -> list[CodeUnit]:
        return [unit for unit in self.units if any(called == name for called, _ in unit.calls())]


def parsed_flag(text: str) -> FlagValue:
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return float(lowered == "true")
    try:
        return float(text.replace("_", ""))
    except ValueError:
        return text


def identifier(node: ast.AST | None) -> str:
    """Name of a variable or attribute, through subscripts; '' for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    return identifier(node.value) if isinstance(node, ast.Subscript | ast.Starred) else ""


def last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def identifiers(node: ast.AST) -> set[str]:
    return {identifier(n) for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)}


def is_val(name: str) -> bool:
    """Does a variable's name speak of validation tokens?"""
    return bool(_VAL.search(name)) and not _BYTES.search(name)


def counts_bytes(nodes: list[ast.AST]) -> bool:
    """Do the nodes add to a count of bytes? What scores does; what only trains does not."""
    for node in nodes:
        if isinstance(node, ast.AugAssign) and _BYTES.search(identifier(node.target)):
            return True
        if not isinstance(node, ast.Call):
            continue
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if last_name(node.func) in ("add_", "index_add_") and _BYTES.search(identifier(owner)):
            return True
        if any(_BYTE_SUM.search(identifier(arg)) for arg in node.args):
            return last_name(node.func) not in ("all_reduce", "reduce", "print", "log", "log0")
    return False
