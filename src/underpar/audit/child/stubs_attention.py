"""flash-attention in its call forms, on PyTorch's scaled dot product attention.

Dense calls take [B, T, H, D], varlen calls take packed [N, H, D] with the starts of the sequences,
packed calls take q, k, v (or k, v) stacked in one tensor. All know grouped heads, causal masks
that end at the last key, and sliding windows (left, right), where -1 means no limit.
"""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.nn.functional as functional

from . import hits

_attention = functional.scaled_dot_product_attention
_NAMES = (
    "flash_attn_interface",
    "flash_attn",
    "flash_attn.flash_attn_interface",
    "flash_attn.cute",
    "flash_attn_3",
    "flash_attn_3.flash_attn_interface",
    "hopper.flash_attn_interface",
)


def _mask(
    queries: int, keys: int, causal: bool, window: tuple[int, int], device: torch.device
) -> torch.Tensor | None:
    """Boolean [queries, keys], True where attention is allowed; None where all of it is."""
    left, right = window
    if causal:
        right = 0
    if left < 0 and right < 0:
        return None
    at = torch.arange(queries, device=device)[:, None] + (keys - queries)
    key = torch.arange(keys, device=device)[None, :]
    allowed = torch.ones(queries, keys, dtype=torch.bool, device=device)
    if left >= 0:
        allowed &= key >= at - left
    if right >= 0:
        allowed &= key <= at + right
    return allowed


def _dense(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    groups = q.shape[2] // k.shape[2]
    q, k, v = (x.float().transpose(1, 2) for x in (q, k, v))
    if groups > 1:
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    return _attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)


def _options(kwargs: dict[str, Any]) -> tuple[float | None, bool, tuple[int, int]]:
    window = kwargs.get("window_size") or (-1, -1)
    left, right = (-1 if w is None else int(w) for w in window)
    return kwargs.get("softmax_scale"), bool(kwargs.get("causal")), (left, right)


def flash_attn_func(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any
) -> Any:
    """Dense attention [B, T, H, D]; with `return_attn_probs` the pair (output, log-sum-exp)."""
    hits.hit("flash_attn")
    scale, causal, window = _options(_named(args, kwargs))
    mask = _mask(q.shape[1], k.shape[1], causal, window, q.device)
    return _answer(_dense(q, k, v, scale=scale, mask=mask).to(q.dtype), kwargs)


def _answer(out: torch.Tensor, kwargs: dict[str, Any]) -> Any:
    asked = any(kwargs.get(n) for n in ("return_attn_probs", "return_softmax_lse"))
    return (out, torch.zeros(out.shape[:-1])) if asked else out


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Positional options: (dropout, scale, causal, ...) in version 2, (scale, causal, ...) in 3."""
    names = ["softmax_scale", "causal"]
    if len(args) > 1 and not isinstance(args[1], bool):
        names = ["dropout_p", "softmax_scale", "causal", "window_size"]
    elif args and isinstance(args[0], bool):
        names = ["causal"]
    return dict(zip(names, args)) | kwargs


def flash_attn_varlen_func(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any
) -> Any:
    """Attention within each packed sequence: [N, H, D] and int32 starts [sequences + 1]."""
    hits.hit("flash_attn_varlen")
    names = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")
    given = dict(zip(names, args)) | kwargs
    scale, causal, window = _options(given)
    starts_q = [int(i) for i in given["cu_seqlens_q"]]
    starts_k = [int(i) for i in given.get("cu_seqlens_k", given["cu_seqlens_q"])]
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    parts = []
    for a, b, c, d in zip(starts_q, starts_q[1:], starts_k, starts_k[1:]):
        if b > a:
            mask = _mask(b - a, d - c, causal, window, q.device)
            part = _dense(q[None, a:b], k[None, c:d], v[None, c:d], scale=scale, mask=mask)
            parts.append(part[0].to(q.dtype))
    done = starts_q[-1] - starts_q[0]
    return _answer(torch.cat([*parts, out[done:]]), kwargs)


def flash_attn_qkvpacked_func(qkv: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Dense attention over [B, T, 3, H, D]."""
    q, k, v = qkv.unbind(2)
    return flash_attn_func(q, k, v, *args, **kwargs)


def flash_attn_kvpacked_func(q: torch.Tensor, kv: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Dense attention of q over keys and values [B, T, 2, H, D]."""
    k, v = kv.unbind(2)
    return flash_attn_func(q, k, v, *args, **kwargs)


def modules() -> dict[str, types.ModuleType]:
    """Every module name under which scripts look for flash-attention."""
    found: dict[str, types.ModuleType] = {}
    for name in _NAMES:
        fake: Any = types.ModuleType(name)
        fake.__path__ = []
        fake.__version__ = "2.8.0"
        fake.flash_attn_func = flash_attn_func
        fake.flash_attn_varlen_func = flash_attn_varlen_func
        fake.flash_attn_qkvpacked_func = flash_attn_qkvpacked_func
        fake.flash_attn_kvpacked_func = flash_attn_kvpacked_func
        found[name] = fake
    for name, fake in found.items():
        parent, _, leaf = name.rpartition(".")
        if parent in found:
            setattr(found[parent], leaf, fake)
    found["hopper"] = types.ModuleType("hopper")
    return found
