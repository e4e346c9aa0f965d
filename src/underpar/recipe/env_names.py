"""Environment variables of #456's and #1413's training scripts, and the recipe keys they set.

Data only. A name maps to the one key that takes its value as it is, or to a type and the keys that
a rule in ``from_env`` works out, or to the reason why it has no place in a recipe.
"""

from __future__ import annotations

#: value type, and the keys that the rule may touch
Rule = tuple[type, tuple[str, ...]]

#: name -> the one key that takes its value as it is
BOTH = {
    "ADAM_EPS": "train.adam_eps",
    "BETA1": "train.adam_beta1",
    "BETA2": "train.adam_beta2",
    "GRAD_CLIP_NORM": "train.grad_clip",
    "HEAD_LR": "train.head_lr",
    "ITERATIONS": "train.iterations",
    "LOGIT_SOFTCAP": "model.softcap",
    "MATRIX_LR": "train.matrix_lr",
    "MUON_BACKEND_STEPS": "train.muon_ns_steps",
    "MUON_MOMENTUM": "train.muon_momentum",
    "MUON_MOMENTUM_WARMUP_START": "train.muon_momentum_start",
    "MUON_MOMENTUM_WARMUP_STEPS": "train.muon_momentum_warmup",
    "NUM_HEADS": "model.n_head",
    "NUM_KV_HEADS": "model.n_kv_head",
    "NUM_LAYERS": "model.n_layer",
    "QK_GAIN_INIT": "model.qk_gain",
    "ROPE_BASE": "model.rope_base",
    "SCALAR_LR": "train.scalar_lr",
    "SEED": "seed",
    "TIED_EMBED_INIT_STD": "model.embed_std",
    "TRAIN_LOG_EVERY": "train.log_every",
    "TTT_BATCH_SEQS": "score.ttt_batch",
    "TTT_CHUNK_TOKENS": "score.ttt_chunk",
    "TTT_ENABLED": "score.ttt",
    "TTT_EPOCHS": "score.ttt_epochs",
    "TTT_FREEZE_BLOCKS": "score.ttt_freeze",
    "TTT_GRAD_CLIP": "score.ttt_clip",
    "TTT_LR": "score.ttt_lr",
    "VAL_LOSS_EVERY": "train.val_every",
    "VOCAB_SIZE": "model.vocab_size",
    "WARMUP_STEPS": "train.warmup_steps",
    "XSA_LAST_N": "model.xsa_last",
}
ONLY_456 = {
    "BIGRAM_DIM": "model.bigram_dim",
    "BIGRAM_VOCAB_SIZE": "model.bigram_buckets",
    "EVAL_BATCH_SEQS": "score.window_batch",
    "PRUNE_FRAC": "train.prune",
    "QAT_THRESHOLD": "train.qat_below",
    "SWA_EVERY": "train.swa_every",
    "SWA_START_FRAC": "train.swa_start",
    "WARMDOWN_ITERS": "train.warmdown_iters",
}
ONLY_1413 = {
    "ADAM_WD": "train.scalar_wd",
    "COMPRESSOR": "quant.compressor",
    "EMA_DECAY": "train.ema_decay",
    "EMBED_BITS": "quant.embed_bits",
    "EMBED_CLIP_SIGMAS": "quant.embed_k",
    "EMBED_WD": "train.token_wd",
    "ENABLE_LOOPING_AT": "train.loop_at",
    "EVAL_SEQ_LEN": "score.context",
    "GPTQ_CALIBRATION_BATCHES": "quant.calibration_batches",
    "GPTQ_RESERVE_SECONDS": "train.reserve_seconds",
    "LN_SCALE": "model.ln_scale",
    "LOOP_END": "model.loop_end",
    "LOOP_START": "model.loop_start",
    "MATRIX_BITS": "quant.matrix_bits",
    "MATRIX_CLIP_SIGMAS": "quant.matrix_k",
    "MIN_LR": "train.min_lr",
    "MUON_ROW_NORMALIZE": "train.muon_row_norm",
    "MUON_WD": "train.matrix_wd",
    "NUM_LOOPS": "model.loop_extra",
    "ROPE_DIMS": "model.rope_dims",
    "SKIP_GATES_ENABLED": "model.skip_gates",
    "TTT_MOMENTUM": "score.ttt_momentum",
    "WARMDOWN_FRAC": "train.warmdown_frac",
}
RULES_BOTH: dict[str, Rule] = {
    "EMBED_LR": (float, ("train.token_lr",)),
    "EVAL_STRIDE": (int, ("score.stride", "score.ttt")),
    "MAX_WALLCLOCK_SECONDS": (float, ("train.seconds",)),
    "MLP_MULT": (float, ("model.d_ff",)),
    "MODEL_DIM": (int, ("model.d_model", "model.d_ff")),
    "TIED_EMBED_LR": (float, ("train.token_lr",)),
    "TIE_EMBEDDINGS": (bool, ("model.tied", "train.token_lr")),
    "TRAIN_BATCH_TOKENS": (int, ("train.batch_tokens", "train.micro_tokens")),
    "TRAIN_SEQ_LEN": (int, ("model.seq_len", "score.context")),
}
RULES_456: dict[str, Rule] = {
    "ADAM_WD": (float, ("train.token_wd", "train.scalar_wd")),
    "ALL_INT5": (bool, ("quant.matrix_bits", "quant.mlp_bits", "quant.hash_bits")),
    "GPTQ_LITE": (bool, ("quant.clip",)),
    "LATE_QAT": (bool, ("train.qat_below",)),
    "MLP_ACTIVATION": (str, ("model.activation",)),
    "SWA_ENABLED": (bool, ("train.average",)),
    "UNIQUE_LAYERS": (int, ("model.n_core",)),
}
RULES_1413: dict[str, Rule] = {
    "EMBEDDING_DIM": (int, ("model.d_model",)),
    "SLIDING_WINDOW_ENABLED": (bool, ("score.stride",)),
}
RUNNER = "not part of a recipe: use --data, --tokenizer, --out, or torchrun"
IGNORED = dict.fromkeys(
    ("DATA_DIR", "DATA_PATH", "LOCAL_RANK", "RANK", "RUN_ID", "TOKENIZER_PATH", "WORLD_SIZE"),
    RUNNER,
) | {
    "CONTROL_TENSOR_NAME_PATTERNS": "parameters are treated by role here, not by name",
    "FP16_KEEP_NAME_PATTERNS": "set quant.embed_bits and quant.overrides, by exact path",
    "INT8_CLIP_PERCENTILE": "no tensor of that recipe is clipped so; see quant.clip",
    "MUON_BETA2": "read by the script and used nowhere",
    "QUANT_EVAL_EVERY": "validation during training sees the weights in training",
    "ROPE_TRAIN_SEQ_LEN": "read by the script and used nowhere; the length is model.seq_len",
    "VAL_BATCH_SIZE": "validation is scored in batches of score.window_batch windows",
    "VAL_BATCH_TOKENS": "validation is scored in batches of score.window_batch windows",
    "WEIGHT_DECAY": "read by the script and used nowhere; Muon's is train.matrix_wd",
}
SCRIPT_456 = BOTH | ONLY_456 | RULES_BOTH | RULES_456
SCRIPT_1413 = BOTH | ONLY_1413 | RULES_BOTH | RULES_1413
#: names that set a recipe's keys, and all names that either script reads
MEANING = SCRIPT_456.keys() | SCRIPT_1413.keys()
KNOWN: frozenset[str] = frozenset(MEANING | IGNORED.keys())
