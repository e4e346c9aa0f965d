"""Many modules to one short python file, and the length of that file.

The file carries the stripped sources of an entry module's import closure, as one LZMA stream in
base85, and a few lines that register an importer for them. It runs in an empty folder: the importer
stands first and answers for every name of the package, with an error for those it does not hold, so
an installed copy is never touched. Sources go to ``linecache``, so tracebacks show their lines and
``inspect.getsource`` works (compilers of GPU kernels need it).

Stripped means: comments, docstrings, blank lines, type-checking blocks and the annotations of
functions are gone. Names stay, so a traceback reads like the sources. Class-level annotations stay
too: dataclasses are made of them.

The result depends on the sources and on the Python version that unparses them, nothing else.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import lzma
import re
import tokenize
from functools import cache
from pathlib import Path

from underpar.bundle.closure import SOURCES, closure, is_type_checking
from underpar.bundle.shake import shake

#: What "code bytes" were counted on; stands beside the number in every record.
CODE_METHOD = "one packed python file: stripped sources, LZMA, base85"

ENTRY = "underpar.score.standalone"

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]

# Filter settings are spelled out by id and property, as the target's lzma module takes them.
_RUNNER = """\
# {entry} with all it needs, packed by underpar; its readable sources are public.
import base64, importlib.abc, importlib.util, json, linecache, lzma, sys
S = json.loads(lzma.decompress(base64.b85decode({data!r}), lzma.FORMAT_RAW, None, {filters!r}))
class Packed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name in S:
            return importlib.util.spec_from_loader(name, self, is_package=S[name][0])
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"{{name}} is not in this packed file", name=name)
    def get_source(self, name):
        return S[name][1]
    def exec_module(self, module):
        name, text = module.__name__, S[module.__name__][1]
        file = "packed/" + name + ".py"
        linecache.cache[file] = len(text), None, text.splitlines(True), file
        exec(compile(text, file, "exec"), module.__dict__)
sys.meta_path.insert(0, Packed())
if __name__ == "__main__":
    from {entry} import main
    sys.exit(main(sys.argv[1:]))
"""


@cache
def code_bytes(entry: str = ENTRY) -> int:
    """Bytes of the packed file of ``entry``: what "code bytes" means everywhere."""
    return len(pack_module(entry).encode())


def pack_module(entry: str = ENTRY, sources: Path = SOURCES) -> str:
    """One self-contained python file that runs ``entry.main(argv)``, as text.

    entry: a module with ``main(argv: list[str]) -> int``. Same sources, same text.
    """
    modules = closure(entry, sources)
    trees = {name: stripped(module.text) for name, module in modules.items()}
    shake(trees, entry, "main")
    texts = {name: narrow(tree) for name, tree in trees.items()}
    needed = closure(entry, sources, texts)
    table = {name: [module.is_package, texts[name]] for name, module in needed.items()}
    plain = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    packed = lzma.compress(plain, format=lzma.FORMAT_RAW, filters=FILTERS)
    return _RUNNER.format(
        entry=entry,
        package=entry.partition(".")[0],
        data=base64.b85encode(packed).decode(),
        filters=FILTERS,
    )


def narrow(tree: ast.Module) -> str:
    """Source of the tree, indented by single spaces."""
    text = ast.unparse(tree)
    narrowed = re.sub(r"^ +", lambda indent: indent[0][::4], text, flags=re.MULTILINE)
    same = ast.dump(ast.parse(narrowed)) == ast.dump(ast.parse(text))
    return narrowed if same else text  # not the same when a string spans lines


def tight(text: str) -> str:
    """The source without the spaces that only readers need, and without blank lines."""
    lines = [line for line in narrow(ast.parse(text)).split("\n") if line]
    out = "\n".join(
        line[: len(line) - len(line.lstrip())] + _squeezed(line.lstrip()) for line in lines
    )
    same = ast.dump(ast.parse(out)) == ast.dump(ast.parse(text))
    return out + "\n" if same else text  # not the same when a string spans lines


def _squeezed(line: str) -> str:
    """One logical line, outside its strings without spaces but between words."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(line).readline))
    except (tokenize.TokenError, SyntaxError):
        return line
    out, end, depth = "", 0, 0
    for token in tokens:
        start = token.start[1]
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER) or token.start[0] > 1:
            break
        gap = line[end:start]
        words = out[-1:].isidentifier() or out[-1:].isdigit()
        needed = words and (token.string[:1].isidentifier() or token.string[:1].isdigit())
        out += (gap if depth else " " if gap and needed else "") + line[start : token.end[1]]
        end = token.end[1]
        name = tokenize.tok_name[token.type]  # f-strings have tokens of their own from 3.12 on
        depth += (name == "FSTRING_START") - (name == "FSTRING_END")
    return _bare(out)


def _bare(line: str) -> str:
    """Without the brackets around a tuple that is assigned or returned."""
    found = re.match(r"(.*?=|return|yield|for [\w,]+ in) ?\((.+)\)(:?)$", line)
    if not found:
        return line
    space = "" if found[1].endswith("=") else " "
    bare = f"{found[1]}{space}{found[2]}{found[3]}"
    try:
        same = ast.dump(ast.parse(_whole(line))) == ast.dump(ast.parse(_whole(bare)))
    except SyntaxError:
        return line
    return bare if same else line


def _whole(line: str) -> str:
    """A line that may stand in a function only, as a module."""
    return f"def f():\n {line}{' pass' if line.endswith(':') else ''}"


def stripped(text: str) -> ast.Module:
    """The source without comments, docstrings, blank lines, function annotations."""
    return strip(ast.parse(text))


def strip(tree: ast.Module) -> ast.Module:
    """The tree, in place, without what the interpreter does not need."""
    return _Strip().visit(tree)


class _Strip(ast.NodeTransformer):
    """Takes out what the interpreter does not need."""

    def __init__(self) -> None:
        self._in_function = False

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        outside, self._in_function = self._in_function, False
        self._body(node)
        self._in_function = outside
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outside, self._in_function = self._in_function, True
        node.returns = None
        self._body(node)
        self._in_function = outside
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self.visit_FunctionDef(node)  # type: ignore[arg-type]

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """``x: int = 3`` in a function is ``x = 3``; elsewhere the annotation may be looked at."""
        self.generic_visit(node)
        if not self._in_function:
            return node
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], node.value, lineno=node.lineno), node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt] | None:
        if is_type_checking(node.test):
            return [self.visit(child) for child in node.orelse] or None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """A bare string is a docstring, or a comment in disguise."""
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        self.generic_visit(node)
        return node

    def _body(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        if not node.body and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]
        return node
