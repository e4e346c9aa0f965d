"""Environment names: defaults of the scripts give the presets, and every name means something."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from underpar.errors import RecipeError
from underpar.recipe.env_names import SCRIPT_456, SCRIPT_1413
from underpar.recipe.from_env import from_env, looks_like_ours, parse, pick, to_toml
from underpar.recipe.keys import KEYS
from underpar.recipe.load import flatten, resolve
from underpar.recipe.presets import PRESETS
from underpar.recipe.schema import ModelSpec, Recipe

#: What #456's run had in its environment and its file's defaults.
RUN_456 = """
    ADAM_EPS=1e-8 ADAM_WD=0.01 ALL_INT5=0 BETA1=0.9 BETA2=0.95 BIGRAM_DIM=128
    BIGRAM_VOCAB_SIZE=10240 CONTROL_TENSOR_NAME_PATTERNS=q_gain DATA_PATH=./data EMBED_LR=0.6
    EVAL_BATCH_SEQS=64 EVAL_STRIDE=128 FP16_KEEP_NAME_PATTERNS=tok_emb,cores.2.attn.c_k GPTQ_LITE=0
    GRAD_CLIP_NORM=0.3 HEAD_LR=0.008 INT8_CLIP_PERCENTILE=99.99984 ITERATIONS=5200 LATE_QAT=1
    LOCAL_RANK=0 LOGIT_SOFTCAP=30.0 MATRIX_LR=0.025 MAX_WALLCLOCK_SECONDS=0 MLP_ACTIVATION=relu_sq
    MLP_MULT=3.0 MODEL_DIM=512 MUON_BACKEND_STEPS=5 MUON_MOMENTUM=0.99
    MUON_MOMENTUM_WARMUP_START=0.92 MUON_MOMENTUM_WARMUP_STEPS=1500 NUM_HEADS=8 NUM_KV_HEADS=4
    NUM_LAYERS=10 PRUNE_FRAC=0.03 QAT_THRESHOLD=0.1 QK_GAIN_INIT=1.5 QUANT_EVAL_EVERY=0 RANK=0
    ROPE_BASE=10000.0 RUN_ID=x SCALAR_LR=0.025 SEED=42 SWA_ENABLED=1 SWA_EVERY=50
    SWA_START_FRAC=0.2 TIED_EMBED_INIT_STD=0.005 TIED_EMBED_LR=0.035 TIE_EMBEDDINGS=1
    TOKENIZER_PATH=x.model TRAIN_BATCH_TOKENS=786432 TRAIN_LOG_EVERY=100 TRAIN_SEQ_LEN=2048
    TTT_BATCH_SEQS=16 TTT_CHUNK_TOKENS=32768 TTT_ENABLED=1 TTT_EPOCHS=1 TTT_FREEZE_BLOCKS=0
    TTT_GRAD_CLIP=1.0 TTT_LR=0.0005 UNIQUE_LAYERS=10 VAL_BATCH_SIZE=524288 VAL_LOSS_EVERY=500
    VOCAB_SIZE=1024 WARMDOWN_ITERS=3000 WARMUP_STEPS=20 WEIGHT_DECAY=0.04 WORLD_SIZE=4 XSA_LAST_N=3
"""
#: The same of #1413's run with seed 42.
RUN_1413 = """
    ADAM_EPS=1e-08 ADAM_WD=.02 BETA1=.9 BETA2=.95 COMPRESSOR=brotli
    CONTROL_TENSOR_NAME_PATTERNS=q_gain DATA_DIR=./data/ EMA_DECAY=.997 EMBEDDING_DIM=512
    EMBED_BITS=8 EMBED_CLIP_SIGMAS=2e1 EMBED_LR=.6 EMBED_WD=.085 ENABLE_LOOPING_AT=.5
    EVAL_SEQ_LEN=2048 EVAL_STRIDE=64 GPTQ_CALIBRATION_BATCHES=64 GPTQ_RESERVE_SECONDS=12.
    GRAD_CLIP_NORM=.3 HEAD_LR=.008 ITERATIONS=20000 LN_SCALE=1 LOCAL_RANK=0 LOGIT_SOFTCAP=3e1
    LOOP_END=5 LOOP_START=4 MATRIX_BITS=6 MATRIX_CLIP_SIGMAS=12.85 MATRIX_LR=.02
    MAX_WALLCLOCK_SECONDS=6e2 MIN_LR=.0 MLP_MULT=4. MODEL_DIM=512 MUON_BACKEND_STEPS=5
    MUON_BETA2=.95 MUON_MOMENTUM=.99 MUON_MOMENTUM_WARMUP_START=.92 MUON_MOMENTUM_WARMUP_STEPS=1500
    MUON_ROW_NORMALIZE=1 MUON_WD=.085 NUM_HEADS=8 NUM_KV_HEADS=4 NUM_LAYERS=11 NUM_LOOPS=2
    QK_GAIN_INIT=5.0 RANK=0 ROPE_BASE=1e4 ROPE_DIMS=16 ROPE_TRAIN_SEQ_LEN=2048 RUN_ID=x
    SCALAR_LR=.02 SEED=42 SKIP_GATES_ENABLED=1 SLIDING_WINDOW_ENABLED=1 TIED_EMBED_INIT_STD=.005
    TIED_EMBED_LR=.03 TIE_EMBEDDINGS=1 TRAIN_BATCH_TOKENS=786432 TRAIN_LOG_EVERY=500
    TRAIN_SEQ_LEN=2048 TTT_BATCH_SEQS=32 TTT_CHUNK_TOKENS=32768 TTT_ENABLED=1 TTT_EPOCHS=3
    TTT_FREEZE_BLOCKS=0 TTT_GRAD_CLIP=1. TTT_LR=.005 TTT_MOMENTUM=.9 VAL_BATCH_TOKENS=524288
    VAL_LOSS_EVERY=4000 VOCAB_SIZE=8192 WARMDOWN_FRAC=.667 WARMUP_STEPS=20 WORLD_SIZE=8
    XSA_LAST_N=11
