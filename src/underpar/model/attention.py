"""Causal self-attention with normed queries and keys, rotary positions and grouped key/value heads.

Shapes: B batch, T new tokens, S tokens attended to (cached ones first, S >= T), D model width,
H query heads, K key/value heads, E head width, R rotated channels of a head, r = H / K.

Order of operations (both recipes): project; rms-norm q and k per head, without weights; rotate the
first R channels of both; multiply q by a learned gain per head; attend with the usual 1/sqrt(E);
optionally XSA; project. Query heads g*r .. (g+1)*r - 1 share key/value head g.

Rotary: channel i and channel i + R/2 form a pair, (a, b) -> (a cos + b sin, b cos - a sin), with
angle position * base^(-2i/R). Both published scripts kept the frequencies in bfloat16 (0.4% off)
and could round positions above 256 as well; here frequencies, positions and angles are float32 and
only cosine and sine are cast. The tables are computed in every forward pass: they cost less than
one norm, and a table kept from a pass under inference mode would break the next backward.

XSA (#456, #1413): y - (y . u) u with u = v / |v|, v the value vector of the *same* position and
group, neither normed nor rotated. What a token would merely copy from itself is left to the MLP.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from underpar.model.cache import Cache
from underpar.model.layers import Linear, rms_norm
from underpar.model.roles import Role, parameter
from underpar.recipe.schema import ModelSpec

#: Hopper: cuDNN's kernels first, then flash, then whatever can do it at all
_HOPPER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]

#: Up to this length the CPU's bfloat16 matmuls beat its fused kernel, whose backward is slow:
#: forward and backward of 16 x 4 heads of 256 tokens take 21 ms compiled instead of 34, of 8 x 4
#: heads of 512 tokens 40 instead of 50 (two cores with AVX512-BF16).
PLAIN_TOKENS = 512


class Rotation(NamedTuple):
    """Cosines and sines [T, R/2] of the positions of one forward pass."""

    cos: Tensor
    sin: Tensor


def rotation(
    spec: ModelSpec, start: int, n: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> Rotation:
    """Tables of positions start .. start + n - 1; float64 for activations of that ``dtype``.

    With ``rope_ntk`` and start + n > seq_len the base grows by ((start + n) / seq_len)^(R/(R-2)),
    which stretches the slowest wave by exactly that ratio (#1413). R = 2 has one wave, the fastest.
    """
    rotated = spec.rope_dims or spec.d_head
    base, length = spec.rope_base, start + n
    if spec.rope_ntk and length > spec.seq_len and rotated > 2:
        base *= (length / spec.seq_len) ** (rotated / (rotated - 2))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponents = torch.arange(0, rotated, 2, device=device, dtype=wide) / rotated
    positions = torch.arange(start, length, device=device, dtype=wide)
    angles = positions[:, None] * base**-exponents
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, tables: Rotation) -> Tensor:
    """Rotate the first R channels of x [..., T, E]; the others pass through."""
    cos, sin = tables.cos.to(x.dtype), tables.sin.to(x.dtype)
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos + b * sin, b * cos - a * sin, rest), dim=-1)


def _kernels(device: torch.device) -> AbstractContextManager[None]:
    # get_device_capability would be the obvious call; the compiler can only fold this one.
    if device.type == "cuda" and torch.cuda.get_device_properties(device).major == 9:
        return sdpa_kernel(_HOPPER, set_priority=True)
    return nullcontext()


def attend(q: Tensor, k: Tensor, v: Tensor, *, cached: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(E)) v, causal: q [B, H, T, E], k and v [B, K, S, E] -> [B, H, T, E].

    The last query sees all S keys, the one before it S - 1, and so on: the T queries are the newest
    of S tokens. cached: S may be larger than T.
    """
    new, seen, groups = q.shape[-2], k.shape[-2], q.shape[1] // k.shape[1]
    mask, causal = None, True
    if cached:
        if new == 1 and q.device.type == "cpu":
            return _attend_one(q, k, v)
        causal = new == seen and new > 1
        if 1 < new < seen:  # the kernels' own causal flag aligns at the top left: wrong here
            mask = torch.ones(new, seen, dtype=torch.bool, device=q.device).tril(seen - new)
    short = causal and seen <= PLAIN_TOKENS and q.device.type == "cpu"
    # Only the 16-bit CUDA kernels share key/value heads themselves; elsewhere the flag means the
    # slow path, and repeating the heads is faster.
    native = q.is_cuda and q.dtype != torch.float32 and mask is None and groups > 1
    if groups > 1 and not native:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    if short and q.dtype == torch.bfloat16:
        return _attend_plainly(q, k, v)
    with _kernels(q.device):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=native
        )


