"""Packed scripts as plain source, without executing anything.

A packer leaves a few lines that end in `exec(decompress(decode("...")))`, often twice, sometimes
with the payload in a sibling file or with a few settings before it. The statements of such a
wrapper are walked in order: assignments and imports are understood by `decode_values`, and the
argument of the first `exec` is the payload. What a wrapper does beside that (environment defaults,
small constants) stays in front of the payload, because the payload sees it.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from underpar.audit.decode_values import Evaluator, Name, Path
from underpar.audit.fstrings import NotPython, rewrite_fstrings
from underpar.audit.inflate import LIMIT, Unknown

#: Wrappers inside wrappers.
DEPTH = 8

_EXECUTORS = ("exec", "eval", "builtins.exec")
_RUNNERS = ("runpy.run_path",)
_BOOKKEEPING = frozenset(("linecache", "sys", "warnings"))

Reader = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Decoded:
    """source: plain text, 3.11 syntax where possible. layers: wrappers removed. used: siblings."""

    source: str
    layers: int = 0
    used: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def packed(self) -> bool:
        return self.layers > 0


def parses(source: str) -> bool:
    return syntax_error(source) is None


def syntax_error(source: str) -> str | None:
    """Why `source` is not Python for this interpreter; None if it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    return None


def modernise(source: str) -> str:
    """`source` with 3.12-only f-strings rewritten; as it stands if it parses or is no Python."""
    if parses(source):
        return source
    try:
        rewritten = rewrite_fstrings(source)
    except (NotPython, RecursionError):
        return source
    return rewritten if parses(rewritten) else source


def plain_source(
    data: bytes | str, name: str = "train_gpt.py", read: Reader | None = None
) -> Decoded:
    """The plain source behind a script.

    name: the script's own file name; read: content of a file beside it, None if there is none.
    """
    source = _text(data)
    used: list[str] = []
    notes: list[str] = []
    for layer in range(DEPTH):
        source = modernise(source)
        error = syntax_error(source)
        if error is not None:
            notes.append(f"does not parse: {error}")
            return Decoded(source, layer, tuple(used), tuple(notes))
        wrapper = _Wrapper(name, read or (lambda _: None))
        try:
            inner = wrapper.open(source)
        except RecursionError:
            notes.append("nested too deeply to be unpacked")
            return Decoded(source, layer, tuple(used), tuple(notes))
        notes += wrapper.notes
        if inner is None:
            return Decoded(source, layer, tuple(used), tuple(notes))
        used += wrapper.values.used
        source = inner
    notes.append(f"wrapped more than {DEPTH} times")
    return Decoded(source, DEPTH, tuple(used), tuple(notes))


def _text(data: bytes | str) -> str:
    text = data if isinstance(data, str) else data.decode("utf-8", errors="replace")
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


class _Wrapper:
    def __init__(self, name: str, read: Reader) -> None:
        self.values = Evaluator(name, read)
        self.notes: list[str] = []
        self._kept: list[str] = []
        self._imports: list[str] = []
        self._payload: str | None = None

    def open(self, source: str) -> str | None:
        """The payload with what the wrapper does beside; None if `source` is no wrapper."""
        if "exec" not in source and "eval" not in source and "runpy" not in source:
            return None
        self._walk(ast.parse(source).body)
        if self._payload is None:
            return None
        kept = [*self._imports, *self._kept] if self._kept else []
        return _in_front(kept, self._payload)

    def _walk(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self._payload is not None:
                self._kept_after(statement)
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                self.values.bind_import(statement)
                self._imports.append(ast.unparse(statement))
            elif isinstance(statement, ast.If | ast.With) and self._enters(statement):
                self._walk(statement.body)
            elif not self._understands(statement):
                self._keep(statement)

    def _understands(self, statement: ast.stmt) -> bool:
        if isinstance(statement, ast.Assign):
            return self._assign(statement)
        return isinstance(statement, ast.Expr) and self._execute(statement.value)

    def _kept_after(self, statement: ast.stmt) -> None:
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            self.notes.append(f"wrapper line {statement.lineno} after the payload is left out")

    def _keep(self, statement: ast.stmt) -> None:
        root = next((n.id for n in ast.walk(statement) if isinstance(n, ast.Name)), "")
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if root not in _BOOKKEEPING and root != "globals" and not is_text:
            self._kept.append(ast.unparse(statement))

    def _assign(self, node: ast.Assign) -> bool:
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            return False
        name = node.targets[0].id
        try:
            value = self.values.of(node.value)
        except (Unknown, RecursionError):
            self.values.names.pop(name, None)
            return False
        self.values.names[name] = value
        small = isinstance(value, int | float | str) and len(repr(value)) < 80
        if small and isinstance(node.value, ast.Constant):
            self._kept.append(ast.unparse(node))
        return True

    def _enters(self, node: ast.If | ast.With) -> bool:
        if isinstance(node, ast.If):
            return "__name__" in ast.unparse(node.test)
        for item in node.items:
            if not isinstance(item.optional_vars, ast.Name):
                return False
            try:
                self.values.names[item.optional_vars.id] = self.values.of(item.context_expr)
            except Unknown:
                return False
        return True

    def _execute(self, node: ast.expr) -> bool:
        """Take the payload out of `exec(...)`; False if this is no such call."""
        if not isinstance(node, ast.Call) or not node.args:
            return False
        try:
            function = self.values.of(node.func)
        except Unknown:
            return False
        if not isinstance(function, Name) or function.path not in (*_EXECUTORS, *_RUNNERS):
            return False
        try:
            value = self.values.of(node.args[0])
            if function.path in _RUNNERS:
                value = self.values.file(value if isinstance(value, Path) else Path(value), True)
        except (Unknown, RecursionError, UnicodeDecodeError) as reason:
            self.notes.append(f"line {node.lineno}: the argument of exec is not known: {reason}")
            return False
        if not isinstance(value, str | bytes) or len(value) > LIMIT:
            return False
        self._payload = _text(value)
        return True


def _in_front(kept: list[str], payload: str) -> str:
    """`payload` with `kept` before its first statement that may have something before it."""
    if not kept:
        return payload
    modern = modernise(payload)
    if not parses(modern):
        return "\n".join([*kept, payload])
    at = 0
    for statement in ast.parse(modern).body:
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if not (is_text or is_future):
            break
        at = statement.end_lineno or at
    lines = modern.split("\n")
    return "\n".join([*lines[:at], *kept, *lines[at:]])
