"""What a run is, as plain frozen data.

Six sections; a function takes its section, never the whole recipe. Every section checks itself when
it is built, so an impossible recipe cannot exist. Defaults are the plain choice; presets say what
they change. Zero means "off" wherever a count, fraction or time is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from underpar.bits import BUDGET_BYTES
from underpar.errors import RecipeError

#: float32 machine epsilon: what an unset eps means to torch's rms_norm, and what both recipes ran.
FLOAT32_EPS = 1.1920929e-07

Dtype = Literal["auto", "float32", "bfloat16"]


def _check(ok: bool, key: str, got: object, wanted: str) -> None:
    if not ok:
        raise RecipeError(f"recipe key '{key}'", got=got, wanted=wanted)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where text comes from and in which order training sees it."""

    corpus: Literal["shards", "sotu", "generated"] = "shards"
    tokenizer: Literal["sentencepiece", "bytes"] = "sentencepiece"
    loader: Literal["sequential", "shuffled", "recent"] = "sequential"
    half_life: float = 0.1  # of loader 'recent': share of the stream over which weight halves
    held_out: int = 10  # documents at the end of the corpus that only the final score may see

    def __post_init__(self) -> None:
        _check(self.half_life > 0, "data.half_life", self.half_life, "more than 0")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The network. Sizes in the field's letters; everything both published recipes use."""

    vocab_size: int = 1024
    seq_len: int = 1024
    n_layer: int = 9
    layout: Literal["cores", "blocks"] = "blocks"  # where matrices live: cores.<c> or blocks.<l>
    n_core: int = 0  # distinct cores when layers share matrices (depth recurrence); 0: one a layer
    d_model: int = 512
    n_head: int = 8
    n_kv_head: int = 4
    d_ff: int = 1024
    activation: Literal["relu2", "leaky_relu2"] = "relu2"
    qk_gain: float = 1.5
    rope_base: float = 10_000.0
    rope_dims: int = 0  # rotated channels of each head; 0: all
    rope_ntk: bool = False  # rescale the base when a sequence is longer than seq_len
    xsa_last: int = 0  # the last n cores subtract the value component from attention's output
    ln_scale: bool = False  # multiply the normed inputs of layer l by 1/sqrt(l+1)
    skip_gates: bool = False  # U-Net skips enter by a learned lerp instead of a sum
    bigram_buckets: int = 0
    bigram_dim: int = 128
    smear: bool = False
    loop_start: int = 0
    loop_end: int = 0
    loop_extra: int = 0  # extra passes over layers loop_start..loop_end; 0: no looping
    tied: bool = True
    softcap: float = 30.0
    embed_std: float = 0.005
    rms_eps: float = FLOAT32_EPS
    table_dtype: Literal["float32", "bfloat16"] = "float32"  # storage of the embedding tables

    def __post_init__(self) -> None:
        _check(1 < self.vocab_size <= 65_536, "model.vocab_size", self.vocab_size, "2 to 65536")
        positive = ("seq_len", "n_layer", "d_model", "n_head", "n_kv_head", "d_ff", "bigram_dim")
        for key in (*positive, "softcap"):
            _check(getattr(self, key) > 0, f"model.{key}", getattr(self, key), "more than 0")
        for key in ("n_core", "bigram_buckets", "xsa_last", "loop_extra"):
            _check(getattr(self, key) >= 0, f"model.{key}", getattr(self, key), "0 or more")
        _check(self.d_model % self.n_head == 0, "model.n_head", self.n_head, "a divisor of d_model")
        _check(self.d_head % 2 == 0, "model.n_head", self.n_head, "an even d_model / n_head")
        _check(
            self.n_head % self.n_kv_head == 0, "model.n_kv_head", self.n_kv_head, "to divide n_head"
        )
        _check(
            self.rope_dims % 2 == 0 and 0 <= self.rope_dims <= self.d_head,
            "model.rope_dims",
            self.rope_dims,
            f"an even number up to {self.d_head}",
        )
        _check(
            not self.loop_extra or 0 <= self.loop_start <= self.loop_end < self.n_layer,
            "model.loop_end",
            (self.loop_start, self.loop_end),
            f"0 <= loop_start <= loop_end < {self.n_layer}",
        )
        _check(
            not (self.loop_extra and self.n_core),
            "model.loop_extra",
            self.loop_extra,
            "0 when n_core is set: a recipe loops layers or shares cores, not both",
        )
        _check(
            not self.n_core or self.layout == "cores",
            "model.layout",
            self.layout,
            "'cores' when n_core is set: shared matrices cannot live in one block",
        )
        _check(self.bigram_buckets != 1, "model.bigram_buckets", 1, "0, or at least 2")

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_head

    @property
    def cores(self) -> int:
        """Number of distinct attention + MLP cores."""
        return self.n_core if 0 < self.n_core < self.n_layer else self.n_layer


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """Budget, schedule and optimizers. Learning rates are per group of parameter roles."""

    seconds: float = 600.0  # wall-clock budget; 0: none, the schedule counts iterations
    reserve_seconds: float = 0.0  # taken off the budget for quantization
    iterations: int = 20_000
    batch_tokens: int = 524_288  # per optimizer step, over all ranks and micro-steps
    micro_tokens: int = 65_536  # per rank and micro-step; accumulation follows from it
    warmup_steps: int = 20  # compile warmup: real steps, then everything is restored
    warmdown_iters: int = 0  # LR falls to zero over the last n iterations (#456) …
    warmdown_frac: float = 0.0  # … or over this fraction of the budget (#1413)
    min_lr: float = 0.0  # floor of the multiplier; with warmdown_frac only
    loop_at: float = 0.5  # fraction of the budget after which looped layers loop
    token_lr: float = 0.05
    head_lr: float = 0.008
    matrix_lr: float = 0.04
    scalar_lr: float = 0.04
    token_wd: float = 0.0
    matrix_wd: float = 0.0
    scalar_wd: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_eps: float = 1e-8
    muon_momentum: float = 0.95
    muon_momentum_start: float = 0.85
    muon_momentum_warmup: int = 500
    muon_ns_steps: int = 5
    muon_row_norm: bool = False
    grad_clip: float = 0.0
    average: Literal["none", "ema", "swa"] = "none"
    ema_decay: float = 0.997
    ema_debias: bool = True
    swa_start: float = 0.2  # snapshots while the LR multiplier is below this …
    swa_every: int = 50  # … every n steps
    qat_below: float = 0.0  # late QAT from the step after the LR multiplier falls below this
    prune: float = 0.0  # fraction of the smallest weights zeroed after training
    val_every: int = 0
    log_every: int = 100
    checkpoint_seconds: float = 60.0
    compile: Literal["auto", "on", "off"] = "auto"
    dtype: Dtype = "auto"
    deterministic: bool = False  # repeatable bit for bit on one machine, at some cost in speed

    def __post_init__(self) -> None:
        for key in ("batch_tokens", "micro_tokens", "swa_every", "muon_ns_steps", "log_every"):
            _check(getattr(self, key) > 0, f"train.{key}", getattr(self, key), "at least 1")
        for key in ("seconds", "reserve_seconds", "iterations", "warmup_steps", "warmdown_iters"):
            _check(getattr(self, key) >= 0, f"train.{key}", getattr(self, key), "0 or more")
        for key in ("warmdown_frac", "min_lr", "loop_at", "ema_decay", "prune", "qat_below"):
            _check(0 <= getattr(self, key) <= 1, f"train.{key}", getattr(self, key), "0 to 1")
        _check(
            not (self.warmdown_iters and self.warmdown_frac),
            "train.warmdown_frac",
            self.warmdown_frac,
            "0 when warmdown_iters is set",
        )
        _check(
            not self.seconds or self.reserve_seconds < self.seconds,
            "train.reserve_seconds",
            self.reserve_seconds,
            f"less than train.seconds = {self.seconds}",
        )


