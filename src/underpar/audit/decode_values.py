"""The value of an expression in a wrapper, computed without running the wrapper.

Only what packers use is known: literals, bytes and str methods, slices, base64, hex and base85,
zlib, gzip, bz2 and lzma (raw filters too), and files that lie beside the script. Every other name
is `Unknown`. All results are bounded by LIMIT, so that a small file cannot fill the memory.
"""

from __future__ import annotations

import ast
import base64
import binascii
import lzma
import posixpath
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from underpar.audit.inflate import LIMIT, Unknown, bounded, bounded_decompress, room

_METHODS = frozenset([
    "decode", "encode", "replace", "strip", "lstrip", "rstrip", "join", "split", "splitlines",
    "removeprefix", "removesuffix", "lower", "upper", "swapcase", "hex", "startswith", "endswith",
    "read", "read_text", "read_bytes", "with_suffix", "with_name", "resolve", "absolute",
    "joinpath",
])  # fmt: skip
_TEXT_OF_BYTES: dict[str, Callable[..., bytes]] = {
    "base64.b85decode": base64.b85decode,
    "base64.a85decode": base64.a85decode,
    "base64.b64decode": base64.b64decode,
    "base64.standard_b64decode": base64.standard_b64decode,
    "base64.urlsafe_b64decode": base64.urlsafe_b64decode,
    "base64.decodebytes": base64.decodebytes,
    "base64.b32decode": base64.b32decode,
    "base64.b16decode": base64.b16decode,
    "binascii.unhexlify": binascii.unhexlify,
    "binascii.a2b_hex": binascii.a2b_hex,
    "binascii.a2b_base64": binascii.a2b_base64,
    "bytes.fromhex": bytes.fromhex,
}
_MODULES = frozenset(
    [
        "base64",
        "binascii",
        "bz2",
        "gzip",
        "io",
        "lzma",
        "os",
        "os.path",
        "pathlib",
        "runpy",
        "sys",
        "zlib",
        "linecache",
    ]
)
_BUILTINS = frozenset(
    ["bytes", "bytearray", "str", "open", "compile", "exec", "eval", "__import__", "memoryview"]
)


@dataclass(frozen=True)
class Name:
    """A module, function or class, by its dotted name."""

    path: str


@dataclass(frozen=True)
class Path:
    """A file beside the script, relative to the script's folder."""

    name: str


@dataclass(frozen=True)
class Method:
    owner: Any
    name: str


@dataclass(frozen=True)
class File:
    path: Path
    binary: bool


#: Bytes and characters that all expressions of one wrapper may produce together.
WORK = 64 * LIMIT

_ENCODINGS = frozenset(("utf-8", "utf8", "ascii", "latin-1", "latin1", "iso-8859-1"))
_FAILURES = (
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    AttributeError,
    OverflowError,
    OSError,
    zlib.error,
    lzma.LZMAError,
)


