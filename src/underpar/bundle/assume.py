"""What a packed file may take for granted: its own recipe, and an artifact that it wrote itself.

The readable twin checks every value of the recipe and every byte of the artifact; the packed one is
made from it after both were checked, so here

- tests that can only end in one of ``TRUSTED`` go, and so do the functions that only test;
- an error says what failed and no more: the advice is in the readable twin;
- nothing is drawn on the terminal but the log;
- some functions are replaced by what they come to (``shortcuts``).

Legality, the bytes of the validation text, training data and losses are checked in both.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from itertools import takewhile

from underpar.bundle.calls import Callee, Substitute, take_out
from underpar.bundle.nodes import walk
from underpar.bundle.shake import FUNCTIONS
from underpar.bundle.shortcuts import needless, shortcuts
from underpar.recipe.schema import Recipe

#: Errors about the recipe or the artifact.
TRUSTED = ("RecipeError", "ArtifactError")

#: Functions that refuse what does not come from the recipe alone: the number of processes.
OUTSIDE = ("micro_steps",)

#: What log lines about progress and hardships begin with; the published formats stay.
_CHATTER = re.compile(r"f?'(training in|calibrated|gptq:|test-time training:|data:|train)")

_CHECKS = re.compile(r"_?(check|refuse|require)")


def assume(tree: ast.Module, recipe: Recipe) -> None:
    """Take out of the tree, in place, what the assumptions make needless.

    tree: of the readable file for ``recipe``.
    """
    for text in shortcuts(recipe):
        _shorten(tree, ast.parse(text), needless(recipe))
    _no_cache(tree)
    errors = _errors(tree)
    tree.body = _Trusting(errors, set()).block(tree.body)
    if recipe.quant.compressor != "rans":
        _no_rans(tree)
    _Present(_absent(recipe)).visit(tree)
    functions = [n for n in walk(tree) if isinstance(n, FUNCTIONS) and _CHECKS.match(n.name)]
    checks = {f.name for f in functions} - {f.name for f in functions if _matters(f)}
    tree.body = _Trusting(errors, checks).block(tree.body)


def _no_cache(tree: ast.Module) -> None:
    """Nothing is decoded step by step: a ``cache`` is None, and goes with its ``slot``."""
    for node in walk(tree):
        if isinstance(node, ast.Call):
            node.args = list(takewhile(lambda a: ast.unparse(a) != "cache", node.args))
            node.keywords = [k for k in node.keywords if k.arg != "cache"]
    for node in walk(tree):
        if isinstance(node, FUNCTIONS):
            function = Callee(node)
            for arg in [*node.args.args, *node.args.kwonlyargs]:
                if arg.arg in ("cache", "slot"):
                    take_out(function, arg)
                    nothing = Substitute({arg.arg: ast.Constant(None)})
                    node.body = [nothing.visit(part) for part in node.body]


def _no_rans(tree: ast.Module) -> None:
    """No section is in the weight coder's hands: ``x.codec == RANS`` is never true."""
    for node in walk(tree):
        if isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) == "RANS":
            coded = isinstance(node.left, ast.Attribute) and node.left.attr == "codec"
            node.left = ast.Constant("") if coded else node.left


def _absent(recipe: Recipe) -> set[str]:
    """Roles that no parameter of the model has."""
    absent = set() if recipe.model.bigram_buckets else {"PROJECTION", "HASH"}
    return absent | ({"HEAD"} if recipe.model.tied else set())


