"""Recipes in and out: preset or TOML file, overrides, JSON, digest.

Everything goes through one flat picture of a recipe, ``{"model.n_layer": 11, ...}``: a preset is
flattened, a file and the ``--set`` strings replace some of its values, each is checked against the
annotation in the schema, and the result is built and checked as a whole. A recipe file holds only
what it changes::

    base = "pr1413"            # a preset; without it the schema's defaults
    seed = 42
    [model]
    n_layer = 9
    [quant.overrides]          # replaces the preset's table
    "blocks.0.attn.c_k.weight" = 8
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from underpar.errors import RecipeError
from underpar.recipe.check import check
from underpar.recipe.keys import KEYS, check_names, checked, is_text, locate, nearest
from underpar.recipe.plain import SECTIONS, section_name
from underpar.recipe.presets import PRESETS
from underpar.recipe.schema import Recipe

Section = TypeVar("Section")

#: keys that set quantization steps
STEPS = {"quant.matrix_k", "quant.mlp_k", "quant.embed_k"}


def resolve(name_or_path: str, overrides: Iterable[str] = (), seed: int | None = None) -> Recipe:
    """A preset's name, a TOML file or a run's recipe.json, then ``section.key=value`` strings.

    Raises RecipeError: unknown preset, file, key; wrong type; values that the schema refuses.
    """
    path = Path(name_or_path)
    if name_or_path in PRESETS:
        recipe = PRESETS[name_or_path]()
    elif path.is_file():
        recipe = _read(path)
    else:
        near = nearest(path.stem, PRESETS)
        raise RecipeError(
            f"no preset or recipe file '{name_or_path}'",
            wanted=f"a TOML file, or a preset ({', '.join(PRESETS)})",
            do=f"Did you mean '{near}'?",
        )
    recipe = override(recipe, overrides)
    return recipe if seed is None else replace_keys(recipe, [("seed", seed)])


def override(recipe: Recipe, texts: Iterable[str], only: Sequence[str] = ()) -> Recipe:
    """The recipe with ``section.key=value`` strings applied, in order.

    only: the sections that may be named (default: all); RecipeError for another.
    """
    changes = [_parse_override(text) for text in texts]
    for key, _ in changes:
        if only and key.partition(".")[0] not in only:
            raise RecipeError(
                f"override of '{key}'",
                wanted=" or ".join(f"{section}.*" for section in only),
                do="The rest of the recipe can change in a new run only.",
            )
    return replace_keys(recipe, changes)


def replace_keys(recipe: Recipe, changes: Iterable[tuple[str, Any]]) -> Recipe:
    """The recipe with dotted keys replaced in order; ``quant.overrides.PATH`` adds one entry.

    A k that somebody names is meant: it switches ``quant.fill`` off, which would scale it.
    """
    flat, named = flatten(recipe), set()
    for key, value in changes:
        table, path = locate(key)
        named.add(table)
        if path:
            flat[table] = {**flat[table], path: checked(key, value, int)}
        else:
            flat[table] = checked(key, value, KEYS[table])
    if named & STEPS and "quant.fill" not in named:
        flat["quant.fill"] = False
    sections: dict[str, Any] = {
        name: cls(**{field.name: flat[f"{name}.{field.name}"] for field in fields(cls)})
        for name, cls in SECTIONS.items()
    }
    return check(Recipe(name=flat["name"], seed=flat["seed"], **sections))


def flatten(recipe: Recipe) -> dict[str, Any]:
    """``{"name": ..., "seed": ..., "data.corpus": ..., ...}``, in the schema's order."""
    flat: dict[str, Any] = {}
    for key, hint in KEYS.items():
        section, _, name = key.rpartition(".")
        owner = getattr(recipe, section) if section else recipe
        flat[key] = checked(key, getattr(owner, name), hint)
    return flat


