"""A recipe as plain data and back, for those who may be believed: our own files, our own program.

Nothing is checked here; what comes from outside goes through ``load`` first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from underpar.recipe.schema import (
    Budget,
    DataSpec,
    ModelSpec,
    QuantSpec,
    Recipe,
    ScoreSpec,
    TrainSpec,
)

#: name of a section -> its class, in the schema's order
SECTIONS: dict[str, Any] = {
    "data": DataSpec,
    "model": ModelSpec,
    "train": TrainSpec,
    "quant": QuantSpec,
    "score": ScoreSpec,
    "budget": Budget,
}


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Plain nested dict: name, seed and every key of every section."""
    sections = {name: section_to_json(getattr(recipe, name)) for name in SECTIONS}
    return {"name": recipe.name, "seed": recipe.seed, **sections}


def differences(recipe: Recipe) -> dict[str, Any]:
    """What ``to_json`` says that is not the schema's default."""
    ours, default = to_json(recipe), to_json(Recipe())
    found = {key: value for key, value in ours.items() if value != default[key]}
    for name in SECTIONS.keys() & found.keys():
        found[name] = {k: v for k, v in ours[name].items() if v != default[name][k]}
    return found


def build(data: Mapping[str, Any]) -> Recipe:
    """The recipe that ``to_json`` or ``differences`` wrote."""
    sections = {name: cls(**data.get(name, {})) for name, cls in SECTIONS.items()}
    top = {key: data[key] for key in ("name", "seed") if key in data}
    return Recipe(**top, **sections)


def section_to_json(spec: Any) -> dict[str, Any]:
    """One section as a plain dict with JSON types (a float is a float even if written 600)."""
    return {field.name: _plain(getattr(spec, field.name), field.type) for field in fields(spec)}


def section_name(cls: type) -> str:
    """The name under which a recipe has a section of this class."""
    return next(name for name, section in SECTIONS.items() if section is cls)


def digest(recipe: Recipe) -> str:
    """SHA-256 (hex) of the recipe's canonical JSON, name and seed included."""
    canonical = json.dumps(to_json(recipe), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: Any, annotation: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(sorted(value.items()))
    return float(value) if annotation == "float" else value
