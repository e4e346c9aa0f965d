"""What happens to each tensor: by role, then by exact path.

    small (up to ``passthrough`` elements), or neither matrix nor table    float16
    attention matrices                                 matrix_bits, k of matrices
    MLP matrices                                       mlp_bits, k of MLP matrices
    hashed bigram table and its projection             hash_bits, k of matrices
    token table                                        embed_bits, k of embeddings
    untied head                                        8 bits, largest weight (round); as the
                                                       token table (gptq)
    a path in ``overrides``                            its own bits, whatever its size

Under GPTQ every matrix that multiplies an input is rounded by that input's second moments, the tied
token table too, since the head multiplies by it. Tables that are only looked up multiply nothing:
they are rounded to nearest, on the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches

from torch import Tensor

from underpar.errors import RecipeError
from underpar.grid.grid import Clip, Grid, row_scales
from underpar.model.gpt import GPT
from underpar.model.roles import Role, role_of
from underpar.recipe.schema import QuantSpec

HEAD_BITS = 8
#: Of a trained row of 512 weights the largest is about 3.2 deviations, seldom more than 6.
LEAST_K = 6.0


@dataclass(frozen=True)
class Treatment:
    """bits 16: stored as float16. Otherwise: rows on a grid of ``bits`` with steps by ``clip``."""

    bits: int
    clip: Clip = "max"
    k: float = 0.0  # standard deviations, for the clip 'std'
    symmetric: bool = False
    hessian: bool = False  # codes chosen by GPTQ

    @property
    def passthrough(self) -> bool:
        return self.bits == 16

    @property
    def grid(self) -> Grid:
        assert not self.passthrough
        return Grid(self.bits, self.symmetric)

    def scales(self, w: Tensor) -> Tensor:
        """Steps float32 [O] of w [O, I] on this treatment's grid."""
        return row_scales(w, self.grid, self.clip, self.k)

    def widened(self, by: float) -> Treatment:
        """With steps that follow the deviation ``by`` times as wide; others are left as they are.

        A step is k deviations over the largest code, and no trained weight comes near that code:
        the bits only bound the codes. Finer steps need larger codes: eight bits, at the same step.
        They end where weights would be clipped, at ``LEAST_K`` deviations.
        """
        if self.passthrough or self.clip != "std":
            return self
        if by >= 1:
            return replace(self, k=self.k * by)
        k = self.k * Grid(8).clip / self.grid.clip
        return replace(self, bits=8, k=max(k * by, min(k, LEAST_K)))


FLOAT16 = Treatment(bits=16)


def policy(model: GPT, spec: QuantSpec) -> dict[str, Treatment]:
    """The treatment of every parameter path of ``model`` (which may live on the meta device).

    Raises RecipeError for an override of a path that does not exist or is no matrix or table.
    """
    treatments = {}
    roles = role_of(model)
    for path, parameter in model.named_parameters():
        treatment = _by_role(roles[path], spec, model.spec.tied)
        if treatment is None or parameter.numel() <= spec.passthrough:
            treatment = FLOAT16
        treatments[path] = treatment
    for path, bits in spec.overrides.items():
        treatments[path] = _override(path, bits, roles, spec, model.spec.tied)
    return treatments


def _by_role(role: Role, spec: QuantSpec, tied: bool) -> Treatment | None:
    """The treatment of a large tensor of this role; None where only float16 makes sense."""
    gptq = spec.method == "gptq"
    base = Treatment(spec.matrix_bits, spec.clip, spec.matrix_k, spec.symmetric, hessian=gptq)
    embedding = replace(base, bits=spec.embed_bits, k=spec.embed_k, hessian=gptq and tied)
    hash_bits = spec.hash_bits or spec.matrix_bits
    match role:
        case Role.ATTENTION:
            return base
        case Role.MLP:
            bits, k = spec.mlp_bits or spec.matrix_bits, spec.mlp_k or spec.matrix_k
            return replace(base, bits=bits, k=k)
        case Role.PROJECTION:
            return replace(base, bits=hash_bits)
        case Role.HASH:
            return replace(base, bits=hash_bits, hessian=False)
        case Role.EMBEDDING:
            return embedding
        case Role.HEAD:
            return replace(embedding, hessian=True) if gptq else Treatment(HEAD_BITS)
        case _:
            return None


def _override(
    path: str, bits: int, roles: dict[str, Role], spec: QuantSpec, tied: bool
) -> Treatment:
    if path not in roles:
        nearest = get_close_matches(path, roles, n=1, cutoff=0.0)
        raise RecipeError(
            "recipe key 'quant.overrides'",
            got=repr(path),
            wanted="the path of a parameter of this model",
            do=f"The nearest is {nearest[0]!r}.",
        )
    treatment = _by_role(roles[path], spec, tied)
    if treatment is None and bits != 16:
        raise RecipeError(
            f"recipe key 'quant.overrides.{path}'",
            got=f"{bits} bits for a parameter of role {roles[path].name}",
            wanted="16, or the path of a matrix or table",
        )
    return replace(treatment, bits=bits) if treatment and bits != 16 else FLOAT16
