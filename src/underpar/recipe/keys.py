"""The keys of a recipe: what exists, what type each takes, what was probably meant.

Read off the schema's annotations once, so no second list of knobs can go stale. Types are strict:
an int is welcome as a float, a bool is never a number, a Literal lists its choices.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from underpar.errors import RecipeError
from underpar.recipe.plain import SECTIONS

#: dotted key -> its annotation, in the schema's order
KEYS: dict[str, Any] = {"name": str, "seed": int} | {
    f"{section}.{key}": hint
    for section, cls in SECTIONS.items()
    for key, hint in get_type_hints(cls).items()
}
_WANTED = {bool: "true or false", int: "an integer", float: "a finite number", str: "a string"}


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name most like ``word``: by spelling, or by one of its underscored parts.

    Of dotted keys the section counts a little: 'quant.bitz' is nearer to 'quant.matrix_bits' than
    to anything in another section.
    """
    section, _, key = word.lower().rpartition(".")

    def likeness(name: str) -> float:
        other_section, _, other = name.lower().rpartition(".")
        part = max(ratio(key, part) for part in other.split("_"))
        return max(ratio(key, other), 0.9 * part) + 0.1 * ratio(section, other_section)

    return max(known, key=likeness)


def ratio(a: str, b: str) -> float:
    """How alike two words are, 0 to 1 (difflib: twice the matching letters over all letters)."""
    return difflib.SequenceMatcher(None, a, b).ratio()


def locate(key: str) -> tuple[str, str]:
    """(key of the schema, path inside its table or ''). RecipeError if there is no such key.

    Both 'quant.overrides."a.b"' and 'quant.overrides.a.b' name the entry 'a.b' of a table.
    """
    if key in KEYS:
        return key, ""
    for table, hint in KEYS.items():
        if get_origin(hint) is Mapping and key.startswith(f"{table}."):
            return table, key.removeprefix(f"{table}.").strip("\"'")
    raise RecipeError(f"unknown key '{key}', did you mean '{nearest(key, KEYS)}'?")


def is_text(hint: Any) -> bool:
    """Whether a key with this annotation takes a string."""
    return hint is str or get_origin(hint) is Literal


def checked(key: str, value: Any, hint: Any) -> Any:
    """``value`` as the plain type that ``hint`` asks for. RecipeError: what was got and wanted."""
    origin = get_origin(hint)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if origin is Mapping and isinstance(value, Mapping):
        return {str(path): checked(f"{key}.{path}", v, int) for path, v in sorted(value.items())}
    if origin is Literal and isinstance(value, str) and value in get_args(hint):
        return value
    if hint is float and number and -1e300 < value < 1e300:  # false for NaN, too
        return float(value)
    if hint in _WANTED and hint is not float and type(value) is hint:
        return value
    if origin is Literal:
        wanted = "one of " + ", ".join(get_args(hint))
    else:
        wanted = _WANTED.get(hint, "a table of parameter paths and bits")
    raise RecipeError(f"recipe key '{key}'", got=repr(value), wanted=wanted)


def check_names(what: str, data: Any, known: Iterable[str]) -> None:
    """RecipeError unless ``data`` is a mapping with exactly the ``known`` names."""
    if not isinstance(data, Mapping):
        raise RecipeError(f"recipe section '{what}'", got=repr(data), wanted="a table of keys")
    names = list(known)
    for name in data:
        if name not in names:
            near = nearest(str(name), names)
            raise RecipeError(f"unknown key '{name}' in {what}, did you mean '{near}'?")
    for name in names:
        if name not in data:
            raise RecipeError(f"key '{name}' is missing in {what}")
