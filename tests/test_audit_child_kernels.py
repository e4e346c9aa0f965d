"""The CPU stand-ins for attention and kernel libraries compute what the originals compute."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from underpar.audit.child import stubs_modules
from underpar.audit.child.stubs_attention import flash_attn_func, flash_attn_varlen_func
from underpar.audit.child.stubs_triton import modules as triton_modules


def _qkv(groups: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 9, 4, 8), torch.randn(2, 9, 4 // groups, 8), torch.randn(2, 9, 2, 8)


def test_dense_attention_with_and_without_window() -> None:
    q, k, v = _qkv()
    wanted = F.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), is_causal=True, enable_gqa=True
    ).transpose(1, 2)
    torch.testing.assert_close(flash_attn_func(q, k, v, causal=True), wanted)
    torch.testing.assert_close(flash_attn_func(q, k, v, 0.0, None, True), wanted)
    out, _ = flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    torch.testing.assert_close(out, wanted)
    near = flash_attn_func(q, k, v, causal=True, window_size=(2, 0))
    torch.testing.assert_close(near[:, :3], wanted[:, :3])
    assert (near[:, 5] - wanted[:, 5]).abs().max() > 1e-3


def test_packed_attention_does_not_cross_sequences() -> None:
    q, k, v = _qkv()
    starts = torch.tensor([0, 9, 18], dtype=torch.int32)
    packed = flash_attn_varlen_func(
        q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), starts, starts, 9, 9, causal=True
    )
    torch.testing.assert_close(packed, flash_attn_func(q, k, v, causal=True).flatten(0, 1))


def test_kernels_run_as_written() -> None:
    fake: Any = triton_modules()
    triton, tl = fake["triton"], fake["triton.language"]

    @triton.jit
    def softmax(out, x, stride, n, block: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)
        columns = tl.arange(0, block)
        mask = columns < n
        value = tl.load(x + row * stride + columns, mask=mask, other=-float("inf"))
        value = tl.exp(value - tl.max(value, axis=0))
        tl.store(out + row * stride + columns, value / tl.sum(value, axis=0), mask=mask)

    x = torch.randn(5, 7)
    out = torch.full_like(x, torch.nan)
    softmax[(5,)](out, x, x.stride(0), 7, block=8, num_warps=4)
    torch.testing.assert_close(out, x.softmax(-1))

    descriptor = fake["triton.tools.tensor_descriptor"].TensorDescriptor.from_tensor(x, [4, 4])
    block = descriptor.load([4, 4])
    assert block.shape == (4, 4)
    torch.testing.assert_close(block[:1, :3], x[4:, 4:])
    assert block[1:].abs().sum() == 0


def test_kernels_count_bits_and_leave_masked_places_alone() -> None:
    fake: Any = triton_modules()
    triton, tl = fake["triton"], fake["triton.language"]

    @triton.jit
    def ones(out, x, n, block: tl.constexpr):  # type: ignore[no-untyped-def]
        at = tl.program_id(0) * block + tl.arange(0, block)
        first = tl.load(x)
        value = tl.load(x + at, mask=at < n, other=0)
        tl.store(out + at, tl.extra.cuda.libdevice.popc(value), mask=at < n)
        tl.store(x, first + 1)
        tl.atomic_add(out + n, tl.sum(at * 0 + 1, axis=0) + first * 0)

    x = torch.tensor([0, 1, -1, 1 << 30, -(1 << 31)], dtype=torch.int32)
    out = torch.zeros(8, dtype=torch.int32)
    ones[(2,)](out, x, 5, block=4)
    assert out.tolist() == [0, 1, 32, 1, 1, 8, 0, 0]
    assert x[0] == 2


def test_a_recurrent_state_carries_what_went_into_it() -> None:
    """In two halves, with the state handed on, as in one go; and it is not the state of less."""
    rule = stubs_modules.StubModule("fla.ops").chunk_gated_delta_rule
    q, k, v = (F.normalize(torch.randn(2, 6, 3, 4), dim=-1) for _ in range(3))
    gate, beta = -torch.rand(2, 6, 3), torch.rand(2, 6, 3)
    whole, last = rule(q, k, v, g=gate, beta=beta, output_final_state=True)
    parts, state = [], None
    for half in (slice(0, 3), slice(3, 6)):
        part, state = rule(q[:, half], k[:, half], v[:, half], g=gate[:, half],
                           beta=beta[:, half], initial_state=state)  # fmt: skip
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(state, last)
    assert (rule(q[:, :5], k[:, :5], v[:, :5])[1] - last).abs().max() > 1e-3
    torch.testing.assert_close(rule(q, k, v)[0][:, 0], v[:, 0] * (q * k)[:, 0].sum(-1, True) / 2)
