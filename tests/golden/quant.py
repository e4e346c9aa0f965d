"""Golden checks of grids, pruning, the bit policy, GPTQ and fake quantization.

What only a published script did, and nothing of ours wants, lives here: #456's 8-bit fallback with
a quantile clip and a floor of 1/127, and its per-tensor steps of vectors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.golden import Check, CheckFunction, close, equal
from tests.golden.model import spec_456, spec_1413
from underpar.grid.grid import (
    Grid,
    dequantize,
    fake_quantize,
    quantize,
    scale_max,
    scale_search,
    scale_std,
)
from underpar.model import GPT, Role, n_params
from underpar.model.layers import Linear
from underpar.quant.gptq import gptq
from underpar.quant.policy import Treatment, policy
from underpar.recipe.presets import pr456, pr1413
from underpar.recipe.schema import QuantSpec
from underpar.train.prune import quantile

INT8_QUANTILE = 0.9999984
DAMP = 0.01


def load(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as file:
        return {key: torch.from_numpy(np.array(file[key])) for key in file.files}


def grid_of(clip: int, *, symmetric: bool = False) -> Grid:
    """The grid whose largest code is ``clip``."""
    grid = Grid(int(clip).bit_length() + 1, symmetric)
    if grid.clip != clip:
        raise ValueError(f"clip {clip} is not 2^(bits-1) - 1")
    return grid


def near_codes(name: str, got: Tensor, want: Tensor) -> Check:
    """Equal on 99.9 % of the elements, at most one off elsewhere; worst counts the differing."""
    if got.shape != want.shape:
        return Check(name, False, float("inf"), f"shape {tuple(got.shape)}")
    gap = (got.int() - want.int()).abs()
    differ = int((gap > 0).sum())
    return Check(name, differ <= 0.001 * gap.numel() and int(gap.max()) <= 1, differ)


def int8_fallback(w: Tensor, *, floor: float) -> tuple[Tensor, Tensor]:
    """#456's last resort: codes from the unrounded step of each row's quantile, and that step."""
    limit = torch.quantile(w.abs(), INT8_QUANTILE, dim=1)
    scale = (limit / 127).clamp_min(floor)
    clipped = torch.minimum(torch.maximum(w, -limit[:, None]), limit[:, None])
    return quantize(clipped, scale, Grid(8, symmetric=True)), scale


def check_grids(path: Path) -> Iterator[Check]:
    """quant_456.npz."""
    data = load(path)
    weight = data["weight"]
    for name in sorted(key.removeprefix("q_") for key in data if key.startswith("q_int")):
        bits = int(re.match(r"int(\d)", name)[1])  # type: ignore[index]
        if bits == 8:
            codes, scale = int8_fallback(weight, floor=1 / 127)
            scale = scale.half().float()
        else:
            method: Callable[[Tensor, Grid], Tensor] = scale_max
            if name.endswith("_lite"):
                method = scale_search
            scale = method(weight, Grid(bits))
            codes = quantize(weight, scale, Grid(bits))
        yield near_codes(f"{path.name} {name} codes", codes, data[f"q_{name}"])
        yield equal(f"{path.name} {name} scales", scale, data[f"scale_{name}"])
        if f"dequant_{name}" in data:
            got = dequantize(codes, scale)
            yield equal(f"{path.name} {name} dequantized", got, data[f"dequant_{name}"])
    if "vec" in data:
        yield from check_vectors(path.name, data)
    if "prune_weight" in data:
        w, fraction = data["prune_weight"], float(data["prune_frac"])
        limit = quantile(w.abs(), fraction)
        pruned = w.masked_fill(w.abs() < limit, 0.0)
        yield close(f"{path.name} prune threshold", limit, data["prune_threshold"], rtol=1e-6)
        yield equal(f"{path.name} pruned", pruned, data["prune_out"])


def check_vectors(file: str, data: Mapping[str, Tensor]) -> Iterator[Check]:
    """One step for a whole vector: the row functions on a single row."""
    row = data["vec"][None]
    for name in sorted(key.removeprefix("vec_q_") for key in data if key.startswith("vec_q_")):
        grid = Grid(int(name.removeprefix("int")))
        if grid.bits == 8:
            codes, scale = int8_fallback(row, floor=0.0)
        else:
            scale = scale_max(row, grid)
            codes = quantize(row, scale, grid)
        yield near_codes(f"{file} vector {name} codes", codes[0], data[f"vec_q_{name}"])
        yield close(f"{file} vector {name} scale", scale[0], data[f"vec_scale_{name}"], rtol=1e-6)