@dataclass(frozen=True, kw_only=True)
class QuantSpec:
    """How trained weights become integers, and which compressor codes them.

    clip: how a row's scale is chosen. 'max': its largest weight (#456). 'search': the best of five
    clips by squared error (#456's GPTQ-lite). 'std': k standard deviations (#1413's SDClip).
    """

    method: Literal["round", "gptq"] = "round"
    clip: Literal["max", "search", "std"] = "max"
    symmetric: bool = False  # codes in [-c, c] instead of [-c-1, c], c = 2^(bits-1) - 1
    matrix_bits: int = 8
    mlp_bits: int = 0  # 0: as matrix_bits
    embed_bits: int = 8
    hash_bits: int = 0  # bigram table and projection; 0: as matrix_bits
    matrix_k: float = 12.85  # std clip of matrices, in standard deviations …
    mlp_k: float = 0.0  # … of MLP matrices; 0: as matrix_k
    embed_k: float = 20.0
    passthrough: int = 65_536  # tensors up to this many elements stay float16
    overrides: Mapping[str, int] = field(default_factory=dict)  # exact path -> bits; 16: float16
    calibration_batches: int = 64
    damp: float = 0.01
    block_size: int = 128
    compressor: Literal["zstd", "brotli", "lzma", "rans"] = "brotli"
    byte_shuffle: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "overrides", MappingProxyType(dict(self.overrides)))
        for key in ("matrix_bits", "mlp_bits", "embed_bits", "hash_bits"):
            bits = getattr(self, key)
            off = key in ("mlp_bits", "hash_bits") and bits == 0
            _check(off or 2 <= bits <= 8 or bits == 16, f"quant.{key}", bits, "2 to 8, or 16")
        for path, bits in self.overrides.items():
            ok = isinstance(bits, int) and (2 <= bits <= 8 or bits == 16)
            _check(ok, f"quant.overrides.{path}", bits, "2 to 8, or 16")
        for key in ("calibration_batches", "block_size"):
            _check(getattr(self, key) > 0, f"quant.{key}", getattr(self, key), "at least 1")
        for key in ("matrix_k", "embed_k"):
            _check(getattr(self, key) > 0, f"quant.{key}", getattr(self, key), "more than 0")
        for key in ("mlp_k", "damp", "passthrough"):
            _check(getattr(self, key) >= 0, f"quant.{key}", getattr(self, key), "0 or more")