class _Present(ast.NodeTransformer):
    """No cases of roles that do not occur."""

    def __init__(self, absent: set[str]) -> None:
        self._absent = {f"Role.{name}" for name in absent}

    def visit_Match(self, node: ast.Match) -> ast.AST:
        self.generic_visit(node)
        node.cases = [case for case in node.cases if ast.unparse(case.pattern) not in self._absent]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Neither is there any float64 among the activations."""
        self.generic_visit(node)
        other = ast.unparse(node.comparators[0])
        absent = isinstance(node.ops[0], ast.Is) and other in self._absent
        wide = isinstance(node.ops[0], ast.Eq) and other == "torch.float64"
        return ast.Constant(False) if absent or wide else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        if node.name == "Role":
            values = [part for part in node.body if isinstance(part, ast.Assign)]
            for i, part in enumerate(values):
                part.value = ast.Constant(i)
            gone = [v for v in values if f"Role.{ast.unparse(v.targets[0])}" in self._absent]
            node.body = [part for part in node.body if part not in gone]
        return node

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        node.elts = [part for part in node.elts if ast.unparse(part) not in self._absent]
        return node


def _shorten(tree: ast.Module, short: ast.Module, gone: Collection[str]) -> None:
    """Put the definitions of ``short`` in the place of those of the same name; drop methods."""
    fresh = {n.name: n for n in short.body if isinstance(n, (*FUNCTIONS, ast.ClassDef))}
    used: set[str] = set()
    for i, node in enumerate(tree.body):
        name = getattr(node, "name", "")
        if isinstance(node, ast.ClassDef):
            node.body = [p for p in node.body if f"{name}.{_name(p)}" not in gone] or [ast.Pass()]
        if name in fresh:
            tree.body[i] = _merged(node, fresh[name])
            used.add(name)
    rest = [n for n in short.body if getattr(n, "name", "") not in used]
    stale = set(fresh) - used - {"replace"}
    assert not stale, f"shortcuts for what the file does not have: {stale}"
    added = {getattr(n, "name", "") for n in rest}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            node.names = [alias for alias in node.names if alias.name not in added]
    tree.body = [n for n in tree.body if not isinstance(n, ast.ImportFrom) or n.names]
    fresh_ones = (ast.Import, ast.ImportFrom)
    tree.body[0:0] = [n for n in rest if isinstance(n, fresh_ones) or _name(n) == "replace"]


def _name(node: ast.stmt) -> str:
    target = getattr(node, "target", node)
    return getattr(target, "name", getattr(target, "id", ""))


def _merged(old: ast.stmt, new: ast.stmt) -> ast.stmt:
    """``new``, or where it is a class based on ``...``: ``old`` with its methods."""
    parts = isinstance(new, ast.ClassDef) and "..." in map(ast.unparse, new.bases)
    if isinstance(old, ast.ClassDef) and isinstance(new, ast.ClassDef) and parts:
        methods = {getattr(part, "name", ""): part for part in new.body}
        old.body = [methods.get(getattr(part, "name", "-"), part) for part in old.body]
        return old
    return new


def _errors(tree: ast.Module) -> dict[str, str]:
    """Name of a class, or of a function that makes one -> the error that it stands for."""
    found: dict[str, str] = {}
    for node in walk(tree):
        if isinstance(node, ast.ClassDef):
            if any(base in {"Exception", *found} for base in map(ast.unparse, node.bases)):
                found[node.name] = node.name
        elif isinstance(node, FUNCTIONS) and node.returns is not None:
            made = ast.unparse(node.returns)
            if made.endswith("Error"):
                found[node.name] = made
    return found


def _matters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function does anything for its caller: gives back, keeps, or refuses."""
    return any(
        isinstance(node, ast.Raise | ast.Yield)
        or (isinstance(node, ast.Return) and node.value is not None)
        or (isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store))
        for node in walk(function)
    )


class _Trusting(ast.NodeTransformer):
    """Tests that can only fail for what is trusted, and calls of checks, taken out."""

    def __init__(self, errors: dict[str, str], checks: set[str]) -> None:
        self._errors, self._checks = errors, checks
        self._outside = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        before, self._outside = self._outside, self._outside or node.name in OUTSIDE
        self.generic_visit(node)
        self._outside = before
        return node

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for node in body:
            new = self.visit(node)
            out += new if isinstance(new, list) else [new] if new is not None else []
        return out

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.For, ast.With)) and not node.body:
            node.body = [ast.Pass()]
        return node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """A test of nothing but what is trusted goes, too: tests have no effects here."""
        self.generic_visit(node)
        if not node.body and not node.orelse:
            return None
        node.body = node.body or [ast.Pass()]
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        self.generic_visit(node)
        used = {n.id for n in walk(node) if isinstance(n, ast.Name)}
        node.name = node.name if node.name in used else None
        return node

    def visit_Try(self, node: ast.Try) -> ast.AST | list[ast.stmt]:
        """Without handlers that only give a trusted error another name."""
        ours = [h for h in node.handlers if any(self._trusted(part) for part in h.body)]
        self.generic_visit(node)
        node.handlers = [h for h in node.handlers if h not in ours]
        if node.handlers or node.finalbody:
            return node
        return [*node.body, *node.orelse]

    def visit_Raise(self, node: ast.Raise) -> ast.AST | None:
        if self._trusted(node):
            return None
        self.generic_visit(node)
        node.cause = None if self._error(node.exc) else node.cause
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Of an error's four parts, the first."""
        if isinstance(node.func, ast.Name) and self._errors.get(node.func.id) == node.func.id:
            node.args, node.keywords = node.args[:1], []
        self.generic_visit(node)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        call = node.value
        if isinstance(call, ast.Call):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            texts = ast.Constant | ast.JoinedStr
            shown = name == "update" and call.args and isinstance(call.args[0], texts)
            chatter = name == "line" and call.args and _CHATTER.match(ast.unparse(call.args[0]))
            if name in self._checks or name == "metric" or shown or chatter:
                return None
        self.generic_visit(node)
        return node

    def _error(self, node: ast.expr | None) -> str:
        call = node.func if isinstance(node, ast.Call) else node
        return self._errors.get(call.id, "") if isinstance(call, ast.Name) else ""

    def _trusted(self, node: ast.stmt) -> bool:
        known = isinstance(node, ast.Raise) and self._error(node.exc) in TRUSTED
        return known and not self._outside
