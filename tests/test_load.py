"""Loading: files, overrides, JSON and TOML round trips, and what errors say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import children
from underpar.errors import RecipeError
from underpar.recipe.keys import KEYS
from underpar.recipe.load import (
    flatten,
    from_json,
    replace_keys,
    resolve,
    section_from_json,
    to_toml,
)
from underpar.recipe.plain import digest, section_to_json, to_json
from underpar.recipe.presets import PRESETS
from underpar.recipe.schema import ModelSpec, Recipe, ScoreSpec, TrainSpec


def written(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_preset_with_overrides_and_a_seed() -> None:
    recipe = resolve("pr1413", ["model.n_layer=9", "train.seconds=300", "name=short"], 7)
    changed = {k: v for k, v in flatten(recipe).items() if v != flatten(PRESETS["pr1413"]())[k]}
    assert changed == {"name": "short", "seed": 7, "model.n_layer": 9, "train.seconds": 300.0}


@pytest.mark.parametrize(
    "text", ["train.compile=off", 'train.compile="off"', "train.compile = off"]
)
def test_quotes_are_optional_where_a_string_is_wanted(text: str) -> None:
    assert resolve("pr456", [text]).train.compile == "off"


def test_a_name_may_look_like_a_number() -> None:
    assert resolve("nano", ["name=7"]).name == "7"


@pytest.mark.parametrize(
    "text",
    [
        "quant.overrides.cores.0.mlp.fc.weight=8",
        'quant.overrides."cores.0.mlp.fc.weight"=8',
        "quant.overrides.'cores.0.mlp.fc.weight' = 8",
    ],
)
def test_an_entry_of_a_table_is_added(text: str) -> None:
    overrides = resolve("pr456", [text]).quant.overrides
    assert overrides == {"cores.0.mlp.fc.weight": 8, "cores.2.attn.c_k.weight": 16}


def test_a_whole_table_is_replaced() -> None:
    assert resolve("pr456", ["quant.overrides={}"]).quant.overrides == {}
    assert resolve("pr456", ["quant.overrides={a.b = 4}"]).quant.overrides == {"a.b": 4}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("quant.bitz=3", "unknown key 'quant.bitz', did you mean 'quant.matrix_bits'"),
        ("model.n_layer=nine", "'model.n_layer': got 'nine', wanted an integer"),
        ("model.n_layer=true", "got True, wanted an integer"),
        ("model.n_layer=3\nmodel.d_ff=4", "wanted an integer"),
        ("train.compile=maybe", "wanted one of auto, on, off"),
        ("model.tied=1", "wanted true or false"),
        ("model.n_layer", "wanted section.key=value"),
        ("model.n_head=7", "wanted a divisor of d_model"),
        ("quant.overrides.a=soft", "'quant.overrides.a': got 'soft', wanted an integer"),
    ],
)
def test_a_bad_override_is_named(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve("pr1413", [override])


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"'pr1431'.*naive_baseline.*mean 'pr1413'"):
        resolve("pr1431")


def test_a_file_changes_its_base(tmp_path: Path) -> None:
    text = """
        base = "pr456"
        [train]
        seconds = 60
        [quant.overrides]
        cores.0.attn.c_q.weight = 8
        "cores.1.attn.c_q.weight" = 4
    """
    recipe = resolve(written(tmp_path, text), ["train.iterations=10"])
    base = PRESETS["pr456"]()
    overrides = {"cores.0.attn.c_q.weight": 8, "cores.1.attn.c_q.weight": 4}
    assert recipe == replace(
        base,
        name="mine",
        train=replace(base.train, seconds=60.0, iterations=10),
        quant=replace(base.quant, overrides=overrides),
    )


def test_a_file_without_base_changes_the_defaults(tmp_path: Path) -> None:
    recipe = resolve(written(tmp_path, 'name = "x"\nseed = 3\n[model]\nn_layer = 2'))
    assert recipe == Recipe(name="x", seed=3, model=ModelSpec(n_layer=2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1\n[model]\nn_layer 3\n", r"mine\.toml, line 3"),
        ("seed = 1\nseed", r"mine\.toml, line 2"),
        ('base = "pr1431"', "not a preset, did you mean 'pr1413'"),
        ("base = 3", "not a preset"),
        ("[modle]\nn_layer = 3", "unknown key 'modle' .*mean 'model'"),
        ("sed = 3", "unknown key 'sed' .*mean 'seed'"),
        ("model = 3", r"'model': got 3, wanted a table \[model\]"),
        ("[model]\nn_layers = 3", "unknown key 'model.n_layers', did you mean 'model.n_layer'"),
        ("[model]\nn_layer = 3.0", "'model.n_layer': got 3.0, wanted an integer"),
        ("[model]\nn_layer = {a = 3}", "wanted an integer"),
        ("seed = true", "'seed': got True, wanted an integer"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve(written(tmp_path, text))


def test_a_runs_recipe_json_resolves(tmp_path: Path) -> None:
    recipe = PRESETS["pr456"]()
    path = written(tmp_path, json.dumps(to_json(recipe)), "recipe.json")
    assert resolve(path) == recipe


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json_and_toml(tmp_path: Path, name: str) -> None:
    recipe = PRESETS[name]()
    assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe
    for base in (None, *PRESETS):
        assert resolve(written(tmp_path, to_toml(recipe, base))) == recipe


def test_toml_on_a_base_says_only_what_differs() -> None:
    recipe = resolve("pr1413", ["model.n_layer=9"], 1)
    assert to_toml(recipe, "pr1413") == (
        'base = "pr1413"\nname = "pr1413"\nseed = 1\n\n[model]\nn_layer = 9\n'
    )


def values(hint: Any) -> st.SearchStrategy:
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(-(2**63), 2**63 - 1)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False, min_value=-1e299, max_value=1e299)
    if (
        get_args(hint)
        and get_origin(hint) is not None
        and all(isinstance(choice, str) for choice in get_args(hint))
    ):
        return st.sampled_from(get_args(hint))
    if hint is str:
        return st.text(st.characters(exclude_categories=["Cs"]))
    return st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(2, 8))


@given(st.data())
def test_any_valid_recipe_survives_json_and_toml(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    recipe = PRESETS[data.draw(st.sampled_from(sorted(PRESETS)))]()
    for key in data.draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=6)):
        try:
            recipe = replace_keys(recipe, [(key, data.draw(values(KEYS[key])))])
        except RecipeError:
            continue  # the schema refuses the value
    again = from_json(json.loads(json.dumps(to_json(recipe))))
    assert again == recipe
    assert digest(again) == digest(recipe)
    path = tmp_path_factory.mktemp("recipe") / "any.toml"
    path.write_text(to_toml(recipe), encoding="utf-8", newline="")
    assert resolve(str(path)) == recipe


def test_json_is_strict() -> None:
    good = to_json(PRESETS["nano"]())
    with pytest.raises(RecipeError, match="unknown key 'extra'"):
        from_json({**good, "extra": 1})
    with pytest.raises(RecipeError, match="'seed' is missing"):
        from_json({key: value for key, value in good.items() if key != "seed"})
    with pytest.raises(RecipeError, match=r"unknown key 'n_layers' in model, .*'n_layer'"):
        from_json({**good, "model": {**good["model"], "n_layers": 1}})
    with pytest.raises(RecipeError, match="'score'"):
        from_json({**good, "score": 3})
    with pytest.raises(RecipeError, match=r"score\.stride"):
        from_json({**good, "score": {**good["score"], "stride": "64"}})


@pytest.mark.parametrize("section", [ModelSpec(n_layer=3), ScoreSpec(stride=8), TrainSpec()])
def test_one_section_round_trips(section: Any) -> None:
    data = json.loads(json.dumps(section_to_json(section)))
    assert section_from_json(type(section), data) == section
    del data[next(iter(data))]
    with pytest.raises(RecipeError, match="is missing"):
        section_from_json(type(section), data)


def test_a_digest_depends_on_every_value_and_on_no_spelling() -> None:
    base = PRESETS["pr1413"]()
    assert digest(replace(base, train=replace(base.train, seconds=600))) == digest(base)
    variants = [
        replace(base, seed=1),
        replace(base, name="other"),
        replace(base, score=replace(base.score, stride=32)),
        replace(base, quant=replace(base.quant, overrides={"a": 8})),
    ]
    assert len({digest(recipe) for recipe in (base, *variants)}) == 5
    assert all(len(digest(recipe)) == 64 for recipe in variants)


def test_recipes_load_without_torch() -> None:
    code = (
        "import sys, underpar.recipe.load, underpar.recipe.from_env\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    children.python("-c", code)
