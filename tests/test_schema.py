"""The schema: impossible recipes are refused, and nobody can change one."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from underpar.errors import RecipeError
from underpar.recipe.check import check
from underpar.recipe.schema import ModelSpec, QuantSpec, Recipe, ScoreSpec, TrainSpec


@pytest.mark.parametrize(
    ("cls", "key", "settings"),
    [
        (ModelSpec, "model.vocab_size", {"vocab_size": 70_000}),
        (ModelSpec, "model.n_layer", {"n_layer": 0}),
        (ModelSpec, "model.n_head", {"n_head": 7}),
        (ModelSpec, "model.n_head", {"d_model": 24, "n_head": 8}),  # odd head width
        (ModelSpec, "model.n_kv_head", {"n_kv_head": 3}),
        (ModelSpec, "model.rope_dims", {"rope_dims": 7}),
        (ModelSpec, "model.rope_dims", {"rope_dims": 66}),
        (ModelSpec, "model.loop_end", {"loop_extra": 2, "loop_start": 4, "loop_end": 9}),
        (ModelSpec, "model.loop_extra", {"loop_extra": 1, "n_core": 3, "layout": "cores"}),
        (ModelSpec, "model.loop_extra", {"loop_extra": -1}),
        (ModelSpec, "model.layout", {"n_core": 3}),
        (ModelSpec, "model.bigram_buckets", {"bigram_buckets": 1}),
        (ModelSpec, "model.bigram_buckets", {"bigram_buckets": -5}),
        (ModelSpec, "model.bigram_dim", {"bigram_dim": 0}),
        (ModelSpec, "model.softcap", {"softcap": 0.0}),
        (TrainSpec, "train.warmdown_frac", {"warmdown_iters": 10, "warmdown_frac": 0.5}),
        (TrainSpec, "train.warmdown_frac", {"warmdown_frac": 1.5}),
        (TrainSpec, "train.reserve_seconds", {"seconds": 10.0, "reserve_seconds": 12.0}),
        (TrainSpec, "train.swa_every", {"swa_every": 0}),
        (QuantSpec, "quant.matrix_bits", {"matrix_bits": 9}),
        (QuantSpec, "quant.embed_bits", {"embed_bits": 0}),
        (QuantSpec, "quant.overrides.a.b", {"overrides": {"a.b": 12}}),
        (QuantSpec, "quant.matrix_k", {"matrix_k": 0.0}),
        (ScoreSpec, "score.stride", {"stride": 0}),
        (ScoreSpec, "score.stride", {"context": 32, "stride": 64}),
    ],
)
def test_impossible_sections_are_refused_by_key(cls: type, key: str, settings: dict) -> None:
    with pytest.raises(RecipeError, match=f"'{key}'"):
        check(cls(**settings))


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("train.batch_tokens", {"train": TrainSpec(batch_tokens=1000, micro_tokens=1000)}),
        ("train.micro_tokens", {"train": TrainSpec(micro_tokens=3 * 65_536)}),
        ("score.stride", {"score": ScoreSpec(stride=2048)}),
        ("score.ttt_freeze", {"score": ScoreSpec(ttt_freeze=10)}),
    ],
)
def test_sections_must_fit_together(key: str, changes: dict) -> None:
    with pytest.raises(RecipeError, match=f"'{key}'"):
        check(Recipe(**changes))


def test_cores_are_distinct_cores() -> None:
    assert ModelSpec(n_layer=10).cores == 10
    assert ModelSpec(n_layer=10, layout="cores", n_core=5).cores == 5
    assert ModelSpec(n_layer=10, layout="cores", n_core=12).cores == 10


def test_recipes_are_frozen_down_to_the_overrides() -> None:
    given = {"a.b": 4}
    recipe = Recipe(quant=QuantSpec(overrides=given))
    given["a.b"] = 8
    assert recipe.quant.overrides["a.b"] == 4
    with pytest.raises(TypeError):
        recipe.quant.overrides["a.b"] = 8  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        recipe.seed = 2  # type: ignore[misc]
    assert replace(recipe, seed=2).quant == recipe.quant
