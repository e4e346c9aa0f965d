"""The settings a script reads from its environment: names, defaults, and where they go."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Cast = Literal["", "int", "float", "bool"]

#: Set by the launcher, not by the author.
LAUNCHER = frozenset(
    [
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "NODE_RANK",
    ]
)

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,60}\Z")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off", "none")


@dataclass(frozen=True)
class Knob:
    """name: in the environment. attribute: the variable or attribute that holds it ("" if none).

    default: as the environment would spell it; None if it is not a literal. cast: outermost.
    """

    name: str
    attribute: str
    default: str | None
    cast: Cast
    line: int


def spell(value: object) -> str:
    """A Python value as the environment would hold it: True -> '1', [3, 4] -> '3,4'."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list | tuple):
        return ",".join(spell(item) for item in value)
    return str(value)


def as_cast(text: str, cast: Cast) -> str | None:
    """`text` of a log as the script can read it back; None if it does not fit the cast."""
    lowered = text.lower()
    if glued := re.match(r"(True|False)[a-z]", text):  # the next line of a log runs on
        lowered = glued[1].lower()
    if cast in ("int", "bool") and lowered in _TRUE:
        return "1"
    if cast in ("int", "bool") and lowered in _FALSE:
        return "0"
    if cast in ("int", "float"):
        try:
            number = float(text.replace("_", ""))
        except ValueError:
            return None
        return (str(int(number)) if number == int(number) else None) if cast == "int" else text
    if lowered in ("true", "false"):
        return str(int(lowered == "true"))
    return "" if text == "None" else text


def same(a: str | None, b: str | None) -> bool:
    """Do two spellings mean one value?"""
    if a is None or b is None:
        return False
    try:
        return float(a.replace("_", "")) == float(b.replace("_", ""))
    except ValueError:
        return a.strip("[]() ").replace(" ", "") == b.strip("[]() ").replace(" ", "")


def knobs(tree: ast.AST) -> list[Knob]:
    """Every setting that `tree` reads, in order of lines; a name may occur more than once."""
    readers = _readers(tree)
    found: list[Knob] = []
    holders: dict[int, str] = {}
    for node in ast.walk(tree):
        for attribute, value in _held(node):
            for inside in ast.walk(value):
                holders[id(inside)] = attribute  # the walk goes inwards: the nearest name stays
    casts = _casts(tree)
    for node in ast.walk(tree):
        read = _read(node, readers)
        if read is not None:
            name, default = read
            where = holders.get(id(node), "")
            line = getattr(node, "lineno", 0)
            found.append(Knob(name, where, default, casts.get(id(node), ""), line))
    return sorted(found, key=lambda knob: knob.line)


def _held(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of what `node` binds."""
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        name = target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")
        if name:
            yield name, node.value
    if isinstance(node, ast.keyword) and node.arg and not node.arg.startswith("default"):
        yield node.arg, node.value


def _casts(tree: ast.AST) -> dict[int, Cast]:
    """For each node, the number type its value goes through."""
    out: dict[int, Cast] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("int", "float", "bool"):
                for arg in node.args:
                    for inside in ast.walk(arg):
                        known = out.get(id(inside), "")
                        out[id(inside)] = known or node.func.id  # type: ignore[assignment]
            elif "env" in node.func.id.lower() and "bool" in node.func.id.lower():
                out[id(node)] = "bool"
        if isinstance(node, ast.Compare):
            for inside in ast.walk(node.left):
                out.setdefault(id(inside), "bool")
    return out


def _readers(tree: ast.AST) -> set[str]:
    """Names of functions that read the environment for their first argument."""
    readers: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda) and node.args.args:
            first = node.args.args[0].arg
            reads = any(_is_read_of(inner, first) for inner in ast.walk(node))
            if reads and isinstance(node, ast.FunctionDef):
                readers.add(node.name)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if _dotted(node.value).endswith(("environ.get", "getenv", "environ")):
                readers.add(node.targets[0].id)
            if isinstance(node.value, ast.Lambda) and "environ" in ast.unparse(node.value):
                readers.add(node.targets[0].id)
    return readers


def _is_read_of(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Subscript) and _dotted(node.value).endswith("environ"):
        return isinstance(node.slice, ast.Name) and node.slice.id == name
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Name):
        is_read = _dotted(node.func).endswith(("environ.get", "getenv"))
        return is_read and node.args[0].id == name
    return False


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return "?"


def _read(node: ast.AST, readers: set[str]) -> tuple[str, str | None] | None:
    """(environment name, default) if `node` reads the environment."""
    if isinstance(node, ast.Subscript):
        known = _dotted(node.value).endswith("environ") or _dotted(node.value) in readers
        return (name, None) if known and (name := _literal_name(node.slice)) else None
    if not isinstance(node, ast.Call) or not node.args:
        return None
    function = _dotted(node.func)
    reads = function.endswith(("environ.get", "getenv", "environ.setdefault", "environ.pop"))
    if not (reads or function.split(".")[0] in readers or function in readers):
        return None
    name = _literal_name(node.args[0])
    if not name:
        return None
    given = node.args[1] if len(node.args) > 1 else None
    given = given or next((k.value for k in node.keywords if k.arg == "default"), None)
    if given is None:
        return name, None
    try:
        return name, spell(ast.literal_eval(given))
    except (ValueError, TypeError, SyntaxError):
        return name, None


def _literal_name(node: ast.expr) -> str:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) and _NAME.match(value) else ""
