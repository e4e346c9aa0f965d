"""Who a name is: the references of a module, resolved to the module that defines them.

Python's own rules, as far as the package's style goes: a name assigned in a function is local to
it, unless declared global; names of a class body are seen by the class body alone; comprehensions
are taken for part of the function that they stand in, which can only make a name look local that
is local a few lines further on.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORTS = (ast.Import, ast.ImportFrom)

#: (module, name) of a definition
Target = tuple[str, str]

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Scope:
    """A module's names: what it defines, and what its imports (anywhere in it) stand for."""

    def __init__(self, name: str, tree: ast.Module, modules: Mapping[str, ast.Module]) -> None:
        self.name, self.tree = name, tree
        self.defines: dict[str, ast.stmt] = {}
        self.always: list[ast.stmt] = []  # neither definition nor import
        self.modules: dict[str, str] = {}  # local name -> module
        self.imported: dict[str, tuple[str, str]] = {}  # local name -> (module, name there)
        self._outside: dict[str, tuple[str, str]] = {}  # the same of other packages
        for node in tree.body:
            names = defined(node)
            self.defines |= dict.fromkeys(names, node)
            if not names and not isinstance(node, IMPORTS):
                self.always.append(node)
        for part in ast.walk(tree):
            if isinstance(part, ast.Import):
                for alias in part.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    self.modules[bound] = alias.name if alias.asname else bound
                    self._outside[bound] = self.modules[bound], ""
            elif isinstance(part, ast.ImportFrom) and part.module:
                for alias in part.names:
                    bound, target = alias.asname or alias.name, f"{part.module}.{alias.name}"
                    if target in modules:
                        self.modules[bound] = target
                    elif part.module in modules:
                        self.imported[bound] = part.module, alias.name
                    else:
                        self._outside[bound] = part.module, alias.name

    def origin(self, node: ast.expr) -> tuple[str, str]:
        """(module, path) of a class from outside; ("", path) of a builtin, ("", "") of ours."""
        if isinstance(node, ast.Subscript):
            return self.origin(node.value)
        if isinstance(node, ast.Attribute):
            module, path = self.origin(node.value)
            return module, f"{path}.{node.attr}".lstrip(".")
        name = node.id if isinstance(node, ast.Name) else ""
        if name in self._outside:
            return self._outside[name]
        return "", "" if name in self.defines or name in self.imported else name


@dataclass(frozen=True)
class Reference:
    """A name, or ``module.name``, in the text. target: None for a builtin or another package's.

    text: the name, of ``module.name`` the module's. locals: the names that are local where it is.
    """

    node: ast.expr
    text: str
    target: Target | None
    locals: frozenset[str]


def references(scope: Scope, scopes: Mapping[str, Scope]) -> Iterator[Reference]:
    """Every reference of the module that is not to a local name, definitions' own names too."""
    for node in scope.tree.body:
        if not isinstance(node, IMPORTS):
            yield from references_in(node, scope, scopes)


def references_in(node: ast.AST, scope: Scope, scopes: Mapping[str, Scope]) -> Iterator[Reference]:
    """The same of one statement at the top of the module."""
    return _walk(node, frozenset(), scope, scopes)


def resolve(module: str, name: str, scopes: Mapping[str, Scope]) -> Target | None:
    """Where the name of a module is defined, through imports of any number of modules."""
    scope = scopes.get(module)
    if scope is None:
        return None
    if name in scope.defines:
        return module, name
    origin = scope.imported.get(name)
    return resolve(*origin, scopes) if origin else None


def locals_of(function: Function) -> frozenset[str]:
    """Parameters, and all that the body binds; not what it declares global."""
    a = function.args
    bound = {arg.arg for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg] if arg}
    body = [function.body] if isinstance(function, ast.Lambda) else function.body
    outside: set[str] = set()
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Global | ast.Nonlocal):
            outside.update(node.names)
        bound |= binds(node)
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return frozenset(bound - outside)


def binds(node: ast.AST) -> set[str]:
    """Names that a node of a function's body makes local."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return {node.id}
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        return {node.name}
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("underpar"):
        return {alias.asname or alias.name for alias in node.names}
    return set()


def _walk(
    node: ast.AST, known: frozenset[str], scope: Scope, scopes: Mapping[str, Scope]
) -> Iterator[Reference]:
    if isinstance(node, ast.Name):
        if node.id not in known:
            yield Reference(node, node.id, resolve(scope.name, node.id, scopes), known)
        return
    if isinstance(node, ast.Attribute):
        module = _module(node.value, known, scope, scopes)
        target = resolve(module, node.attr, scopes) if module else None
        if target:
            yield Reference(node, ast.unparse(node).partition(".")[0], target, known)
            return
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        inner = known | locals_of(node)
        for child in ast.iter_child_nodes(node):
            body = child is node.body or child in (node.body if isinstance(node.body, list) else ())
            yield from _walk(child, inner if body else known, scope, scopes)
        return
    if isinstance(node, ast.ClassDef):
        yield from _walk_class(node, known, scope, scopes)
        return
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        known |= {n for part in node.generators for x in walk(part.target) for n in binds(x)}
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, known, scope, scopes)


def _walk_class(
    node: ast.ClassDef, known: frozenset[str], scope: Scope, scopes: Mapping[str, Scope]
) -> Iterator[Reference]:
    own = {name for part in node.body for name in _class_names(part)}
    for child in ast.iter_child_nodes(node):
        in_body = child in node.body
        if isinstance(child, FUNCTIONS):  # decorators and defaults see the class, the body not
            inner = known | locals_of(child)
            for part in ast.iter_child_nodes(child):
                seen = inner if part in child.body else known | own
                yield from _walk(part, seen, scope, scopes)
        else:
            yield from _walk(child, known | own if in_body else known, scope, scopes)


def _class_names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.AnnAssign | ast.Assign):
        return {n for x in walk(node) for n in binds(x)}
    return binds(node)


def _module(
    value: ast.expr, known: frozenset[str], scope: Scope, scopes: Mapping[str, Scope]
) -> str | None:
    """The module that an expression names, if it does."""
    if isinstance(value, ast.Name):
        return None if value.id in known else scope.modules.get(value.id)
    if isinstance(value, ast.Attribute) and (outer := _module(value.value, known, scope, scopes)):
        inner = f"{outer}.{value.attr}"
        return inner if inner in scopes else None
    return None


def defined(node: ast.stmt) -> set[str]:
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


#: contexts and operators, which have no parts
_LEAVES = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it, in the order of the text, but for contexts and operators."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        children: list[ast.AST] = []
        for name in node._fields:
            part = getattr(node, name, None)
            if isinstance(part, list):
                children += [item for item in part if isinstance(item, ast.AST)]
            elif isinstance(part, ast.AST) and not isinstance(part, _LEAVES):
                children.append(part)
        waiting += reversed(children)
