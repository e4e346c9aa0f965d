"""Processes: rank, world size, collectives, devices. No-ops when there is one process.

The only module that reads the environment: torchrun speaks through it (RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR), and so does the converter ``underpar recipes from-env``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as torch_dist
from torch import Tensor

from underpar.errors import MachineError

T = TypeVar("T")


def environment() -> Mapping[str, str]:
    """A copy of the process environment, for the one caller that may look at it: the CLI."""
    return dict(os.environ)


def device() -> torch.device:
    """This process's device: its own GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@contextmanager
def processes() -> Iterator[None]:
    """Join torchrun's process group for the length of the block; a plain run passes through.

    NCCL on GPUs, gloo on CPUs. Raises MachineError when there are fewer GPUs than ranks.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or torch_dist.is_initialized():
        yield
        return
    own = device()
    if own.type == "cuda":
        if own.index >= torch.cuda.device_count():
            raise MachineError(
                "distributed run",
                got=f"local rank {own.index} with {torch.cuda.device_count()} GPUs",
                wanted="one GPU a rank",
                do="Lower --nproc-per-node.",
            )
        torch.cuda.set_device(own)
        torch_dist.init_process_group("nccl", device_id=own)
    else:
        torch_dist.init_process_group("gloo")
    try:
        yield
    finally:
        torch_dist.destroy_process_group()


def leave(code: int) -> None:
    """End a rank of torchrun's at once, its output flushed; a plain run goes on to end by itself.

    Gloo's threads may outlive the group: about one rank in fifty was aborted in the interpreter's
    teardown ("terminate called without an active exception"), after all its work was done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _on() -> bool:
    return torch_dist.is_available() and torch_dist.is_initialized()


def rank() -> int:
    return torch_dist.get_rank() if _on() else 0


def world_size() -> int:
    return torch_dist.get_world_size() if _on() else 1


def is_main() -> bool:
    """True on the one process that writes files and talks."""
    return rank() == 0


def barrier() -> None:
    if _on():
        torch_dist.barrier()


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum over ranks, in place; returns x. x must live on ``device()``."""
    if _on():
        torch_dist.all_reduce(x, op=torch_dist.ReduceOp.SUM)
    return x


def all_reduce_mean(x: Tensor) -> Tensor:
    """Mean over ranks, in place; returns x."""
    return all_reduce_sum(x).div_(world_size()) if _on() else x


def sum_float64(*values: float) -> tuple[float, ...]:
    """Sums of numbers over ranks, in float64 and rank order: the same bits on every rank."""
    if not _on():
        return tuple(float(v) for v in values)
    return tuple(sum(column) for column in zip(*gather(tuple(float(v) for v in values))))


def gather(value: T) -> list[T]:
    """Every rank's value, in rank order, on every rank. For small Python data, not tensors."""
    if not _on():
        return [value]
    values: list[T] = [value] * world_size()
    torch_dist.all_gather_object(values, value)
    return values


def broadcast(value: T) -> T:
    """Rank 0's value on every rank: one clock, one decision, for all replicas."""
    if not _on():
        return value
    box = [value]
    torch_dist.broadcast_object_list(box, src=0)
    return box[0]


def share(n: int) -> tuple[int, int]:
    """This rank's contiguous part [start, end) of n items, as even as can be."""
    r, w = rank(), world_size()
    return n * r // w, n * (r + 1) // w
