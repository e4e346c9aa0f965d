"""A recipe as one file: it trains, packs and scores by itself, and gives what the package gives."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands import counted
from underpar import pipeline, rerun, ship
from underpar.artifact.pack import file_sha256
from underpar.data.build import build_source
from underpar.errors import DependencyError
from underpar.recipe.load import resolve
from underpar.recipe.schema import Recipe
from underpar.ship import count
from underpar.ship.calls import propagate
from underpar.ship.fold import fold

#: Runs a file as a program would, and says afterwards whether our package was imported.
PROBE = Path(__file__).with_name("packed_probe.py").read_text()

SMALL = """
model.vocab_size=384 model.d_model=32 model.n_head=4 model.n_kv_head=2 model.d_ff=64
train.warmup_steps=1 train.log_every=2 quant.calibration_batches=2 quant.passthrough=512
score.window_batch=4
"""
#: What a test changes besides sizes, so that no clock decides anything.
STILL = """
train.seconds=0 train.reserve_seconds=0 train.compile=off train.dtype=float32
train.deterministic=true train.val_every=4 score.dtype=float32
"""
#: preset -> what makes it small enough for a test, every part of it still in use
SIZES = {
    "pr1413": """
        model.seq_len=64 model.n_layer=4 model.xsa_last=4 model.rope_dims=4 model.loop_start=1
        model.loop_end=2 train.iterations=6 train.batch_tokens=256
        train.micro_tokens=128 score.stride=32 score.ttt_chunk=256 budget.bytes=50000
    """,
    "pr456": """
        model.seq_len=64 model.n_layer=3 model.xsa_last=2 model.bigram_buckets=64
        model.bigram_dim=16 train.iterations=8 train.batch_tokens=512 train.micro_tokens=256
        train.warmdown_iters=6 train.swa_every=2 train.swa_start=0.9 train.qat_below=0.7
        train.prune=0.1 score.stride=32 score.ttt_chunk=512 score.ttt_batch=4
    """,
    "demo": """
        model.seq_len=64 model.bigram_buckets=64 model.bigram_dim=16 train.iterations=6
        train.batch_tokens=256 train.micro_tokens=256 score.stride=32 score.ttt_chunk=512
        data.corpus=shards budget.bytes=90000
    """,
}


def small(preset: str, *more: str) -> Recipe:
    if preset == "nano":
        return resolve("nano", ["train.val_every=10", *more])
    return resolve(preset, [*SMALL.split(), *STILL.split(), *SIZES[preset].split(), *more])


def real(preset: str) -> Recipe:
    """The switches that would be handed in, three steps of a small size."""
    return resolve(preset, [*SMALL.split(), *SIZES[preset].split(), "train.iterations=3"])


@cache
def packed(preset: str) -> bytes:
    return ship.packed(small(preset))


@dataclass(frozen=True)
class Ended:
    """How a run of the file ended, and what it left."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "record.json").read_text())


def run(program: bytes, folder: Path, name: str, **environment: str) -> Ended:
    """The file in an otherwise empty folder, in a process that finds torch but not our sources."""
    folder.mkdir(exist_ok=True)
    (folder / "train_gpt.py").write_bytes(program)
    command = [sys.executable, "-I", "-W", "error::SyntaxWarning", "-c", PROBE]
    known = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "OMP_NUM_THREADS")}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=280, env=known | environment
    )
    return Ended(done.returncode, done.stdout, done.stderr, folder / name)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated text as shards of a tokenizer of 384 pieces."""
    folder = tmp_path_factory.mktemp("shards") / "data"
    build_source("generated", folder, vocab_size=384, held_out=2, lossless=False)
    return folder


def check_same(done: Ended, recipe: Recipe, tmp_path: Path, data: Path | None) -> None:
    """The file's results are those of the package: losses, artifact and all scores."""
    assert (done.code, done.err) == (0, "")
    file, out = done.folder.parent / "train_gpt.py", tmp_path / "package" / recipe.name
    size = file.stat().st_size
    record = pipeline.run(recipe, out, data=data, code_bytes=lambda: size)
    theirs = done.record
    assert record.artifact is not None
    assert record.artifact.code_bytes == theirs["code_bytes"] == size
    assert theirs["sha256"] == file_sha256(out / "model.upar")
    assert file_sha256(done.folder / "model.upar") == theirs["sha256"]
    assert theirs["recipe_digest"] == record.recipe_digest
    scores = {name: (s.nats, s.bytes, s.bpb) for name, s in record.stages.items()}
    assert scores == {n: (s["nats"], s["bytes"], s["bpb"]) for n, s in theirs["stages"].items()}
    assert theirs["steps"] == len(theirs["losses"]) == recipe.train.iterations
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert theirs["losses"] == [row["loss"] for row in rows if "loss" in row]


