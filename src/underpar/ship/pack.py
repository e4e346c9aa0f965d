"""A recipe as a submission's two files: one to read, one to hand in.

``readable`` is the recipe's whole line, from shards to a score, linked into one file of sections:
the package's own modules without what the line does not reach. ``packed`` is the same program made
short for this one recipe. Its values are put in (``freeze``), what they decide is decided
(``fold``, ``constants``), what then cannot be reached goes (``shake``), a library shortens names,
and bzip2 and base85 make it a few lines that unpack and run it.

What counts against the budget is the packed file; the readable one says its length, so that both
write the same artifact. The seed is not part of it: a run takes its seed from the environment, so
all seeds of a recipe have one program and one length.
"""

from __future__ import annotations

import ast
import base64
import bz2
import importlib
import pprint
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from underpar import storage
from underpar.errors import DependencyError
from underpar.recipe.plain import differences
from underpar.recipe.schema import Recipe
from underpar.ship.calls import by_position, propagate
from underpar.ship.fold import fold, is_pure
from underpar.ship.freeze import freeze
from underpar.ship.link import link
from underpar.ship.shake import shake

ENTRY, ROOT = "underpar.standalone", "main"

#: Names of the two files in a folder.
READABLE, PACKED = "train_gpt_readable.py", "train_gpt.py"

#: Keys that the environment or the program itself changes.
VARYING = frozenset(
    {
        "Recipe.seed",
        "TrainSpec.iterations",
        "TrainSpec.seconds",
        "TrainSpec.log_every",
        "TrainSpec.val_every",
        "TrainSpec.warmup_steps",
        "ScoreSpec.context",
    }
)

_UNPACK = Path(__file__).with_name("unpack.py")

_HEAD = '''\
"""Recipe '{name}' from shards to a score: train, quantize, pack, score. One file, no package.

    python {file}                              torchrun --nproc-per-node 8 {file}

Needs torch, numpy, sentencepiece{packages}. Written by underpar; sections are its modules.
"""'''


def readable(recipe: Recipe, code_bytes: int) -> str:
    """The readable file. code_bytes: of the packed file, which counts; 0: the file's own length."""
    packages = {"brotli": " and brotli", "zstd": " and zstandard"}
    extra = packages.get(recipe.quant.compressor, "")
    data = differences(replace(recipe, seed=Recipe.seed))
    return link(
        ENTRY,
        ROOT,
        head=_HEAD.format(name=recipe.name, file=READABLE, packages=extra),
        values={
            "RECIPE": pprint.pformat(data, width=96, sort_dicts=False),
            "CODE_BYTES": str(code_bytes),
        },
    )


def packed(recipe: Recipe) -> bytes:
    """The file to hand in. The same recipe, sources and Python version give the same bytes.

    Raises DependencyError when the library that shortens names is missing.
    """
    minify = minifier()
    program = minify.minify(
        ast.unparse(frozen(recipe)),
        rename_globals=True,
        hoist_literals=False,
        remove_literal_statements=True,
    )
    data = base64.b85encode(bz2.compress(program.encode())).decode()
    unpack = ast.parse(_UNPACK.read_text(encoding="utf-8"))
    place = next(node for node in unpack.body if isinstance(node, ast.Assign))
    place.value = ast.Constant(data)
    return (minify.minify(ast.unparse(unpack), hoist_literals=False) + "\n").encode()


def frozen(recipe: Recipe) -> ast.Module:
    """The program of one recipe: nothing in it that the recipe has decided, or cannot reach."""
    tree = ast.parse(readable(recipe, 0))
    freeze(tree, sections_of(recipe), VARYING)
    _Plain(tree).visit(tree)
    before = ""
    while (now := ast.dump(tree)) != before:
        before = now
        fold(tree)
        propagate(tree)
        shake({ENTRY: tree}, ENTRY, "")
    by_position(tree)
    return ast.fix_missing_locations(tree)


def sections_of(recipe: Recipe) -> dict[str, object]:
    """Class name -> section, the whole among them."""
    sections = [getattr(recipe, field.name) for field in fields(recipe)]
    return {type(s).__name__: s for s in (recipe, *sections) if is_dataclass(s)}


def minifier() -> Any:
    """The library that shortens names. DependencyError when it is not installed."""
    try:
        return importlib.import_module("python_minifier")
    except ImportError as error:
        raise DependencyError(
            "counting or writing the program that is handed in needs the package 'python-minifier'",
            do="pip install 'underpar[ship]'.",
        ) from error


def write(recipe: Recipe, folder: Path) -> tuple[Path, Path]:
    """Both files in ``folder``, whole or not at all: (readable, packed) paths.

    Raises MachineError when the disk refuses.
    """
    paths = Path(folder) / READABLE, Path(folder) / PACKED
    data = packed(recipe)
    storage.write_text(paths[0], readable(recipe, len(data)))
    storage.write_bytes(paths[1], data)
    return paths


class _Plain(ast.NodeTransformer):
    """Takes out what speaks to readers: annotations, declarations, all but the head of an error.

    A field of a class needs some annotation to be one; of those that are looked at while the
    program runs, the built-in types and ``InitVar`` stay as they are. Of an error, its first
    argument stays, which says what failed; the readable file says the rest.
    """

    def __init__(self, tree: ast.Module) -> None:
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self._errors = {"Exception"}
        for name, node in classes.items():  # bases stand before what is made of them
            if any(ast.unparse(base) in self._errors for base in node.bases):
                self._errors.add(name)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Without the methods, and the bases, that only declare what others define."""
        self.generic_visit(node)
        node.bases = [base for base in node.bases if ast.unparse(base) not in ("ABC", "Protocol")]
        node.body = [part for part in node.body if not _declares(part)] or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        text = ast.unparse(node.annotation)
        if text not in ("int", "float", "str", "bool") and "InitVar" not in text:
            node.annotation = ast.Name("int", ast.Load())
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """An assertion is for us; what it calls is for the program."""
        return ast.Pass() if is_pure(node.test) else ast.Expr(node.test)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in self._errors and node.args:
            node.keywords = []
        return node


def _declares(node: ast.stmt) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(ast.unparse(part) in ("abstractmethod", "overload") for part in decorators)
