"""Imports that this machine cannot answer.

An import that the script guards with `try` and can do without fails, and the script takes its own
way. Kernel libraries and anything unguarded is answered: classes are layers that mix earlier
positions into later ones (never the other way), functions hand their first tensor through such a
mixer. A verdict reached through one of these says little about the original layer, so it is named.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import hits, stubs_tools
from .swap import swap

SUPPLIED = frozenset({"fla", "mamba_ssm", "causal_conv1d", "rotary_embedding_torch"})
"""Layer libraries without which a script that guards them still cannot run."""


def causal_mean(x: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """Mean of `x` over all positions up to each one."""
    counts = torch.arange(1, x.shape[dim] + 1, dtype=torch.float32)
    shape = [1] * x.dim()
    shape[dim] = -1
    return x.cumsum(dim) / counts.reshape(shape)


class CausalMixer(nn.Module):
    """Stands for any sequence layer: value projection, causal mean, output projection.

    The parts carry the usual names, because scripts share or initialise them by name.
    """

    tuple_size = 0
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        names = ("hidden_size", "d_model", "dim", "dim_model", "embed_dim", "model_dim")
        given = [kwargs[n] for n in names if n in kwargs]
        width = int(next((a for a in (*given, *args) if isinstance(a, int)), 16))
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(width, width, bias=False))
        for name in ("q_conv1d", "k_conv1d", "v_conv1d"):
            setattr(self, name, nn.Identity())

    def forward(self, x: torch.Tensor, *_args: Any, **_kwargs: Any) -> Any:
        hits.hit(f"layer {type(self).__name__}")
        gate = torch.sigmoid(self.q_proj(x) * self.k_proj(x))
        out = self.o_proj(gate * causal_mean(self.v_proj(x)))
        return (out, *([None] * (self.tuple_size - 1))) if self.tuple_size else out


def _function(path: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        hits.hit(f"function {path}")
        if "conv1d" in path:
            return _causal_conv(*args, **kwargs)
        if path.startswith("fla") and len(_blocks(args, kwargs)) == 3:
            return _delta_rule(*args, **kwargs)
        given = kwargs.get("v", next((a for a in args if isinstance(a, torch.Tensor)), None))
        if given is None:
            return args[0] if args else None
        if path.startswith("mamba_ssm"):
            return causal_mean(given, dim=-1)
        mixed = causal_mean(given)
        return (mixed, kwargs.get("initial_state")) if path.startswith("fla") else mixed

    return call


def _blocks(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """Queries, keys and values [B, T, H, D], as far as they are there."""
    named = dict(zip("qkv", args)) | kwargs
    given = [named.get(name) for name in "qkv"]
    return [x for x in given if isinstance(x, torch.Tensor) and x.dim() == 4]


def _delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: Any = None,
    beta: Any = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    **_kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gated delta rule over [B, T, H, D], one position at a time: (outputs, final state).

    Yang et al. 2024, arXiv:2412.06464. The state matters: one that is handed from the end of a
    sequence to its beginning carries the future there.
    """
    state = torch.zeros(*q.shape[::2], q.shape[3], v.shape[3])
    state = state if initial_state is None else initial_state.float() + state
    out = []
    for t in range(q.shape[1]):
        if isinstance(g, torch.Tensor) and g.dim() == 3:
            state = state * g[:, t, :, None, None].float().clamp(max=0).exp()
        key, new = k[:, t, :, :, None].float(), v[:, t, :, None].float()
        new = new - (state * key).sum(2, keepdim=True)
        if isinstance(beta, torch.Tensor) and beta.dim() == 3:
            new = new * beta[:, t, :, None, None].float()
        state = state + key * new
        query = q[:, t, :, :, None].float() * (scale or q.shape[3] ** -0.5)
        out.append((state * query).sum(2))
    return torch.stack(out, 1).to(v.dtype), state


def _causal_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Any = None,
    *_args: Any,
    activation: Any = None,
    **_kwargs: Any,
) -> torch.Tensor:
    """Depthwise causal convolution of x [B, D, L] with weight [D, W]."""
    padded = nn.functional.pad(x, (weight.shape[1] - 1, 0))
    out = nn.functional.conv1d(padded, weight[:, None], bias, groups=weight.shape[0])
    return nn.functional.silu(out) if activation in ("silu", "swish") else out


class StubModule(types.ModuleType):
    """A module that has whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        path = f"{self.__name__}.{name}"
        hits.hit(f"module {self.__name__}")
        value: Any
        if name[0].isupper():
            size = 3 if path.startswith("fla.layers") else 0
            value = type(name, (CausalMixer,), {"tuple_size": size})
        else:
            value = _function(path)
        setattr(self, name, value)
        return value


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Last in line: answers what no other finder knows."""

    def __init__(self, guarded: set[str]) -> None:
        self.guarded = guarded

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        top = fullname.split(".")[0]
        parent = sys.modules.get(fullname.rpartition(".")[0])
        if top.startswith("_"):
            return None
        loader = getattr(getattr(parent, "__spec__", None), "loader", None)
        ours = loader is self or isinstance(parent, StubModule)
        if "." in fullname and not ours:
            return None
        if (top in self.guarded and top not in SUPPLIED) or _library_asks():
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        hits.hit(f"import {spec.name}")
        return stubs_tools.module(spec.name) or StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


def _library_asks() -> bool:
    """Whether an installed package imports: it looks for its optional parts, and can do without."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return "site-packages" in Path(frame.f_code.co_filename).parts


def _fake_operators() -> None:
    """Operators of a native library that is missing: zeros in the shape that the script states."""
    known = torch.library.register_fake

    def register_fake(op: Any, func: Any = None, *args: Any, **kwargs: Any) -> Any:
        def declare(function: Any) -> Any:
            try:
                return known(op, function, *args, **kwargs)
            except RuntimeError:
                space, _, name = str(op).partition("::")
                owner = types.SimpleNamespace()
                setattr(torch.ops, space, owner)
                setattr(owner, name, lambda *a, **k: function(*a, **k).zero_())
                hits.hit(f"operator {op}")
                return function

        return declare if func is None else declare(func)

    swap(torch.library, register_fake=register_fake)


def install(modules: dict[str, types.ModuleType], guarded: set[str]) -> None:
    """Put the stand-ins in place of modules that may or may not exist, and the finder last."""
    for name, module in modules.items():  # find_spec of a module that is there asks for its spec
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules.update(modules)
    sys.meta_path.append(Finder(guarded))
    _fake_operators()
