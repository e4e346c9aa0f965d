"""Tree shaking: the parts of some modules that a program can reach.

A definition at the top of a module is reached when something reached refers to it: by its name in
its own module, through an import, or as an attribute of an imported module. What an attribute of
any other value means cannot be known without running, so a method of a reached class stays when
*any* reached code mentions its name, and all of them stay when the class has a base from outside
(a framework calls what it likes). Names composed from strings would be missed; there are none.

Statements at the top of a module that are neither definition nor import always stay; assignments
count as definitions, so their right-hand sides must not be needed for an effect.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORTS = (ast.Import, ast.ImportFrom)


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


class Scope:
    """A module's names: what it defines, and what its imports (anywhere in it) stand for."""

    def __init__(self, name: str, tree: ast.Module, modules: Mapping[str, ast.Module]) -> None:
        self.name, self.tree = name, tree
        self.defines: dict[str, ast.stmt] = {}
        self.always: list[ast.stmt] = []  # neither definition nor import
        self.modules: dict[str, str] = {}  # local name -> module
        self.imported: dict[str, tuple[str, str]] = {}  # local name -> (module, name there)
        for node in tree.body:
            names = _defined(node)
            self.defines |= dict.fromkeys(names, node)
            if not names and not isinstance(node, IMPORTS):
                self.always.append(node)
        for part in ast.walk(tree):
            if isinstance(part, ast.Import):
                for alias in part.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    self.modules[bound] = alias.name if alias.asname else bound
            elif isinstance(part, ast.ImportFrom) and part.module:
                for alias in part.names:
                    bound, target = alias.asname or alias.name, f"{part.module}.{alias.name}"
                    if target in modules:
                        self.modules[bound] = target
                    elif part.module in modules:
                        self.imported[bound] = part.module, alias.name


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
            if isinstance(node, ast.ClassDef) and not self._is_framework(node, scope):
                self._classes.append((node, scope))
                node = ast.ClassDef(
                    "", node.bases, node.keywords, _plain(node), node.decorator_list
                )
            self.read(node, scope)

    def read(self, node: ast.AST, scope: Scope) -> None:
        """Follow every reference in ``node``."""
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                self.refer(scope.name, part.id)
            elif isinstance(part, ast.Attribute):
                owner = self._module(part.value, scope)
                self._attributes.add(part.attr)
                if owner:
                    self.refer(owner, part.attr)
            elif isinstance(part, IMPORTS):
                for alias in part.names:
                    self.refer(scope.name, alias.asname or alias.name.partition(".")[0])

    def settle(self) -> None:
        """Read the methods whose names were mentioned, until that mentions no others."""
        before = -1
        while before != len(self._kept):
            before = len(self._kept)
            for node, scope in list(self._classes):
                for method in node.body:
                    if method not in self._kept and self._called(method):
                        self._kept.add(method)
                        self.read(method, scope)

    def _called(self, node: ast.stmt) -> bool:
        """Whether it is a method that reached code, or Python itself, may call."""
        if not isinstance(node, FUNCTIONS):
            return False
        return node.name.startswith("__") or node.name in self._attributes

    def shaken(self, node: ast.stmt, scope: Scope) -> list[ast.stmt]:
        """The statement without what was not reached: itself, or nothing."""
        if isinstance(node, IMPORTS):
            future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
            used = [a for a in node.names if (scope.name, _bound(a)) in self._names or future]
            node.names = used
            return [node] if used else []
        if _defined(node) and node not in self._kept:
            return []
        if isinstance(node, ast.ClassDef) and not self._is_framework(node, scope):
            kept = [n for n in node.body if not isinstance(n, FUNCTIONS) or n in self._kept]
            node.body = kept or [ast.Pass()]
        return [node]

    def _module(self, value: ast.expr, scope: Scope) -> str | None:
        """The module that an expression names, if it does."""
        if isinstance(value, ast.Name):
            return scope.modules.get(value.id)
        if isinstance(value, ast.Attribute) and (owner := self._module(value.value, scope)):
            inner = f"{owner}.{value.attr}"
            return inner if inner in self._scopes else None
        return None

    def _is_framework(self, node: ast.ClassDef, scope: Scope) -> bool:
        """Whether it has a base that the modules do not define; ABC calls nothing by itself."""
        names = [base.id if isinstance(base, ast.Name) else "" for base in node.bases]
        own = scope.defines.keys() | scope.imported.keys() | {"ABC"}
        return any(name not in own for name in names)


def _defined(node: ast.stmt) -> set[str]:
    """The names that a top-level definition binds; empty for any other statement."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return {node.name}
    targets: list[ast.expr] = []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Assign):
        targets = [n for t in node.targets for n in (t.elts if isinstance(t, ast.Tuple) else [t])]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    return names if len(names) == len(targets) else set()


def _plain(node: ast.ClassDef) -> list[ast.stmt]:
    """The statements of a class other than its methods."""
    return [part for part in node.body if not isinstance(part, FUNCTIONS)]


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]
