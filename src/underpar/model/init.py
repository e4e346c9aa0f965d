"""Starting weights: the published rules, drawn in the published order.

Rules. The tied token table is N(0, embed_std^2); an untied one is N(0, 1) with a zero head. What
ends a branch (attention output, MLP down) and the bigram table is zero. Other linear maps with both
sides of at least 64 are orthogonal with gain 1, the bigram projection times 1/sqrt(2 n_layer);
smaller ones keep the framework's default, uniform within 1/sqrt(I). One departure: #456 zeroes a
*small* bigram projection, which kills the path for good since the table starts at zero as well;
here it keeps its uniform draw.

Order. A seed gives the same masters as the published scripts (which rounded them to bfloat16
afterwards; these stay float32). They built every layer with the framework's default draw first and
then drew again, so each draw below happens even where its result is thrown away: first pass, every
table and linear map in the order of construction; then the tied table; then the orthogonal ones.
All of it in float32 on the CPU generator, whose state the caller gets back untouched.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from underpar.model.layers import Linear, Table
from underpar.model.roles import Role, role_of
from underpar.recipe.schema import ModelSpec

#: linear maps with a smaller side keep the framework's default
ORTHOGONAL_FROM = 64


@torch.no_grad()
def initialise(model: nn.Module, spec: ModelSpec, seed: int) -> None:
    """Draw all random weights of a freshly built model; constants were set when it was built."""
    layers = [m for m in model.modules() if isinstance(m, Linear | Table)]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for layer in layers:
            draw = _default(layer)
            if not layer.zero_init:
                layer.weight.copy_(draw)
        for layer in layers:
            if spec.tied and _role(layer) is Role.EMBEDDING:
                layer.weight.copy_(_empty(layer).normal_(0.0, spec.embed_std))
        for layer in layers:
            wide = min(layer.weight.shape) >= ORTHOGONAL_FROM
            if isinstance(layer, Linear) and wide and not layer.zero_init:
                drawn = nn.init.orthogonal_(_empty(layer))
                if _role(layer) is Role.PROJECTION:
                    drawn *= 1.0 / math.sqrt(2 * spec.n_layer)
                layer.weight.copy_(drawn)


def _default(layer: Linear | Table) -> Tensor:
    """What the framework draws for a layer of this kind and size."""
    if isinstance(layer, Table):
        return _empty(layer).normal_()
    return nn.init.kaiming_uniform_(_empty(layer), a=math.sqrt(5))


def _empty(layer: Linear | Table) -> Tensor:
    return torch.empty(layer.weight.shape, dtype=torch.float32, device="cpu")


def _role(layer: Linear | Table) -> Role:
    return role_of(layer)["weight"]
