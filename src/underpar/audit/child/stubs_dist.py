"""Collectives of `torch.distributed` between the ranks of one job, through files.

NCCL needs GPUs and gloo needs a network interface; the sandbox has neither. Every rank writes its
part of a collective to `data/wire/<number>-<rank>` and reads the parts of the others, in rank
order, so that sums are the same on all ranks and in all runs. Ranks call collectives in the same
order, therefore a counter per group is all the addressing there is. With one rank nothing is
written.
"""

from __future__ import annotations

import io
import os
import time
import types
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from . import hits
from .swap import swap

_POLL = 0.0005
_sleep = time.sleep


class _Work:
    """A finished asynchronous collective."""

    def wait(self, *_args: Any) -> bool:
        return True

    def is_completed(self) -> bool:
        return True

    def get_future(self) -> Any:
        future: Any = torch.futures.Future()
        future.set_result(None)
        return future


class Wire:
    """Exchange of objects between ranks."""

    def __init__(self, folder: Path, rank: int, world: int) -> None:
        self.folder, self.rank, self.world = folder, rank, world
        self.number = 0
        self.ready = False
        folder.mkdir(parents=True, exist_ok=True)

    def exchange(self, value: Any) -> list[Any]:
        """The values of all ranks, in rank order."""
        self.number += 1
        if self.world == 1:
            return [value]
        path = self.folder / f"{self.number}-{self.rank}"
        part = path.with_suffix(".part")
        buffer = io.BytesIO()
        _save(value, buffer)
        part.write_bytes(buffer.getvalue())
        os.replace(part, path)
        got = [value if r == self.rank else self._read(r) for r in range(self.world)]
        old = self.folder / f"{self.number - 2}-{self.rank}"
        old.unlink(missing_ok=True)  # everyone has finished the collective before the last one
        return got

    def _read(self, rank: int) -> Any:
        path = self.folder / f"{self.number}-{rank}"
        while not path.exists():
            _sleep(_POLL)
        return _load(io.BytesIO(path.read_bytes()), weights_only=False)


_save, _load = torch.save, torch.load


def _reduce(parts: list[torch.Tensor], op: Any) -> torch.Tensor:
    stack = torch.stack([p.detach() for p in parts])
    if op in (None, dist.ReduceOp.SUM):
        return stack.sum(0).to(stack.dtype)
    if op == dist.ReduceOp.AVG:
        return (stack.sum(0) / len(parts)).to(stack.dtype)
    if op == dist.ReduceOp.MAX:
        return stack.amax(0)
    if op == dist.ReduceOp.MIN:
        return stack.amin(0)
    if op == dist.ReduceOp.PRODUCT:
        return stack.prod(0).to(stack.dtype)
    raise NotImplementedError(f"reduce {op}")


def _tensor_calls(wire: Wire) -> dict[str, Any]:
    copy = torch.no_grad()(lambda target, source: target.copy_(source.reshape(target.shape)))

    def all_reduce(tensor: Any, op: Any = None, group: Any = None, async_op: bool = False) -> _Work:
        if wire.world > 1:
            copy(tensor, _reduce(wire.exchange(tensor.detach().cpu()), op))
        return _Work()

    def reduce(tensor: Any, dst: int = 0, op: Any = None, *_a: Any, **_k: Any) -> _Work:
        return all_reduce(tensor, op)

    def broadcast(tensor: Any, src: int = 0, *_a: Any, **_k: Any) -> _Work:
        copy(tensor, wire.exchange(tensor.detach())[src])
        return _Work()

    def all_gather(out: list[Any], tensor: Any, *_a: Any, **_k: Any) -> _Work:
        for target, part in zip(out, wire.exchange(tensor.detach())):
            copy(target, part)
        return _Work()

    def all_gather_into_tensor(out: Any, tensor: Any, *_a: Any, **_k: Any) -> _Work:
        copy(out, torch.stack(wire.exchange(tensor.detach().clone())))
        return _Work()

    def reduce_scatter_tensor(out: Any, tensor: Any, op: Any = None, *_a: Any, **_k: Any) -> _Work:
        whole = _reduce(wire.exchange(tensor.detach().clone()), op)
        copy(out, whole.reshape(wire.world, -1)[wire.rank])
        return _Work()

    def gather(tensor: Any, gather_list: Any = None, dst: int = 0, *_a: Any, **_k: Any) -> _Work:
        parts = wire.exchange(tensor.detach())
        for target, part in zip(gather_list or [], parts):
            copy(target, part)
        return _Work()

    def scatter(tensor: Any, scatter_list: Any = None, src: int = 0, *_a: Any, **_k: Any) -> _Work:
        copy(tensor, wire.exchange(scatter_list)[src][wire.rank])
        return _Work()

    found = dict(locals())
    return {name: f for name, f in found.items() if name not in ("wire", "copy")}


