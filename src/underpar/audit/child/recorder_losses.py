"""Calls that pick the entry of a row for each validation token: where scores are born."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .recorder_codes import NONE
from .recorder_state import current_recording
from .recorder_steps import pending
from .recorder_tensors import put, scalar_value

LOSSES = {"cross_entropy", "nll_loss", "cross_entropy_loss", "nll_loss_nd"}
PICKS = {"gather", "take_along_dim", "__getitem__", "index_select"}


def loss_call(name: str, func: Any, args: Any, kwargs: Any, out: Any) -> bool:
    """Record a call that picks the entries of rows at validation tokens. True if it was one."""
    if not isinstance(out, torch.Tensor):
        return False
    if name == "__getitem__":
        return _lookup(args[0], args[1], out)
    if not out.is_floating_point():
        return False
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
    ids = next((t for t in tensors if t.dtype in (torch.int64, torch.int32)), None)
    rows = next((t for t in tensors if t.is_floating_point() and t.dim() >= 2), None)
    if ids is None or rows is None or ids.numel() < 4 or rows.numel() % ids.numel():
        return False
    width = rows.numel() // ids.numel()
    if width < current_recording().vocab:
        return False
    if name in LOSSES and rows.dim() > 2:
        rows = rows.movedim(1, -1)
    elif rows.shape[-1] != width:
        return False
    return _record(rows, ids, width, out)


def _record(rows: torch.Tensor, ids: torch.Tensor, width: int, out: torch.Tensor) -> bool:
    recording = current_recording()
    flat = ids.detach().reshape(-1).cpu().numpy()
    table = rows.detach().reshape(-1, width)
    if recording.locate(flat) is None:
        return False
    codes = recording.score(flat, table.float().cpu().numpy(), None, out.requires_grad)
    assert codes is not None
    if out.requires_grad:
        pending(recording.lineage.events[-1])
    if out.numel() == ids.numel() and (out.dim() or ids.numel() == 1):
        put(out, codes.reshape(tuple(out.shape)))
    elif out.numel() == 1:
        nll = recording.lineage.events[-1].nll
        assert nll is not None
        keep = np.where((flat >= 0) & (recording.lineage.events[-1].pos >= -1), codes, NONE)
        code = recording.lineage.sum(keep, nll, scalar_value(out), recording.line())
        put(out, np.array(code).reshape(tuple(out.shape)))
    return True


def _lookup(source: Any, index: Any, out: torch.Tensor) -> bool:
    """`rows[range, targets]` and `byte_table[targets]`."""
    if not isinstance(source, torch.Tensor) or out.numel() < 4:
        return False
    last = index[-1] if isinstance(index, tuple) and index else index
    if not isinstance(last, torch.Tensor) or last.dtype not in (torch.int64, torch.int32):
        return False
    recording = current_recording()
    flat = last.detach().reshape(-1)
    if source.dim() == 1 and not source.is_floating_point():
        if not recording.vocab <= source.numel() <= 4 * recording.vocab:
            return False
        codes = recording.bytes_of(flat.cpu().numpy(), source.cpu().numpy())
    elif isinstance(index, tuple) and source.is_floating_point() and source.dim() == len(index):
        if source.shape[-1] < recording.vocab or last.numel() != out.numel():
            return False
        others = [
            i if not isinstance(i, torch.Tensor) else i.expand(last.shape) for i in index[:-1]
        ]
        rows = source.detach()[tuple(others)].reshape(-1, source.shape[-1])
        codes = None
        if len(rows) == len(flat):
            codes = recording.score(
                flat.cpu().numpy(), rows.float().cpu().numpy(), None, out.requires_grad
            )
    else:
        return False
    if codes is None:
        return False
    put(out, codes)
    return True
