"""Golden numbers: our code against tests/data/golden, and the checks against bad folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from tests.golden.__main__ import CHECKS, COMPANIONS, main, run

FOLDER = Path(__file__).parent / "data" / "golden"
FILES = [
    path.name
    for path in sorted(FOLDER.iterdir())
    if not any(fnmatch(path.name, pattern) for pattern in COMPANIONS)
]

#: of files that take many seconds as a whole, the cases that are enough for every change
SHORT = {"ttt_1413.json": {"freeze1_noloop"}, "ttt_456.json": {"freeze1_lr5e-3"}}


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[str], Path]:
    """A function: the folder with this file alone, and the one that its check reads beside it."""

    def folder(name: str) -> Path:
        for path in FOLDER.glob(f"{Path(name).stem}.*"):
            shutil.copy(path, tmp_path)
        return tmp_path

    return folder


def test_every_check_has_its_file() -> None:
    for pattern in CHECKS:
        assert any(fnmatch(name, pattern) for name in FILES), pattern


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SHORT else []) for n in FILES]
)
def test_golden(name: str, folder_of: Callable[[str], Path]) -> None:
    all_pass(folder_of(name))


@pytest.mark.parametrize("name", SHORT)
def test_some_golden_cases(name: str, folder_of: Callable[[str], Path]) -> None:
    file = folder_of(name) / name
    data = json.loads(file.read_text())
    data["cases"] = {key: case for key, case in data["cases"].items() if key in SHORT[name]}
    assert len(data["cases"]) == len(SHORT[name])
    file.write_text(json.dumps(data))
    all_pass(file.parent)


def all_pass(folder: Path) -> None:
    checks = list(run(folder))
    assert any(check.ok for check in checks), "nothing was checked"
    failed = [str(check) for check in checks if check.ok is False]
    assert not failed, "\n".join(failed)
    skipped = [check.name for check in checks if check.ok is None]
    assert skipped in ([], ["byte_lut model"])  # the public tokenizer model is not in a clone


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("byte_lut.npz", ["lut_bytes/plain"]),
        ("g456_model_shared.npz", ["grad_norm/smear.gate"]),
        ("gptq_1413.npz", ["scale_127"]),
        ("muon.npz", ["param_456_fp32/48x32/step1"]),
        ("newton_schulz.npz", ["out_fp32/32x48"]),
        ("qat.npz", ["out_train_15"]),
        ("quant_456.npz", ["scale_int6_lite"]),
        ("quant_policy.json", ["456_default", "n_params"]),
        ("schedule.json", ["lr_456", 0, "table", 2, 2]),
        ("windows.json", ["cases", 0, "windows", 1, 1]),
    ],
)
def test_one_wrong_number_fails(
    name: str,
    where: list[str | int],
    folder_of: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = folder_of(name)
    spoil = _spoil_arrays if name.endswith(".npz") else _spoil_json
    spoil(folder / name, where)
    assert main([str(folder)]) == 1
    assert "FAIL  " in capsys.readouterr().out


def _spoil_arrays(path: Path, where: list[str | int]) -> None:
    """Add 1 to the first number of an array."""
    with np.load(path, allow_pickle=False) as data:
        arrays = dict(data)
    wrong = arrays[str(where[0])].copy()
    wrong.reshape(-1)[0] += 1
    np.savez(path, **{**arrays, str(where[0]): wrong})


def _spoil_json(path: Path, where: list[str | int]) -> None:
    """Add 1 to the number at these keys."""
    data = part = json.loads(path.read_text())
    *outer, last = where
    for key in outer:
        part = part[key]
    part[last] += 1
    path.write_text(json.dumps(data))


def test_an_empty_folder_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == "0 passed, 0 failed, 0 skipped\n"


def test_files_that_nobody_knows_are_skipped_and_do_not_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("photo.jpg", "other.npz"):
        (tmp_path / name).write_bytes(b"")
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert out.count("SKIP  ") == 2
    assert "no check knows this file" in out
    assert "0 passed, 0 failed, 2 skipped" in out


def test_a_damaged_file_fails_and_does_not_hide_the_others(
    folder_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of("windows.json")
    (folder / "muon.npz").write_bytes(b"not numbers")
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert "FAIL  muon.npz" in out
    assert "PASS  " in out


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["a", "b"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage: python -m tests.golden DIR" in capsys.readouterr().err
