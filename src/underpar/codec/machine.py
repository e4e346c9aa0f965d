"""What decides the last bits of a float on a machine, and how the codec keeps it fixed.

Threads, number format and determinism can be set, so the decoder sets them. The version of torch
and the instruction set cannot: with others the sums differ, the tables differ, and every token
after the first would be noise. ``refusal`` gives the reason in one line before anything is decoded.
Portable files (``codec/tables.py``) depend on none of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic

from underpar.codec.blocks import INSTRUCTION_SETS, OTHER, Machine


def this_machine(dtype: torch.dtype) -> Machine:
    """What a file written here depends on; the codec runs on the CPU."""
    numbers = re.findall(r"\d+", torch.__version__)[:3]
    major, minor, patch = (int(n) for n in [*numbers, "0", "0", "0"][:3])
    capability = torch.backends.cpu.get_cpu_capability()
    return Machine(
        (major, minor, patch),
        capability if capability in INSTRUCTION_SETS else OTHER,
        torch.get_num_threads(),
        str(dtype).removeprefix("torch."),
        "cpu",
    )


def refusal(file: Machine, here: Machine) -> str:
    """Why this machine cannot compute the sums of the file's machine; "" when it can."""
    reasons = []
    if file.torch != here.torch:
        reasons.append(f"torch {_version(file)}, here {_version(here)}")
    if file.instruction_set != here.instruction_set:
        reasons.append(f"instruction set {file.instruction_set}, here {here.instruction_set}")
    if file.device != here.device:
        reasons.append(f"device {file.device}, here {here.device}")
    return "; ".join(reasons)


def describe(machine: Machine) -> str:
    """'torch 2.13.0, AVX512, 2 threads, bfloat16, cpu'"""
    threads = f"{machine.threads} thread{'s' * (machine.threads != 1)}"
    return (
        f"torch {_version(machine)}, {machine.instruction_set}, {threads}, "
        f"{machine.dtype}, {machine.device}"
    )


@contextmanager
def held_still(threads: int) -> Iterator[None]:
    """Fix the thread count and use deterministic kernels inside the ``with`` block.

    The switch would also fill every new tensor with NaN, to expose code that reads memory before
    writing it; that changes no result and takes a sixth of an adaptation step, so it is off.
    """
    threads_before, flag = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(flag)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def _version(machine: Machine) -> str:
    return ".".join(map(str, machine.torch))
