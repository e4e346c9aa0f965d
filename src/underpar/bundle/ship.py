"""A recipe as a submission's two files: one to read, one to ship.

``readable`` is the recipe's whole line, from shards to a score, as one file of sections. ``packed``
is the same program made short: minified for this one recipe, bzip2, base85, and four lines that
unpack and run it. The unpacked text goes into ``linecache``, so tracebacks show its lines and
``inspect.getsource`` works (compilers of GPU kernels need it). Of the standard library's
compressors bzip2 does best on so short a text: 1.5% less than LZMA with its best settings.

What counts against the budget is the packed file; the readable one says its length, so that both
write the same artifact.
"""

from __future__ import annotations

import ast
import base64
import bz2
import pprint
from pathlib import Path

from underpar import storage
from underpar.bundle.link import link
from underpar.bundle.minify import minify
from underpar.bundle.pack import tight
from underpar.recipe.load import to_json
from underpar.recipe.schema import Recipe

ENTRY = "underpar.standalone"

#: Names of the two files in a folder.
READABLE, PACKED = "train_gpt_readable.py", "train_gpt.py"

_KEYS = """
Recipe.seed TrainSpec.iterations TrainSpec.seconds TrainSpec.log_every TrainSpec.val_every
TrainSpec.warmup_steps QuantSpec.matrix_k QuantSpec.mlp_k QuantSpec.embed_k ScoreSpec.context
"""
#: Keys that the environment or the program itself changes.
VARYING = frozenset(_KEYS.split())

_HEAD = '''\
"""Recipe '{name}' from shards to a score: train, quantize, pack, score. One file, no package.

    python {file}                              torchrun --nproc-per-node 8 {file}

Needs torch, numpy, sentencepiece{packages}. Written by underpar; sections are its modules.
"""'''

_RUNNER = """\
import base64,bz2,linecache
s=bz2.decompress(base64.b85decode("{data}")).decode()
linecache.cache["-"]=1,None,s.splitlines(1),"-"
exec(compile(s,"-","exec"))
"""


def readable(recipe: Recipe, code_bytes: int | None = None) -> str:
    """The readable file. code_bytes: of the file that counts; None: of its packed twin."""
    if code_bytes is None:
        code_bytes = len(packed(recipe))
    packages = {"brotli": " and brotli", "zstd": " and zstandard"}
    extra = packages.get(recipe.quant.compressor, "")
    return link(
        ENTRY,
        "main",
        head=_HEAD.format(name=recipe.name, file=READABLE, packages=extra),
        values={
            "RECIPE": pprint.pformat(to_json(recipe), width=96, sort_dicts=False),
            "CODE_BYTES": str(code_bytes),
        },
    )


def packed(recipe: Recipe) -> bytes:
    """The file to ship: ``readable`` made short. The same recipe and sources, the same bytes."""
    tree = minify(readable(recipe, 0), recipe, VARYING)
    return wrapped(tight(ast.unparse(ast.fix_missing_locations(tree)))).encode()


def wrapped(source: str) -> str:
    """A program that unpacks ``source`` and runs it in its own place."""
    data = bz2.compress(source.encode())
    return _RUNNER.format(data=base64.b85encode(data).decode())


def write(recipe: Recipe, folder: Path) -> tuple[Path, Path]:
    """Both files in ``folder``, whole or not at all: (readable, packed) paths.

    Raises MachineError when the disk refuses.
    """
    paths = Path(folder) / READABLE, Path(folder) / PACKED
    data = packed(recipe)
    storage.write_text(paths[0], readable(recipe, len(data)))
    storage.write_bytes(paths[1], data)
    return paths
