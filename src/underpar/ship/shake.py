"""Tree shaking: the parts of some modules that a program can reach.

A definition at the top of a module is reached when something reached refers to it: by its name in
its own module, through an import, or as an attribute of an imported module. What an attribute of
any other value means cannot be known without running, so a method of a reached class stays when
*any* reached code mentions its name. So does one that a base from outside has, too: a framework
calls what it defines. Names composed from strings would be missed; there are none.

Statements at the top of a module that are neither definition nor import always stay; assignments
count as definitions, so their right-hand sides must not be needed for an effect.
"""

from __future__ import annotations

import ast
import builtins
import importlib
from collections.abc import Mapping
from functools import cache

from underpar.ship.scopes import FUNCTIONS, IMPORTS, Scope, defined, references_in


def shake(modules: Mapping[str, ast.Module], entry: str, root: str) -> None:
    """Remove, in place, what ``root`` of module ``entry`` cannot reach."""
    scopes = {name: Scope(name, tree, modules) for name, tree in modules.items()}
    reach = _Reach(scopes)
    reach.refer(entry, root)
    for scope in scopes.values():
        for node in scope.always:
            reach.read(node, scope)
    reach.settle()
    for scope in scopes.values():
        scope.tree.body = [n for node in scope.tree.body for n in reach.shaken(node, scope)]


class _Reach:
    """Definitions and method names reached so far."""

    def __init__(self, scopes: Mapping[str, Scope]) -> None:
        self._scopes = scopes
        self._names: set[tuple[str, str]] = set()  # (module, name), imports included
        self._kept: set[ast.stmt] = set()
        self._classes: list[tuple[ast.ClassDef, Scope]] = []
        self._attributes: set[str] = set()

    def refer(self, module: str, name: str) -> None:
        """``name`` is used in ``module``: keep its definition, wherever that is."""
        if (module, name) in self._names or module not in self._scopes:
            return
        self._names.add((module, name))
        scope = self._scopes[module]
        if name in scope.imported:
            self.refer(*scope.imported[name])
        node = scope.defines.get(name)
        if node is not None and node not in self._kept:
            self._kept.add(node)
            if isinstance(node, ast.ClassDef):
                self._classes.append((node, scope))
                plain = [part for part in node.body if not isinstance(part, FUNCTIONS)]
                node = ast.ClassDef("", node.bases, node.keywords, plain, node.decorator_list)
            self.read(node, scope)

    def read(self, node: ast.AST, scope: Scope) -> None:
        """Follow every reference in ``node``."""
        for reference in references_in(node, scope, self._scopes):
            self.refer(scope.name, reference.text)
            if reference.target:
                self.refer(*reference.target)
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute):
                self._attributes.add(part.attr)
            elif isinstance(part, IMPORTS):
                for alias in part.names:
                    self.refer(scope.name, alias.asname or alias.name.partition(".")[0])

    def settle(self) -> None:
        """Read the methods whose names were mentioned, until that mentions no others."""
        before = -1
        while before != len(self._kept):
            before = len(self._kept)
            for node, scope in list(self._classes):
                outside = [_members(*scope.origin(base)) for base in node.bases]
                for method in node.body:
                    if not isinstance(method, FUNCTIONS) or method in self._kept:
                        continue
                    name = method.name
                    inherited = any(members is None or name in members for members in outside)
                    if inherited or name.startswith("__") or name in self._attributes:
                        self._kept.add(method)
                        self.read(method, scope)

    def shaken(self, node: ast.stmt, scope: Scope) -> list[ast.stmt]:
        """The statement without what was not reached: itself, or nothing."""
        if isinstance(node, IMPORTS):
            future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
            used = [a for a in node.names if (scope.name, _bound(a)) in self._names or future]
            node.names = used
            return [node] if used else []
        if defined(node) and node not in self._kept:
            return []
        if isinstance(node, ast.ClassDef):
            kept = [n for n in node.body if not isinstance(n, FUNCTIONS) or n in self._kept]
            node.body = kept or [ast.Pass()]
        return [node]


@cache
def _members(module: str, path: str) -> frozenset[str] | None:
    """What a base from outside defines; nothing for our own; None when it cannot be looked at."""
    if not path:
        return frozenset()
    try:
        found = importlib.import_module(module) if module else builtins
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return None
    classes = getattr(found, "__mro__", ())  # typing.NamedTuple is a function: it calls nothing
    return frozenset(name for part in classes for name in vars(part))


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]
