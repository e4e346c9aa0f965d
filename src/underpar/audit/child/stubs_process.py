"""Other programs and the network, as the script finds them: mostly missing.

Filters hand their input on. A compiler is real where the machine has one: some scorers are C files
that ship with the script, and what they do is part of what must be judged. Worker processes become
threads of this one, or the recorder would not see what they score.
"""

from __future__ import annotations

import concurrent.futures.process
import multiprocessing
import multiprocessing.pool
import os
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from . import hits
from .places import Places
from .swap import swap

_COMPILERS = ("gcc", "cc", "g++", "c++", "clang", "clang++")
_HARMLESS = ("nvidia-smi", "pip", "pip3", "nvcc", "git", "lscpu", "free", "df", "uname")
_real_popen = subprocess.Popen


def _program(command: Any) -> str:
    words = command.split() if isinstance(command, str) else [str(c) for c in command]
    name = Path(words[0]).name if words else ""
    if name.startswith("python") and "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    return name


class _Popen(_real_popen):
    """Runs compilers, finds nothing else."""

    places: Places

    def __init__(self, args: Any, *rest: Any, **kwargs: Any) -> None:
        name = _program(args)
        if name not in _COMPILERS:
            hits.hit(f"program {name}")
            raise FileNotFoundError(2, "No such file or directory", name)
        super().__init__(self.places.words(args), *rest, **kwargs)


def _answer(args: Any, kwargs: dict[str, Any]) -> subprocess.CompletedProcess[Any] | None:
    name = _program(args)
    given = kwargs.get("input")
    if name in _COMPILERS or (name not in _HARMLESS and given is None):
        return None
    hits.hit(f"program {name}")
    text = kwargs.get("text") or kwargs.get("universal_newlines") or kwargs.get("encoding")
    empty: Any = "" if text else b""
    return subprocess.CompletedProcess(args, 0, empty if given is None else given, empty)


def _processes() -> None:
    run = subprocess.run

    def run_(args: Any, *rest: Any, **kwargs: Any) -> Any:
        answer = _answer(args, kwargs)
        return answer if answer is not None else run(args, *rest, **kwargs)

    def output(args: Any, **kwargs: Any) -> Any:
        return run_(args, stdout=subprocess.PIPE, check=True, **kwargs).stdout

    def call(args: Any, **kwargs: Any) -> int:
        return int(run_(args, **kwargs).returncode)

    def system(command: str) -> int:
        hits.hit(f"program {_program(command)}")
        return 0

    def leave(code: int = 0) -> None:
        raise SystemExit(code)

    swap(subprocess, Popen=_Popen, run=run_, check_output=output, call=call, check_call=call)
    swap(os, system=system, _exit=leave)


def _workers() -> None:
    class Executor(concurrent.futures.ThreadPoolExecutor):
        def __init__(
            self, max_workers: int | None = None, mp_context: Any = None, initializer: Any = None,
            initargs: tuple[Any, ...] = (), **_kwargs: Any,
        ) -> None:  # fmt: skip
            hits.hit("process pool")
            super().__init__(1, initializer=initializer, initargs=initargs)

    class Pool(multiprocessing.pool.ThreadPool):
        def __init__(
            self, processes: Any = None, initializer: Any = None, initargs: Any = (), *_a: Any
        ) -> None:
            hits.hit("process pool")
            super().__init__(1, initializer, initargs)

    swap(concurrent.futures, ProcessPoolExecutor=Executor)
    swap(concurrent.futures.process, ProcessPoolExecutor=Executor)
    swap(multiprocessing, Pool=Pool)
    for method in ("fork", "spawn", "forkserver"):
        swap(multiprocessing.get_context(method), Pool=Pool)


def _network() -> None:
    def unreachable(*_args: Any, **_kwargs: Any) -> Any:
        hits.hit("network")
        raise OSError(101, "Network is unreachable")

    swap(urllib.request, urlopen=unreachable, urlretrieve=unreachable)
    swap(socket, create_connection=unreachable)
    swap(socket.socket, connect=unreachable)


def install(places: Places) -> None:
    """Replace what would start a program, a process or a connection."""
    _Popen.places = places
    _processes()
    _workers()
    _network()
