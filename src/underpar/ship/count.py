"""Code bytes: the length of the program that would be handed in, counted beside the run.

Packing takes some seconds of one core, so it is done in a thread while the data are opened, and the
length is kept by a digest of all that it depends on: sources, recipe and Python version.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from underpar import progress, storage
from underpar.errors import MachineError
from underpar.recipe.plain import to_json
from underpar.recipe.schema import Recipe
from underpar.ship.closure import SOURCES
from underpar.ship.pack import minifier, packed


def counting(recipe: Recipe, cache: Path | None = None) -> Callable[[], int]:
    """Start to count the recipe's packed file; what is returned waits for the number and gives it.

    cache: a JSON file of lengths by digest; None: none is kept. Raises DependencyError at once when
    the library that shortens names is missing.
    """
    key, known = _digest(recipe), _read(cache)
    if key in known:
        return lambda: known[key]
    minifier()
    pool = ThreadPoolExecutor(1)
    future = pool.submit(packed, recipe)
    pool.shutdown(wait=False)

    def result() -> int:
        with progress.busy("packing the program that is handed in"):
            size = len(future.result())
        if cache is not None:
            with suppress(MachineError):  # a cache that cannot be written is no failure
                storage.write_text(cache, json.dumps({**_read(cache), key: size}) + "\n")
        return size

    return result


def _digest(recipe: Recipe) -> str:
    """Of all that the packed file depends on; the seed is not among it."""
    hasher = hashlib.sha256(sys.version.encode())
    hasher.update(json.dumps(to_json(replace(recipe, seed=0)), sort_keys=True).encode())
    for path in sorted((SOURCES / "underpar").rglob("*.py")):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _read(cache: Path | None) -> dict[str, int]:
    try:
        known = json.loads(cache.read_bytes()) if cache else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
