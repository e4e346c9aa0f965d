"""How all that moves during training is saved and brought back.

Resumed equals uninterrupted bit for bit, so nothing may be missing here: weights, moments,
averages, the loader's position, latches, the clock. There is no random state, because nothing in a
step is random. A checkpoint also carries the identity of its run (recipe sections and seed), and
training is refused to go on under another one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from underpar import dist
from underpar.errors import TrainingError
from underpar.model.gpt import GPT
from underpar.recipe.schema import TrainSpec
from underpar.train import checkpoint
from underpar.train.loop import State

#: keys of TrainSpec that a resumed run may change: they do not touch the weights
FREE_KEYS = ("val_every", "log_every", "checkpoint_seconds")

Saved = tuple[dict[str, Tensor], dict[str, Any]]


def save(state: State, folder: Path, identity: dict[str, Any]) -> None:
    """Write a checkpoint (collective). A finished run keeps its weights only.

    Raises TrainingError, and writes nothing, when a weight is not finite.
    """
    weights = dict(state.model.named_parameters())
    refuse_non_finite(weights, state.counters.step)
    tensors: dict[str, Tensor] = {f"model/{path}": w for path, w in weights.items()}
    if not state.counters.stop_reason:
        tensors |= {f"optimizer/{k}": t for k, t in state.optimizers.saved().items()}
        if state.average is not None:
            tensors |= {f"average/{k}": t for k, t in state.average.saved().items()}
    if dist.is_main():
        meta = {
            "identity": identity,
            "counters": dataclasses.asdict(state.counters),
            "loader": state.loader.bookmark(),
        }
        checkpoint.save(folder, state.counters.step, tensors, meta)
    dist.barrier()


def restore(state: State, saved: Saved) -> None:
    """Go on from what ``read`` gave."""
    tensors, meta = saved
    load_weights(state.model, tensors)
    state.optimizers.restore(_part(tensors, "optimizer/"))
    if state.average is not None:
        state.average.restore(_part(tensors, "average/"))
    state.loader.restore(meta["loader"])
    for key, value in meta["counters"].items():
        setattr(state.counters, key, value)


def identity_of(model: GPT, spec: TrainSpec, seed: int) -> dict[str, Any]:
    """What must be equal for a checkpoint to be continued."""
    train = {k: v for k, v in dataclasses.asdict(spec).items() if k not in FREE_KEYS}
    return {"model": dataclasses.asdict(model.spec), "train": train, "seed": seed}


def read(folder: Path, identity: dict[str, Any]) -> Saved | None:
    """The newest checkpoint of this very run, or None when the folder has none.

    Raises TrainingError when it is damaged, or of another recipe or seed (naming the keys).
    """
    path = checkpoint.newest(folder)
    if path is None:
        return None
    tensors, meta = checkpoint.load(path)
    ours, theirs = _flat(identity), _flat(meta["identity"])
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise TrainingError(
                f"checkpoint {path} belongs to another run: {key}",
                got=theirs.get(key),
                wanted=ours.get(key),
                do="Resume with the recipe it began with, or train in another folder.",
            )
    return tensors, meta


@torch.no_grad()
def load_weights(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy the weights of a checkpoint into the model."""
    for path, weight in model.named_parameters():
        weight.copy_(tensors[f"model/{path}"])


def refuse_non_finite(weights: dict[str, nn.Parameter], step: int) -> None:
    """TrainingError when a weight is infinite or not a number."""
    norms = torch._foreach_norm(list(weights.values()))
    bad = [path for path, norm in zip(weights, norms) if not torch.isfinite(norm)]
    if bad:
        raise TrainingError(
            f"weights are not finite after step {step}",
            got=", ".join(bad[:3]) + (" ..." if len(bad) > 3 else ""),
            do="The last checkpoint is still good. Lower the learning rates or clip gradients.",
        )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in identity.items():
        inner = value if isinstance(value, dict) else {"": value}
        flat.update({f"{key}.{k}".rstrip("."): v for k, v in inner.items()})
    return flat