def _attend_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One query [B, H, 1, E] over all keys, a key/value head with its queries as one matmul.

    The CPU's fused kernel takes ten times as long for a single query, and "queries times keys" half
    as long again as "keys times queries".
    """
    grouped = q.view(*k.shape[:2], -1, q.shape[-1])
    scores = (k @ (grouped * q.shape[-1] ** -0.5).mT).mT
    return (_softmax(scores).to(v.dtype) @ v).view_as(q)


def _softmax(scores: Tensor) -> Tensor:
    """In float32 at least."""
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return scores.softmax(-1, dtype=wide)


def _attend_plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention spelt out: scores, mask, float32 softmax, weighted sum."""
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return _softmax(scores.masked_fill(future, -torch.inf)).to(v.dtype) @ v


def without_own_value(y: Tensor, v: Tensor) -> Tensor:
    """XSA: y [B, H, T, E] minus its projection on the position's own v [B, K, T, E]."""
    batch, heads, n, width = y.shape
    grouped = y.view(batch, v.shape[1], heads // v.shape[1], n, width)
    unit = F.normalize(v, dim=-1, eps=1e-12).unsqueeze(2)
    return (grouped - (grouped * unit).sum(-1, keepdim=True) * unit).view_as(y)


class Attention(nn.Module):
    """x [B, T, D] -> [B, T, D]."""

    def __init__(self, spec: ModelSpec, *, xsa: bool) -> None:
        super().__init__()
        self.n_head, self.n_kv_head = spec.n_head, spec.n_kv_head
        self.eps, self.xsa = spec.rms_eps, xsa
        width = spec.n_kv_head * spec.d_head
        self.c_q = Linear(spec.d_model, spec.d_model, Role.ATTENTION)
        self.c_k = Linear(spec.d_model, width, Role.ATTENTION)
        self.c_v = Linear(spec.d_model, width, Role.ATTENTION)
        self.proj = Linear(spec.d_model, spec.d_model, Role.ATTENTION, zero_init=True)
        self.q_gain = parameter(torch.full((spec.n_head,), spec.qk_gain), Role.GAIN)

    def forward(
        self, x: Tensor, tables: Rotation, *, cache: Cache | None = None, slot: int = 0
    ) -> Tensor:
        """With a cache, keys and values of x are appended to virtual layer ``slot``."""
        q = _heads(self.c_q(x), self.n_head)
        k = _heads(self.c_k(x), self.n_kv_head)
        own = _heads(self.c_v(x), self.n_kv_head)
        q = rotate(rms_norm(q, self.eps), tables) * self.q_gain.to(x.dtype)[:, None, None]
        k = rotate(rms_norm(k, self.eps), tables)
        keys, values = (k, own) if cache is None else cache.append(slot, k, own)
        y = attend(q, keys, values, cached=cache is not None)
        if self.xsa:
            y = without_own_value(y, own)
        return self.proj(y.transpose(1, 2).reshape(x.shape))


def _heads(x: Tensor, n: int) -> Tensor:
    """[B, T, n*E] -> [B, n, T, E]"""
    return x.view(*x.shape[:2], n, -1).transpose(1, 2)