class Evaluator:
    """Evaluates expressions; `names` are the bindings seen so far, `read` gives sibling files."""

    def __init__(self, script: str, read: Callable[[str], bytes | None]) -> None:
        self.names: dict[str, Any] = {"__file__": Path(script), "__name__": "__main__"}
        self.used: list[str] = []
        self._read = read
        self._work = 0

    def bind_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                path = alias.name if alias.asname else alias.name.split(".")[0]
            else:
                path = f"{node.module}.{alias.name}"
            self.names[alias.asname or path.rsplit(".", 1)[-1]] = Name(path)

    def of(self, node: ast.expr) -> Any:
        """The value of `node`; Unknown if it is not a known pure expression."""
        method = getattr(self, "_" + type(node).__name__.lower(), None)
        if method is None:
            raise Unknown(type(node).__name__)
        try:
            value = bounded(method(node))
        except _FAILURES as error:
            raise Unknown(str(error)) from error
        if isinstance(value, str | bytes | bytearray):
            self._work += len(value)
            if self._work > WORK:
                raise Unknown("too much work")
        return value

    def file(self, path: Path, binary: bool) -> bytes | str:
        content = self._read(path.name)
        if content is None:
            raise Unknown(f"no file {path.name}")
        self.used.append(path.name)
        return content if binary else content.decode("utf-8")

    def _constant(self, node: ast.Constant) -> Any:
        return node.value

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.names:
            return self.names[node.id]
        if node.id in _BUILTINS:
            return Name(node.id)
        raise Unknown(f"name {node.id}")

    def _list(self, node: ast.List) -> list[Any]:
        return [self.of(item) for item in node.elts]

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self.of(item) for item in node.elts)

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        return {self.of(k): self.of(v) for k, v in zip(node.keys, node.values) if k is not None}

    def _namedexpr(self, node: ast.NamedExpr) -> Any:
        self.names[node.target.id] = value = self.of(node.value)
        return value

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        value = self.of(node.operand)
        if isinstance(node.op, ast.USub) and isinstance(value, int):
            return -value
        raise Unknown("operator")

    def _binop(self, node: ast.BinOp) -> Any:
        left, right = self.of(node.left), self.of(node.right)
        if isinstance(node.op, ast.Add) and type(left) is type(right):
            return left + right
        if isinstance(node.op, ast.Div) and isinstance(left, Path) and isinstance(right, str):
            return _inside(posixpath.join(left.name, right))
        if isinstance(node.op, ast.Mult) and isinstance(right, int):
            if isinstance(left, str | bytes | list | tuple):
                room(len(left) * right)
            return left * right
        raise Unknown("operator")

    def _subscript(self, node: ast.Subscript) -> Any:
        value = self.of(node.value)
        if not isinstance(node.slice, ast.Slice):
            return value[self.of(node.slice)]
        low, high, step = (
            None if part is None else self.of(part)
            for part in (node.slice.lower, node.slice.upper, node.slice.step)
        )
        return value[low:high:step]

    def _attribute(self, node: ast.Attribute) -> Any:
        owner = self.of(node.value)
        if isinstance(owner, Name):
            path = f"{owner.path}.{node.attr}"
            if owner.path == "lzma" and node.attr.isupper():
                return getattr(lzma, node.attr)
            return Name(path)
        if isinstance(owner, Path) and node.attr == "parent":
            return Path(posixpath.dirname(owner.name))
        if isinstance(owner, Path) and node.attr in ("name", "stem", "suffix"):
            stem, suffix = posixpath.splitext(posixpath.basename(owner.name))
            return {"name": stem + suffix, "stem": stem, "suffix": suffix}[node.attr]
        if node.attr in _METHODS:
            return Method(owner, node.attr)
        raise Unknown(f"attribute {node.attr}")

    def _call(self, node: ast.Call) -> Any:
        function = self.of(node.func)
        args = [self.of(arg) for arg in node.args]
        keys = {word.arg: self.of(word.value) for word in node.keywords if word.arg}
        if isinstance(function, Method):
            return self._method(function, args, keys)
        if not isinstance(function, Name):
            raise Unknown("call")
        path = function.path
        if path in _TEXT_OF_BYTES:
            return _TEXT_OF_BYTES[path](*args, **keys)
        if path in ("lzma.decompress", "zlib.decompress", "bz2.decompress", "gzip.decompress"):
            return bounded_decompress(path.split(".")[0], *args, **keys)
        if path in ("bytes", "bytearray", "memoryview", "io.BytesIO"):
            return bytes(args[0]) if args and not isinstance(args[0], int) else b""
        if path == "str":
            return args[0].decode(*args[1:], **keys) if isinstance(args[0], bytes) else str(args[0])
        if path == "compile":
            return args[0]
        if path == "__import__" and args[0] in _MODULES:
            return Name(args[0])
        return self._file_call(path, args, keys)

    def _file_call(self, path: str, args: list[Any], keys: dict[str, Any]) -> Any:
        if path in ("open", "io.open"):
            mode = args[1] if len(args) > 1 else keys.get("mode", "r")
            return File(_inside(args[0]), "b" in mode)
        if path in ("pathlib.Path", "os.path.abspath", "os.path.realpath", "os.fspath"):
            return _inside(args[0])
        if path == "os.path.dirname":
            return Path(posixpath.dirname(_inside(args[0]).name))
        if path == "os.path.join":
            return _inside(posixpath.join(*(_inside(arg).name for arg in args)))
        raise Unknown(f"call of {path}")

    def _method(self, method: Method, args: list[Any], keys: dict[str, Any]) -> Any:
        owner, name = method.owner, method.name
        if isinstance(owner, File):
            return self.file(owner.path, owner.binary)
        if isinstance(owner, Path):
            return self._path_method(owner, name, args)
        if isinstance(owner, str | bytes | bytearray):
            if name in ("decode", "encode") and not _is_plain(args, keys):
                raise Unknown("an encoding")
            if name == "replace":
                grown = owner.count(args[0]) * max(0, len(args[1]) - len(args[0]))
                room(len(owner) + grown)
            if name == "join":
                room(sum(len(item) + len(owner) for item in args[0]))
            return getattr(owner, name)(*args, **keys)
        raise Unknown(f"method {name}")

    def _path_method(self, owner: Path, name: str, args: list[Any]) -> Any:
        stem, _ = posixpath.splitext(owner.name)
        if name == "with_suffix":
            return Path(stem + args[0])
        if name == "with_name":
            return Path(posixpath.join(posixpath.dirname(owner.name), args[0]))
        if name in ("resolve", "absolute"):
            return owner
        if name == "joinpath":
            return _inside(posixpath.join(owner.name, *args))
        if name == "replace":
            return Path(owner.name.replace(*args))
        if name in ("read_text", "read_bytes"):
            return self.file(owner, name == "read_bytes")
        raise Unknown(f"method {name}")


def _is_plain(args: list[Any], keys: dict[str, Any]) -> bool:
    """Is the text encoding one whose cost and growth are those of the text?"""
    name = args[0] if args else keys.get("encoding", "utf-8")
    return str(name).lower().replace("_", "-") in _ENCODINGS


def _inside(value: Any) -> Path:
    """A path within the folder; refuses to leave it."""
    name = posixpath.normpath(value.name if isinstance(value, Path) else str(value))
    if name.startswith(("/", "..")) or isinstance(value, bytes | int):
        raise Unknown(f"path {value}")
    return Path("" if name == "." else name)
