"""Runs to submit, made from one: what a test changes in them, and code that stands in for ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Run
from underpar.recipe.load import from_json, replace_keys
from underpar.recipe.plain import digest, to_json
from underpar.recipe.schema import Recipe
from underpar.submit.folder import submit

Make = Callable[..., Path]

#: what stands in for a packed train_gpt.py
CODE = b"print('trained')\n" * 20


def stand_in(recipe: Recipe, folder: Path) -> tuple[Path, Path]:
    """In place of ``ship.write``."""
    readable, packed = folder / "readable.py", folder / "packed.py"
    readable.write_text(f"# {recipe.name}\n")
    packed.write_bytes(CODE)
    return readable, packed


def edit(run: Run, **values: Any) -> Run:
    """The run with fields of its record replaced: ``train__seconds=601.0``."""
    data = json.loads(run["record.json"].read_text())
    for name, value in values.items():
        *path, last = name.split("__")
        inner = data
        for key in path:
            inner = inner[key]
        inner[last] = value
    run["record.json"].write_text(json.dumps(data))
    return run


def rescored(run: Run, stage: str, factor: float) -> Run:
    """The run with another score of a stage."""
    score = run.record.stages[stage]
    data = score.to_json() | {"nats": score.nats * factor, "bpb": score.bpb * factor}
    return edit(run, **{f"stages__{stage}": data})


def changed(run: Run, *keys: tuple[str, Any]) -> Run:
    """The run with another recipe, its record and digest as that recipe's run would have them."""
    recipe = replace_keys(from_json(run.record.recipe), keys)
    return edit(run, recipe=to_json(recipe), recipe_digest=digest(recipe), seed=recipe.seed)


@pytest.fixture
def three(nano_run: Run, tmp_path: Path) -> list[Run]:
    """Three seeds of one recipe, with scores and times of their own."""
    runs = []
    for i, seed in enumerate((0, 42, 1234)):
        run = changed(nano_run.copy(tmp_path / "runs" / f"seed{seed}"), ("seed", seed))
        rescored(run, "sliding", 1 + 0.003 * i)
        rescored(run, "ttt", 0.99 + 0.002 * i * i)
        runs.append(edit(run, train__seconds=1.25 + i, commit="abc123"))
    return runs


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Submits runs with the stand-in for code; returns the folder."""

    def write(runs: list[Run], **options: Any) -> Path:
        submit([run.out for run in runs], tmp_path / "out", write_code=stand_in, **options)
        return tmp_path / "out"

    return write


def load(folder: Path, name: str = "submission.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def proof(run: Run, **fields: Any) -> dict[str, Any]:
    """A proof of the run as its record would have it, from round figures."""
    score = run.record.stages["ttt"]
    claim = {"nats": 6931.0, "tokens": score.tokens, "bytes": score.bytes, "coverage": 1.0}
    figures = {"claimed_bits": 9999.319, "coded_bits": 10_003, "difference": 0.000368}
    told = {"lanes": 16, "adapts": True, "text_same": True, "holds": True}
    return {"claim": claim, **figures, **told, **fields}