"""
RUNNER = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "RUN_ID", "DATA_PATH", "DATA_DIR", "TOKENIZER_PATH"}


@pytest.mark.parametrize(("preset", "run"), [("pr456", RUN_456), ("pr1413", RUN_1413)])
def test_the_published_settings_are_the_preset(preset: str, run: str) -> None:
    settings = parse(run.split())
    base = PRESETS[preset]()
    mapped = from_env(settings, base)
    context = 2048 if preset == "pr1413" else 0  # EVAL_SEQ_LEN says it out loud
    want = resolve(preset, [f"score.context={context}"])
    assert mapped.recipe == want
    assert mapped.used.keys() | mapped.ignored.keys() == settings.keys()
    assert not mapped.used.keys() & mapped.ignored.keys()
    assert {name for name, why in mapped.ignored.items() if "--data" in why} == RUNNER & set(
        settings
    )
    assert from_env({}, base).recipe == base


#: What the published scripts fix in code, so no setting can reach it.
FIXED_456 = """name model.smear quant.matrix_bits quant.mlp_bits quant.embed_bits
    quant.passthrough quant.overrides quant.compressor score.ttt_optimizer train.matrix_wd"""
FIXED_1413 = """name data.loader model.activation model.rope_ntk train.average quant.method
    quant.clip quant.symmetric quant.byte_shuffle quant.fill"""


@pytest.mark.parametrize(
    ("preset", "run", "fixed"), [("pr456", RUN_456, FIXED_456), ("pr1413", RUN_1413, FIXED_1413)]
)
def test_settings_turn_plain_defaults_into_the_preset(preset: str, run: str, fixed: str) -> None:
    want = PRESETS[preset]()
    plain = Recipe(model=ModelSpec(layout=want.model.layout))
    got = flatten(from_env(parse(run.split()), plain).recipe)
    differ = {key for key, value in flatten(want).items() if got[key] != value}
    assert differ <= {*fixed.split(), "score.context"}


@pytest.mark.parametrize("script", [SCRIPT_456, SCRIPT_1413])
def test_tables_name_real_keys(script: dict) -> None:
    for entry in script.values():
        assert {entry} <= KEYS.keys() if isinstance(entry, str) else set(entry[1]) <= KEYS.keys()


def changed(base: str, *settings: str) -> dict[str, object]:
    """What the settings change: dotted key -> value."""
    before = flatten(PRESETS[base]())
    after = flatten(from_env(parse(settings), PRESETS[base]()).recipe)
    return {key: value for key, value in after.items() if value != before[key]}


@pytest.mark.parametrize(
    ("base", "settings", "want"),
    [
        ("pr1413", ["ADAM_WD=.1"], {"train.scalar_wd": 0.1}),
        ("pr456", ["ADAM_WD=.1"], {"train.scalar_wd": 0.1, "train.token_wd": 0.1}),
        ("pr1413", ["MUON_WD=.1", "EMBED_WD=.2"], {"train.matrix_wd": 0.1, "train.token_wd": 0.2}),
        ("pr1413", ["MODEL_DIM=256"], {"model.d_model": 256, "model.d_ff": 1024}),
        ("pr1413", ["MLP_MULT=3.5"], {"model.d_ff": 1792}),
        ("pr1413", ["TIED_EMBED_LR=.1", "EMBED_LR=.2"], {"train.token_lr": 0.1}),
        ("pr1413", ["TIE_EMBEDDINGS=0"], {"model.tied": False, "train.token_lr": 0.6}),
        (
            "pr1413",
            ["EMBED_LR=.2", "TIE_EMBEDDINGS=0", "TIED_EMBED_LR=.1"],
            {"model.tied": False, "train.token_lr": 0.2},
        ),
        ("pr1413", ["TRAIN_SEQ_LEN=1024"], {"model.seq_len": 1024, "score.context": 2048}),
        ("pr456", ["TRAIN_SEQ_LEN=1024"], {"model.seq_len": 1024}),
        ("pr1413", ["EVAL_SEQ_LEN=4096"], {"score.context": 4096}),
        (
            "pr1413",
            ["TRAIN_BATCH_TOKENS=524288"],
            {"train.batch_tokens": 524_288, "train.micro_tokens": 65_536},
        ),
        ("pr1413", ["MAX_WALLCLOCK_SECONDS=-1"], {"train.seconds": 0.0}),
        ("pr456", ["SWA_ENABLED=0"], {"train.average": "none"}),
        ("pr456", ["LATE_QAT=0", "QAT_THRESHOLD=.2"], {"train.qat_below": 0.0}),
        ("pr456", ["LATE_QAT=1", "QAT_THRESHOLD=.2"], {"train.qat_below": 0.2}),
        ("pr456", ["GPTQ_LITE=1"], {"quant.clip": "search"}),
        ("pr456", ["ALL_INT5=1"], {"quant.matrix_bits": 5, "quant.hash_bits": 5}),
        ("pr456", ["MLP_ACTIVATION=Leaky_ReLU_sq"], {"model.activation": "leaky_relu2"}),
        ("pr456", ["UNIQUE_LAYERS=5"], {"model.n_core": 5}),
        ("pr456", ["UNIQUE_LAYERS=5", "NUM_LAYERS=4"], {"model.n_layer": 4}),
        ("pr456", ["UNIQUE_LAYERS=2"], {"model.n_core": 2, "quant.overrides": {}}),
        ("pr456", ["EVAL_STRIDE=0"], {"score.stride": 2048, "score.ttt": False}),
        ("pr1413", ["SLIDING_WINDOW_ENABLED=0"], {}),
        (
            "pr1413",
            ["SLIDING_WINDOW_ENABLED=0", "TTT_ENABLED=0"],
            {"score.stride": 2048, "score.ttt": False},
        ),
        ("pr1413", ["LN_SCALE=0", "NUM_LOOPS=0"], {"model.ln_scale": False, "model.loop_extra": 0}),
        ("pr456", ["MUON_WD=.1", "EMA_DECAY=.9"], {}),  # #456's script reads neither
    ],
)
def test_what_settings_mean(base: str, settings: list[str], want: dict[str, object]) -> None:
    assert changed(base, *settings) == want


@pytest.mark.parametrize(
    ("setting", "base", "message"),
    [
        ("TTT_EPOCH=3", "pr1413", "reads 'TTT_EPOCH', did you mean 'TTT_EPOCHS'"),
        ("MATRIXLR=3", "pr1413", "did you mean 'MATRIX_LR'"),
        ("EMBEDDING_DIM=256", "pr1413", "EMBEDDING_DIM: got 256, wanted MODEL_DIM = 512"),
        ("ITERATIONS=many", "pr456", "ITERATIONS: got 'many', wanted an integer"),
        ("ITERATIONS=1e3", "pr456", "wanted an integer"),
        ("MATRIX_LR=", "pr456", "wanted a number"),
        ("SWA_ENABLED=yes", "pr456", "wanted 0 or 1"),
        ("COMPRESSOR=zip", "pr1413", "quant.compressor.*zstd, brotli, lzma"),
        ("NUM_HEADS=7", "pr1413", "model.n_head"),
    ],
)
def test_bad_settings_are_refused(setting: str, base: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        from_env(parse([setting]), PRESETS[base]())


def test_a_setting_needs_a_value() -> None:
    with pytest.raises(RecipeError, match="wanted NAME=VALUE"):
        parse(["SEED"])


def test_a_process_environment_is_picked_over() -> None:
    foreign = "PATH HOME TERM SHLVL LANG PWD USER MASTER_PORT CUDA_VISIBLE_DEVICES OMP_NUM_THREADS"
    torchrun = "LOCAL_WORLD_SIZE GROUP_RANK ROLE_RANK ROLE_WORLD_SIZE GROUP_WORLD_SIZE"
    environment = dict.fromkeys(f"{foreign} {torchrun} NCCL_NET PYTHONHASHSEED".split(), "1")
    assert not [name for name in environment if looks_like_ours(name)]
    assert pick({**environment, "SEED": "3"}) == {"SEED": "3"}
    for misspelt in ("TTT_EPOCH", "MATRIXLR", "NUM_LAYER", "WARMDOWN_ITER", "SEEDS"):
        with pytest.raises(RecipeError, match=misspelt):
            pick({**environment, misspelt: "3"})


def test_the_file_it_prints_resolves_to_the_recipe(tmp_path: Path) -> None:
    settings = parse(["MATRIX_LR=.03", "RUN_ID=x", "UNIQUE_LAYERS=2", "SEED=5"])
    mapped = from_env(settings, PRESETS["pr456"]())
    text = to_toml(mapped)
    assert "# MATRIX_LR: train.matrix_lr = 0.03" in text
    assert "# RUN_ID ignored: not part of a recipe" in text
    assert tomllib.loads(text)["seed"] == 5
    path = tmp_path / "x.toml"
    path.write_text(text)
    assert resolve(str(path)) == mapped.recipe
