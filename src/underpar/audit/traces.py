"""Reading what the child process left: bytes of a stranger's making, believed in nothing.

The submission runs in the process that writes these files, so they may hold anything. Every size is
checked before memory is given, every dtype and length before an array is used, no object array is
ever built, and what does not fit is an error of that run, not of the auditor.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeGuard

import numpy as np

from underpar.audit.facts import Trace

MOST_FILE = 256 << 20  # bytes of one result file, and of all its arrays when unpacked
MOST_TEXT = 16 << 20  # bytes of one JSON file
MOST_ROWS = 20_000_000  # entries of one array
MOST_NUMBERS = 10_000  # reported numbers, byte denominators

#: Arrays of the byte table: bytes of a token, leading space, boundary.
TABLES = ("base_bytes", "has_leading_space", "is_boundary")
ARRAYS = tuple(f.name for f in fields(Trace) if f.name not in ("reported", "bytes", "table"))


class BadTrace(ValueError):
    """The files of a run are not what the recorder writes."""


def read(arrays: bytes, notes: bytes) -> Trace:
    """The trace of one rank from the contents of trace-R.npz and trace-R.json.

    Raises BadTrace, and nothing else, whatever the bytes are.
    """
    said = record(notes)
    try:
        found = _arrays(arrays)
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError,
            RuntimeError, MemoryError, SyntaxError, RecursionError) as error:  # fmt: skip
        raise BadTrace(f"arrays of the trace: {error}") from error
    for letter in "cts":
        lengths = {len(a) for name, a in found.items() if name.startswith(f"{letter}_")}
        if len(lengths) > 1:
            raise BadTrace(f"arrays {letter}_* of the trace: lengths {sorted(lengths)}")
    table = {name: found.pop(name) for name in TABLES if name in found}
    reported = said.get("reported", [])
    seen = said.get("bytes", [])
    if not isinstance(reported, list) or not isinstance(seen, list):
        raise BadTrace("notes of the trace: reported and bytes are lists")
    return Trace(
        **found,
        reported=tuple(_number(entry) for entry in reported[:MOST_NUMBERS]),
        bytes=tuple(float(v) for v in seen[:MOST_NUMBERS] if _finite(v)),
        table=table,
    )


def record(text: bytes) -> dict[str, Any]:
    """A JSON object of the child's. BadTrace when it is something else, or too large."""
    if len(text) > MOST_TEXT:
        raise BadTrace(f"JSON of the child: {len(text)} bytes")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadTrace(f"JSON of the child: {error}") from error
    if not isinstance(value, dict):
        raise BadTrace("JSON of the child is no object")
    return value


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    template = Trace()
    found = {}
    room = MOST_FILE
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy").removeprefix("table_")
            if name not in ARRAYS and name not in TABLES:
                continue
            with archive.open(info) as stream:
                body = stream.read(room + 1)
            room -= len(body)
            if room < 0:
                raise ValueError(f"more than {MOST_FILE} bytes")
            found[name] = _array(body, name)
    for name in ARRAYS:
        if name in found:
            found[name] = found[name].astype(getattr(template, name).dtype, copy=False)
    return found


def _array(data: bytes, name: str) -> np.ndarray:
    """One one-dimensional array of numbers; its header is read before its body."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    header = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
    if header is None:
        raise ValueError(f"{name} is of format {version}")
    shape, _, dtype = header(stream)
    if len(shape) != 1 or not 0 <= shape[0] <= MOST_ROWS:
        raise ValueError(f"{name} has the shape {shape}")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ValueError(f"{name} has the type {dtype}")
    stream.seek(0)
    array = np.lib.format.read_array(stream, allow_pickle=False)
    wanted = getattr(Trace(), name, None)
    if isinstance(wanted, np.ndarray) and not _fits(array, wanted.dtype):
        raise ValueError(f"{name} has the type {dtype}, wanted {wanted.dtype}")
    return array


def _fits(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether the values mean the same as ``dtype``: no cut numbers, no floats for indices."""
    if dtype.kind == "f":
        return True
    if array.dtype.kind == "f" or array.dtype == np.uint64:
        return False
    limits = np.iinfo(dtype)
    return not array.size or bool(array.min() >= limits.min and array.max() <= limits.max)


def _number(entry: object) -> Mapping[str, Any]:
    """One reported number: {"name": str, "value": float, "line": int or str}."""
    if not isinstance(entry, dict):
        raise BadTrace("notes of the trace: a reported number is no object")
    value, line = entry.get("value"), entry.get("line")
    return {
        "name": str(entry.get("name", ""))[:200],
        "value": float(value) if _finite(value) else math.nan,
        "line": line if isinstance(line, int) else str(line or "")[:2000],
    }


def _finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and abs(value) < 1e300
