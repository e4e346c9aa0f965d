"""How many bytes a recipe's artifact will take, before anything is trained.

A row of trained weights is very nearly Gaussian, and its step is a fixed share of its deviation, so
its codes are a rounded Gaussian whose entropy can be computed. With the steps of #1413 (k = 12.85
deviations over 31 codes, 0.41 deviations) a "6 bit" weight costs 3.33 bits before the compressor's
overhead: no weight comes near the clip, only the step matters. When the step comes from the largest
weight of the row (#456), k is the expected maximum of as many Gaussians as the row is long, about
3.2 for 512, and the same 6 bits cost 5.3.

    bytes = sum over tensors of  weights * H(step) * (1 + overhead) / 8  +  2 per row of scales
            +  2 per value of what stays float16

The overhead is what the compressor adds to the entropy: measured on simulated codes, smaller the
richer the codes. Float16 is counted raw. What training does to weights beyond a Gaussian is not
modelled: pruned zeros, or bfloat16 values inside float16, make a file smaller than expected. The
header and the tokenizer come on top.

Against published files: #1413 16.036 MB expected, 15.976 MB actual (+0.4 %); #456, whose weights
are pruned and whose tables are bfloat16, 15.901 for 15.913 MB (-0.1 %); the naive baseline, with
lzma here and zlib there, 15.905 for 15.816 MB (+0.6 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import torch

from underpar.bits import megabytes
from underpar.grid.grid import SEARCH_QUANTILES, Grid
from underpar.model.gpt import GPT
from underpar.model.roles import parameters_by_role, role_of
from underpar.quant.policy import Treatment, policy
from underpar.recipe.schema import ModelSpec, QuantSpec, Recipe

#: Measured on 4096 x 512 Gaussian codes: entropy in bits a code, and what each compressor adds to
#: it. rans is this package's own coder, which stores one histogram a tensor.
ENTROPIES = (1.86, 2.31, 3.33, 4.25, 4.72, 5.30, 6.32, 7.33)
OVERHEADS = {
    "brotli": (0.057, 0.024, 0.0144, 0.0098, 0.0053, 0.0073, 0.0057, 0.0047),
    "zstd": (0.061, 0.027, 0.0174, 0.0108, 0.0088, 0.0083, 0.0071, 0.0068),
    "lzma": (0.117, 0.109, 0.0684, 0.0387, 0.0301, 0.0262, 0.0200, 0.0154),
    "rans": (0.0005,) * len(ENTROPIES),
}


@dataclass(frozen=True)
class Estimate:
    """parameters: role -> trained values. codes: "role, bits" -> bytes. The rest in bytes."""

    parameters: dict[str, int]
    codes: dict[str, float]
    scales: int
    passthrough: int

    @property
    def total(self) -> int:
        """Bytes of the model file, without header and tokenizer."""
        return round(sum(self.codes.values())) + self.scales + self.passthrough


def expected_bytes(model: ModelSpec, quant: QuantSpec) -> Estimate:
    """The artifact of Gaussian weights; ``model`` is built on the meta device only.

    Raises RecipeError where ``policy`` does: an override of a path that the model does not have.
    """
    with torch.device("meta"):
        network = GPT(model)
    roles = role_of(network)
    treatments = policy(network, quant)
    codes: dict[str, float] = {}
    scales = passthrough = 0
    for path, weight in network.named_parameters():
        treatment = treatments[path]
        if treatment.passthrough:
            passthrough += 2 * weight.numel()
            continue
        rows, columns = weight.shape
        entropy = code_entropy(treatment.grid, step_in_deviations(treatment, columns))
        overhead = float(np.interp(entropy, ENTROPIES, OVERHEADS[quant.compressor]))
        label = f"{roles[path].value}, {treatment.bits} bits"
        n_bytes = weight.numel() * entropy * (1 + overhead) / 8
        codes[label] = codes.get(label, 0.0) + n_bytes
        scales += 2 * rows
    parameters = {role.value: count for role, count in parameters_by_role(network).items()}
    return Estimate(parameters, codes, scales, passthrough)


def describe(recipe: Recipe) -> str:
    """Parameters by role and expected bytes, as lines of text."""
    estimate = expected_bytes(recipe.model, recipe.quant)
    lines = [f"# {count:>12,} parameters: {role}" for role, count in estimate.parameters.items()]
    lines.append(f"# {sum(estimate.parameters.values()):>12,} parameters")
    parts = {f"codes: {label}": round(n_bytes) for label, n_bytes in estimate.codes.items()}
    parts |= {"scales": estimate.scales, "float16": estimate.passthrough}
    lines += [f"# {n_bytes:>12,} bytes expected for {part}" for part, n_bytes in parts.items()]
    total, budget = estimate.total, recipe.budget.bytes
    lines.append(f"# {total:>12,} bytes expected in all ({megabytes(total)}) without code")
    lines.append(f"# {budget:>12,} bytes of budget for code and model ({megabytes(budget)})")
    return "\n".join(lines)


def code_entropy(grid: Grid, step: float) -> float:
    """Bits per code of standard normal values rounded to ``grid`` with this step, tails clamped."""
    edges = [-math.inf, *((q + 0.5) * step for q in range(grid.low, grid.high)), math.inf]
    cumulative = np.array([_normal_cdf(edge) for edge in edges])
    p = np.diff(cumulative)
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def step_in_deviations(treatment: Treatment, columns: int) -> float:
    """The expected step of a Gaussian row of this length, in standard deviations."""
    c = treatment.grid.clip
    match treatment.clip:
        case "std":
            return treatment.k / c
        case "max":
            return expected_maximum(columns) / c
        case "search":
            clips = [expected_maximum(columns)]
            clips += [NormalDist().inv_cdf((1 + p) / 2) for p in SEARCH_QUANTILES if p < 1]
            steps = [clip / c for clip in clips]
            return min(steps, key=lambda step: _squared_error(treatment.grid, step))


@lru_cache
def expected_maximum(n: int) -> float:
    """E[max |x|] of n standard normal values: the integral of 1 - P(|x| < t)^n over t."""
    t = np.linspace(0.0, 12.0, 12_001)
    inside = np.array([math.erf(x / math.sqrt(2)) for x in t])
    return float(np.trapezoid(1 - inside**n, t))


def _squared_error(grid: Grid, step: float) -> float:
    """E[(x - rounded x)^2] of a standard normal x."""
    x = np.linspace(-6.0, 6.0, 24_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    rounded = np.clip(np.rint(x / step), grid.low, grid.high) * step
    return float(np.trapezoid(density * (x - rounded) ** 2, x))


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
