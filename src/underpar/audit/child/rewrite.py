"""Small changes to the script's syntax tree, and the facts read from it beforehand.

Only what cannot be reached from outside is changed, line numbers stay: the device name "cuda"
becomes "cpu"; `x.is_cuda` is true; pinned memory and CUDA graphs' `capturable` are off; literal
sizes under telling names become small (`shrink.LITERAL`). The word "cuda" is changed wherever it is
a whole string, also where it is compared with, so that comparisons stay true.
"""

from __future__ import annotations

import ast
import operator
import re
from typing import Any

from .shrink import FEWEST, LITERAL, Shrinker, setting_number

SAMPLE = 8
"""Batches in a sample of training tokens."""
_CASTS = ("str", "int", "float")
_DEVICE = re.compile(r"cuda(:\d*)?")
_OPS: dict[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.LShift: operator.lshift, ast.FloorDiv: operator.floordiv, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip


def literal_value(node: ast.expr | None) -> Any:
    """Value of a literal or of arithmetic on literals, else None."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = literal_value(node.operand)
        return -value if isinstance(value, int | float) else None
    if isinstance(node, ast.BinOp) and type(node.op) in _OPS:
        left, right = literal_value(node.left), literal_value(node.right)
        small = not isinstance(node.op, ast.Pow | ast.LShift) or (
            isinstance(right, int | float) and abs(right) <= 64
        )
        if isinstance(left, int | float) and isinstance(right, int | float) and small:
            try:
                return _OPS[type(node.op)](left, right)
            except (ArithmeticError, ValueError, TypeError):
                return None
    if isinstance(node, ast.Call) and len(node.args) == 1 and _name(node.func) in _CASTS:
        return literal_value(node.args[0])
    return None


def _name(node: ast.expr) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def defaults(tree: ast.AST) -> dict[str, Any]:
    """Names in capitals that the script looks up, with their literal default (None: has none)."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        name: Any = None
        value: Any = None
        if isinstance(node, ast.Call) and node.args:
            name = literal_value(node.args[0])
            rest = [*node.args[1:], *(k.value for k in node.keywords)]
            value = next((literal_value(a) for a in rest if literal_value(a) is not None), None)
        elif isinstance(node, ast.Subscript):
            name = literal_value(node.slice)
        if isinstance(name, str) and re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
            found[name] = found.get(name) if value is None else value
    return found


def literals(tree: ast.AST) -> dict[str, Any]:
    """Numbers assigned to telling names (`num_layers = 11`), by the name in capitals."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        names: list[str] = []
        given: ast.expr | None = None
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names, given = [_name(target) for target in targets], node.value
        elif isinstance(node, ast.Call):
            names = [_option(node)]
            given = next((k.value for k in node.keywords if k.arg == "default"), None)
        value = setting_number(literal_value(given))
        for name in (n.upper() for n in names):
            if value is not None and value >= FEWEST.get(name, 0) and LITERAL.fullmatch(name):
                found.setdefault(name, value)
    return found


def _option(call: ast.Call) -> str:
    """The name under which argparse keeps what `add_argument("--num-layers", ...)` declares."""
    if _name(call.func) != "add_argument":
        return ""
    names = [a.value for a in call.args if isinstance(a, ast.Constant)]
    long = next((n for n in names if isinstance(n, str) and n.startswith("--")), "")
    return long.lstrip("-").replace("-", "_")


def guarded_imports(tree: ast.AST) -> set[str]:
    """Modules that the script imports under `try` and can do without."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and node.handlers and not _gives_up(node.handlers):
            for inner in (n for part in node.body for n in ast.walk(part)):
                if isinstance(inner, ast.Import):
                    found |= {a.name.split(".")[0] for a in inner.names}
                elif isinstance(inner, ast.ImportFrom) and inner.module:
                    found.add(inner.module.split(".")[0])
    return found


def _gives_up(handlers: list[ast.ExceptHandler]) -> bool:
    return any(isinstance(s, ast.Raise) or _leaves(s) for h in handlers for s in h.body)


def _leaves(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and _name(call.func) in ("exit", "quit", "_exit")


def _attention_names(tree: ast.AST) -> set[str]:
    """Names under which the script calls flash-attention."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = {_name(c.func) for c in calls if _name(c.func).startswith("flash_attn")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name for a in node.names if a.name.startswith("flash_attn")}
    return found


class Rewriter(ast.NodeTransformer):
    """See the module's text. `changed` lists the literal sizes that were made small."""

    def __init__(self, shrinker: Shrinker, attention: set[str]) -> None:
        self.shrinker, self.attention = shrinker, attention
        self.changed: dict[str, float] = {}

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str) and _DEVICE.fullmatch(node.value):
            return ast.copy_location(ast.Constant("cpu"), node)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        first = node.values[0] if node.values else None
        if isinstance(first, ast.Constant) and str(first.value) == "cuda:":
            return ast.copy_location(ast.Constant("cpu"), node)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr == "is_cuda" and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Constant(True), node)
        return node

    def visit_Delete(self, node: ast.Delete) -> ast.AST:
        """Some scripts delete a name twice on a path their authors did not run in one go."""
        if not all(isinstance(target, ast.Name) for target in node.targets):
            return self.generic_visit(node)
        names: list[ast.expr] = [ast.Name(_name(target), ast.Store()) for target in node.targets]
        return ast.copy_location(ast.Assign(names, ast.Constant(None)), node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if literal_value(node.slice) == 0:
            self._want_pair(node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        target = node.targets[0]
        if isinstance(target, ast.Tuple):
            self._want_pair(node.value)
        node.value = self._small(_name(target), node.value)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is not None:
            target = node.target
            node.value = self._small(_name(target), node.value)
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        self.generic_visit(node)
        keys = [literal_value(k) for k in node.keys]
        node.values = [
            self._small(k, v) if isinstance(k, str) else v for k, v in zip(keys, node.values)
        ]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        for keyword in node.keywords:
            if keyword.arg in ("pin_memory", "capturable"):
                keyword.value = ast.copy_location(ast.Constant(False), keyword.value)
            elif keyword.arg:
                name = _option(node) if keyword.arg == "default" else keyword.arg
                keyword.value = self._small(name, keyword.value)
        if _name(node.func) == "take" and len(node.args) == 1:
            node.args = [self._sample(node.args[0])]
        return node

    def _sample(self, node: ast.expr) -> ast.expr:
        """A literal number of tokens taken from the training stream: a few batches are enough."""
        most = SAMPLE * self.shrinker.sizes.train_tokens
        value = literal_value(node)
        enough = not isinstance(value, int) or value <= most
        return node if enough else ast.copy_location(ast.Constant(most), node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        self.generic_visit(node)
        positional = [*node.posonlyargs, *node.args]
        named = positional[len(positional) - len(node.defaults) :]
        node.defaults = [self._small(a.arg, d) for a, d in zip(named, node.defaults)]
        node.kw_defaults = [
            d if d is None else self._small(a.arg, d)
            for a, d in zip(node.kwonlyargs, node.kw_defaults)
        ]
        return node

    def _want_pair(self, node: ast.expr) -> None:
        """Some versions of flash-attention return (output, log-sum-exp): where a pair is taken."""
        if isinstance(node, ast.Call) and _name(node.func) in self.attention:
            flag = ast.copy_location(ast.Constant(True), node)
            node.keywords.append(ast.keyword("return_attn_probs", flag))

    def _small(self, name: Any, node: ast.expr) -> ast.expr:
        key = str(name).upper().lstrip("_")
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return self._layers(key, node)
        value = setting_number(literal_value(node))
        told = key in self.shrinker.sizes.environment
        if value is None or not (told or self._telling(key, value)):
            return node
        small = self.shrinker.value(key, value)
        if small == value:
            return node
        self.changed[key] = value
        return ast.copy_location(ast.Constant(small), node)

    def _telling(self, key: str, value: float) -> bool:
        return value >= FEWEST.get(key, 2) and LITERAL.fullmatch(key) is not None

    def _layers(self, key: str, node: ast.List | ast.Tuple | ast.Set) -> ast.expr:
        """Literal layer numbers, each replaced by its counterpart."""
        items = [literal_value(item) for item in node.elts]
        known = self.shrinker.full_layers and key.endswith(("_LAYERS", "_BLOCKS"))
        if known and items and all(type(item) is int for item in items):
            small = self.shrinker.indices(key, items) or items
            node.elts = [
                ast.copy_location(ast.Constant(i), old) for i, old in zip(small, node.elts)
            ]
        return node


LOADED = "_definitions_are_loaded"
"""Called in the script before its main guard: what was imported and defined until there."""


def _is_guard(node: ast.stmt) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Compare) and getattr(test.left, "id", "") == "__name__"


def mark_guard(tree: ast.Module) -> None:
    """Call `LOADED` just before `if __name__ == "__main__"`."""
    for i, node in enumerate(tree.body):
        if _is_guard(node):
            call = ast.Call(ast.Name(LOADED, ast.Load()), [], [])
            tree.body.insert(i, ast.copy_location(ast.Expr(call), node))
            ast.fix_missing_locations(tree)
            return


def rewrite(tree: ast.Module, shrinker: Shrinker) -> dict[str, float]:
    """Change `tree` in place; returns the literal sizes that were changed, with their old value."""
    rewriter = Rewriter(shrinker, _attention_names(tree))
    rewriter.visit(tree)
    ast.fix_missing_locations(tree)
    return rewriter.changed
