"""Which validation tokens have been trained on, and when.

A loss call on validation targets that needs gradients is pending; `backward` or `autograd.grad`
makes it count; the next change of parameters (a step of any optimizer, or a hand-written in-place
update of something that needs gradients) is the training use. Steps without validation tokens are
noted as well, with position -1: the clock of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from .recorder_codes import Event
from .recorder_numbers import _replace
from .recorder_state import current_recording

_WAITING: list[Event] = []
_COUNTED: list[np.ndarray] = []
_INSIDE: list[Any] = []  # optimizers whose step is running


def pending(event: Event) -> None:
    """A loss on validation targets that could be differentiated."""
    _WAITING.append(event)
    del _WAITING[:-512]


def backward(*_: Any) -> None:
    """The losses waiting were differentiated."""
    _COUNTED.extend(event.pos[event.pos >= 0] for event in _WAITING)
    _WAITING.clear()


def step() -> None:
    """Parameters changed with the gradients counted so far."""
    recording = current_recording()
    seen = np.unique(np.concatenate(_COUNTED)) if _COUNTED else np.array([-1], np.int64)
    _COUNTED.clear()
    recording.uses.append((recording.lineage.tick(), recording.line(), seen))


def in_place(_: str, args: Any, kwargs: Any) -> None:
    """An in-place operation on a parameter outside of optimizers."""
    if _COUNTED and not _INSIDE and not torch.is_grad_enabled():
        target = args[0]
        if isinstance(target, torch.Tensor) and (target.requires_grad or _is_data(target)):
            step()


def _is_data(target: torch.Tensor) -> bool:
    """Whether `target` is the `.data` of something with a gradient: same memory, no history."""
    return target.is_floating_point() and target.data_ptr() in _LEAVES


_LEAVES: set[int] = set()
STEPS: dict[str, Callable[[str, Any, Any], None]] = dict.fromkeys(
    ("add_", "sub_", "__iadd__", "__isub__", "addcdiv_", "lerp_"), in_place
)
STEPS["backward"] = lambda name, args, kwargs: backward()


def install(undo: list[Callable[[], None]]) -> None:
    """Hook backward, autograd.grad and every optimizer."""
    for owner, name in ((torch.autograd, "backward"), (torch.autograd, "grad")):
        plain = getattr(owner, name)
        _replace(owner, name, _before(plain), undo)
    undo.append(register_optimizer_step_pre_hook(lambda o, *_: _INSIDE.append(o)).remove)
    undo.append(register_optimizer_step_post_hook(_stepped).remove)
    plain = torch.optim.Optimizer.zero_grad

    def zero_grad(self: Any, *args: Any, **kwargs: Any) -> None:
        _COUNTED.clear()
        plain(self, *args, **kwargs)

    _replace(torch.optim.Optimizer, "zero_grad", zero_grad, undo)
    undo.extend((_WAITING.clear, _COUNTED.clear, _LEAVES.clear, _INSIDE.clear))


def _stepped(*_: Any) -> None:
    del _INSIDE[-1:]
    step()


def _before(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if function.__name__ == "grad":
            wanted = args[1] if len(args) > 1 else kwargs.get("inputs")
            for leaf in wanted if isinstance(wanted, list | tuple) else [wanted]:
                if isinstance(leaf, torch.Tensor):
                    _LEAVES.add(leaf.data_ptr())
        backward()
        return function(*args, **kwargs)

    return call
