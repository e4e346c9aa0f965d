"""Many modules to one readable file: sections in the order of their imports, one namespace.

The text is edited, not generated: comments, docstrings and line breaks of whatever is kept stay as
they were written. What changes:

- imports of the package's own modules go; those of others stand once, on top;
- ``module.name`` becomes ``name``, and an ``import name as other`` is undone;
- a name that two modules define, that would hide a builtin or somebody's import, or that a local
  variable would capture where it is used, gets its module's name in front: ``grid_quantize``;
- definitions and methods that the program cannot reach go (``shake``).

Every section begins with its module's docstring, as a comment.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from underpar.ship.closure import SOURCES, closure, running
from underpar.ship.scopes import IMPORTS, Reference, Scope, Target, references
from underpar.ship.shake import shake

_RULE = "# " + "-" * 98


def link(
    entry: str,
    root: str,
    *,
    head: str,
    values: Mapping[str, str] = MappingProxyType({}),
    sources: Path = SOURCES,
) -> str:
    """One file that holds all that ``root`` of module ``entry``, and its statements, need.

    head: its first lines. values: source text that replaces the value of assignments in ``entry``,
    by the name assigned. sources: the folder that holds the package's folder.
    """
    texts = {name: text.encode() for name, text in closure(entry, sources).items()}
    trees = {name: running(ast.parse(text)) for name, text in texts.items()}
    shake(trees, entry, root)
    order = _in_order(entry, trees)
    scopes = {name: Scope(name, trees[name], trees) for name in order}
    uses = {name: list(references(scopes[name], scopes)) for name in order}
    names = _flat_names(scopes, uses, trees)
    parts = [head, "from __future__ import annotations", _imports(trees[name] for name in order)]
    for name in order:
        fresh = values if name == entry else {}
        section = _Section(texts[name], trees[name], scopes[name], uses[name], names, fresh)
        parts += [section.text()] if section.kept else []
    return "\n\n".join(parts) + "\n"


def _in_order(entry: str, trees: Mapping[str, ast.Module]) -> list[str]:
    """Modules such that each stands after those that it imports when it is imported itself."""
    order: dict[str, None] = {}
    entered: set[str] = set()

    def enter(name: str) -> None:
        if name in entered or name not in trees:
            return
        entered.add(name)
        for node in trees[name].body:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    enter(f"{node.module}.{alias.name}")
                enter(node.module)
        order[name] = None

    enter(entry)
    for name in trees:  # imported inside functions only
        enter(name)
    return list(order)


def _flat_names(
    scopes: Mapping[str, Scope],
    uses: Mapping[str, list[Reference]],
    trees: Mapping[str, ast.Module],
) -> dict[Target, str]:
    """(module, name) of every kept definition -> its name in the one file."""
    hidden: dict[Target, set[str]] = {}  # names that mean something else where it is used
    free: set[str] = set(dir(builtins)) & {u.text for us in uses.values() for u in us}
    for reference in (reference for module in uses.values() for reference in module):
        if reference.target:
            hidden.setdefault(reference.target, set()).update(reference.locals)
    taken = free | {b.partition(".")[0] for tree in trees.values() for b, _ in _external(tree)}
    flat: dict[Target, str] = {}
    for module, scope in scopes.items():
        for name in scope.defines:
            private = "_" if name.startswith("_") else ""
            parts = module.split(".")[::-1]
            longer = ["_".join([*parts[:n][::-1], name.lstrip("_")]) for n in range(1, len(parts))]
            candidates = [name, *(private + one for one in longer)]
            unusable = taken | hidden.get((module, name), set())
            flat[module, name] = next(one for one in candidates if one not in unusable)
            taken.add(flat[module, name])
    return flat


def _external(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(bound name, statement) of imports from other packages."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name, ast.unparse(ast.Import([alias]))
        elif isinstance(node, ast.ImportFrom) and node.module:
            ours = node.module.partition(".")[0] in ("underpar", "__future__")
            for alias in () if ours else node.names:
                statement = ast.ImportFrom(node.module, [alias], 0)
                yield alias.asname or alias.name, ast.unparse(statement)


def _imports(trees: Iterable[ast.Module]) -> str:
    """All imports of other packages, once."""
    meaning: dict[str, str] = {}
    for bound, statement in (pair for tree in trees for pair in _external(tree)):
        known = meaning.setdefault(bound, statement)
        assert known == statement, f"two imports are called {bound}"
    return "\n".join(sorted(meaning.values()))


class _Section:
    """What is kept of one module, and the edits that make it fit."""

    def __init__(
        self,
        text: bytes,
        tree: ast.Module,
        scope: Scope,
        uses: list[Reference],
        names: Mapping[Target, str],
        values: Mapping[str, str],
    ) -> None:
        self._text, self._name, self._names, self._values = text, scope.name, names, values
        self._lines = text.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))
        self._doc = ast.get_docstring(tree) or ""
        self.kept = [n for n in tree.body if not isinstance(n, IMPORTS) and not _is_text(n)]
        self._flat = {id(u.node): names[u.target] for u in uses if u.target}
        self._edits: list[tuple[int, int, bytes]] = []

    def text(self) -> str:
        """The section with its banner."""
        parts = [f"{_RULE}\n# {self._name}\n{_RULE}"]
        if self._doc:
            parts.append("\n".join(f"# {line}".rstrip() for line in self._doc.splitlines()))
        original = {n.lineno: n for n in ast.parse(self._text).body}
        pieces = []
        for node in self.kept:
            start, end = self._span(node)
            self._edits = []
            self._rename(node)
            self._cut(original[node.lineno], node)
            pieces.append(self._edited(start, end).decode().rstrip())
        return "\n\n".join(["\n".join(parts), *pieces])

    def _edited(self, start: int, end: int) -> bytes:
        out, at = [], start
        for first, last, new in sorted(self._edits):
            if first < at:  # inside something that is gone
                continue
            out += [self._text[at:first], new]
            at = last
        return b"".join([*out, self._text[at:end]])

    def _span(self, node: ast.stmt) -> tuple[int, int]:
        """Bytes of a statement's lines, with its decorators and the comment right above."""
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        while first > 1 and self._lines[first - 2].lstrip().startswith(b"#"):
            first -= 1
        return self._starts[first - 1], self._starts[node.end_lineno or node.lineno]

    def _at(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def _cut(self, before: ast.stmt, after: ast.stmt) -> None:
        """Take out the methods that the shaken class does not have any more."""
        if not isinstance(before, ast.ClassDef) or not isinstance(after, ast.ClassDef):
            return
        left = {getattr(node, "lineno", 0) for node in after.body}
        for node in before.body:
            if node.lineno not in left:
                start, end = self._span(node)
                self._edits.append((start, end, b""))
        if len(after.body) == 1 and not hasattr(after.body[0], "lineno"):
            end = self._span(before)[1]
            self._edits.append((end, end, b"    pass\n"))

    def _rename(self, node: ast.AST) -> None:
        """Edits for every reference below ``node`` whose text is not its flat name."""
        if isinstance(node, ast.JoinedStr):  # positions inside are wrong before Python 3.12
            if any(id(part) in self._flat for part in ast.walk(node)):
                fresh = _Renamed(self._flat).visit(node)
                self._edits.append((*self._at(node), ast.unparse(fresh).encode()))
            return
        if id(node) in self._flat:
            assert isinstance(node, ast.expr)
            self._edits.append((*self._at(node), self._flat[id(node)].encode()))
            return
        if isinstance(node, ast.Global):
            flat = [self._names.get((self._name, name), name) for name in node.names]
            self._edits.append((*self._at(node), f"global {', '.join(flat)}".encode()))
        elif isinstance(node, IMPORTS) and node.col_offset:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("underpar"):
                self._edits.append((*self._at(node), b"pass"))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._rename_definition(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not node.col_offset:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            fresh_value = self._values.get(getattr(target, "id", ""))
            if fresh_value is not None and node.value is not None:
                self._edits.append((*self._at(node.value), fresh_value.encode()))
        for child in ast.iter_child_nodes(node):
            self._rename(child)

    def _rename_definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ) -> None:
        flat = self._names.get((self._name, node.name)) if not node.col_offset else None
        if flat and flat != node.name:
            start = self._starts[node.lineno - 1]
            found = re.compile(rb"(?:def|class) +(\w+)").match(self._text, start)
            assert found is not None
            self._edits.append((*found.span(1), flat.encode()))


class _Renamed(ast.NodeTransformer):
    """References by their flat names."""

    def __init__(self, flat: Mapping[int, str]) -> None:
        self._flat = flat

    def visit(self, node: ast.AST) -> ast.AST:
        flat = self._flat.get(id(node))
        return ast.Name(flat, ast.Load()) if flat else super().generic_visit(node)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
