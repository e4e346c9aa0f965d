"""Hessians against the definition: record every input of every matrix, then sum x x^T."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import children
from underpar import dist
from underpar.errors import DataError
from underpar.model import GPT
from underpar.model.layers import Linear
from underpar.quant.calibrate import hessians
from underpar.recipe.schema import ModelSpec

LOOPED = ModelSpec(
    vocab_size=40, seq_len=12, n_layer=3, d_model=16, n_head=2, n_kv_head=1, d_ff=24,
    loop_start=1, loop_end=2, loop_extra=2, skip_gates=True, ln_scale=True,
)  # fmt: skip
SHARED = ModelSpec(
    vocab_size=40, seq_len=12, n_layer=4, n_core=2, layout="cores", d_model=16, n_head=2,
    n_kv_head=2, d_ff=24, bigram_buckets=20, bigram_dim=8, smear=True, tied=False,
    table_dtype="bfloat16",
)  # fmt: skip


def lively(spec: ModelSpec) -> GPT:
    """A model without zero matrices, looping where it can."""
    model = GPT(spec, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.2)
    model.looping = spec.loop_extra > 0
    return model


def batches(n: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, 40, (2, 12), generator=generator) for _ in range(n)]


@torch.no_grad()
def slow(model: GPT, data: list[Tensor]) -> dict[str, Tensor]:
    """Every input kept, one product at the end, float64, no sharing."""
    seen: dict[str, list[Tensor]] = defaultdict(list)
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            module.register_forward_pre_hook(
                lambda _, args, path=f"{name}.weight": seen[path].append(args[0].clone())
            )
    model.final_norm.register_forward_hook(lambda _, a, out: seen["tok_emb.weight"].append(out))
    for ids in data:
        model(ids)
    if not model.spec.tied:
        del seen["tok_emb.weight"]
    flat = {p: torch.cat([x.double().flatten(0, -2) for x in xs]) for p, xs in seen.items()}
    return {path: x.t() @ x / len(data) for path, x in flat.items()}


@pytest.mark.parametrize("spec", [LOOPED, SHARED], ids=["looped-tied", "shared-untied"])
def test_equals_the_definition(spec: ModelSpec) -> None:
    model = lively(spec)
    got, want = hessians(model, batches()), slow(model, batches())
    assert got.keys() == want.keys()
    for path, h in got.items():
        assert h.dtype == torch.float32
        torch.testing.assert_close(h.double(), want[path], rtol=1e-4, atol=1e-4)


def test_one_a_matrix_and_one_for_the_tied_table() -> None:
    # Six matrices a layer and the table, whatever is shared: 11 layers make the 67 of #1413.
    assert len(hessians(lively(LOOPED), batches(1))) == 6 * 3 + 1


def test_query_key_and_value_share_one_sum_over_all_passes() -> None:
    got = hessians(lively(LOOPED), batches(1))
    q, k, v, out = (got[f"blocks.1.attn.{n}.weight"] for n in ("c_q", "c_k", "c_v", "proj"))
    assert q is k
    assert q is v
    assert q is not out


def test_loops_count_every_pass() -> None:
    model = lively(LOOPED)
    looped = hessians(model, batches(1))["blocks.1.attn.c_q.weight"].trace()
    model.looping = False
    once = hessians(model, batches(1))["blocks.1.attn.c_q.weight"].trace()
    assert 2.5 < looped / once < 3.5  # inputs are normed, so each pass adds about the same


def test_a_sum_does_not_depend_on_what_else_is_asked_for() -> None:
    model, path = lively(LOOPED), "blocks.2.attn.c_k.weight"
    alone = hessians(model, batches(), {path})
    assert list(alone) == [path]
    assert torch.equal(alone[path], hessians(model, batches())[path])


def test_bfloat16_activations_are_summed_in_float32() -> None:
    model = lively(LOOPED)
    exact = hessians(model, batches())["tok_emb.weight"]
    model.compute_dtype = torch.bfloat16
    rounded = hessians(model, batches())["tok_emb.weight"]
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.1


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model = lively(LOOPED).train(training)
    hessians(model, batches(1))
    assert model.training is training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def _one_rank(folder: str) -> None:
    """Rank 0 takes three of the four batches, rank 1 the other."""
    with dist.processes():
        mine = batches(4)[:3] if dist.is_main() else batches(4)[3:]
        sums = {path: h.numpy() for path, h in hessians(lively(LOOPED), mine).items()}
        np.savez(f"{folder}/{dist.rank()}.npz", **sums)
        with pytest.raises(DataError, match=r"\[1, 0\] batches"):
            hessians(lively(LOOPED), mine[: 1 - dist.rank()])


def test_two_processes_equal_one(tmp_path: Path) -> None:
    children.ranks(_one_rank, str(tmp_path))
    alone = hessians(lively(LOOPED), batches(4))
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as together:
            assert set(together.files) == alone.keys()
            for path, h in alone.items():
                np.testing.assert_allclose(together[path], h.numpy(), rtol=1e-5, atol=1e-5)


def test_no_batch_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one batch"):
        hessians(lively(LOOPED), [])
