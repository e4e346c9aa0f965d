"""Golden numbers: compare our code with a folder of reference results.

Each module beside this one checks some of the files; a check reads every size and setting out of
the file itself, so folders with other shapes work too. ``python -m tests.golden DIR`` runs all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Check:
    """One line of the report. ``ok`` None means skipped, with the reason in ``note``."""

    name: str
    ok: bool | None
    worst: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        status = {True: "PASS", False: "FAIL", None: "SKIP"}[self.ok]
        worst = "" if self.ok is None else f"  worst {self.worst:.3g}"
        return f"{status}  {self.name}{worst}{f'  ({self.note})' if self.note else ''}"


#: file name pattern (fnmatch) -> function of the file's path
CheckFunction = Callable[[Path], Iterator[Check]]


def close(name: str, got: object, want: object, *, atol: float = 0.0, rtol: float = 0.0) -> Check:
    """|got - want| <= atol + rtol * |want| everywhere; worst is the largest |got - want|."""
    a, b = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    if a.shape != b.shape:
        return Check(name, False, float("inf"), f"shape {a.shape}, wanted {b.shape}")
    gap = np.abs(a - b)
    ok = bool(np.all(gap <= atol + rtol * np.abs(b)))  # NaN compares false, so it fails
    return Check(name, ok, float(gap.max()) if gap.size else 0.0)


def equal(name: str, got: object, want: object) -> Check:
    """Exactly equal (integers, strings, lists); worst counts the differing elements."""
    a, b = np.asarray(got), np.asarray(want)
    if a.shape != b.shape:
        return Check(name, False, float("inf"), f"shape {a.shape}, wanted {b.shape}")
    differ = int((a != b).sum())
    return Check(name, differ == 0, differ)
