"""recipes list, show, from-env, as a person types them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import underpar
from underpar.artifact.estimate import expected_bytes
from underpar.recipe.load import resolve
from underpar.recipe.plain import digest
from underpar.recipe.presets import PRESETS


def test_list_names_every_preset_with_its_first_line() -> None:
    lines = underpar("recipes", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    for line, preset in zip(lines, PRESETS.values()):
        assert line.endswith((preset.__doc__ or "").splitlines()[0])


@pytest.mark.parametrize("name", PRESETS)
def test_show_is_a_recipe_file_that_says_the_same(name: str, tmp_path: Path) -> None:
    done = underpar("recipes", "show", name)
    assert done.code == 0, done.err
    (tmp_path / "same.toml").write_text(done.out)
    assert resolve(str(tmp_path / "same.toml")) == PRESETS[name]()
    assert f"# digest {digest(PRESETS[name]())}\n" in done.out


def test_show_counts_parameters_and_bytes() -> None:
    done = underpar("recipes", "show", "pr1413", "--set", "quant.matrix_bits=5")
    assert done.code == 0, done.err
    assert "matrix_bits = 5\n" in done.out
    assert "35,943,512 parameters\n" in done.out
    by_role = re.findall(r"([\d,]+) parameters: \w+\n", done.out)
    assert sum(int(count.replace(",", "")) for count in by_role) == 35_943_512
    recipe = resolve("pr1413", ["quant.matrix_bits=5"])
    total = expected_bytes(recipe.model, recipe.quant).total
    assert f"{total:,} bytes expected in all" in done.out
    assert "25,517,137 parameters\n" in underpar("recipes", "show", "pr456").out


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("quant.matrix_bit=5", "did you mean 'quant.matrix_bits'"),
        ("quant.matrix_bits=five", "quant.matrix_bits"),
        ("quant.matrix_bits=1", "quant.matrix_bits"),
        ("quant.matrix_bits", "quant.matrix_bits"),
        ("quant.overrides.blocks.99.mlp.fc.weight=5", "blocks.99.mlp.fc.weight"),
    ],
)
def test_a_wrong_setting_is_one_line(setting: str, told: str) -> None:
    done = underpar("recipes", "show", "pr1413", "--set", setting)
    assert done.failed_with(told), done


def test_from_env_is_a_recipe_file(tmp_path: Path) -> None:
    done = underpar("recipes", "from-env", "QK_GAIN_INIT=5.25", "TTT_ENABLED=1", "SEED=42")
    assert done.code == 0, done.err
    (tmp_path / "mine.toml").write_text(done.out)
    wanted = resolve("pr1413", ["model.qk_gain=5.25", "score.ttt=true"], seed=42)
    assert resolve(str(tmp_path / "mine.toml")) == wanted
    shown = underpar("recipes", "show", tmp_path / "mine.toml")
    assert "35,943,512 parameters" in shown.out


def test_from_env_on_another_base(tmp_path: Path) -> None:
    done = underpar("recipes", "from-env", "--base", "pr456", "MATRIX_LR=0.03")
    (tmp_path / "mine.toml").write_text(done.out)
    assert resolve(str(tmp_path / "mine.toml")) == resolve("pr456", ["train.matrix_lr=0.03"])


def test_from_env_reads_the_environment_when_nothing_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QK_GAIN_INIT", "3.5")
    monkeypatch.setenv("UNDERPAR_UNKNOWN", "1")  # not ours to refuse: it was not named
    done = underpar("recipes", "from-env")
    assert done.code == 0, done.err
    assert "qk_gain = 3.5\n" in done.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("QK_GAN_INIT=5",), "did you mean 'QK_GAIN_INIT'"),
        (("QK_GAIN_INIT=high",), "QK_GAIN_INIT"),
        (("QK_GAIN_INIT",), "QK_GAIN_INIT"),
        (("--base", "pr1414", "SEED=1"), "Did you mean 'pr1413'"),
    ],
)
def test_from_env_refuses_what_it_does_not_know(words: tuple[str, ...], told: str) -> None:
    done = underpar("recipes", "from-env", *words)
    assert done.failed_with(told), done
    assert done.out == ""
