"""The import closure of a module, found by reading, not by importing.

A module needs what its source imports, anywhere in it: an import inside a function counts, one
under ``if TYPE_CHECKING`` does not, since it never runs. Importing ``a.b`` runs ``a/__init__.py``
first, so parents belong to the closure too. Only modules of the entry's own top-level package are
followed; the standard library and installed packages are the target's business.

Imports made from strings (importlib) are invisible here; the package makes none of its own modules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from underpar.errors import DataError

#: The folder that holds the package this file is part of.
SOURCES = Path(__file__).parents[2]


@dataclass(frozen=True)
class Source:
    """A module's text. is_package: it is an ``__init__.py``."""

    name: str
    text: str
    is_package: bool


def closure(
    entry: str, sources: Path = SOURCES, texts: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Source]:
    """Name -> source of ``entry`` ("package.module") and all it imports from its package, sorted.

    sources: the folder that holds the package's folder. texts: replaces what the files say, by
    module. DataError when a module is not there.
    """
    found: dict[str, Source] = {}
    waiting = _with_parents(entry)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        source = find(name, sources)
        if source is None:
            raise DataError(f"no module {name} under {sources}", do="Check the entry's name.")
        source = replace(source, text=texts.get(name, source.text))
        found[name] = source
        for imported in imports(source, sources):
            waiting += _with_parents(imported)
    return dict(sorted(found.items()))


def find(name: str, sources: Path) -> Source | None:
    """The source of a dotted name, None where there is no such file."""
    place = sources.joinpath(*name.split("."))
    for path, is_package in ((place / "__init__.py", True), (place.with_suffix(".py"), False)):
        if path.is_file():
            return Source(name, path.read_text(encoding="utf-8"), is_package)
    return None


def imports(source: Source, sources: Path) -> Iterator[str]:
    """Modules of its own package that a source imports, in the order of its text."""
    package = source.name.partition(".")[0]
    for node in _running_nodes(ast.parse(source.text, source.name)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, source)
            names = [origin]
            if origin.partition(".")[0] == package:  # "from a import b": b may be a module
                inner = [f"{origin}.{alias.name}" for alias in node.names]
                names += [name for name in inner if find(name, sources)]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == package)


def _origin(node: ast.ImportFrom, source: Source) -> str:
    """The absolute name of the module after "from"."""
    if not node.level:
        return node.module or ""
    up = node.level - source.is_package
    parents = source.name.split(".")
    base = parents[: len(parents) - up]
    return ".".join([*base, node.module] if node.module else base)


def _running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for other in node.orelse:
                yield other
                yield from _running_nodes(other)
            continue
        yield node
        yield from _running_nodes(node)


def is_type_checking(test: ast.expr) -> bool:
    """Whether the condition is ``TYPE_CHECKING`` or ``typing.TYPE_CHECKING``."""
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]
