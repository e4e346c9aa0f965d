"""A readable file to a short one that does the same for its one recipe.

In turns until nothing changes: the recipe's values are put in, what they decide is decided, what
then cannot be reached goes. After that the notes go: docstrings, comments, annotations. Names are
shortened last (``rename``).
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from dataclasses import fields, is_dataclass

from underpar.bundle.assume import assume
from underpar.bundle.calls import drop_idle, drop_parameters
from underpar.bundle.constants import propagate
from underpar.bundle.fold import fold
from underpar.bundle.freeze import freeze
from underpar.bundle.inline import by_position, inline
from underpar.bundle.nodes import walk
from underpar.bundle.pack import strip
from underpar.bundle.rename import rename
from underpar.bundle.scopes import locals_of, references
from underpar.bundle.shake import FUNCTIONS, Scope, shake
from underpar.bundle.values import drop_fields
from underpar.recipe.schema import Recipe

_ENTRY = "file"


def minify(text: str, recipe: Recipe, varying: Collection[str]) -> ast.Module:
    """The tree of the short file. varying: see ``freeze``."""
    tree = ast.parse(text)
    _drop_stubs(tree)
    tree.body = [node for node in tree.body if not _is_future(node)]
    assume(tree, recipe)
    _set_apart(tree)
    shake({_ENTRY: tree}, _ENTRY, "")
    freeze(tree, sections_of(recipe), varying)
    strip(tree)
    _plain_fields(tree)
    _settle(tree)
    _plain_fields(tree)
    by_position(tree)
    rename(tree)
    return tree


def sections_of(recipe: Recipe) -> dict[str, object]:
    """Class name -> section, the whole among them."""
    sections = [getattr(recipe, field.name) for field in fields(recipe)]
    return {type(s).__name__: s for s in (recipe, *sections) if is_dataclass(s)}


def _settle(tree: ast.Module) -> None:
    """Fold, propagate, drop and shake until that changes nothing."""
    before = ""
    while (now := ast.dump(tree)) != before:
        before = now
        fold(tree)
        propagate(tree)
        fold(tree)
        shake({_ENTRY: tree}, _ENTRY, "")
        drop_parameters(tree)
        drop_fields(tree)
        drop_idle(tree)
        inline(tree)


def _set_apart(tree: ast.Module) -> None:
    """Give globals that share their name with a local, anywhere, another: one name, one meaning."""
    scope = Scope(_ENTRY, tree, {_ENTRY: tree})
    functions = (f for f in walk(tree) if isinstance(f, (*FUNCTIONS, ast.Lambda)))
    bound = {name for function in functions for name in locals_of(function)}
    fresh = {name: f"{name}_" for name in scope.defines if name in bound}
    for reference in references(scope, {_ENTRY: scope}):
        if isinstance(reference.node, ast.Name) and reference.node.id in fresh:
            reference.node.id = fresh[reference.node.id]
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and node.name in fresh:
            node.name = fresh[node.name]
    for part in walk(tree):
        if isinstance(part, ast.Global):
            part.names = [fresh.get(name, name) for name in part.names]


def _drop_stubs(tree: ast.Module) -> None:
    """Methods that are there for the type checker, or to be overridden."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            node.bases = [base for base in node.bases if ast.unparse(base) != "ABC"]
            node.body = [
                part
                for part in node.body
                if not {"overload", "abstractmethod"}
                & set(map(ast.unparse, getattr(part, "decorator_list", [])))
            ]


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _plain_fields(tree: ast.Module) -> None:
    """Dataclass fields need an annotation, not a true one; methods that do nothing may go."""
    tree.body = [
        ast.Assign([node.target], node.value, lineno=0)
        if isinstance(node, ast.AnnAssign) and node.value
        else node
        for node in tree.body
    ]
    for node in walk(tree):
        if isinstance(node, ast.ClassDef):
            node.decorator_list = [_bare(d) for d in node.decorator_list]
            made = node.decorator_list or "NamedTuple" in map(ast.unparse, node.bases)
            kept = [part for part in node.body if not _is_idle(part)]
            kept = [n for n in kept if made or not isinstance(n, ast.AnnAssign) or n.value]
            node.body = kept or [ast.Pass()]
        if isinstance(node, ast.AnnAssign) and "InitVar" not in ast.unparse(node.annotation):
            node.annotation = ast.Name("int", ast.Load())


def _is_idle(node: ast.stmt) -> bool:
    names = ("__post_init__", "_average_core_gradients")
    named = isinstance(node, FUNCTIONS) and node.name in names
    return named and all(isinstance(n, ast.Pass | ast.Return) for n in node.body)  # type: ignore


def _bare(decorator: ast.expr) -> ast.expr:
    """``dataclass`` without settings: nobody changes, hashes or compares what it makes here."""
    made = isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "dataclass"
    return decorator.func if made else decorator  # type: ignore[attr-defined]
