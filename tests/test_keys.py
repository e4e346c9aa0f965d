"""Keys: types as the schema annotates them, and the nearest name."""

from __future__ import annotations

import math

import pytest

from underpar.errors import RecipeError
from underpar.recipe.keys import KEYS, checked, locate, nearest


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("model.n_layer", True, "an integer"),
        ("model.n_layer", 9.0, "an integer"),
        ("model.n_layer", "9", "an integer"),
        ("model.tied", 1, "true or false"),
        ("train.seconds", "600", "a finite number"),
        ("train.seconds", False, "a finite number"),
        ("train.seconds", math.nan, "a finite number"),
        ("train.seconds", math.inf, "a finite number"),
        ("train.seconds", 10**400, "a finite number"),
        ("train.compile", "maybe", "one of auto, on, off"),
        ("train.compile", ["on"], "one of auto, on, off"),
        ("name", 3, "a string"),
        ("quant.overrides", 6, "a table"),
        ("quant.overrides", {"a.b": 6.0}, "an integer"),
    ],
)
def test_wrong_types_say_what_was_wanted(key: str, value: object, wanted: str) -> None:
    with pytest.raises(RecipeError, match=wanted) as error:
        checked(key, value, KEYS[key])
    assert key in str(error.value)
    assert repr(value) in str(error.value) or "a.b" in str(error.value)


def test_an_int_becomes_the_float_it_stands_for() -> None:
    value = checked("train.seconds", 600, float)
    assert type(value) is float
    assert value == 600.0


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("quant.bitz", "quant.matrix_bits"),
        ("model.n_layers", "model.n_layer"),
        ("n_head", "model.n_head"),
        ("train.n_layer", "model.n_layer"),
        ("quan.embed_k", "quant.embed_k"),
        ("score.lr", "score.ttt_lr"),
        ("train.lr_matrix", "train.matrix_lr"),
    ],
)
def test_unknown_keys_name_the_nearest(word: str, near: str) -> None:
    assert nearest(word, KEYS) == near
    with pytest.raises(RecipeError, match=f"unknown key '{word}', did you mean '{near}'"):
        locate(word)


def test_paths_inside_a_table() -> None:
    assert locate('quant.overrides."a.0.b"') == ("quant.overrides", "a.0.b")
    assert locate("quant.overrides.a.0.b") == ("quant.overrides", "a.0.b")
    assert locate("model.n_layer") == ("model.n_layer", "")
