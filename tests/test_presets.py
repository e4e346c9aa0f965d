"""Presets: the published numbers, one by one, from the papers of record (not from the module)."""

from __future__ import annotations

import re

import pytest

from underpar.recipe.load import flatten
from underpar.recipe.plain import digest
from underpar.recipe.presets import PRESETS

PR1413 = """
    seed 42, data.loader shuffled, model.vocab_size 8192, model.seq_len 2048, model.n_layer 11
    model.layout blocks, model.n_core 0, model.d_model 512, model.n_head 8, model.n_kv_head 4
    model.d_ff 2048, model.activation leaky_relu2, model.qk_gain 5.0, model.rope_base 10000.0
    model.rope_dims 16, model.rope_ntk True, model.xsa_last 11, model.ln_scale True
    model.skip_gates True, model.bigram_buckets 0, model.smear False, model.loop_start 4
    model.loop_end 5, model.loop_extra 2, model.tied True, model.softcap 30.0, model.embed_std 0.005
    train.seconds 600.0, train.reserve_seconds 12.0, train.iterations 20000
    train.batch_tokens 786432, train.micro_tokens 98304, train.warmup_steps 20
    train.warmdown_iters 0, train.warmdown_frac 0.667, train.min_lr 0.0, train.loop_at 0.5
    train.token_lr 0.03, train.head_lr 0.008, train.matrix_lr 0.02, train.scalar_lr 0.02
    train.token_wd 0.085, train.matrix_wd 0.085, train.scalar_wd 0.02, train.adam_beta1 0.9
    train.adam_beta2 0.95, train.adam_eps 1e-08, train.muon_momentum 0.99
    train.muon_momentum_start 0.92, train.muon_momentum_warmup 1500, train.muon_ns_steps 5
    train.muon_row_norm True, train.grad_clip 0.3, train.average ema, train.ema_decay 0.997
    train.qat_below 0.0, train.prune 0.0, train.val_every 4000, quant.method gptq, quant.clip std
    quant.symmetric True, quant.matrix_bits 6, quant.mlp_bits 0, quant.embed_bits 8
    quant.matrix_k 12.85, quant.mlp_k 0.0, quant.embed_k 20.0, quant.passthrough 65536
    quant.overrides {}, quant.calibration_batches 64, quant.damp 0.01, quant.block_size 128
    quant.compressor brotli, quant.byte_shuffle True, score.context 0, score.stride 64
    score.window_batch 32, score.ttt True, score.ttt_optimizer sgd, score.ttt_lr 0.005
    score.ttt_momentum 0.9, score.ttt_epochs 3, score.ttt_chunk 32768, score.ttt_batch 32
    score.ttt_clip 1.0, score.ttt_freeze 0, budget.bytes 16000000
"""
PR456 = """
    seed 42, data.loader sequential, model.vocab_size 1024, model.seq_len 2048, model.n_layer 10
    model.layout cores, model.n_core 0, model.d_model 512, model.n_head 8, model.n_kv_head 4
    model.d_ff 1536, model.activation relu2, model.qk_gain 1.5, model.rope_base 10000.0
    model.rope_dims 0, model.xsa_last 3, model.ln_scale False, model.skip_gates False
    model.bigram_buckets 10240, model.bigram_dim 128, model.smear True, model.loop_extra 0
    model.tied True, model.softcap 30.0, model.embed_std 0.005, train.seconds 0.0
    train.iterations 5200, train.batch_tokens 786432, train.micro_tokens 98304
    train.warmup_steps 20, train.warmdown_iters 3000, train.warmdown_frac 0.0
    train.token_lr 0.035, train.head_lr 0.008, train.matrix_lr 0.025, train.scalar_lr 0.025
    train.token_wd 0.01, train.matrix_wd 0.04, train.scalar_wd 0.01, train.adam_beta1 0.9
    train.adam_beta2 0.95, train.adam_eps 1e-08, train.muon_momentum 0.99
    train.muon_momentum_start 0.92, train.muon_momentum_warmup 1500, train.muon_ns_steps 5
    train.muon_row_norm False, train.grad_clip 0.3, train.average swa, train.swa_start 0.2
    train.swa_every 50, train.qat_below 0.1, train.prune 0.03, train.val_every 500
    train.log_every 100, quant.method round, quant.clip max, quant.symmetric False
    quant.matrix_bits 6, quant.mlp_bits 5, quant.embed_bits 16, quant.hash_bits 0
    quant.passthrough 8192, quant.overrides {'cores.2.attn.c_k.weight': 16}
    quant.compressor zstd, quant.byte_shuffle False, score.context 0, score.stride 128
    score.window_batch 64, score.ttt True, score.ttt_optimizer adamw, score.ttt_lr 0.0005
    score.ttt_epochs 1, score.ttt_chunk 32768, score.ttt_batch 16, score.ttt_clip 1.0
    score.ttt_freeze 0, budget.bytes 16000000
"""
NAIVE = """
    seed 1337, data.loader sequential, model.vocab_size 1024, model.seq_len 1024, model.n_layer 9
    model.d_model 512, model.n_head 8, model.n_kv_head 4, model.d_ff 1024, model.activation relu2
    model.qk_gain 1.5, model.xsa_last 0, model.bigram_buckets 0, model.smear False, model.tied True
    train.seconds 600.0, train.reserve_seconds 0.0, train.iterations 20000
    train.batch_tokens 524288, train.micro_tokens 65536, train.warmup_steps 20
    train.warmdown_iters 1200, train.token_lr 0.05, train.matrix_lr 0.04, train.scalar_lr 0.04
    train.token_wd 0.0, train.matrix_wd 0.0, train.scalar_wd 0.0, train.muon_momentum 0.95
    train.muon_momentum_start 0.85, train.muon_momentum_warmup 500, train.grad_clip 0.0
    train.average none, train.qat_below 0.0, train.prune 0.0, train.val_every 1000
    quant.method round, quant.clip max, quant.symmetric True, quant.matrix_bits 8
    quant.embed_bits 8, quant.passthrough 65536, quant.compressor lzma, score.context 0
    score.stride 1024, score.ttt False, budget.bytes 16000000
"""


