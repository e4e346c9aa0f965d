"""The import closure of a module, found by reading, not by importing.

A module needs what its source imports, anywhere in it: an import inside a function counts, one
under ``if TYPE_CHECKING`` does not, since it never runs. Importing ``a.b`` runs ``a/__init__.py``
first, so parents belong to the closure too. Only modules of the entry's own top-level package are
followed; the standard library and installed packages are the target's business. Imports are
absolute, as everywhere in this package; one made from a string (importlib) would not be seen.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from underpar.errors import DataError

#: The folder that holds the package this file is part of.
SOURCES = Path(__file__).parents[2]


def closure(entry: str, sources: Path = SOURCES) -> dict[str, str]:
    """Name -> source of ``entry`` ("package.module") and all it imports from its package, sorted.

    sources: the folder that holds the package's folder. DataError when a module is not there.
    """
    found: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _file(name, sources)
        if path is None:
            raise DataError(f"no module {name} under {sources}", do="Check the entry's name.")
        found[name] = path.read_text(encoding="utf-8")
        waiting += [name.rpartition(".")[0]] if "." in name else []
        waiting += _imports(name.partition(".")[0], running(ast.parse(found[name], name)), sources)
    return dict(sorted(found.items()))


def running(tree: ast.Module) -> ast.Module:
    """The tree, in place, without what is for the type checker only."""
    body: list[ast.stmt] = []
    for node in tree.body:
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        body += node.orelse if checking else [node]  # type: ignore[attr-defined]
    tree.body = body
    return tree


def _file(name: str, sources: Path) -> Path | None:
    place = sources.joinpath(*name.split("."))
    paths = (place / "__init__.py", place.with_suffix(".py"))
    return next((path for path in paths if path.is_file()), None)


def _imports(package: str, tree: ast.Module, sources: Path) -> Iterator[str]:
    """Modules of the package that a source imports, in the order of its text."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]  # may be modules
            names = [node.module, *(name for name in inner if _file(name, sources))]
        yield from (name for name in names if name.partition(".")[0] == package)
