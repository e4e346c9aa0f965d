"""Golden checks of the two models' forward and backward pass.

``spec_456`` and ``spec_1413`` translate a published configuration into a ``ModelSpec`` key by key;
a key or value that has no counterpart raises, which the runner reports as a failure with the
reason. ``load_model`` fills a model with the ``param/`` arrays of a file. Other golden checks
(scoring, quantization policy) start from the same three functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.golden import Check, CheckFunction, close, equal
from underpar.model import GPT, loss
from underpar.recipe.schema import ModelSpec

ACTIVATIONS = {"relu_sq": "relu2", "leaky_relu_sq": "leaky_relu2"}

#: key -> field, taken over as they are
COMMON = {
    "vocab_size": "vocab_size",
    "num_layers": "n_layer",
    "model_dim": "d_model",
    "num_heads": "n_head",
    "num_kv_heads": "n_kv_head",
    "tie_embeddings": "tied",
    "tied_embed_init_std": "embed_std",
    "logit_softcap": "softcap",
    "rope_base": "rope_base",
    "qk_gain_init": "qk_gain",
    "xsa_last_n": "xsa_last",
    "train_seq_len": "seq_len",
}
ONLY_456 = {
    "bigram_vocab_size": "bigram_buckets",
    "bigram_dim": "bigram_dim",
    "unique_layers": "n_core",
}
ONLY_1413 = {
    "rope_dims": "rope_dims",
    "ln_scale": "ln_scale",
    "skip_gates_enabled": "skip_gates",
    "num_loops": "loop_extra",
    "loop_start": "loop_start",
    "loop_end": "loop_end",
}
#: no part of the model: evaluation, quantization, or checked elsewhere
NOT_MODEL = {
    "eval_seq_len",
    "rope_train_seq_len",
    "embed_clip_sigmas",
    "matrix_clip_sigmas",
    "embed_bits",
    "matrix_bits",
    "encoder_indices",
    "decoder_indices",
    "looping_active",
}


def spec_456(config: Mapping[str, Any]) -> ModelSpec:
    """The model of a #456 configuration. Raises ValueError on what it cannot express."""
    fields = _translate(config, {**COMMON, **ONLY_456})
    fields.setdefault("seq_len", 2048)
    if not 0 < fields.get("n_core", 0) < fields["n_layer"]:
        fields["n_core"] = 0  # the script's "one core a layer"
    if not fields.get("bigram_buckets"):
        fields.pop("bigram_dim", None)
    return ModelSpec(layout="cores", smear=True, rope_ntk=False, **fields)


def spec_1413(config: Mapping[str, Any]) -> ModelSpec:
    """The model of a #1413 configuration. Raises ValueError on what it cannot express."""
    config = dict(config)
    width = config.pop("embedding_dim", config["model_dim"])
    if width != config["model_dim"]:
        raise ValueError(f"embedding_dim {width} differs from model_dim: no such model here")
    fields = {"activation": "leaky_relu2", **_translate(config, {**COMMON, **ONLY_1413})}
    if not fields.get("loop_extra"):
        fields.update(loop_start=0, loop_end=0, loop_extra=0)
    return ModelSpec(layout="blocks", rope_ntk=True, **fields)


def _translate(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in config.items():
        if key in names:
            fields[names[key]] = value
        elif key == "mlp_mult":
            fields["d_ff"] = int(value * config["model_dim"])
        elif key == "mlp_activation" and value in ACTIVATIONS:
            fields["activation"] = ACTIVATIONS[value]
        elif key not in NOT_MODEL:
            raise ValueError(f"configuration key {key} = {value!r} has no counterpart")
    return fields


def load_model(npz: Mapping[str, Any], spec: ModelSpec) -> GPT:
    """A model (float32, looping off) with the ``param/`` arrays of a file; names must match."""
    prefix = "param/"
    state = {
        key.removeprefix(prefix): torch.from_numpy(np.array(npz[key], dtype=np.float32))
        for key in npz
        if key.startswith(prefix)
    }
    model = GPT(spec, seed=None)
    model.load_state_dict(state, strict=True)
    return model


def _check(
    path: Path, to_spec: Callable[[Mapping[str, Any]], ModelSpec], atol: float
) -> Iterator[Check]:
    with np.load(path, allow_pickle=False) as file:
        npz = dict(file)
    config = json.loads(str(npz["config_json"]))
    name = path.stem
    model = load_model(npz, to_spec(config))
    model.looping = bool(config.get("looping_active", False))
    looped = model.orders[True]
    for key, mine in zip(("encoder_indices", "decoder_indices"), looped):
        if key in config:
            yield equal(f"{name} {key}", list(mine), config[key])
    ids, targets = (torch.from_numpy(npz[k]).long() for k in ("input_ids", "target_ids"))
    with torch.no_grad():
        yield close(f"{name} logits", model(ids), npz["logits"], atol=atol)
    value = loss(model, ids, targets)
    yield close(f"{name} loss", value.item(), npz["loss"], atol=1e-5)
    yield close(f"{name} loss_f64", value.item(), npz["loss_f64"], atol=1e-5)
    value.backward()
    yield from _gradients(name, model, npz)


def _gradients(name: str, model: GPT, npz: Mapping[str, Any]) -> Iterator[Check]:
    """Norm, probe and (where stored) every value of each parameter's gradient."""
    mine = {
        key: np.zeros(tuple(p.shape)) if p.grad is None else p.grad.double().numpy()
        for key, p in model.named_parameters()
    }
    kinds = ("grad_norm/", "grad_probe/", "grad/")
    for kind in kinds:
        stored = {k.removeprefix(kind): v for k, v in npz.items() if k.startswith(kind)}
        worst, bad = 0.0, []
        for key, want in stored.items():
            norm = float(npz[f"grad_norm/{key}"])
            check = _one_gradient(kind, key, mine[key], want, norm)
            worst = max(worst, check.worst / norm if norm else check.worst)
            if not check.ok:
                bad.append(key)
        note = f"{len(stored)} parameters, relative to the norm"
        if bad:
            note = "differs: " + ", ".join(bad[:5])
        yield Check(f"{name} {kind.rstrip('/')}", bool(stored) and not bad, worst, note)


def _one_gradient(kind: str, key: str, g: np.ndarray, want: Any, norm: float) -> Check:
    floor = 1e-9  # a gradient that vanishes by symmetry is noise on both sides
    if kind == "grad_norm/":
        return close(key, np.linalg.norm(g), want, rtol=1e-4, atol=floor)
    if kind == "grad_probe/":
        flat = g.ravel()
        return close(key, flat @ np.cos(np.arange(flat.size)), want, atol=1e-4 * norm + floor)
    return close(key, g, want, atol=1e-4 * norm + floor)


def check_456(path: Path) -> Iterator[Check]:
    return _check(path, spec_456, atol=1e-4)


def check_1413(path: Path) -> Iterator[Check]:
    return _check(path, spec_1413, atol=2e-4)


CHECKS: dict[str, CheckFunction] = {"g456_*.npz": check_456, "g1413_*.npz": check_1413}