def from_json(data: Mapping[str, Any]) -> Recipe:
    """The recipe that ``to_json`` wrote. Strict: every key present, none unknown, types right."""
    check_names("recipe", data, ["name", "seed", *SECTIONS])
    sections: dict[str, Any] = {
        name: section_from_json(cls, data[name]) for name, cls in SECTIONS.items()
    }
    top = {key: checked(key, data[key], KEYS[key]) for key in ("name", "seed")}
    return check(Recipe(**top, **sections))


def section_from_json(cls: type[Section], data: Mapping[str, Any]) -> Section:
    """The inverse of ``section_to_json``, as strict as ``from_json``."""
    name, hints = section_name(cls), get_type_hints(cls)
    check_names(name, data, hints)
    return check(cls(**{k: checked(f"{name}.{k}", data[k], hint) for k, hint in hints.items()}))


def to_toml(recipe: Recipe, base: str | None = None) -> str:
    """A recipe file that ``resolve`` reads back; with a preset as base, only what differs."""
    flat, same = flatten(recipe), flatten(PRESETS[base]()) if base else {}
    wanted = {key for key, value in flat.items() if key not in same or same[key] != value}
    wanted |= {"name"} | ({"quant.fill"} if wanted & STEPS else set())
    lines = [f"base = {_toml(base)}"] if base else []
    table = ""
    for key, value in flat.items():
        if key not in wanted:
            continue
        section, _, name = key.rpartition(".")
        if section != table:
            table = section
            lines += ["", f"[{table}]"]
        lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _read(path: Path) -> Recipe:
    text = path.read_bytes().decode(errors="replace")
    parse = json.loads if path.suffix == ".json" else tomllib.loads
    try:
        document = parse(text)
    except ValueError as error:
        line = re.search(r"line (\d+)", str(error))  # "at end of document" names none
        where = line[1] if line else text.count("\n") + 1
        raise RecipeError(f"recipe file {path}, line {where}: {error}") from error
    return from_json(document) if path.suffix == ".json" else _from_document(path, document)


def _from_document(path: Path, document: dict[str, Any]) -> Recipe:
    base = document.pop("base", None)
    if base is not None and base not in PRESETS:
        near = nearest(str(base), PRESETS)
        raise RecipeError(f"{path}: base = {base!r} is not a preset, did you mean '{near}'?")
    changes: list[tuple[str, Any]] = [("name", path.stem)]
    for name, value in document.items():
        if name in SECTIONS and not isinstance(value, dict):
            raise RecipeError(f"recipe key '{name}'", got=repr(value), wanted=f"a table [{name}]")
        if name in SECTIONS:
            changes += [(f"{name}.{key}", _joined(inner)) for key, inner in value.items()]
        elif name in KEYS:
            changes.append((name, value))
        else:
            near = nearest(name, [*SECTIONS, *KEYS, "base"])
            raise RecipeError(f"unknown key '{name}' in {path}, did you mean '{near}'?")
    return replace_keys(PRESETS[base]() if base else Recipe(), changes)


def _joined(value: Any) -> Any:
    """Tables in tables as one: to TOML an unquoted path like cores.2.attn is three tables."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        leaves = _joined(inner)
        if isinstance(leaves, dict):
            flat |= {f"{key}.{rest}": leaf for rest, leaf in leaves.items()}
        else:
            flat[key] = leaves
    return flat


def _parse_override(text: str) -> tuple[str, Any]:
    """``section.key=value``: the value is TOML; where a string is wanted, quotes are optional."""
    key, equals, raw = (part.strip() for part in text.partition("="))
    if not equals:
        raise RecipeError(f"override '{text}'", wanted="section.key=value")
    table, path = locate(key)
    try:
        document = tomllib.loads(f"x={raw}")
    except tomllib.TOMLDecodeError:
        document = {}
    value = document["x"] if set(document) == {"x"} else raw
    bare = not path and is_text(KEYS[table]) and not isinstance(value, str)  # compile=true, name=1
    return key, raw if bare else _joined(value)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str):  # JSON's escapes are TOML's, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
