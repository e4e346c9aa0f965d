"""The rules of a recipe: what no run could be made of is refused here, by key.

Called where a recipe comes in: by ``load`` for names, files and ``--set``, by the reader of a
stranger's artifact for the two sections in its header, by ``pipeline.run`` for one built in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from underpar.errors import RecipeError
from underpar.recipe.keys import checked
from underpar.recipe.plain import section_name
from underpar.recipe.schema import DataSpec, ModelSpec, QuantSpec, Recipe, ScoreSpec, TrainSpec

Spec = TypeVar("Spec")


def check(spec: Spec) -> Spec:
    """A recipe, or one section of it, itself; RecipeError names the first key that cannot be."""
    if isinstance(spec, Recipe):
        for section in (spec.data, spec.model, spec.train, spec.quant, spec.score, spec.budget):
            check(section)
    else:
        name = section_name(type(spec))
        for key, hint in get_type_hints(type(spec)).items():
            checked(f"{name}.{key}", getattr(spec, key), hint)
    RULES.get(type(spec), lambda _: None)(spec)
    return spec


def _check(ok: bool, key: str, got: object, wanted: str) -> None:
    if not ok:
        raise RecipeError(f"recipe key '{key}'", got=got, wanted=wanted)


def _data(spec: DataSpec) -> None:
    _check(spec.half_life > 0, "data.half_life", spec.half_life, "more than 0")


def _model(spec: ModelSpec) -> None:
    _check(1 < spec.vocab_size <= 65_536, "model.vocab_size", spec.vocab_size, "2 to 65536")
    positive = ("seq_len", "n_layer", "d_model", "n_head", "n_kv_head", "d_ff", "bigram_dim")
    for key in (*positive, "softcap"):
        _check(getattr(spec, key) > 0, f"model.{key}", getattr(spec, key), "more than 0")
    for key in ("n_core", "bigram_buckets", "xsa_last", "loop_extra"):
        _check(getattr(spec, key) >= 0, f"model.{key}", getattr(spec, key), "0 or more")
    _check(spec.d_model % spec.n_head == 0, "model.n_head", spec.n_head, "a divisor of d_model")
    _check(spec.d_head % 2 == 0, "model.n_head", spec.n_head, "an even d_model / n_head")
    _check(spec.n_head % spec.n_kv_head == 0, "model.n_kv_head", spec.n_kv_head, "to divide n_head")
    _check(
        spec.rope_dims % 2 == 0 and 0 <= spec.rope_dims <= spec.d_head,
        "model.rope_dims",
        spec.rope_dims,
        f"an even number up to {spec.d_head}",
    )
    _check(
        not spec.loop_extra or 0 <= spec.loop_start <= spec.loop_end < spec.n_layer,
        "model.loop_end",
        (spec.loop_start, spec.loop_end),
        f"0 <= loop_start <= loop_end < {spec.n_layer}",
    )
    _check(
        not (spec.loop_extra and spec.n_core),
        "model.loop_extra",
        spec.loop_extra,
        "0 when n_core is set: a recipe loops layers or shares cores, not both",
    )
    _check(
        not spec.n_core or spec.layout == "cores",
        "model.layout",
        spec.layout,
        "'cores' when n_core is set: shared matrices cannot live in one block",
    )
    _check(spec.bigram_buckets != 1, "model.bigram_buckets", 1, "0, or at least 2")


def _train(spec: TrainSpec) -> None:
    for key in ("batch_tokens", "micro_tokens", "swa_every", "muon_ns_steps", "log_every"):
        _check(getattr(spec, key) > 0, f"train.{key}", getattr(spec, key), "at least 1")
    for key in ("seconds", "reserve_seconds", "iterations", "warmup_steps", "warmdown_iters"):
        _check(getattr(spec, key) >= 0, f"train.{key}", getattr(spec, key), "0 or more")
    for key in ("warmdown_frac", "min_lr", "loop_at", "ema_decay", "prune", "qat_below"):
        _check(0 <= getattr(spec, key) <= 1, f"train.{key}", getattr(spec, key), "0 to 1")
    _check(
        not (spec.warmdown_iters and spec.warmdown_frac),
        "train.warmdown_frac",
        spec.warmdown_frac,
        "0 when warmdown_iters is set",
    )
    _check(
        not spec.seconds or spec.reserve_seconds < spec.seconds,
        "train.reserve_seconds",
        spec.reserve_seconds,
        f"less than train.seconds = {spec.seconds}",
    )


def _quant(spec: QuantSpec) -> None:
    for key in ("matrix_bits", "mlp_bits", "embed_bits", "hash_bits"):
        bits = getattr(spec, key)
        off = key in ("mlp_bits", "hash_bits") and bits == 0
        _check(off or 2 <= bits <= 8 or bits == 16, f"quant.{key}", bits, "2 to 8, or 16")
    for path, bits in spec.overrides.items():
        ok = isinstance(bits, int) and (2 <= bits <= 8 or bits == 16)
        _check(ok, f"quant.overrides.{path}", bits, "2 to 8, or 16")
    for key in ("calibration_batches", "block_size"):
        _check(getattr(spec, key) > 0, f"quant.{key}", getattr(spec, key), "at least 1")
    for key in ("matrix_k", "embed_k"):
        _check(getattr(spec, key) > 0, f"quant.{key}", getattr(spec, key), "more than 0")
    for key in ("mlp_k", "damp", "passthrough"):
        _check(getattr(spec, key) >= 0, f"quant.{key}", getattr(spec, key), "0 or more")


def _score(spec: ScoreSpec) -> None:
    for key in ("stride", "window_batch", "ttt_chunk", "ttt_batch", "ttt_epochs"):
        _check(getattr(spec, key) > 0, f"score.{key}", getattr(spec, key), "at least 1")
    for key in ("context", "ttt_lr", "ttt_clip", "ttt_freeze"):
        _check(getattr(spec, key) >= 0, f"score.{key}", getattr(spec, key), "0 or more")
    _check(
        not spec.context or spec.stride <= spec.context,
        "score.stride",
        spec.stride,
        f"at most score.context = {spec.context}",
    )


def _whole(spec: Recipe) -> None:
    m, t = spec.model, spec.train
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
    s, context, n = spec.score, spec.score.context or m.seq_len, m.n_layer
    _check(s.stride <= context, "score.stride", s.stride, f"up to {context}")
    _check(s.ttt_freeze <= n, "score.ttt_freeze", s.ttt_freeze, f"at most model.n_layer = {n}")


RULES: dict[type, Callable[[Any], None]] = {
    DataSpec: _data,
    ModelSpec: _model,
    TrainSpec: _train,
    QuantSpec: _quant,
    ScoreSpec: _score,
    Recipe: _whole,
}
