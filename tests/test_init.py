import math

import pytest
import torch
from torch import nn

from underpar.model import GPT
from underpar.recipe.schema import ModelSpec

SIZES = {"d_model": 128, "n_head": 2, "n_kv_head": 1, "d_ff": 192, "vocab_size": 96}
FULL = ModelSpec(
    **SIZES, n_layer=3, layout="cores", n_core=2, bigram_buckets=16, bigram_dim=64, smear=True
)


def published_draws(spec, seed):
    """The published construction, told by hand: plain framework layers, then the second draws."""
    torch.manual_seed(seed)
    kv = spec.n_kv_head * spec.d_head
    token = nn.Embedding(spec.vocab_size, spec.d_model)
    weights = {}
    nn.Embedding(spec.bigram_buckets, spec.bigram_dim)
    weights["bigram.proj"] = nn.Linear(spec.bigram_dim, spec.d_model, bias=False)
    for c in range(spec.cores):
        for name, n_in, n_out in (
            ("attn.c_q", spec.d_model, spec.d_model),
            ("attn.c_k", spec.d_model, kv),
            ("attn.c_v", spec.d_model, kv),
            ("attn.proj", spec.d_model, spec.d_model),
            ("mlp.fc", spec.d_model, spec.d_ff),
            ("mlp.proj", spec.d_ff, spec.d_model),
        ):
            weights[f"cores.{c}.{name}"] = nn.Linear(n_in, n_out, bias=False)
    nn.init.normal_(token.weight, std=spec.embed_std)
    for name, layer in weights.items():
        if name.endswith(("attn.proj", "mlp.proj")):
            nn.init.zeros_(layer.weight)
        else:
            nn.init.orthogonal_(layer.weight)
    with torch.no_grad():
        weights["bigram.proj"].weight *= 1 / math.sqrt(2 * spec.n_layer)
    return {"tok_emb": token, **weights}


def test_a_seed_gives_the_published_start_bit_for_bit():
    with torch.random.fork_rng():
        want = published_draws(FULL, seed=42)
    state = GPT(FULL, seed=42).state_dict()
    for name, layer in want.items():
        assert torch.equal(state[f"{name}.weight"], layer.weight), name
    assert state["bigram.embed.weight"].count_nonzero() == 0


def test_the_global_random_state_is_neither_used_nor_changed():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = GPT(FULL, seed=7).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = GPT(FULL, seed=7).state_dict(), GPT(FULL, seed=8).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["tok_emb.weight"], other["tok_emb.weight"])


def test_matrices_are_orthogonal_and_branches_end_in_zeros():
    state = GPT(ModelSpec(**SIZES, n_layer=2, layout="blocks"), seed=0).state_dict()
    for name in ("attn.c_q", "attn.c_k", "attn.c_v", "mlp.fc"):
        w = state[f"blocks.1.{name}.weight"]
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        assert torch.allclose(gram, torch.eye(len(gram)), atol=1e-5), name
    for name in ("attn.proj", "mlp.proj"):
        assert state[f"blocks.1.{name}.weight"].count_nonzero() == 0
    assert state["tok_emb.weight"].std().item() == pytest.approx(0.005, rel=0.05)


def test_narrow_maps_keep_the_uniform_default():
    spec = ModelSpec(
        **{**SIZES, "d_model": 32}, n_layer=2, layout="cores", bigram_buckets=8, bigram_dim=16
    )
    state = GPT(spec, seed=0).state_dict()
    for name, fan_in in (("cores.0.attn.c_q", 32), ("cores.1.mlp.fc", 32), ("bigram.proj", 16)):
        w = state[f"{name}.weight"]
        assert 0.9 / math.sqrt(fan_in) < w.abs().max() <= 1 / math.sqrt(fan_in), name


def test_an_untied_head_starts_at_zero_and_its_table_at_unit_normal():
    state = GPT(ModelSpec(**SIZES, n_layer=1, tied=False), seed=0).state_dict()
    assert state["lm_head.weight"].shape == (96, 128)
    assert state["lm_head.weight"].count_nonzero() == 0
    assert state["tok_emb.weight"].std().item() == pytest.approx(1.0, rel=0.05)


def test_constants():
    state = GPT(FULL, seed=0).state_dict()
    assert (state["blocks.0.attn_scale"] == 1).all()
    assert (state["blocks.0.mlp_scale"] == 1).all()
    assert (state["blocks.0.resid_mix"] == torch.tensor([[1.0], [0.0]])).all()
    assert (state["skip_weights"] == 1).all()
    assert (state["smear.gate"] == 0).all()
    assert state["bigram.scale"] == torch.tensor(0.05)
    assert (state["cores.0.attn.q_gain"] == FULL.qk_gain).all()


def test_bfloat16_tables_hold_the_rounded_draw_and_nothing_else_is_bfloat16():
    narrow = ModelSpec(**SIZES, n_layer=1, bigram_buckets=8, table_dtype="bfloat16")
    wide = ModelSpec(**SIZES, n_layer=1, bigram_buckets=8)
    state, want = GPT(narrow, seed=3).state_dict(), GPT(wide, seed=3).state_dict()
    halves = {name for name, w in state.items() if w.dtype is torch.bfloat16}
    assert halves == {"tok_emb.weight", "bigram.embed.weight"}
    assert torch.equal(state["tok_emb.weight"], want["tok_emb.weight"].bfloat16())
