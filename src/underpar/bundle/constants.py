"""Names that only ever mean one constant, and names that nobody reads.

A local that is assigned once, a constant at the top of the file, an attribute that its class sets
once and that no other class has: where the value is a literal, it takes the place of the name. A
lookup ``TABLE[key]`` of a literal key in a table that is never changed becomes the entry.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from underpar.bundle.calls import Substitute
from underpar.bundle.fold import is_constant, is_pure
from underpar.bundle.freeze import assigned
from underpar.bundle.nodes import walk
from underpar.bundle.shake import FUNCTIONS

#: an assignment to an attribute of ``self``: statement, target, value
Setting = tuple[ast.Assign, ast.Attribute, ast.expr]

#: Longer literals stay where they are, unless they are used once only.
SHORT = 12


def propagate(tree: ast.Module) -> bool:
    """Put constants in the place of their names, in place; whether there were any."""
    changed = _globals(tree)
    for node in walk(tree):
        if isinstance(node, FUNCTIONS):
            changed |= _locals(node)
    return changed | _attributes(tree) | _unread(tree)


def _unread(tree: ast.Module) -> bool:
    """Settings of attributes that nobody reads, ``x.a = b`` and ``x.a += b``; not of fields."""
    read = {
        n.attr for n in walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)
    }
    ours = {
        t.attr
        for c in tree.body
        if isinstance(c, ast.ClassDef) and not any("Module" in ast.unparse(b) for b in c.bases)
        for _, t, _ in _settings(c)
    }
    idle = ours - read
    changed = False
    for node in walk(tree) if idle else ():
        block = getattr(node, "body", None)
        if isinstance(block, list):
            kept = [part for part in block if not _sets(part, idle)]
            changed |= len(kept) < len(block)
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return changed


def _sets(node: ast.AST, names: set[str]) -> bool:
    if not isinstance(node, ast.AugAssign | ast.Assign) or not is_pure(node.value):
        return False
    target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
    return isinstance(target, ast.Attribute) and target.attr in names


def _loads(tree: ast.AST) -> Counter[str]:
    return Counter(
        n.id for n in walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
    )


def _stores(tree: ast.AST) -> Counter[str]:
    """How often each name is bound, in any way."""
    count: Counter[str] = Counter()
    for node in walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            count[node.id] += 1
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            count[node.name] += 1
        elif isinstance(node, ast.arg):
            count[node.arg] += 1
        elif isinstance(node, ast.Global | ast.Nonlocal):
            count.update(dict.fromkeys(node.names, 2))
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            count[node.name] += 2
    return count


def _globals(tree: ast.Module) -> bool:
    stores, loads = _stores(tree), _loads(tree)
    values: dict[str, ast.expr] = {}
    tables: dict[str, ast.Dict] = {}
    for node in tree.body:
        for target, value in assigned(node):
            if isinstance(target, ast.Name) and stores[target.id] == 1:
                short = len(ast.unparse(value)) <= SHORT or loads[target.id] == 1
                if is_constant(value) and short and loads[target.id]:
                    values[target.id] = value
                elif isinstance(value, ast.Dict) and all(map(is_constant, value.keys)):
                    tables[target.id] = value
    looked = _Lookup(tables)
    looked.visit(tree)
    if values:
        Substitute(values).visit(tree)
    return bool(values) or looked.changed


class _Lookup(ast.NodeTransformer):
    """``TABLE["key"]`` as the entry."""

    def __init__(self, tables: dict[str, ast.Dict]) -> None:
        self._tables, self.changed = tables, False

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        table = self._tables.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if table and is_constant(node.slice) and isinstance(node.ctx, ast.Load):
            for key, value in zip(table.keys, table.values):
                if key is not None and ast.unparse(key) == ast.unparse(node.slice):
                    self.changed = True
                    return value
        return node


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Constants of a function's locals, and assignments that nobody reads."""
    stores, loads = _stores(function), _loads(function)
    inner = {
        n.id
        for part in walk(function)
        if part is not function and isinstance(part, (*FUNCTIONS, ast.Lambda))
        for n in walk(part)
        if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)
    }
    for part in walk(function):
        if isinstance(part, ast.Global | ast.Nonlocal):
            inner.update(part.names)
    own = {id(n) for part in function.body for n in walk(part)}
    values: dict[str, ast.expr] = {}
    idle: dict[str, bool] = {}
    grown: dict[str, bool] = {}  # by +=, which changes a list that others may see
    for node in sorted(walk(function), key=lambda n: not isinstance(n, ast.AugAssign)):
        if id(node) not in own:
            continue
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            grown[node.target.id] = grown.get(node.target.id, True) and is_pure(node.value)
        for target, value in assigned(node):
            if isinstance(target, ast.Name) and target.id not in inner:
                if stores[target.id] == 1 and is_constant(value) and loads[target.id]:
                    values[target.id] = value
                elif not loads[target.id]:
                    pure = is_pure(value) and not isinstance(value, ast.Tuple)
                    pure &= is_constant(value) or target.id not in grown
                    idle[target.id] = idle.get(target.id, grown.get(target.id, True)) and pure
    if values:
        function.body = [Substitute(values).visit(part) for part in function.body]
    idler = _Idle({name for name, pure in idle.items() if pure} | values.keys())
    function.body = [b for part in function.body if (b := idler.visit(part))] or [ast.Pass()]
    return bool(values or idler.changed)