@dataclass(frozen=True, kw_only=True)
class ScoreSpec:
    """How the file is scored. All of it travels in the artifact's header."""

    context: int = 0  # window length; 0: model.seq_len
    stride: int = 64
    window_batch: int = 32
    dtype: Dtype = "auto"
    ttt: bool = True
    ttt_optimizer: Literal["adamw", "sgd"] = "sgd"
    ttt_lr: float = 0.005
    ttt_momentum: float = 0.9
    ttt_epochs: int = 3
    ttt_chunk: int = 32_768
    ttt_batch: int = 32  # sequences per step, shared by the ranks
    ttt_clip: float = 1.0  # global gradient norm; 0: no clipping
    ttt_freeze: int = 0  # the first n blocks (and the cores they use) do not adapt

    def __post_init__(self) -> None:
        for key in ("stride", "window_batch", "ttt_chunk", "ttt_batch", "ttt_epochs"):
            _check(getattr(self, key) > 0, f"score.{key}", getattr(self, key), "at least 1")
        for key in ("context", "ttt_lr", "ttt_clip", "ttt_freeze"):
            _check(getattr(self, key) >= 0, f"score.{key}", getattr(self, key), "0 or more")
        _check(
            not self.context or self.stride <= self.context,
            "score.stride",
            self.stride,
            f"at most score.context = {self.context}",
        )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The cap on code plus artifact, decimal bytes."""

    bytes: int = BUDGET_BYTES
    count_tokenizer: bool = False  # off, as in the competition


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run: six sections, a name and a seed."""

    name: str = "custom"
    seed: int = 1337
    data: DataSpec = field(default_factory=DataSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    quant: QuantSpec = field(default_factory=QuantSpec)
    score: ScoreSpec = field(default_factory=ScoreSpec)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        m, t = self.model, self.train
        _check(
            t.batch_tokens % m.seq_len == 0,
            "train.batch_tokens",
            t.batch_tokens,
            f"a multiple of model.seq_len = {m.seq_len}",
        )
        _check(
            t.micro_tokens % m.seq_len == 0 and t.batch_tokens % t.micro_tokens == 0,
            "train.micro_tokens",
            t.micro_tokens,
            f"a multiple of {m.seq_len} that divides train.batch_tokens = {t.batch_tokens}",
        )
        s, context, n = self.score, self.score.context or m.seq_len, m.n_layer
        _check(s.stride <= context, "score.stride", s.stride, f"up to {context}")
        _check(s.ttt_freeze <= n, "score.ttt_freeze", s.ttt_freeze, f"at most model.n_layer = {n}")
