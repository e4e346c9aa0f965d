"""Which optimizer moves which parameter: decided by role, once, for every parameter.

    token    embedding and hash tables    AdamW, token_lr, token_wd
    head     untied output head           AdamW, head_lr, no decay (that is: Adam)
    muon     attention, MLP, projection   Muon, matrix_lr, matrix_wd
    scalar   gains, scales, mixes, ...    AdamW, scalar_lr, scalar_wd

Tables are looked up, not multiplied, so orthogonalising their update makes no sense: a row moves
only when its token occurred. They and the many small vectors get Adam's per-element scale. Tables
kept in bfloat16 have bfloat16 moments too, as published.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from underpar.model.roles import Role, role_of
from underpar.recipe.schema import TrainSpec
from underpar.train.muon import Muon

#: in stepping order
GROUPS = ("token", "head", "muon", "scalar")


def group_of(role: Role) -> str:
    """Name of the optimizer group of a role."""
    if role.is_table:
        return "token"
    if role is Role.HEAD:
        return "head"
    return "muon" if role.is_matrix else "scalar"


def grouped(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Group -> path -> parameter; every parameter of the model in exactly one group."""
    parameters = dict(model.named_parameters())
    groups: dict[str, dict[str, nn.Parameter]] = {name: {} for name in GROUPS}
    for path, role in role_of(model).items():
        groups[group_of(role)][path] = parameters[path]
    assert sum(map(len, groups.values())) == len(parameters), "a parameter without a group"
    return groups


class Optimizers:
    """All optimizers of a model behind one ``step``.

    dtype: of Muon's Newton-Schulz and update exchange. Rates are the recipe's times the multiplier
    of the step; weight decay is decoupled and follows the rate.
    """

    def __init__(
        self, model: nn.Module, spec: TrainSpec, *, dtype: torch.dtype = torch.float32
    ) -> None:
        groups = grouped(model)
        self._adam: dict[str, tuple[torch.optim.AdamW, float, dict[str, nn.Parameter]]] = {}
        for name, lr, decay in (
            ("token", spec.token_lr, spec.token_wd),
            ("head", spec.head_lr, 0.0),
            ("scalar", spec.scalar_lr, spec.scalar_wd),
        ):
            if groups[name]:
                self._adam[name] = (_adamw(groups[name], spec, lr, decay), lr, groups[name])
        self._muon = Muon(
            groups["muon"],
            lr=spec.matrix_lr,
            weight_decay=spec.matrix_wd,
            ns_steps=spec.muon_ns_steps,
            row_norm=spec.muon_row_norm,
            dtype=dtype,
        )
        self._parameters = list(model.parameters())

    def step(self, multiplier: float, momentum: float) -> None:
        """One step of every group: rates times ``multiplier``, Muon's momentum as given."""
        for name in GROUPS:
            if name == "muon":
                self._muon.step(multiplier, momentum)
            elif name in self._adam:
                optimizer, lr, _ = self._adam[name]
                optimizer.param_groups[0]["lr"] = lr * multiplier
                optimizer.step()

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def saved(self) -> dict[str, Tensor]:
        """Flat: '<kind>/<path>' -> tensor; complete on every process (collective)."""
        state = {f"momentum/{path}": t for path, t in self._muon.saved().items()}
        for optimizer, _, parameters in self._adam.values():
            for path, parameter in parameters.items():
                for kind, tensor in optimizer.state.get(parameter, {}).items():
                    state[f"{kind}/{path}"] = tensor
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``saved`` gave; KeyError when a part of it is missing."""
        prefix = "momentum/"
        self._muon.restore(
            {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
        )
        for optimizer, _, parameters in self._adam.values():
            for path, parameter in parameters.items():
                if f"step/{path}" not in state:  # saved before its first step
                    continue
                moments = {
                    kind: state[f"{kind}/{path}"].to(parameter.device, copy=True)
                    for kind in ("step", "exp_avg", "exp_avg_sq")
                }
                optimizer.state[parameter] = moments


def _adamw(
    parameters: Mapping[str, nn.Parameter], spec: TrainSpec, lr: float, decay: float
) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        list(parameters.values()),
        lr=lr,
        betas=(spec.adam_beta1, spec.adam_beta2),
        eps=spec.adam_eps,
        weight_decay=decay,
        fused=True,  # one kernel a group on GPUs, one pass over memory on CPUs
    )
