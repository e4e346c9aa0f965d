"""Short names, where a name is nobody's business but the file's.

Three kinds are safe. A local, in its function. A function, class or constant at the top of the
file. An attribute or method that the file's own classes define, as long as other packages have
none of that name (``foreign``). What stays: parameters that some call names, if it may be a call of
ours; attributes that are paths of the model's parameters, or keys of a table.

The names most often used get the shortest ones. Locals are named in the order of their appearance,
so that functions look alike, which is what a compressor likes.
"""

from __future__ import annotations

import ast
import builtins
import keyword
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import chain, count, product
from string import ascii_letters, ascii_uppercase
from typing import NamedTuple

from underpar.bundle.foreign import FOREIGN
from underpar.bundle.freeze import assigned
from underpar.bundle.nodes import walk
from underpar.bundle.scopes import locals_of, references
from underpar.bundle.shake import FUNCTIONS, Scope

_FILE = "file"


class Reserved(NamedTuple):
    """names: that no local may take. keywords: that some call names, so parameters keep them."""

    names: Set[str]
    keywords: Set[str]


def rename(tree: ast.Module) -> None:
    """Shorten names, in place."""
    fixed = _fixed(tree)
    calls = [node for node in walk(tree) if isinstance(node, ast.Call)]
    functions = {n.name for n in walk(tree) if isinstance(n, FUNCTIONS) and not n.decorator_list}
    ours = _keywords(c for c in calls if _root(c.func) not in fixed or _given(c) & functions)
    made = _keywords(call for call in calls if isinstance(call.func, ast.Name))
    _rename_attributes(tree, fixed | made)
    short = _short_globals(tree, fixed)
    _rename_locals(tree, {}, Reserved(_fixed(tree) | set(short.values()), ours))


def _keywords(calls: Iterable[ast.Call]) -> set[str]:
    return {keyword.arg for call in calls for keyword in call.keywords if keyword.arg}


def _given(call: ast.Call) -> set[str]:
    """Names among the arguments: what gets a function may call it by our keywords (``partial``)."""
    return {getattr(part, "id", getattr(part, "attr", "")) for part in call.args}


def _root(node: ast.expr) -> str:
    """The x of ``x``, ``x.y`` and ``x.y.z``."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _names() -> Iterator[str]:
    """a, b, ..., Z, aa, ab, ..."""
    for length in count(1):
        for letters in product(ascii_letters, repeat=length):
            name = "".join(letters)
            if not keyword.iskeyword(name):
                yield name


def _fixed(tree: ast.Module) -> set[str]:
    """Names that nothing may be renamed to: imports and builtins."""
    fixed = set(dir(builtins)) | {"__name__", "__file__"}
    for node in walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            fixed |= {a.asname or a.name.partition(".")[0] for a in node.names}
    return fixed


def _short_globals(tree: ast.Module, fixed: Set[str]) -> dict[str, str]:
    """New names of definitions, and of imports that are used often enough to pay for "as x"."""
    scope = Scope(_FILE, tree, {_FILE: tree})
    uses: dict[str, list[ast.Name]] = {}
    for reference in references(scope, {_FILE: scope}):
        if isinstance(reference.node, ast.Name):
            uses.setdefault(reference.node.id, []).append(reference.node)
    imported = _used_imports(tree, uses)
    named = {n for n in scope.defines if n in uses and n not in fixed - imported.keys()}
    named |= {n for n in imported if len(uses[n]) * (len(n) - 1) > len(n) + 8}
    taken = {n.id for n in walk(tree) if isinstance(n, ast.Name)} | _arguments(tree)
    longer = map("".join, product(ascii_uppercase, ascii_letters))
    fresh = (n for n in chain(ascii_uppercase, longer) if n not in fixed | taken)
    short = dict(zip(sorted(named, key=lambda name: (-len(uses[name]), name)), fresh))
    for name in named:
        for used in uses[name]:
            used.id = short[name]
        if name in imported:
            imported[name].asname = short[name]
    for node in walk(tree):
        if isinstance(node, ast.Global):
            node.names = [short.get(name, name) for name in node.names]
    for part in tree.body:
        if isinstance(part, (*FUNCTIONS, ast.ClassDef)):
            part.name = short.get(part.name, part.name)
    return short


def _used_imports(tree: ast.Module, uses: Mapping[str, object]) -> dict[str, ast.alias]:
    """Bound name -> import of another package; those that nobody uses are taken out."""
    imported: dict[str, ast.alias] = {}
    plain: list[ast.alias] = []
    for node in list(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound = {a.asname or a.name.partition(".")[0]: a for a in node.names}
            node.names = [alias for name, alias in bound.items() if name in uses]
            imported |= {
                n: a for n, a in bound.items() if n in uses and ("." not in a.name or a.asname)
            }
            if isinstance(node, ast.Import) or not node.names:
                tree.body.remove(node)
                plain += node.names
    tree.body.insert(0, ast.Import(plain))
    return imported


def _arguments(tree: ast.AST) -> set[str]:
    return {n.arg for n in walk(tree) if isinstance(n, ast.arg)}


def _rename_locals(node: ast.AST, outer: dict[str, str], fixed: Reserved) -> None:
    """Functions below ``node``; ``outer``: the new names of the functions around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.Lambda)):
            _rename_function(child, outer, fixed)
        else:
            _rename_locals(child, outer, fixed)


