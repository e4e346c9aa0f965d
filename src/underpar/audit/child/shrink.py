"""Sizes of the tiny run, by the names that scripts give their settings.

A setting either describes *how much* (layers, width, tokens, iterations) and is made small, or
*how* (orders, epochs, which path is on) and is kept as the headline run had it. The same table
serves environment names, class attributes, keyword arguments and module constants: a name in
capitals. A rule sees the headline's value, never enlarges it, and leaves 0 and negative values
alone, because they mean "off" or "all". Counts of adaptation rounds are capped, not set: two
epochs must remain two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Value = float
ShrinkRule = Callable[["Shrinker", Value], Value]
LARGE_CHUNK = 2048
"""Chunks at least this long hold many windows; shorter ones are steps inside one document."""


@dataclass
class Sizes:
    """Targets of the tiny run; `Job.shrink` may replace any of them by name."""

    vocab: int = 64
    layers: int = 2
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    side: int = 16
    seq: int = 64
    stride: int = 16
    chunk: int = 256
    inner_chunk: int = 16
    batch: int = 4
    train_tokens: int = 512
    val_tokens: int = 2048
    steps: int = 8
    epochs: int = 3
    inner_steps: int = 4
    docs: int = 6
    buckets: int = 16384
    rank: int = 4
    validate_every: int = 0
    calibration: int = 2
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Cap:
    """At most the tiny run's size of that name."""

    size: str

    def __call__(self, s: Shrinker, v: Value) -> Value:
        return min(v, getattr(s.sizes, self.size))


def _few(limit: int) -> ShrinkRule:
    return lambda s, v: min(v, limit)


def _keep(_s: Shrinker, v: Value) -> Value:
    return v


def _set_validation(s: Shrinker, _v: Value) -> Value:
    return s.sizes.validate_every


def _layer(s: Shrinker, v: Value) -> Value:
    full = s.full_layers
    if not full:
        return min(v, s.sizes.layers - 1)
    return math.floor(v * s.sizes.layers / full) if full > s.sizes.layers else v


def _heads(s: Shrinker, v: Value) -> Value:
    """A divisor of the width, as there have to be in most scripts."""
    v = min(v, s.sizes.heads)
    return v if s.sizes.width % v == 0 else 1 << (int(v).bit_length() - 1)


def _kv_heads(s: Shrinker, v: Value) -> Value:
    full = s.headline("NUM_HEADS")
    return _heads(s, v) if full and v >= full else min(v, s.sizes.kv_heads)


def _batch(s: Shrinker, v: Value) -> Value:
    return min(v, s.sizes.train_tokens if v >= 4096 else s.sizes.batch)


def _chunk(s: Shrinker, v: Value) -> Value:
    return min(v, s.sizes.chunk if v >= LARGE_CHUNK else s.sizes.inner_chunk)


def _stride(s: Shrinker, v: Value) -> Value:
    full = s.headline("EVAL_SEQ_LEN") or s.headline("TRAIN_SEQ_LEN") or s.headline("SEQ_LEN")
    return min(v, s.sizes.seq if full and v >= full else s.sizes.stride)


def _vocab(s: Shrinker, v: Value) -> Value:
    return s.sizes.vocab if v >= 200 else v


def _hidden(s: Shrinker, v: Value) -> Value:
    return min(v, 2 * s.sizes.width)