def check_policy(path: Path) -> Iterator[Check]:
    """quant_policy.json."""
    for name, case in json.loads(path.read_text()).items():
        if name.startswith("456"):
            spec, quant = spec_456(case["config"]), quant_456(name, case["tensors"])
        else:
            spec, quant = spec_1413(case["config"]), quant_1413(case["config"])
        with torch.device("meta"):
            model = GPT(spec)
        got = {path: describe(how) for path, how in policy(model, quant).items()}
        wanted = {path: wanted_of(tensor) for path, tensor in case["tensors"].items()}
        differ = sorted(p for p in {*got, *wanted} if got.get(p) != wanted.get(p))
        note = f"{differ[0]}: {got.get(differ[0])}, not {wanted.get(differ[0])}" if differ else ""
        yield Check(f"{path.name} {name} treatments", not differ, len(differ), note)
        yield equal(f"{path.name} {name} parameters", n_params(model), case["n_params"])
        shapes = {p: list(parameter.shape) for p, parameter in model.named_parameters()}
        same = shapes == {p: tensor["shape"] for p, tensor in case["tensors"].items()}
        yield Check(f"{path.name} {name} shapes", same)


def quant_456(name: str, tensors: Mapping[str, Any]) -> QuantSpec:
    """The preset's, without overrides of tensors that a small model lacks."""
    quant = pr456().quant
    there = {path: bits for path, bits in quant.overrides.items() if path in tensors}
    quant = replace(quant, overrides=there)
    return replace(quant, matrix_bits=5) if "all_int5" in name else quant


def quant_1413(config: Mapping[str, Any]) -> QuantSpec:
    """The preset's, with the bits and clips that the file names."""
    fields = {
        "embed_bits": "embed_bits",
        "matrix_bits": "matrix_bits",
        "embed_clip_sigmas": "embed_k",
        "matrix_clip_sigmas": "matrix_k",
    }
    found = {field: config[key] for key, field in fields.items() if key in config}
    return replace(pr1413().quant, **found)


Described = tuple[int, bool, float | None, int | None]


def describe(how: Treatment) -> Described:
    """Bits, whether GPTQ chooses the codes, standard deviations of the clip, largest code."""
    if how.passthrough:
        return 16, False, None, None
    std = how.clip == "std"
    return how.bits, how.hessian, how.k if std else None, how.grid.clip if std else None


def wanted_of(tensor: Mapping[str, Any]) -> Described:
    """The same of a published tensor."""
    kind = tensor["kind"]
    if kind.startswith("passthrough"):
        return 16, False, None, None
    bits = int(re.search(r"int(\d)", kind)[1])  # type: ignore[index]
    return bits, "gptq" in kind, tensor.get("clip_sigmas"), tensor.get("clip_range")


def check_gptq(path: Path) -> Iterator[Check]:
    """gptq_1413.npz."""
    data = load(path)
    weight, hessian = data["weight"], data["hessian"]
    block_size = int(data["block_size"])

    def proxy(codes: Tensor, scale: Tensor) -> float:
        error = weight.double() - dequantize(codes, scale).double()
        return torch.trace(error @ hessian.double() @ error.t()).item()

    for name in sorted(key.removeprefix("q_") for key in data if key.startswith("q_")):
        grid = grid_of(int(data[f"clip_range_{name}"]), symmetric=True)
        scale = scale_std(weight, grid, float(data[f"clip_sigmas_{name}"]))
        codes = gptq(weight, hessian, scale, grid, DAMP, block_size)
        plain = quantize(weight, scale, grid)
        yield equal(f"{path.name} {name} scales", scale, data[f"scale_{name}"])
        yield near_codes(f"{path.name} {name} codes", codes, data[f"q_{name}"])
        for kind, q in (("gptq", codes), ("rtn", plain)):
            want = float(data[f"proxy_{kind}_{name}"])
            yield close(f"{path.name} {name} {kind} error", proxy(q, scale), want, rtol=5e-3)
        dead = codes[:, data["dead_columns"].long()]
        yield equal(f"{path.name} {name} dead columns", dead, torch.zeros_like(dead))


def check_qat(path: Path) -> Iterator[Check]:
    """qat.npz: #456's training grid, float32 steps of at least 1/c, through a Linear's hook."""
    data = load(path)
    weight, upstream = data["weight"], data["upstream"]
    layer = Linear(weight.shape[1], weight.shape[0], Role.MLP)
    for name in sorted(key.removeprefix("out_train_") for key in data if "out_train_" in key):
        grid = grid_of(int(name))

        def published(w: Tensor, grid: Grid = grid) -> Tensor:
            return fake_quantize(w, scale_max(w.detach(), grid, floor=1 / grid.clip), grid)

        layer.weight.data = weight.clone()
        layer.weight.grad = None
        layer.weight_hook = published
        x = data["x"].clone().requires_grad_()
        out = layer.train()(x)
        out.backward(upstream)
        got = {
            "out_train": out,
            "weight_fake_quant": published(weight),
            "grad_weight": layer.weight.grad,
            "grad_x": x.grad,
            "out_eval": layer.eval()(data["x"]),
        }
        for key, value in got.items():
            want = data[f"{key}_{name}"]
            yield close(f"{path.name} {key} {name}", value.detach(), want, atol=1e-5)


CHECKS: dict[str, CheckFunction] = {
    "quant_456.npz": check_grids,
    "quant_policy.json": check_policy,
    "gptq_1413.npz": check_gptq,
    "qat.npz": check_qat,
}