def _rename_function(
    function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda,
    outer: dict[str, str],
    fixed: Reserved,
) -> None:
    own = locals_of(function)
    imported = {
        alias.asname or alias.name.partition(".")[0]
        for n in walk(function)
        if isinstance(n, ast.Import | ast.ImportFrom)
        for alias in n.names
    }
    order = [n for n in dict.fromkeys(_in_order(function)) if n in own]
    mapping = {name: new for name, new in outer.items() if name not in own}
    free = {n.id for n in walk(function) if isinstance(n, ast.Name)} - own
    a = function.args
    kept = {p.arg for p in [*a.posonlyargs, *a.args, *a.kwonlyargs]} & fixed.keywords | imported
    used = fixed.names | free | set(mapping.values()) | kept
    fresh = (name for name in _names() if name not in used)
    mapping |= {name: next(fresh) for name in order if name not in kept}
    for part in walk(function.args):
        if isinstance(part, ast.arg):
            part.arg = mapping.get(part.arg, part.arg)
    body = function.body
    _apply(ast.Module(body, []) if isinstance(body, list) else ast.Expr(body), mapping, fixed)


def _in_order(node: ast.AST) -> Iterator[str]:
    """Names as they appear: parameters, then the body."""
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.arg):
            yield part.arg
        elif isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, (*FUNCTIONS, ast.ExceptHandler, ast.MatchAs)) and part.name:
            yield part.name
        yield from _in_order(part)


def _apply(node: ast.AST, mapping: dict[str, str], fixed: Reserved) -> None:
    """New names for the function's own; inner functions choose theirs after it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name):
            child.id = mapping.get(child.id, child.id)
        elif isinstance(child, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            child.name = mapping.get(child.name or "", child.name)
        elif isinstance(child, ast.Nonlocal):
            child.names = [mapping.get(name, name) for name in child.names]
        if isinstance(child, (*FUNCTIONS, ast.Lambda)):
            if not isinstance(child, ast.Lambda):
                child.name = mapping.get(child.name, child.name)
                for part in child.decorator_list:
                    _apply(part, mapping, fixed)
            for default in [*child.args.defaults, *filter(None, child.args.kw_defaults)]:
                _apply(ast.Expr(default), mapping, fixed)
            _rename_function(child, mapping, fixed)
        else:
            _apply(child, mapping, fixed)


def _rename_attributes(tree: ast.Module, fixed: Set[str]) -> None:
    """Attributes and methods that only the file's own classes have."""
    own: set[str] = set()
    tables = [n for n in walk(tree) if isinstance(n, ast.Dict)]
    kept = {str(key.value) for n in tables for key in n.keys if isinstance(key, ast.Constant)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = {part.name for part in node.body if isinstance(part, FUNCTIONS)}
            stored = {
                part.attr
                for part in walk(node)
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store)
            }
            plain = {
                target.attr
                for part in walk(node)
                for target, value in assigned(part)
                if isinstance(target, ast.Attribute) and not isinstance(value, ast.Call)
            }
            fields = {ast.unparse(n.target) for n in node.body if isinstance(n, ast.AnnAssign)}
            fields |= {ast.unparse(n.targets[0]) for n in node.body if isinstance(n, ast.Assign)}
            module = any("Module" in ast.unparse(base) for base in node.bases)
            own |= methods
            if module or "asdict" in ast.unparse(node):  # paths of parameters, keys of JSON
                kept |= (stored - plain) | fields
                own |= plain
            else:
                own |= stored | fields
    elsewhere = {name for name in own if name.startswith("__")}
    candidates = own - kept - elsewhere - fixed - FOREIGN
    uses = Counter(n.attr for n in walk(tree) if isinstance(n, ast.Attribute))
    known = {n.attr for n in walk(tree) if isinstance(n, ast.Attribute)} | fixed
    fresh = (name for name in _names() if name not in known)
    short = dict(zip([name for name, _ in uses.most_common() if name in candidates], fresh))
    for item in walk(tree):
        if isinstance(item, ast.Attribute):
            item.attr = short.get(item.attr, item.attr)
        elif isinstance(item, ast.ClassDef):
            for part in item.body:
                if isinstance(part, FUNCTIONS):
                    part.name = short.get(part.name, part.name)
                elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    part.target.id = short.get(part.target.id, part.target.id)
                elif isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name):
                    name = part.targets[0].id
                    part.targets[0].id = short.get(name, name)