def _object_calls(wire: Wire) -> dict[str, Any]:
    def barrier(*_a: Any, **_k: Any) -> _Work:
        wire.exchange(None)
        return _Work()

    def all_gather_object(out: list[Any], value: Any, *_a: Any, **_k: Any) -> None:
        out[:] = wire.exchange(value)

    def gather_object(value: Any, out: Any = None, *_a: Any, **_k: Any) -> None:
        parts = wire.exchange(value)
        if out is not None:
            out[:] = parts

    def broadcast_object_list(values: list[Any], src: int = 0, *_a: Any, **_k: Any) -> None:
        values[:] = wire.exchange(list(values))[src]

    found = dict(locals())
    return {name: f for name, f in found.items() if name != "wire"}


def _state_calls(wire: Wire) -> dict[str, Any]:
    def init_process_group(*_a: Any, **_k: Any) -> None:
        hits.hit("distributed")
        wire.ready = True

    def destroy_process_group(*_a: Any, **_k: Any) -> None:
        wire.ready = False

    return {
        "init_process_group": init_process_group,
        "destroy_process_group": destroy_process_group,
        "is_initialized": lambda: wire.ready,
        "is_available": lambda: True,
        "is_nccl_available": lambda: True,
        "get_rank": lambda *_a, **_k: wire.rank,
        "get_world_size": lambda *_a, **_k: wire.world,
        "get_backend": lambda *_a, **_k: "nccl",
        "new_group": lambda *_a, **_k: types.SimpleNamespace(name="world"),
        "monitored_barrier": lambda *_a, **_k: wire.exchange(None),
    }


class Replica(torch.nn.Module):
    """DistributedDataParallel: the same gradients on every rank after `backward`."""

    def __init__(self, module: torch.nn.Module, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()
        self.module = module
        self.require_backward_grad_sync = True
        self._queued = False
        if wire_of_job().world > 1:
            for p in module.parameters():
                if p.requires_grad:
                    p.register_post_accumulate_grad_hook(self._after)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def no_sync(self) -> Any:
        """Context in which gradients stay local."""
        replica = self

        class _Quiet:
            def __enter__(self) -> None:
                replica.require_backward_grad_sync = False

            def __exit__(self, *_exc: Any) -> None:
                replica.require_backward_grad_sync = True

        return _Quiet()

    def _after(self, _parameter: torch.Tensor) -> None:
        if self.require_backward_grad_sync and not self._queued:
            self._queued = True
            engine: Any = torch.autograd.Variable._execution_engine
            engine.queue_callback(self._average)

    def _average(self) -> None:
        self._queued = False
        grads = [p.grad for p in self.module.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1).float() for g in grads])
        parts = wire_of_job().exchange(flat)
        mean = torch.stack(parts).mean(0)
        for g, part in zip(grads, mean.split([g.numel() for g in grads])):
            g.copy_(part.reshape(g.shape))


_WIRES: list[Wire] = []


def wire_of_job() -> Wire:
    """The wire that `install` laid."""
    return _WIRES[-1]


def install(folder: Path, rank: int, world: int) -> None:
    """Replace the functions of `torch.distributed` and DistributedDataParallel."""
    wire = Wire(folder, rank, world)
    _WIRES.append(wire)
    for name, function in (_tensor_calls(wire) | _object_calls(wire) | _state_calls(wire)).items():
        setattr(dist, name, function)
    swap(
        dist,
        _all_gather_base=dist.all_gather_into_tensor,
        _reduce_scatter_base=dist.reduce_scatter_tensor,
    )
    swap(torch.nn.parallel, DistributedDataParallel=Replica)
    swap(torch.nn.parallel.distributed, DistributedDataParallel=Replica)