_TABLE: tuple[tuple[str, ShrinkRule], ...] = (
    # kept: they say how, not how much
    (r".*(NEWTON|NS|BACKEND)_?(SCHULZ)?_STEPS?|.*_ONLY_STEPS", _keep),
    # model
    (r"(NUM_|N_|UNIQUE_|NUM_UNIQUE_|TOTAL_)?(LAYERS?|BLOCKS)|N_LAYER|DEPTH", _Cap("layers")),
    (r"(NUM|N)_\w+_(LAYERS|BLOCKS)|\w*SHARED_BLOCKS", _Cap("layers")),
    (r"MODEL_DIM|D_MODEL|DIM_MODEL|N_EMBD|HIDDEN_SIZE|EMBED(DING)?_DIM|DIM", _Cap("width")),
    (r"NUM_HEADS|N_HEADS?|NUM_Q_HEADS", _heads),
    (r"(NUM_|N_)?KV_HEADS|NUM_KEY_VALUE_HEADS", _kv_heads),
    (r"HEAD_DIM|D_HEAD|HEAD_SIZE", _Cap("head_dim")),
    (r"MLP_HIDDEN(_DIM)?|HIDDEN_DIM|FFN?_DIM|D_FF|INTERMEDIATE_SIZE", _hidden),
    (r"VOCAB_SIZE|VOCAB|N_VOCAB", _vocab),
    (r".*(BIGRAM|TRIGRAM|NGRAM_EMB|HASH_EMB)\w*(VOCAB|BUCKETS|SIZE)\w*", _few(512)),
    (r".*ROPE_DIMS?", _few(8)),
    (r"\w+_DIMS?", _Cap("side")),
    (r"\w*GROUP_SIZE", _few(32)),
    (r"\w*RANK(_DIM)?", _Cap("rank")),
    (r"(\w+_)?(FIRST|LAST)_(N(_LAYERS|_BLOCKS)?|LAYERS|BLOCKS)|XSA_LAST", _Cap("layers")),
    (r"\w*FREEZE_(BLOCKS|LAYERS)|\w*(START|END|FROM)_LAYERS?", _layer),
    (r"\w+_LAYERS?(_START|_END)?", _layer),
    (r"LOOP_(START|END)|\w*RECUR\w*_(START|END|SRC|DST)|PARALLEL\w*_START", _layer),
    # lengths and batches
    (r"\w*SEQ_?LEN(GTH)?|BLOCK_SIZE|CONTEXT_(LEN|LENGTH|SIZE)|MAX_SEQ_LEN|CTX_LEN", _Cap("seq")),
    (r"\w*STRIDE", _stride),
    (r"VAL_BATCH_(SIZE|TOKENS)|EVAL_BATCH_TOKENS", _Cap("val_tokens")),
    (r"\w*(BATCH|MICRO)_TOKENS", _Cap("train_tokens")),
    (r"\w*CALIB\w*(BATCHES|SEQS|SAMPLES|NSAMPLES)|\w*NUM_CALIB\w*", _Cap("calibration")),
    (r"\w*BATCH(_SIZE|_SEQS|_WINDOWS|_DOCS|ES|_SIZES)?|NUM_SEQS", _batch),
    (r"\w*CHUNK(S?|_TOKENS|_SIZE|_LEN|_LENGTH)", _chunk),
    (r"\w*(PREFIX|NUM|MAX|SUFFIX|N)_DOCS", _Cap("docs")),
    (r"\w*MIN_(DOC_LEN|TOKENS|DOC_TOKENS|LEN)", _Cap("seq")),
    (r"\w*(BUCKETS|TABLE_SIZE|HASH_SIZE|CACHE_SIZE|NUM_SLOTS)", _Cap("buckets")),
    (r"\w*(HASH|NGRAM|TABLE|BUCKETS?|CACHE|PPM)\w*_(BITS|LOG2)", _few(14)),
    # durations
    (r"MAX_WALLCLOCK\w*|\w*(SECONDS|SECS|MINUTES|TIMEOUT)", _keep),
    (r"(NUM_|MAX_|TRAIN_|TOTAL_)?(ITERATIONS|TRAIN_STEPS|STEPS|ITERS)", _Cap("steps")),
    (r"WARMUP_STEPS|\w*WARMUP_(STEPS|ITERS|BATCHES|CHUNKS)|COMPILE_WARMUP\w*", _few(1)),
    (r"\w*(WARMDOWN|COOLDOWN|DECAY|ANNEAL)_(STEPS|ITERS)", _few(4)),
    (r"VAL_LOSS_EVERY", _set_validation),
    (r"\w*(VAL|SAVE|CHECKPOINT|CKPT)_EVERY", _keep),
    (r"\w*(_EVERY|_FREQ|_INTERVAL)", _few(2)),
    (r"\w*(START_STEP|STEP_START|AT_STEP|START_ITER|AFTER_STEP)", _few(3)),
    (r"\w*EPOCHS?", _Cap("epochs")),
    (r"\w*(STEPS|ITERS?|MAX_ITER)", _Cap("inner_steps")),
)  # fmt: skip
_RULES = tuple((re.compile(pattern), rule) for pattern, rule in _TABLE)

_DEPTHS = ("NUM_LAYERS", "N_LAYER", "N_LAYERS", "NUM_BLOCKS", "DEPTH", "LAYERS")

