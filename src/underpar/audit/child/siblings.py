"""Imports of files that ship beside the script: rewritten like the script itself."""

from __future__ import annotations

import ast
import builtins
import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

from .rewrite import rewrite
from .shrink import Shrinker
from .swap import swap


def sources(scratch: Path) -> list[ast.Module]:
    """Syntax trees of the sibling files that parse."""
    trees = []
    for path in sorted(scratch.rglob("*.py")):
        if path.name != "script.py" and "data" not in path.relative_to(scratch).parts[:1]:
            try:
                trees.append(ast.parse(path.read_bytes()))
            except (SyntaxError, ValueError):
                continue
    return trees


def _executed_text(scratch: Path, shrinker: Shrinker) -> None:
    """Rewrite text that the script's files compile or execute themselves: packed siblings."""
    plain_compile, plain_exec = builtins.compile, builtins.exec

    here = str(Path(__file__).parent)

    def ours(frame: types.FrameType | None) -> bool:
        while frame is not None and frame.f_code.co_filename.startswith(here):
            frame = frame.f_back  # the recorder may stand between
        name = frame.f_code.co_filename if frame is not None else "<>"
        return name.startswith(str(scratch)) or not name.startswith(("/", "<"))

    def rewritten(source: Any, name: Any) -> Any:
        tree = ast.parse(source, str(name))
        rewrite(tree, shrinker)
        return plain_compile(tree, name, "exec", dont_inherit=True)

    def compile_(source: Any, filename: Any, mode: str, *args: Any, **kwargs: Any) -> Any:
        if isinstance(source, str | bytes) and mode == "exec" and ours(sys._getframe(1)):
            return rewritten(source, filename)
        if len(args) < 2:
            kwargs.setdefault("dont_inherit", True)
        return plain_compile(source, filename, mode, *args, **kwargs)

    def exec_(code: Any, names: Any = None, values: Any = None, /, **kwargs: Any) -> None:
        frame = sys._getframe(1)
        if isinstance(code, str | bytes) and ours(frame):
            code = rewritten(code, "<text>")
        if names is None:
            names, values = frame.f_globals, frame.f_locals
        plain_exec(code, names, names if values is None else values, **kwargs)

    swap(builtins, compile=compile_, exec=exec_)


def install(scratch: Path, shrinker: Shrinker) -> None:
    """Rewrite whatever is imported from `scratch` or executed as text there."""
    _executed_text(scratch, shrinker)

    class Loader(importlib.machinery.SourceFileLoader):
        def source_to_code(  # type: ignore[override]
            self, data: Any, path: Any, *, _optimize: int = -1
        ) -> Any:
            tree = ast.parse(data, path)
            rewrite(tree, shrinker)
            return compile(tree, path, "exec", dont_inherit=True)

    finder = importlib.machinery.FileFinder.path_hook(
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (Loader, [".py"]),
    )

    def hook(path: str) -> Any:
        if not Path(path).resolve().is_relative_to(scratch.resolve()):
            raise ImportError(path)
        return finder(path)

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()
    sys.path.insert(0, str(scratch))
