"""The auditor's side of the jail: what is readable in it, starting it, watching it, ending it.

Nothing the jail says is believed: its answers have bounded sizes, and time and memory are measured
from here, where the stranger is not. Memory has two limits. Each process has its own
(RLIMIT_DATA); the whole family, summed over /proc several times a second, has one too, because
many small processes are as bad as a large one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from underpar.audit import bubble
from underpar.audit.facts import Status
from underpar.audit.jail import LENGTH, JailOrder
from underpar.audit.walls import SCRATCH
from underpar.audit.watch import Watch

PACKAGE = Path(__file__).parents[1]  # .../underpar
CODE = "/underpar"  # where the package's few files are in the jail

MOST_HEADER = 1 << 16
NO_RESULT = "the jail ended without a result"

#: The system's programs and libraries; a script may compile C.
SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/include",
          "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/nix/store",
          "/sys/devices/system/cpu")  # fmt: skip
OURS = ("__init__.py", "audit/__init__.py", "audit/child")
READABLE = ("torch", "numpy", "sentencepiece")

START = "import sys; sys.path.insert(0, sys.argv[1]); from underpar.audit import jail; "
START += "jail.main(int(sys.argv[2]))"


@dataclass(frozen=True)
class Limits:
    """seconds of the clock; bytes of memory (a process, and all of them) and of scratch."""

    seconds: float
    memory: int
    all_memory: int
    disk: int = 1 << 30
    processes: int = 256


@dataclass(frozen=True)
class Ended:
    """How it went. files: those of ``take`` that were there. why: what the jail has to say."""

    status: Status
    seconds: float
    out: str = ""
    err: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    why: str = ""


def execute(
    program: Sequence[str],
    files: Mapping[str, bytes],
    take: Mapping[str, int],
    limits: Limits,
    *,
    environment: Mapping[str, str],
    world: int = 1,
    trust: bool = False,
) -> Ended:
    """Run ``program`` ("{scratch}" stands for its folder, the rank is appended), jailed.

    files: relative name -> contents of the scratch folder, which is all that can be written. take:
    name -> most bytes of the files wanted back. Status "refused" when there can be no jail here.
    """
    with tempfile.TemporaryDirectory(prefix="underpar-audit-") as folder:
        scratch = folder if trust else SCRATCH
        order = JailOrder(
            mode="trust" if trust else "walls",
            scratch=scratch,
            program=[part.replace("{scratch}", scratch) for part in program],
            environment={k: v.replace("{scratch}", scratch) for k, v in environment.items()},
            world=world,
            seconds=limits.seconds,
            memory=limits.memory,
            disk=limits.disk,
            processes=limits.processes,
            files=[(name, len(data)) for name, data in files.items()],
            take=dict(take),
            binds=[] if trust else readable_paths(),
            links=[] if trust else _links(),
        )
        ended = _run(order, list(files.values()), limits, [])
        if ended.status == "refused" and not trust and (wrapper := bubble.command(order, CODE)):
            refusal = ended
            ended = _run(bubble.inside(order), list(files.values()), limits, wrapper)
            if ended.why == NO_RESULT and ended.err.startswith("bwrap: "):
                ended = replace(refusal, why=f"{refusal.why}; {ended.err[:300]}")
    return ended


def code_folder(trust: bool) -> str:
    """The folder that goes on the child's path."""
    return str(PACKAGE.parent) if trust else CODE


def readable_paths() -> list[tuple[str, str]]:
    """(source, place): Python, its packages, the system's libraries, the child's own code."""
    paths = sysconfig.get_paths()
    wanted = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    wanted += [p for p in (sys.prefix, sys.base_prefix) if p not in ("/", "/usr")]
    for name in READABLE:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            wanted.append(str(Path(spec.origin).parents[1]))
    wanted += [p for p in SYSTEM if os.path.exists(p) and not os.path.islink(p)]
    places = {place for path in wanted for place in (path, os.path.realpath(path))}
    kept = [p for p in sorted(places) if not any(q != p and _below(p, q) for q in places)]
    binds = [(os.path.realpath(place), place) for place in kept]
    return binds + [(str(PACKAGE / part), f"{CODE}/underpar/{part}") for part in OURS]


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _links() -> list[tuple[str, str]]:
    """/bin and its like, where they are symlinks."""
    return [(os.readlink(p), p) for p in SYSTEM if os.path.islink(p)]


def _run(order: JailOrder, contents: list[bytes], limits: Limits, wrapper: list[str]) -> Ended:
    """One jail, from its order to its result. Nobody of it is alive afterwards."""
    result, other = os.pipe()
    package = CODE if wrapper else str(PACKAGE.parent)
    command = [sys.executable, "-I", "-S", "-B", "-c", START, package, str(other)]
    process = subprocess.Popen(
        [*wrapper, *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        pass_fds=[other], env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}, cwd="/",
        start_new_session=True,
    )  # fmt: skip
    os.close(other)
    start = time.monotonic()
    try:
        most = MOST_HEADER + LENGTH.size + sum(order.take.values())
        watch = Watch(process, result, seconds=limits.seconds, memory=limits.all_memory, most=most)
        header = json.dumps(vars(order)).encode()
        watch.pump(LENGTH.pack(len(header)) + header + b"".join(contents))
        return _judge(order, watch, time.monotonic() - start)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                with suppress(OSError):
                    stream.close()
        os.close(result)


def _judge(order: JailOrder, watch: Watch, elapsed: float) -> Ended:
    """What the jail reported, and what was seen from here, as one word and a reason."""
    out, err = watch.out.text(), watch.err.text()
    told, files = _unpacked(bytes(watch.result), order.take)
    if "refused" in told:
        return Ended("refused", elapsed, out, err, {}, str(told["refused"])[:500])
    seconds = told.get("seconds")
    seconds = float(seconds) if isinstance(seconds, int | float) else elapsed
    ended, codes = told.get("ended"), told.get("codes")
    codes = codes if isinstance(codes, dict) else {}
    bad = [f"rank {rank} ended with {_named(code)}" for rank, code in codes.items() if code]
    status: Status
    if watch.why:
        status, why = "killed", watch.why
    elif ended == "timeout":
        status, why = "timeout", f"not finished after {order.seconds:.0f} s"
    elif ended == "finished" and len(codes) == order.world and not bad:
        status, why = "finished", ""
    elif ended in ("finished", "failed"):
        by_signal = any(isinstance(code, int) and code < 0 for code in codes.values())
        status, why = ("killed" if by_signal else "failed"), "; ".join(bad)
    else:
        status, why = "killed", NO_RESULT
    return Ended(status, seconds, out, err, files, why)


def _named(code: object) -> str:
    if isinstance(code, int) and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"code {code}"


def _unpacked(data: bytes, take: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The jail's report and the files in it; both empty when it is not one."""
    try:
        (length,) = LENGTH.unpack_from(data)
        at = LENGTH.size + length
        if length > MOST_HEADER:
            return {}, {}
        told: dict[str, Any] = json.loads(data[LENGTH.size : at])
        listed = told["files"]
        files = {}
        for name, size in listed:
            if not 0 <= size <= take[name]:
                return {}, {}
            files[name] = data[at : at + size]
            at += size
    except (ValueError, TypeError, KeyError, RecursionError, struct.error):
        return {}, {}
    return told, files