# Literals in the code are shrunk only where the name can hardly mean anything else.
LITERAL = re.compile(
    r"(NUM_|N_|UNIQUE_|NUM_UNIQUE_)?LAYERS|N_LAYER|MODEL_DIM|D_MODEL|N_EMBD|NUM_HEADS|N_HEADS?|"
    r"NUM_KV_HEADS|HEAD_DIM|MLP_HIDDEN|(N_)?VOCAB(_SIZE)?|\w*SEQ_LEN|\w*STRIDE|\w*BATCH_(SIZE|TOKENS|SEQS)|"
    r"\w*CHUNK_(TOKENS|SIZE)|MICRO_TOKENS|XSA_LAST|ITERATIONS|\w*WARMUP_STEPS|WARMDOWN_ITERS|\w*BUCKETS|NUM_SEQS|"
    r"\w*CALIB\w*|\w*EPOCHS|VAL_LOSS_EVERY|BIGRAM_(VOCAB_SIZE|DIM)|VE_DIM|ROPE_DIMS|XSA_LAST_N|"
    r"(SLOT|TTT|LBFGS)_?\w*(STEPS|ITERS|MAX_ITER)|EMBEDDING_DIM|SWA_EVERY|TRAIN_STEPS|"
    r"(\w+_)?(FIRST|LAST)_N(_LAYERS|_BLOCKS)?|"
    r"LOOP_(START|END)|PARALLEL_START_LAYER|\w*LORA_RANK|NUM_\w+_LAYERS|DIM|STEPS|\w*GROUP_SIZE"
)
FEWEST = {"DIM": 100, "STEPS": 100, "VOCAB": 200}
"""Below this value a literal under the name means something else (an axis, a short iteration)."""
_MODES = re.compile(r"(EVAL|TTT|QUANT|QUANTIZE|PREQUANT|TTT_EVAL|SLIDING|LOAD|EXPORT)_ONLY")
_OFF = re.compile(
    r"(\w+_)?COMPILE(_ENABLED|_MODEL)?|(SEQ_LEN|BATCH)\w*_SCHEDULE|\w*CURRICULUM(_ENABLED)?"
)
"""Switches of training that mean nothing here: no compiler, one length. Some combinations with
them are refused by the scripts themselves."""
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LIST = re.compile(r"\s*\d+(\s*,\s*\d+)+\s*,?\s*")
_INDICES = re.compile(r"\w*LAYERS?\w*|\w+_BLOCKS|(DEPTH_)?RECUR\w*")
"""Names of lists of layers."""


def setting_number(text: Any) -> Value | None:
    """The number that a setting's text stands for, or None."""
    if isinstance(text, bool) or text is None:
        return None
    if isinstance(text, int | float):
        return text
    text = str(text).strip()
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace("_", ""))
    return int(value) if value.is_integer() and not re.search(r"[.eE]", text) else value


@dataclass(frozen=True)
class Seen:
    """What became of a setting: the headline's value, the tiny one, the size that capped it."""

    full: Value
    tiny: Value
    size: str | None


class Shrinker:
    """Tiny values for settings, given the headline's environment and the script's defaults."""

    def __init__(
        self, sizes: Sizes, environment: Mapping[str, str], defaults: Mapping[str, Any]
    ) -> None:
        self.sizes, self.defaults = sizes, defaults
        self.seen: dict[str, Seen] = {}
        self.environment = {k: v for k, v in environment.items() if self._fits(k, v)}
        self.full_layers = next(filter(None, map(self.headline, _DEPTHS)), 0)

    def _fits(self, name: str, text: str) -> bool:
        """Whether a text taken from a log can be a value where the script's default is a number."""
        if setting_number(self.defaults.get(name)) is None:
            return True
        return setting_number(text) is not None or text in ("True", "False", "true", "false", "")

    def headline(self, name: str) -> Value | None:
        """Value that the headline run used: its environment, else the script's default."""
        return setting_number(self.environment.get(name, self.defaults.get(name)))

    def value(self, name: str, v: Value) -> Value:
        """The tiny value for `name`, whose headline value is `v`."""
        told = setting_number(self.sizes.environment.get(name))
        rule = None if v <= 0 else self._rule(name)
        small = told if told is not None else rule(self, v) if rule else v
        small = type(v)(small) if isinstance(v, int) else small
        self.seen[name] = Seen(v, small, getattr(rule, "size", None))
        return small

    def _rule(self, name: str) -> ShrinkRule | None:
        return next((rule for pattern, rule in _RULES if pattern.fullmatch(name)), None)

    def setting(self, name: str) -> str | None:
        """Text for the environment variable `name`, or None to leave it as the script has it."""
        text = self.environment.get(name, self.defaults.get(name))
        if name in self.sizes.environment:
            self.value(name, setting_number(text) or 0)
            return self.sizes.environment[name]
        if text is None:
            return None
        if _MODES.fullmatch(name):
            # a mode that starts from a checkpoint, which is not shipped
            return "0" if setting_number(text) is not None else ""
        if _OFF.fullmatch(name) and str(text) in ("1", "True", "true"):
            return "0"
        if isinstance(text, str) and _LIST.fullmatch(text):
            return self._list(name, text)
        v = setting_number(text)
        if v is None:
            return self.environment.get(name)
        small = self.value(name, v)
        return str(small) if small != v else self.environment.get(name)

    def _list(self, name: str, text: str) -> str:
        items = [int(i) for i in text.split(",") if i.strip()]
        small = self.indices(name, items)
        return text if small is None else ",".join(str(i) for i in sorted(set(small)))

    def indices(self, name: str, items: list[int]) -> list[int] | None:
        """The layers `items` in the tiny model, or None where `name` does not list layers."""
        if not _INDICES.fullmatch(name) or max(items) > (self.full_layers or max(items)):
            return None
        return [int(_layer(self, i)) for i in items]
