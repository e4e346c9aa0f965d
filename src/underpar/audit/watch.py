"""Feeding, hearing and limiting a running jail: one loop over its pipes, with an eye on /proc."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from contextlib import suppress
from pathlib import Path

MOST_PRINTED = 1 << 20  # bytes kept of the beginning, and as many of the end, of a stream
SPARE = 256 << 20  # bytes of free memory below which the machine comes first
LATE = 15.0  # seconds after its time before the jail itself is given up
PATIENCE = 5.0  # seconds to hand over its result after it was told to stop
PULSE = 0.2


class Printed:
    """The beginning and the end of what somebody prints without end."""

    def __init__(self) -> None:
        self.head, self.tail = bytearray(), bytearray()

    def add(self, data: bytes) -> None:
        room = max(MOST_PRINTED - len(self.head), 0)
        self.head += data[:room]
        self.tail += data[room:]
        if len(self.tail) > 2 * MOST_PRINTED:
            del self.tail[:-MOST_PRINTED]

    def text(self) -> str:
        gap = b"\n...\n" if len(self.tail) > MOST_PRINTED else b""
        whole = bytes(self.head) + gap + bytes(self.tail[-MOST_PRINTED:])
        return whole.decode("utf-8", "replace")


class Watch:
    """A jail from its order to its result.

    result: what it reported, at most ``most`` bytes. why: the limit that ended it, seen from here.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], result: int, *, seconds: float, memory: int,
        most: int,
    ) -> None:  # fmt: skip
        self.out, self.err, self.result = Printed(), Printed(), bytearray()
        self.why = ""
        self._process, self._handle = process, result
        self._memory, self._most = memory, most
        self._give_up = time.monotonic() + seconds + LATE
        self._selector = selectors.DefaultSelector()

    def pump(self, order: bytes) -> None:
        """Send ``order``, then listen until the result is complete or the jail is past waiting."""
        process = self._process
        assert process.stdin
        assert process.stdout
        assert process.stderr
        waiting = memoryview(order)
        os.set_blocking(process.stdin.fileno(), False)
        self._selector.register(process.stdin, selectors.EVENT_WRITE)
        for source in (process.stdout, process.stderr, self._handle):
            self._selector.register(source, selectors.EVENT_READ)
        looked = time.monotonic()
        with self._selector:
            while True:
                for key, _ in self._selector.select(PULSE):
                    if key.fileobj is process.stdin:
                        waiting = self._send(waiting)
                    elif not self._receive(key.fd):
                        self._selector.unregister(key.fileobj)
                        if key.fd == self._handle:
                            return
                now = time.monotonic()
                if now > self._give_up or len(self.result) > self._most:
                    self.why = self.why or "the jail had to be ended from outside"
                    return
                if now - looked > PULSE:
                    looked = now
                    self._look(now)

    def _send(self, waiting: memoryview) -> memoryview:
        assert self._process.stdin
        try:
            done = os.write(self._process.stdin.fileno(), waiting[: 1 << 16])
        except BlockingIOError:
            return waiting
        except BrokenPipeError:
            done = len(waiting)
        if done == len(waiting):  # stays open: its end would mean stop
            self._selector.unregister(self._process.stdin)
        return waiting[done:]

    def _receive(self, handle: int) -> bool:
        data = os.read(handle, 1 << 16)
        if handle == self._handle:
            self.result += data
        else:
            process = self._process
            assert process.stdout
            (self.out if handle == process.stdout.fileno() else self.err).add(data)
        return bool(data)

    def _look(self, now: float) -> None:
        if self.why:
            return
        used = family_memory(self._process.pid)
        if used > self._memory:
            used = fair_memory(self._process.pid) or used
        if used > self._memory:
            self.why = f"{used >> 20} MB of memory, of {self._memory >> 20} MB allowed"
        elif free_memory() < SPARE:
            self.why = f"less than {SPARE >> 20} MB of memory were left on this machine"
        if self.why:
            self._give_up = min(self._give_up, now + PATIENCE)
            assert self._process.stdin
            with suppress(KeyError):
                self._selector.unregister(self._process.stdin)
            self._process.stdin.close()


def family_memory(root: int) -> int:
    """Bytes of memory that belong to a process and its descendants: anonymous and shared.

    Pages that forks share are counted for each of them; the exact
    ``fair_memory`` is slow and not always allowed, so it is asked about large families only.
    """
    return sum(_memory(process, "status", ("RssAnon:", "RssShmem:")) for process in family(root))


def fair_memory(root: int) -> int:
    """The same with each page counted once; 0 where the kernel does not tell."""
    names = ("Pss_Anon:", "Pss_Shmem:")
    return sum(_memory(process, "smaps_rollup", names) for process in family(root))


def family(root: int) -> set[int]:
    """A process and all its descendants. Orphans of a jail are children of its first process."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc") if os.path.isdir("/proc") else ():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                text = Path(entry.path, "stat").read_text(errors="replace")
                parents[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
    found = {root}
    while more := {p for p, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _memory(process: int, file: str, names: tuple[str, ...]) -> int:
    with suppress(OSError, ValueError, IndexError):
        lines = Path(f"/proc/{process}/{file}").read_text(errors="replace").splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(names))
    return 0


def free_memory() -> int:
    """Bytes of memory that could be had; a lot where nobody can tell."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) << 10
    return 1 << 60
