"""The program that locks itself in and then runs the stranger's processes.

Started by `underpar.audit.cell` in a Python of its own, without site-packages. It speaks through
three pipes, so that no folder of the machine is shared with the jail:

    stdin   an order (JSON) and the contents of the scratch folder; its end means: stop
    result  how it ended (JSON) and the contents of the files that were asked for
    stdout, stderr   what the processes print (rank 0's stdout; the others' joins stderr)

Whoever reads the result must not believe it. This program does look after itself all the same: it
is process 1, cannot be traced or signalled from inside, and before it reads a file it has killed
everybody else.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import stat
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underpar.audit import callfilter, walls

LENGTH = struct.Struct("<Q")
GRACE = 10.0  # seconds the others have when one rank has failed
PULSE = 0.02


@dataclass(frozen=True)
class JailOrder:
    """What to run. program: argv of a rank, whose number is appended. Sizes in bytes.

    mode: "walls" (make the jail), "inside" (somebody made it), "trust" (there is none, and
    scratch is an ordinary folder). take: file -> most bytes; files: (name, bytes) in stdin order.
    """

    mode: str
    scratch: str
    program: list[str]
    environment: dict[str, str]
    world: int
    seconds: float
    memory: int
    disk: int
    processes: int
    files: list[tuple[str, int]]
    take: dict[str, int]
    binds: list[tuple[str, str]]
    links: list[tuple[str, str]]


def main(result: int) -> None:
    """Follow the order on stdin, and report on the file descriptor ``result``."""
    os.set_inheritable(result, False)
    (length,) = LENGTH.unpack(_read(LENGTH.size))
    order = JailOrder(**json.loads(_read(length)))
    try:
        if order.mode == "walls":
            walls.die_with_parent()
            walls.unshare()
            if first := os.fork():
                os.close(0)
                os.close(result)
                _, status = os.waitpid(first, 0)
                os._exit(os.waitstatus_to_exitcode(status) & 255)
            walls.build_root(order.binds, order.links, order.disk)
            walls.loopback()
        if order.mode == "trust":
            with suppress(OSError):
                walls.adopt_orphans()
        else:
            walls.drop_rights()
            callfilter.install()
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _report(result, {"refused": f"{error.strerror}{where}"}, [])
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _fill(order)
    told = _supervise(order)
    _report(result, told, _taken(order))
    os._exit(0)


def _read(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            os._exit(1)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _fill(order: JailOrder) -> None:
    os.chdir(order.scratch)
    for folder in ("tmp", "shm"):
        os.mkdir(folder, 0o700)
    for name, size in order.files:
        path = Path(order.scratch, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_read(size))


def _supervise(order: JailOrder) -> dict[str, Any]:
    """Run all ranks to their end or to the limit; nobody else is left when this returns."""
    start = time.monotonic()
    ranks = {_start(order, rank): rank for rank in range(order.world)}
    codes: dict[int, int] = {}
    ended, stop = "finished", start + order.seconds
    while len(codes) < order.world:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] in ranks:
                    codes[ranks[found[0]]] = os.waitstatus_to_exitcode(found[1])
        now = time.monotonic()
        if any(codes.values()) and ended == "finished":
            ended, stop = "failed", min(stop, now + GRACE)
        if now > stop:
            ended = "timeout" if ended == "finished" else ended
            break
        if len(codes) < order.world and select.select([0], [], [], PULSE)[0]:
            ended = "killed"  # nothing more is due on stdin: the other side has closed it
            break
    seconds = time.monotonic() - start
    _kill_everybody(order, list(ranks))
    return {"ended": ended, "codes": {str(r): c for r, c in codes.items()}, "seconds": seconds}


def _start(order: JailOrder, rank: int) -> int:
    process = os.fork()
    if process:
        return process
    code = 127
    with suppress(BaseException):
        os.setsid()
        with suppress(OSError):
            walls.die_with_parent()
        _limits(order)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        if rank:
            os.dup2(2, 1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        environment = {**order.environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.execve(order.program[0], [*order.program, str(rank)], environment)
    os._exit(code)


def _limits(order: JailOrder) -> None:
    """Limits of one process. Data: private writable memory, and not what is only reserved."""
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: int(order.seconds) * 4 + 1,
        resource.RLIMIT_DATA: order.memory,
        resource.RLIMIT_AS: order.memory + (16 << 30),
        resource.RLIMIT_FSIZE: order.disk,
        resource.RLIMIT_NOFILE: 512,
    }
    if order.mode != "trust":  # it counts everything that its user runs
        wanted[resource.RLIMIT_NPROC] = order.processes
    for kind, limit in wanted.items():
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _kill_everybody(order: JailOrder, ranks: Sequence[int]) -> None:
    """In a jail all others; without one all descendants, who come to us when orphaned."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        if order.mode == "trust":
            for process in (*ranks, *_children()):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
        else:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    me = os.getpid()
    with suppress(OSError):
        return [int(p) for p in Path(f"/proc/{me}/task/{me}/children").read_text().split()]
    return []


def _taken(order: JailOrder) -> list[tuple[str, bytes]]:
    """The files that were asked for: regular ones only, never through a symlink."""
    found = []
    for name, most in order.take.items():
        with suppress(OSError):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(f"{order.scratch}/{name}", flags)
            try:
                about = os.fstat(handle)
                if stat.S_ISREG(about.st_mode) and about.st_size <= most:
                    found.append((name, _whole(handle, about.st_size)))
            finally:
                os.close(handle)
    return found


def _whole(handle: int, size: int) -> bytes:
    with os.fdopen(os.dup(handle), "rb") as stream:
        return stream.read(size)


def _report(result: int, told: dict[str, Any], files: list[tuple[str, bytes]]) -> None:
    told["files"] = [(name, len(data)) for name, data in files]
    header = json.dumps(told).encode()
    with os.fdopen(result, "wb") as stream:
        stream.write(LENGTH.pack(len(header)) + header)
        for _, data in files:
            stream.write(data)


if __name__ == "__main__":
    main(int(sys.argv[1]))