def check_log(text: str, record: dict[str, Any]) -> None:
    """The lines that a submission's log is read for."""
    assert re.search(r"^step:1/\d+ train_loss:\d+\.\d{4} train_time:\d+ms step_avg:", text, re.M)
    labels = ["pre-quantization(?: post-(?:ema|swa))?", "quantized", "quantized_sliding_window"]
    labels += ["legal_ttt_exact"]
    for label, stage in zip(labels, record["stages"].values(), strict=True):
        line = rf"^{label} val_loss:(\S+) val_bpb:(?P<bpb>\S+) eval_time:\d+ms$"
        found = re.search(line, text, re.M)
        assert found is not None, label
        assert found["bpb"] == f"{stage['bpb']:.8f}"
    sizes = re.findall(r"^(Code|Serialized|Total) .*: (\d+) bytes$", text, re.M)
    code, model, total = (int(size) for _, size in sizes)
    assert code == record["code_bytes"]
    assert total == code + model


# --- the same program -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preset",
    ["pr1413", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pr456", "demo"))],
)
def test_the_file_does_what_the_package_does(preset: str, shards: Path, tmp_path: Path) -> None:
    recipe = small(preset)
    done = run(
        packed(preset), tmp_path / "empty", preset, DATA_PATH=str(shards), SEED=str(recipe.seed)
    )
    with logging_to(tmp_path / "package" / preset):
        check_same(done, recipe, tmp_path, shards)
    check_log(done.out, done.record)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["pr1413", "pr456"])
def test_with_the_switches_that_are_handed_in(preset: str, shards: Path, tmp_path: Path) -> None:
    """Number format and compiler are left to the machine, the schedule to the clock."""
    recipe = real(preset)
    assert (recipe.train.dtype, recipe.train.compile, recipe.score.dtype) == ("auto",) * 3
    program = ship.packed(recipe)
    done = run(program, tmp_path / "empty", preset, DATA_PATH=str(shards), SEED=str(recipe.seed))
    with logging_to(tmp_path / "package" / preset):
        check_same(done, recipe, tmp_path, shards)


@pytest.mark.slow
def test_nano_builds_its_own_text(tmp_path: Path) -> None:
    recipe = small("nano")
    done = run(packed("nano"), tmp_path / "empty", "nano")
    with logging_to(tmp_path / "package" / "nano"):
        check_same(done, recipe, tmp_path, None)
    assert (done.folder / "log.txt").read_text() == done.out
    check_log(done.out, done.record)


def logging_to(folder: Path) -> Any:
    from underpar import progress

    return progress.use(progress.Progress(folder, quiet=True))


@pytest.mark.slow
def test_two_processes_do_the_same_with_either_file(tmp_path: Path) -> None:
    recipe = resolve("nano", ["train.batch_tokens=2048", "train.iterations=4"])
    program = ship.packed(recipe)
    records = []
    for text in (program, ship.readable(recipe, len(program)).encode()):
        folder = tmp_path / str(len(text))
        done = torchrun(text, folder)
        assert done.returncode == 0, done.stderr
        records.append(json.loads((folder / "nano" / "record.json").read_text()))
    for key in ("recipe_digest", "losses", "file_bytes", "sha256", "code_bytes"):
        assert records[0][key] == records[1][key], key
    first, second = ([s["bpb"] for s in r["stages"].values()] for r in records)
    assert first == second


