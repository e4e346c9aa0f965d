"""The one recording of this process, and helpers that every hook needs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .recorder_codes import BYTES, NONE, SCORE, Lineage
from .recorder_positions import Positions


@dataclass
class Recording:
    """What has been seen so far in this process."""

    scratch: Path
    rank: int
    stream: np.ndarray
    positions: Positions
    vocab: int
    lineage: Lineage = field(default_factory=Lineage)
    uses: list[tuple[int, int, np.ndarray]] = field(default_factory=list)  # seq, line, positions
    reported: list[dict[str, Any]] = field(default_factory=list)
    formatted: list[tuple[str, float, int]] = field(default_factory=list)  # text, value, code
    tables: dict[str, np.ndarray] = field(default_factory=dict)
    replay: dict[str, Any] = field(default_factory=dict)
    alternative: int = -1
    alternatives: list[dict[str, np.ndarray]] = field(default_factory=list)

    def line(self) -> int:
        """Line of the innermost frame in the script or one of its siblings, 0 if there is none."""
        frame = sys._getframe(1)
        root = str(self.scratch)
        best = 0
        while frame is not None:
            name = frame.f_code.co_filename
            if name.endswith("script.py"):
                return frame.f_lineno
            if not best and name.startswith(root):
                best = frame.f_lineno
            frame = frame.f_back  # type: ignore[assignment]
        return best

    def locate(self, ids: np.ndarray) -> np.ndarray | None:
        return self.positions.locate(ids)

    def score(
        self, ids: np.ndarray, rows: np.ndarray | None, nll: np.ndarray | None, grad: bool
    ) -> np.ndarray | None:
        """Codes for scores of targets `ids` [n] under rows of logits [n, V]; None if not ours."""
        pos = self.locate(ids)
        if pos is None:
            return None
        digest = None
        if rows is not None:
            nll, digest = nll_and_digest(rows, ids)
        return self.lineage.event(SCORE, self.line(), pos, grad=grad, nll=nll, digest=digest)

    def bytes_of(self, ids: np.ndarray, table: np.ndarray) -> np.ndarray | None:
        """Codes for byte counts looked up in a table of the vocabulary at tokens `ids` [n]."""
        pos = self.locate(ids)
        if pos is None:
            return None
        self.keep_table(table)
        return self.lineage.event(BYTES, self.line(), pos)

    def keep_table(self, table: np.ndarray) -> None:
        if table.dtype.kind != "b":
            self.tables.setdefault("base_bytes", table.astype(np.int64))
        elif "has_leading_space" not in self.tables:
            self.tables["has_leading_space"] = table.astype(np.int64)
        elif not np.array_equal(self.tables["has_leading_space"], table.astype(np.int64)):
            self.tables.setdefault("is_boundary", table.astype(np.int64))

    def merged(self, codes: list[tuple[np.ndarray, tuple[int, ...]]], shape: Any) -> Any:
        """Codes of an elementwise result of `shape` from tracked operands (codes, shape)."""
        out = None
        for code, _ in codes:
            try:
                wide = np.broadcast_to(code, shape)
            except ValueError:
                size = int(np.prod(shape))
                if code.size != size:
                    continue
                wide = code.reshape(shape)
            out = wide if out is None else self.lineage.merge(out.reshape(-1), wide.reshape(-1))
            out = out.reshape(shape)
        return None if out is None or not (out != NONE).any() else np.array(out)


def nll_and_digest(rows: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log softmax(rows)[ids] and one number that changes when any entry of the row does.

    Rows of logits, of log probabilities and (all entries in [0, 1] with sum 1) of probabilities
    describe a distribution alike. Both results float64 [n].
    """
    rows = rows.astype(np.float64)
    if rows.size and rows.min() >= 0 and np.allclose(rows.sum(-1), 1, atol=1e-3):
        rows = np.log(np.maximum(rows, 1e-300))
    top = rows.max(-1, keepdims=True)
    logs = rows - top - np.log(np.exp(rows - top).sum(-1, keepdims=True))
    weights = 0.5 + np.modf(np.arange(1, rows.shape[1] + 1) * 0.6180339887498949)[0]
    safe = np.clip(ids.astype(np.int64), 0, rows.shape[1] - 1)
    digest = np.maximum(logs, -1e3) @ weights / rows.shape[1]
    return -logs[np.arange(len(rows)), safe], digest


CURRENT: list[Recording] = []


def current_recording() -> Recording:
    """The recording of this process."""
    return CURRENT[-1]