@pytest.mark.parametrize(
    ("name", "table"), [("pr1413", PR1413), ("pr456", PR456), ("naive_baseline", NAIVE)]
)
def test_published_settings(name: str, table: str) -> None:
    want = dict(
        re.match(r"(\S+) (.*)", item).groups() for item in re.split(r",?\s*\n\s*|, ", table.strip())
    )
    got = {key: str(value) for key, value in flatten(PRESETS[name]()).items() if key in want}
    assert got == want


#: A digest that moves makes foreign what was run before: no run folder of that preset goes on with
#: ``--resume``, no record is of the same recipe. So a change here says so in CHANGELOG.md, under
#: *Numbers*. Print them anew with
#:   python -c "from tests.test_presets import *; print(digests())"
DIGESTS = {
    "pr1413": "999a0aabc3911c41898cc1e6e0c558c8e9db9eada2ba6d7f2b6633bc2c5883bd",
    "pr456": "8d20f80518db2a782464b3b0d857e19963f14cff148bc46d6a1d32cf16c592e0",
    "naive_baseline": "db4d36a341c7e8fb0c00970240db1c4ca8051f2eb9c7a40ad27a9867fbb9cfbf",
    "demo": "0451d74d38af0695ef84c6a1c3e21581b17e84442aa871697362d51f87e69799",
    "nano": "a76a80bcd1a6962423c208eac9cd96fe0eb0c6177a8d277d6720807f816bc3d1",
}


def digests() -> dict[str, str]:
    return {name: digest(preset()) for name, preset in PRESETS.items()}


def test_digests_are_what_they_were() -> None:
    assert digests() == DIGESTS
    assert len(set(DIGESTS.values())) == len(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_names_and_docstrings(name: str) -> None:
    assert PRESETS[name]().name == name
    first, *rest = (PRESETS[name].__doc__ or "").splitlines()
    assert len(first) <= 100
    assert any(line.strip().startswith("published:") for line in rest)
    assert any(line.strip().startswith("measured here:") for line in rest)