@pytest.mark.slow
def test_processes_that_do_not_divide_the_batch_are_refused(tmp_path: Path) -> None:
    recipe = resolve("nano", ["train.batch_tokens=1024", "train.micro_tokens=1024"])
    done = torchrun(ship.packed(recipe), tmp_path / "packed")
    assert done.returncode != 0
    assert "error: recipe key 'train.batch_tokens'" in done.stderr


def torchrun(text: bytes, folder: Path) -> subprocess.CompletedProcess[str]:
    """Two processes of the file, in a folder of its own."""
    folder.mkdir()
    (folder / "train_gpt.py").write_bytes(text)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    known = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")}
    return subprocess.run(
        [sys.executable, *command, "train_gpt.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=known | {"OMP_NUM_THREADS": "1"},
    )


# --- one count --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_packed_bytes_are_repeatable_and_few() -> None:
    code = "import sys; from underpar import ship; from underpar.recipe.load import resolve\n"
    code += "sys.stdout.buffer.write(ship.packed(resolve('pr1413', seed=int(sys.argv[1]))))"
    packs = [
        subprocess.run(
            [sys.executable, "-c", code, seed],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "12"
    ]
    assert packs[0] == packs[1]  # the seed is the environment's, no part of the program
    assert len(packs[0]) <= 24_000


def test_counting_is_cached_by_what_it_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(count, "packed", lambda recipe: asked.append(recipe.name) or b"x" * 7)
    cache = tmp_path / "far" / "sizes.json"
    nano = resolve("nano")
    assert [ship.counting(r, cache)() for r in (nano, nano, resolve("nano", seed=5))] == [7] * 3
    assert ship.counting(resolve("demo"), cache)() == 7
    assert asked == ["nano", "demo"]
    cache.write_text("{")
    assert ship.counting(nano, cache)() == 7
    monkeypatch.setattr(count, "packed", lambda recipe: 1 / 0)
    failing = ship.counting(resolve("pr456"))
    with pytest.raises(ZeroDivisionError):
        failing()


def test_the_missing_library_is_named_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_minifier", None)
    with pytest.raises(DependencyError, match=r"underpar\[ship\]"):
        ship.counting(resolve("nano"))


@pytest.mark.parametrize(
    "preset", ["nano", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pr1413", "demo"))]
)
def test_any_budget_in_reach_is_filled_to_a_thousandth(
    preset: str, shards: Path, tmp_path: Path
) -> None:
    recipe, data = small(preset, "quant.fill=false"), None if preset == "nano" else shards
    out = tmp_path / preset
    plain = pipeline.run(recipe, out, data=data, code_bytes=counted())
    assert plain.artifact is not None
    for share in (0.93, 1.0, 1.03):
        cap = round(plain.artifact.total_bytes * share)
        record = rerun.repack(
            out,
            code_bytes=counted,
            data=data,
            overrides=["quant.fill=true", f"budget.bytes={cap}"],
        )
        assert record.artifact is not None
        assert cap * 0.999 <= record.artifact.total_bytes <= cap
        assert record.artifact.total_bytes == record.artifact.code_bytes + (
            out / "model.upar"
        ).stat().st_size - tokenizer_bytes(out)


def tokenizer_bytes(out: Path) -> int:
    from underpar.artifact.load import load

    return load(out / "model.upar").sections.get("tokenizer", 0)


# --- what refuses in the packed file ----------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> Iterator[dict[str, Any]]:
    """Everything that the packed file defines, under its short names."""
    module = types.ModuleType("packed_program")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(packed("pr1413").decode(), module.__dict__)
    yield module.__dict__
    del sys.modules[module.__name__]


def with_method(program: dict[str, Any], *names: str) -> Any:
    """The class that defines methods of these names, which are not shortened."""
    found = [
        value
        for value in program.values()
        if isinstance(value, type)
        and value.__module__ == "packed_program"
        and all(name in vars(value) for name in names)
    ]
    assert len(found) == 1, names
    return found[0]


def refuses(what: str, act: Callable[[], object]) -> None:
    with pytest.raises(Exception, match=what) as caught:
        act()
    assert type(caught.value).__module__ == "packed_program"


TOKENS, LENGTHS, V = np.arange(41, dtype=np.uint16) % 7, np.ones(40, dtype=np.int32), 7


def logits(n: int) -> torch.Tensor:
    return torch.zeros(n, V)


def test_the_packed_ledger_refuses_what_is_not_legal(program: dict[str, Any]) -> None:
    make = with_method(program, "commit", "close_chunk")
    ledger = make(TOKENS, LENGTHS, V)
    refuses("validation stream", lambda: make(TOKENS, LENGTHS[:-1], V))
    refuses("validation stream", lambda: make(TOKENS, LENGTHS, V - 1))
    refuses("commit", lambda: ledger.commit([], logits(0)))
    refuses("commit", lambda: ledger.commit([(38, 41)], logits(3)))
    refuses("logits of 10 positions", lambda: ledger.commit([(0, 10)], logits(9)))
    refuses("logits of 10 positions", lambda: ledger.commit([(0, 10)], logits(10)[:, 1:]))
    refuses("not finite", lambda: ledger.commit([(0, 1)], logits(1).fill_(torch.inf)))
    ledger.commit([(0, 10)], logits(10))
    refuses("scored twice", lambda: ledger.commit([(9, 12)], logits(3)))
    refuses("before all of it was scored", lambda: ledger.close_chunk(0, 20))
    ledger.commit([(12, 20)], logits(8))
    refuses("before all of it was scored", lambda: ledger.close_chunk(0, 20))
    other = make(TOKENS, LENGTHS, V)
    other._open = [(0, 10), (8, 20)]
    refuses("two processes", lambda: other.close_chunk(0, 20))
    ledger.commit([(10, 12)], logits(2))
    chunk = ledger.close_chunk(0, 20)
    refuses("outside the ledger", lambda: type(chunk)(0, 20, TOKENS))


def test_the_packed_adapter_trains_on_scored_chunks_alone(program: dict[str, Any]) -> None:
    adapter = with_method(program, "update", "_sequences").__new__(
        with_method(program, "update", "_sequences")
    )
    forged = SimpleNamespace(start=0, end=20, tokens=TOKENS)
    refuses("test-time training", lambda: adapter.update([forged], 0, 3))


class Letters:
    """A tokenizer of one-byte pieces: BOS and six letters."""

    bos_id, lossless = 0, True

    def __init__(self, surplus: int = 0) -> None:
        self._surplus = surplus

    def byte_lengths(self, tokens: Any) -> Any:
        lengths = (tokens[1:] != 0).astype(np.int32)
        lengths[0] += self._surplus
        return lengths

    def decode(self, ids: Any) -> str:
        return "".join("abcdef"[i - 1] for i in ids if i)


def test_the_packed_file_counts_the_bytes_of_the_text(program: dict[str, Any]) -> None:
    make = with_method(program, "from_tokens")
    assert make.from_tokens(TOKENS, Letters()).true_bytes == 35
    refuses("bytes of the tokens", lambda: make.from_tokens(TOKENS, Letters(surplus=1)))
    refuses("validation stream", lambda: make.from_tokens(TOKENS[1:], Letters()))
    refuses("nothing to predict", lambda: make(TOKENS[:1], LENGTHS[:0], TOKENS[:0], 0))
    refuses("byte lengths", lambda: make(TOKENS, LENGTHS[:-1].copy(), TOKENS[:0].copy(), 39))
    refuses("bytes of the tokens", lambda: make(TOKENS.copy(), LENGTHS.copy(), TOKENS[:0], 41))


def test_the_packed_tokenizer_refuses_foreign_ids(program: dict[str, Any], shards: Path) -> None:
    make = with_method(program, "decode", "to_bytes")
    tokenizer = make((shards / "tokenizer.model").read_bytes())
    refuses("token ids", lambda: tokenizer.byte_lengths(np.array([1, 384])))


def function_that_says(program: dict[str, Any], text: str) -> Any:
    functions = [f for f in program.values() if isinstance(f, types.FunctionType)]
    (found,) = [f for f in functions if text in f.__code__.co_consts]
    return found


def calling(program: dict[str, Any], name: str) -> str:
    """The short name of the function that uses the attribute ``name``."""
    functions = {k: f for k, f in program.items() if isinstance(f, types.FunctionType)}
    (found,) = [k for k, f in functions.items() if name in f.__code__.co_names]
    return found


def test_the_packed_file_states_no_partial_score(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = SimpleNamespace(score=SimpleNamespace(complete=False))
    monkeypatch.setitem(program, calling(program, "score_chunk"), lambda *_: partial)
    stage, data = SimpleNamespace(name="float", how="plain"), SimpleNamespace(validation=object)
    recipe = SimpleNamespace(score=None)
    score_stage = function_that_says(program, "score of part of the text")
    refuses("part of the text", lambda: score_stage(stage, None, recipe, data, Path()))


@pytest.mark.slow
def test_the_packed_file_ends_at_a_loss_that_is_not_finite(shards: Path, tmp_path: Path) -> None:
    done = run(packed("pr1413"), tmp_path / "e", "pr1413", DATA_PATH=str(shards), BREAK_LOSS="1")
    assert done.code == 1
    assert done.err.startswith("error: training loss at step")


@pytest.mark.slow
def test_the_packed_file_keeps_the_budget(shards: Path, tmp_path: Path) -> None:
    program = ship.packed(small("pr1413", "budget.bytes=1000"))
    done = run(program, tmp_path / "e", "pr1413", DATA_PATH=str(shards))
    assert done.code == 1
    assert done.err == "error: code and artifact do not fit\n"


# --- the parts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("def f():\n if 2 > 1:\n  g()\n else:\n  h()", "def f():\n g()"),
        ("def f(x):\n return g(x) if not None else 2", "def f(x):\n return g(x)"),
        ("def f(x):\n if x and 'a' == 'b':\n  g()\n return x", "def f(x):\n return x"),
        ("def f(x):\n if g(x) and False:\n  h()", "def f(x):\n if g(x) and False:\n  h()"),
        ("def f():\n for k in {}.items():\n  g(k)", "def f():\n pass"),
        ("def f(x):\n match 'a':\n  case 'b':\n   g()\n  case 'a':\n   h()", "def f(x):\n h()"),
        ("def f(x):\n match x:\n  case 'b':\n   g()", "def f(x):\n match x:\n  case 'b':\n   g()"),
    ],
)
def test_folding(text: str, wanted: str) -> None:
    assert ast.unparse(fold(ast.parse(text))) == ast.unparse(ast.parse(wanted))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("X = 3\ndef f():\n return X", "X = 3\ndef f():\n return 3"),
        ("X = 3\ndef f(X):\n return X", "X = 3\ndef f(X):\n return X"),
        ("X = 3\nX = 4\ndef f():\n return X", "X = 3\nX = 4\ndef f():\n return X"),
        ("X = 3\ndef f():\n global X\n X = X + 1", "X = 3\ndef f():\n global X\n X = X + 1"),
        ("def f(*, a=None):\n return a\nf()", "def f():\n return None\nf()"),
        ("def f(*, a):\n return a\nf(a=2)\nx.f(a=2)", "def f():\n return 2\nf()\nx.f()"),
        ("def f(*, a):\n return a\nf(a=2)\nf(a=3)", "def f(*, a):\n return a\nf(a=2)\nf(a=3)"),
        ("def f(*, a=2):\n return g(a=a)\ndef g(*, a):\n return a\nf()", "..."),
        ("def f(*, a=2):\n a += 1\n return a\nf()", "def f(*, a=2):\n a += 1\n return a\nf()"),
        ("def f(*, a=2):\n return a\nfor a in b:\n f(a=a)", "def f(*, a=2):\n return a\n..."),
    ],
)
def test_propagation(text: str, wanted: str) -> None:
    tree = ast.parse(text)
    propagate(tree)
    got = ast.unparse(tree)
    if wanted == "...":
        assert got == "def f():\n    return g()\n\ndef g():\n    return 2\nf()"
    elif wanted.endswith("..."):
        assert got == ast.unparse(ast.parse(text))
    else:
        assert got == ast.unparse(ast.parse(wanted))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["pr1413", "nano"])
def test_the_readable_file_is_whole_and_documented(preset: str, tmp_path: Path) -> None:
    text = ship.readable(resolve(preset), 0)
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    assert sum(ast.get_docstring(f) is not None for f in functions) > 0.5 * len(functions)
    file = tmp_path / "train_gpt_readable.py"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F811", file],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
