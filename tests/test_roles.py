import pytest
import torch
from torch import nn

from underpar.model import GPT, Role, n_params, parameters_by_role, role_of
from underpar.model.roles import parameter
from underpar.recipe.schema import ModelSpec

WIDE = ModelSpec(
    vocab_size=32, d_model=16, n_head=4, n_kv_head=2, d_ff=24, n_layer=3, layout="cores", n_core=2,
    bigram_buckets=8, bigram_dim=4, smear=True, skip_gates=True, tied=False,
)  # fmt: skip


def test_every_parameter_declares_the_role_its_use_implies():
    roles = role_of(GPT(WIDE))
    assert roles["tok_emb.weight"] is Role.EMBEDDING
    assert roles["bigram.embed.weight"] is Role.HASH
    assert roles["bigram.proj.weight"] is Role.PROJECTION
    assert roles["bigram.scale"] is Role.SCALE
    assert roles["smear.gate"] is Role.GATE
    assert roles["skip_weights"] is Role.SKIP
    assert roles["skip_gates"] is Role.GATE
    assert roles["lm_head.weight"] is Role.HEAD
    assert roles["cores.1.attn.q_gain"] is Role.GAIN
    assert {roles[f"cores.0.attn.{m}.weight"] for m in ("c_q", "c_k", "c_v", "proj")} == {
        Role.ATTENTION
    }
    assert {roles[f"cores.0.mlp.{m}.weight"] for m in ("fc", "proj")} == {Role.MLP}
    assert roles["blocks.2.attn_scale"] is roles["blocks.2.mlp_scale"] is Role.SCALE
    assert roles["blocks.2.resid_mix"] is Role.MIX


def test_matrices_are_what_muon_takes_and_tables_are_tables():
    model = GPT(WIDE)
    for path, weight in model.named_parameters():
        role = role_of(model)[path]
        square = path.endswith("weight") and not path.startswith(("tok_emb", "lm_head"))
        assert role.is_matrix == (square and "embed" not in path), path
        assert role.is_table == (path in ("tok_emb.weight", "bigram.embed.weight")), path
        assert not role.is_matrix or weight.ndim == 2


def test_counts_by_role_add_up():
    model = GPT(WIDE)
    counts = parameters_by_role(model)
    assert counts[Role.EMBEDDING] == counts[Role.HEAD] == 32 * 16
    assert counts[Role.HASH] == 8 * 4
    assert counts[Role.MLP] == 2 * 2 * 16 * 24
    assert sum(counts.values()) == n_params(model)


def test_an_undeclared_parameter_is_an_error():
    model = GPT(WIDE)
    model.extra = nn.Parameter(torch.zeros(2))
    with pytest.raises(TypeError, match="extra has no role"):
        role_of(model)
    model.extra = parameter(torch.zeros(2), Role.GAIN)
    assert role_of(model)["extra"] is Role.GAIN
