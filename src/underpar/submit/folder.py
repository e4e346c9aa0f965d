"""Writes a submission folder, whole or not at all.

    README.md  submission.json  underpar.json  train_gpt.py  requirements.txt  train_seed<N>.log ...

It is written under another name in the same place and renamed at the end, so a full disk, a refusal
or a Ctrl-C leaves nothing behind. Bytes are lengths of files: code bytes are the length of
train_gpt.py, and its sum with the model file that was scored is compared with the cap.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from underpar import progress, storage
from underpar.errors import DataError, MachineError
from underpar.recipe.schema import Recipe
from underpar.submit.checks import examine, track_of
from underpar.submit.describe import requirements
from underpar.submit.logs import log_name, published_log
from underpar.submit.meta import Meta, default_meta
from underpar.submit.published import own_json, submission_json
from underpar.submit.readme import readme
from underpar.submit.runs import read_runs
from underpar.submit.seeds import Seeds

CODE, READABLE = "train_gpt.py", "train_gpt_readable.py"

#: (recipe, folder) -> (readable file, packed file), both written into the folder
Bundle = Callable[[Recipe, Path], tuple[Path, Path]]


def submit(
    sources: Sequence[Path],
    out: Path,
    *,
    write_code: Bundle,
    track: str | None = None,
    meta: Meta | None = None,
) -> Seeds:
    """Write the submission of finished runs into ``out``, which must not exist yet.

    sources: run folders, one a seed. write_code: writes the program (``ship.write``). track: its
    name; None: chosen by the hardware of the runs. meta: a submit.toml's content; None: the
    recipe's name and blurb. Returns the table of seeds. Raises DataError, BudgetError or
    LegalityError when the runs make no valid submission, MachineError without space.
    """
    runs = read_runs(sources)
    chosen = track_of(track, runs)
    about = meta or default_meta(runs[0].recipe)
    with appearing(out) as folder:
        _write_code(runs[0].recipe, folder, write_code)
        code_bytes = (folder / CODE).stat().st_size
        checks = examine(runs, code_bytes, chosen)
        seeds = Seeds.of(runs, code_bytes, chosen.cap)
        for run in runs:
            storage.write_text(folder / log_name(run), published_log(run, code_bytes))
        storage.write_text(folder / "requirements.txt", requirements(runs))
        published = submission_json(runs, seeds, about, chosen, code_bytes)
        _write_json(folder / "submission.json", published)
        own = own_json(runs, seeds, about, chosen, checks, _facts(folder))
        _write_json(folder / "underpar.json", own)
        text = readme(runs, seeds, about, chosen, checks, _facts(folder))
        storage.write_text(folder / "README.md", text)
    return seeds


def bundle_only(recipe: Recipe, out: Path, *, write_code: Bundle) -> dict[str, int]:
    """Write just the code of a recipe into ``out``: train_gpt.py and its readable twin.

    Returns name -> bytes. ``out`` must not exist yet.
    """
    with appearing(out) as folder:
        _write_code(recipe, folder, write_code, readable=True)
        return {name: facts["bytes"] for name, facts in _facts(folder).items()}


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, renamed to ``out`` when the block ends, or deleted if it raises.

    DataError when ``out`` exists; MachineError with the reason when it cannot be written.
    """
    out = Path(out)
    if out.exists():
        raise DataError(
            f"folder {out}",
            got="it exists already",
            wanted="a new one, so that nothing is lost",
            do="Choose another with -o, or remove it.",
        )
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        yield beside
        beside.rename(out)
    except OSError as error:
        raise MachineError(
            f"cannot write {out}",
            got=error.strerror or str(error),
            do="Nothing was written: free some space or choose another place, and run it again.",
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # has been renamed, unless something failed


def _write_code(recipe: Recipe, folder: Path, write: Bundle, *, readable: bool = False) -> None:
    """Write train_gpt.py, and its readable twin if wanted."""
    with tempfile.TemporaryDirectory() as place, progress.busy(f"packing {CODE}"):
        plain, packed = write(recipe, Path(place))
        storage.write_bytes(folder / CODE, packed.read_bytes())
        if readable:
            storage.write_bytes(folder / READABLE, plain.read_bytes())


def _facts(folder: Path) -> dict[str, dict[str, Any]]:
    """name -> bytes and SHA-256 of the files written so far."""
    files = ((path.name, path.read_bytes()) for path in sorted(folder.iterdir()))
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files
    }


def _write_json(path: Path, data: object) -> None:
    storage.write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