class _Idle(ast.NodeTransformer):
    """Assignments to names that are never read, taken out."""

    def __init__(self, names: set[str]) -> None:
        self._names, self.changed = names, False

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        target = node.targets[0]
        if len(node.targets) > 1:
            return node
        if isinstance(target, ast.Name) and target.id in self._names:
            self.changed = True
            return None
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts))
            left = [p for p in pairs if not (isinstance(p[0], ast.Name) and p[0].id in self._names)]
            if len(left) < len(pairs):
                self.changed = True
                target.elts, node.value.elts = [p[0] for p in left], [p[1] for p in left]
                if len(left) == 1:
                    node.targets, node.value = [left[0][0]], left[0][1]
                return node if left else None
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST | None:
        gone = isinstance(node.target, ast.Name) and node.target.id in self._names
        self.changed |= gone
        return None if gone and is_pure(node.value) else node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if isinstance(node.target, ast.Name) and node.target.id in self._names:
            self.changed = True
            return None
        return node


def _attributes(tree: ast.Module) -> bool:
    """``self.x = constant`` in ``__init__``, the same in all classes that have an x."""
    everywhere = Counter(n.attr for n in walk(tree) if isinstance(n, ast.Attribute))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    here = Counter(a.attr for node in classes for a in _of_self(node))
    stores = Counter(
        a.attr for node in classes for a in _of_self(node) if isinstance(a.ctx, ast.Store)
    )
    named = {
        getattr(part, "name", ast.unparse(getattr(part, "target", ast.Name(""))))
        for node in classes
        for part in node.body
    }
    settings: dict[str, list[Setting]] = {}
    for node in classes:
        for statement, target, value in _settings(node):
            settings.setdefault(target.attr, []).append((statement, target, value))
    changed = False
    for name, found in settings.items():
        values = {ast.unparse(value) for _, _, value in found}
        if here[name] != everywhere[name] or stores[name] != len(found) or name in named:
            continue
        unread = here[name] == len(found) and all(is_pure(value) for *_, value in found)
        if (len(values) == 1 and is_constant(found[0][2])) or unread:
            PutAttribute(name, found[0][2]).visit(tree)
            for statement, target, _ in found:
                _remove(statement, target)
            changed = True
    return changed


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _of_self(node: ast.AST) -> Iterator[ast.Attribute]:
    for part in walk(node):
        if isinstance(part, ast.Attribute) and is_self(part.value):
            yield part


def _settings(node: ast.ClassDef) -> list[Setting]:
    """The assignments to attributes at the top level of ``__init__``."""
    init = next((p for p in node.body if isinstance(p, FUNCTIONS) and p.name == "__init__"), None)
    return [
        (statement, target, value)
        for statement in (init.body if init else ())
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1
        for target, value in assigned(statement)
        if isinstance(target, ast.Attribute) and is_self(target.value)
    ]


def _remove(statement: ast.Assign, target: ast.Attribute) -> None:
    """One of the statement's targets with its value; an emptied one is left as ``()``."""
    if isinstance(statement.targets[0], ast.Tuple) and isinstance(statement.value, ast.Tuple):
        index = statement.targets[0].elts.index(target)
        del statement.targets[0].elts[index], statement.value.elts[index]
        if len(statement.value.elts) == 1:
            statement.targets = [statement.targets[0].elts[0]]
            statement.value = statement.value.elts[0]
    else:
        statement.targets, statement.value = [ast.Name("_", ast.Store())], ast.Constant(0)


class PutAttribute(ast.NodeTransformer):
    """``self.name`` by its value."""

    def __init__(self, name: str, value: ast.expr) -> None:
        self._name, self._value = name, value

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        ours = node.attr == self._name and isinstance(node.ctx, ast.Load)
        return self._value if ours and is_self(node.value) else node
