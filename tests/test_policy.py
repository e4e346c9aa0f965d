"""Who gets how many bits: by role, by size, by exact path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from underpar.errors import RecipeError
from underpar.model import GPT
from underpar.quant.policy import FLOAT16, Treatment, policy
from underpar.recipe.schema import ModelSpec, QuantSpec

MODEL = ModelSpec(
    vocab_size=64, seq_len=16, n_layer=2, layout="cores", d_model=16, n_head=2, n_kv_head=1,
    d_ff=32, bigram_buckets=32, bigram_dim=8, smear=True,
)  # fmt: skip
QUANT = QuantSpec(matrix_bits=6, mlp_bits=5, hash_bits=4, embed_bits=7, passthrough=0)
GPTQ = replace(QUANT, method="gptq", clip="std", symmetric=True)


def treatments(quant: QuantSpec, **model: object) -> dict[str, Treatment]:
    with torch.device("meta"):
        return policy(GPT(replace(MODEL, **model)), quant)


def test_bits_go_by_role() -> None:
    got = treatments(QUANT)
    assert got["cores.1.attn.c_q.weight"] == Treatment(6, "max", QUANT.matrix_k)
    assert got["cores.0.mlp.proj.weight"].bits == 5
    assert got["bigram.embed.weight"].bits == got["bigram.proj.weight"].bits == 4
    assert got["tok_emb.weight"].bits == 7
    assert got["blocks.0.resid_mix"] == got["smear.gate"] == got["skip_weights"] == FLOAT16


def test_unset_bits_are_those_of_matrices() -> None:
    got = treatments(replace(QUANT, mlp_bits=0, hash_bits=0))
    assert {got[path].bits for path in got if "mlp" in path or "bigram.embed" in path} == {6, 16}
    assert got["blocks.0.mlp_scale"] == FLOAT16


def test_small_tensors_stay_float16() -> None:
    elements = 16 * 16
    got = treatments(replace(QUANT, passthrough=elements))
    assert got["cores.0.attn.c_q.weight"] == FLOAT16  # exactly at the limit
    assert treatments(replace(QUANT, passthrough=elements - 1))["cores.0.attn.c_q.weight"].bits == 6


def test_gptq_needs_a_hessian_only_where_a_product_is_taken() -> None:
    got = treatments(GPTQ)
    assert got["tok_emb.weight"].hessian
    assert got["bigram.proj.weight"].hessian
    assert not got["bigram.embed.weight"].hessian
    untied = treatments(GPTQ, tied=False)
    assert not untied["tok_emb.weight"].hessian
    assert untied["lm_head.weight"] == Treatment(7, "std", GPTQ.embed_k, True, hessian=True)


def test_clip_widths_go_by_role() -> None:
    quant = replace(GPTQ, matrix_k=10.0, mlp_k=11.0, embed_k=12.0)
    got = treatments(quant)
    ks = [got[f"{p}.weight"].k for p in ("cores.0.attn.proj", "cores.0.mlp.fc", "tok_emb")]
    assert ks == [10.0, 11.0, 12.0]


def test_an_untied_head_is_rounded_at_8_bits() -> None:
    assert treatments(QUANT, tied=False)["lm_head.weight"] == Treatment(8)


def test_overrides_win_over_role_and_size() -> None:
    path = "cores.0.attn.c_k.weight"
    got = treatments(replace(QUANT, passthrough=10**6, overrides={path: 3}))
    assert got[path].bits == 3
    assert treatments(replace(QUANT, overrides={path: 16}))[path] == FLOAT16
    assert treatments(replace(GPTQ, overrides={path: 3}))[path].hessian


def test_an_unknown_path_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"nearest is 'cores\.0\.attn\.c_k\.weight'"):
        treatments(replace(QUANT, overrides={"core.0.attn.c_k.weight": 16}))


def test_a_vector_cannot_be_put_on_a_grid() -> None:
    with pytest.raises(RecipeError, match="role GATE"):
        treatments(replace(QUANT, overrides={"smear.gate": 8}))
    assert treatments(replace(QUANT, overrides={"smear.gate": 16}))["smear.gate"] == FLOAT16
