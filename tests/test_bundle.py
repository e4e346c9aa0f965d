import subprocess
import sys

import numpy as np
import pytest

from tests.scoring import SCORE, small_model
from underpar import bundle
from underpar.artifact.pack import pack
from underpar.bundle.pack import ENTRY, narrow, pack_module, stripped
from underpar.data.shards import write_shard
from underpar.data.tokenizer import ByteTokenizer
from underpar.data.validation import ValidationSet
from underpar.recipe.schema import ModelSpec
from underpar.score.scorer import score

SOURCE = '''
"""Module docstring."""
from __future__ import annotations
from typing import TYPE_CHECKING
from dataclasses import dataclass
if TYPE_CHECKING:
    import nothing
# a comment
@dataclass
class Point:
    """A point."""
    x: int
    y: int = 3
    def shifted(self, by: int, *rest: int, **more: str) -> Point:
        """Docstring only, then code."""
        result: int = self.x + by
        unset: int
        return Point(result, self.y)
class Empty(Exception):
    """Nothing else."""
def nothing() -> None:
    """Nothing at all."""
async def later(x: int) -> int:
    def inner(y: int) -> str:
        z: int = y
        return f"{z!r:>{4}} 'quoted' \\n"
    if x:
        "a bare string"
    return inner(x)
'''


def test_stripping_leaves_the_meaning():
    text = narrow(stripped(SOURCE))
    for gone in ("docstring", "Docstring", "comment", "TYPE_CHECKING:", "-> ", "bare", "unset"):
        assert gone not in text
    assert "x: int\n  y: int = 3" not in text  # single spaces
    assert " x: int\n y: int = 3" in text
    module: dict = {}
    exec(compile(text, "x", "exec"), module)
    assert module["Point"](1).shifted(4) == module["Point"](5, 3)
    with pytest.raises(StopIteration, match="   7 'quoted' \n"):
        module["later"](7).send(None)


def test_indentation_inside_strings_survives():
    text = 'def f(x):\n    return f"""{x}\n        deep \'and\' "quoted" """\n'
    module: dict = {}
    exec(narrow(stripped(text)), module)
    assert module["f"](1) == "1\n        deep 'and' \"quoted\" "


TOY = {
    "toy/__init__.py": "",
    "toy/main.py": """
import importlib
import inspect
import sys
def main(argv):
    from toy.inner import shout
    print(shout(argv[1:]), inspect.getsource(shout))
    sys.path.insert(0, argv[0])
    try:
        importlib.import_module('toy.absent')
    except ModuleNotFoundError as error:
        print(error)
    return 3
""",
    "toy/inner/__init__.py": "from toy.inner.words import shout",
    "toy/inner/words.py": "def shout(words):\n    return ' '.join(words).upper()",
    "toy/absent.py": "raise SystemExit('fell through to the installed package')",
}


@pytest.fixture
def toy(tmp_path):
    for name, text in TOY.items():
        path = tmp_path / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "sources"


def run(packed, *argv, folder):
    """The packed text as a program in an otherwise empty folder, without any path to ours."""
    folder.mkdir()
    (folder / "packed.py").write_text(packed)
    command = [sys.executable, "-I", "packed.py", *map(str, argv)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)


def test_a_packed_program_runs_from_itself_alone(toy, tmp_path):
    done = run(pack_module("toy.main", toy), toy, "hello", "you", folder=tmp_path / "empty")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines() == [
        "HELLO YOU def shout(words):",
        " return ' '.join(words).upper()",
        "toy.absent is not in this packed file",
    ]


def test_the_packed_text_is_repeatable(toy):
    assert pack_module("toy.main", toy) == pack_module("toy.main", toy)
    assert pack_module("toy.main", toy).isascii()


def test_code_bytes_is_the_length_of_the_file():
    assert bundle.code_bytes() == len(pack_module(ENTRY).encode())
    assert 10_000 < bundle.code_bytes() < 36_000


@pytest.fixture
def artifact(tmp_path):
    """(path, folder of shards, its validation set) of a small model of bytes."""
    spec = ModelSpec(
        vocab_size=257, seq_len=16, n_layer=2, d_model=16, n_head=2, n_kv_head=1, d_ff=32
    )
    tokenizer, path, data = ByteTokenizer(), tmp_path / "model.upar", tmp_path / "data"
    text = "In an empty folder, a file must speak for itself. " * 4
    tokens = np.concatenate([[tokenizer.bos_id], tokenizer.encode(text)]).astype(np.uint16)
    data.mkdir()
    write_shard(data / "fineweb_val_000000.bin", tokens)
    pack(
        path,
        small_model(spec).state_dict(),
        model_spec=spec,
        score_spec=SCORE,
        looping=False,
        dtype="float32",
        tokenizer=tokenizer,
        recipe_digest="",
        compressor="rans",
    )
    return path, data, ValidationSet.from_tokens(tokens, tokenizer)


@pytest.mark.parametrize("stage", [pytest.param("plain", marks=pytest.mark.slow), "ttt"])
def test_the_packed_scorer_gives_the_score_of_the_package(artifact, tmp_path, stage):
    path, data, validation = artifact
    wanted = score(path, validation, stage).score
    done = run(pack_module(), path, data, "--stage", stage, folder=tmp_path / "empty")
    assert done.stderr == ""
    assert done.stdout.startswith(f"{stage}: {wanted}  {wanted.tokens} tokens")
    assert done.returncode == 0


def test_the_packed_scorer_fails_in_one_line(artifact, tmp_path):
    path, data, _ = artifact
    path.write_bytes(path.read_bytes()[:-1])
    done = run(pack_module(), path, data, folder=tmp_path / "empty")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: artifact ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_packed_scorer_never_uses_an_installed_copy(artifact, tmp_path):
    path, data, _ = artifact
    probe = f"""
import runpy, sys
sys.argv = ["packed.py", {str(path)!r}, {str(data)!r}, "--stage", "plain"]
try:
    runpy.run_path("packed.py", run_name="__main__")
except SystemExit as status:
    assert status.code == 0, status.code
ours = [m for name, m in sys.modules.items() if name.split(".")[0] == "underpar"]
assert len(ours) > 20
assert all(type(m.__loader__).__name__ == "Packed" for m in ours)
"""
    (tmp_path / "packed.py").write_text(pack_module())
    subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, check=True, timeout=200)
