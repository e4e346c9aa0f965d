"""submit.toml: what no record has. The author, the submission's name, what it builds on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from underpar.errors import DataError
from underpar.recipe.keys import nearest
from underpar.recipe.schema import Recipe
from underpar.submit.describe import summary

EXAMPLE = """\
author = "Ada Lovelace"
github_id = "ada"
name = "SP8192 + wider loops"
blurb = "Layers 4-5 looped three times instead of two."

[[parents]]                      # entries that this one is built on, nearest first
pr = 1413
by = "dexhunter"
what = "QK gain 5, score-first TTT; the base"

[[credits]]                      # ideas from elsewhere
who = "clarkkev"
what = "SDClip (PR #1394)"
"""


@dataclass(frozen=True)
class Parent:
    """An entry that this one is built on. pr: its number. by: GitHub name of its author."""

    pr: int
    by: str
    what: str


@dataclass(frozen=True)
class Credit:
    """Somebody whose idea is in this entry."""

    who: str
    what: str


@dataclass(frozen=True)
class Meta:
    """The content of a submit.toml. Empty strings: not stated."""

    author: str
    github_id: str
    name: str
    blurb: str
    parents: tuple[Parent, ...] = ()
    credits: tuple[Credit, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_meta(path: Path) -> Meta:
    """DataError: unreadable, an unknown or missing key, a value of the wrong type."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _bad(f"cannot read {path}", error.strerror) from error
    except ValueError as error:
        raise _bad(f"{path} is not TOML", str(error)) from error
    lists = {"parents": Parent, "credits": Credit}
    values = dict(document)
    for key, cls in lists.items():
        entries = values.pop(key, [])
        if not isinstance(entries, list):
            raise _bad(f"{path}: {key}", repr(entries), f"tables [[{key}]]")
        values[key] = tuple(_table(cls, entry, f"{path}: [[{key}]]") for entry in entries)
    return _table(Meta, values, str(path))


def default_meta(recipe: Recipe) -> Meta:
    """Without a submit.toml: name and blurb are the recipe's, its parent the entry in its name.

    author and github_id stay empty.
    """
    number = re.fullmatch(r"pr(\d+)", recipe.name)
    parents = (Parent(int(number[1]), "", "the recipe that was run"),) if number else ()
    return Meta("", "", recipe.name, f"{summary(recipe)}.", parents)


def _table(cls: type[Any], data: Any, where: str) -> Any:
    """A dataclass of strings and ints from a table: exactly its fields."""
    if not isinstance(data, Mapping):
        raise _bad(where, repr(data), "a table")
    known = {field.name: field for field in fields(cls)}
    for key in data:
        if key not in known:
            raise _bad(f"{where}: unknown key '{key}', did you mean '{nearest(key, known)}'?")
    for name, field in known.items():
        if name not in data and field.default is MISSING:
            raise _bad(f"{where}: key '{name}' is missing")
        value = data.get(name, field.default)
        kind = {"str": str, "int": int}.get(str(field.type))
        if kind and type(value) is not kind:
            raise _bad(f"{where}: {name}", repr(value), {str: "a string", int: "a number"}[kind])
        if kind is str and not value.strip():
            raise _bad(f"{where}: {name}", "an empty string", "some text")
    return cls(**data)


def _bad(what: str, got: str | None = None, wanted: str | None = None) -> DataError:
    return DataError(what, got=got, wanted=wanted, do=f"An example:\n{EXAMPLE.rstrip()}")
