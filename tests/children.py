"""Child processes of tests: each has a time limit, and says in the failure what it printed.

``start`` begins a program. ``call`` begins a function of ours in a process that has torch loaded
already: four seconds less, for tests that are about several processes or about the death of one,
and not about how a program starts. ``end`` waits for either.

A child listens to Ctrl-C whatever pytest was started as: a shell starts ``make test &`` with SIGINT
ignored, and a program inherits that. It gets a process group of its own, which is killed when the
time is up or a test fails, so that nothing runs on behind a test.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

ROOT = Path(__file__).parent.parent
SECONDS = 120.0  # less than the limit of a test (pyproject.toml), which would name no child
LAST = 4000  # characters of each stream that a failure shows


class Ended(NamedTuple):
    """A child that came to its end: exit code, and its streams as text or as bytes."""

    code: int
    out: Any
    err: Any


# --- beginnings -------------------------------------------------------------------------------


def start(
    command: Sequence[object],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    text: bool = True,
    terminal: int | None = None,
) -> subprocess.Popen:
    """Start a program, both of its streams kept. ``end`` must follow.

    terminal: what its three streams are instead; the caller reads it.
    """
    streams = (stdin, subprocess.PIPE, subprocess.PIPE) if terminal is None else 3 * (terminal,)
    with _listening():
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env=env,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            text=text,
            encoding="utf-8" if text else None,
            start_new_session=True,
        )


class Called:
    """A function in a process of its own; to ``end`` and ``wait_until`` it is as a Popen."""

    def __init__(self, function: Callable[..., object], *arguments: Any, **env: str) -> None:
        self.args = [f"{function.__module__}.{function.__name__}", *map(str, arguments)]
        self._folder, self._said = tempfile.mkdtemp(), ("", "")
        run = (function, arguments, os.getcwd(), {**os.environ, **env}, self._folder)
        no_main = {"__main__": ModuleType("__main__")}  # which multiprocessing would import: pytest
        with _listening(), patch.dict(sys.modules, no_main):
            for name in ("out", "err"):
                Path(self._folder, name).touch()
            self._process = _SERVER.Process(target=_begin, args=run)
            self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, given: None = None, timeout: float | None = None) -> tuple[str, str]:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        if (folder := Path(self._folder)).exists():
            out, err = (folder / name for name in ("out", "err"))
            self._said = (out.read_text(errors="replace"), err.read_text(errors="replace"))
            shutil.rmtree(folder)
        return self._said


Child = subprocess.Popen | Called

#: forks from a process that has done nothing yet but import: no thread, no lock, no pytest in it
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["pytest", "hypothesis", "torch._dynamo", "tests.commands"])


def warm_up() -> None:
    """Let it import, while tests go on that need it not."""
    with _listening():
        multiprocessing.forkserver.ensure_running()


def _begin(
    function: Callable[..., object],
    arguments: tuple[Any, ...],
    cwd: str,
    env: dict[str, str],
    said: str,
) -> None:
    """In the child: become what a program of its own would be, and call the function."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for handle, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}/{name}", os.O_WRONLY), handle)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    warnings.simplefilter("error")
    function(*arguments)


call = Called


def ranks(function: Callable[..., object], *arguments: Any, timeout: float = SECONDS) -> Ended:
    """The function in two processes that find each other as torchrun's do; what rank 0 said.

    On CPUs: few machines have two GPUs.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    group |= {"WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}
    both = [call(function, *arguments, **group, RANK=rank, LOCAL_RANK=rank) for rank in "01"]
    try:
        wait = time.monotonic() + timeout
        while None in (codes := [child.poll() for child in both]):
            for child, code in zip(both, codes):  # the other one would wait for it
                if code or time.monotonic() > wait:
                    end(child, timeout=0)
            time.sleep(0.01)
        first, _ = (end(child) for child in both)
        return first
    finally:
        for child in both:
            kill(child)


# --- ends -------------------------------------------------------------------------------------


def end(
    child: Child,
    *,
    code: int | None = 0,
    timeout: float = SECONDS,
    given: str | bytes | None = None,
) -> Ended:
    """Wait for its end. An AssertionError if it takes longer, or ends with another code.

    code: None for any. given: what it reads from stdin, if that is a pipe.
    """
    try:
        out, err = child.communicate(given, timeout)  # type: ignore[arg-type]
    except subprocess.TimeoutExpired:
        fail(child, f"still ran after {timeout:.0f} s")
    except BaseException:
        kill(child)
        raise
    assert child.returncode is not None
    if code is not None and child.returncode != code:
        _raise(child, f"ended with code {child.returncode}, wanted {code}", out, err)
    return Ended(child.returncode, out, err)


def run(command: Sequence[object], **how: Any) -> Ended:
    """``start`` and ``end`` in one, with the keywords of both."""
    begins = {key: how.pop(key) for key in ("cwd", "env", "text") if key in how}
    pipe = subprocess.PIPE if "given" in how else subprocess.DEVNULL
    return end(start(command, stdin=pipe, **begins), **how)


def python(*words: object, **how: Any) -> Ended:
    """``run`` with this Python."""
    return run([sys.executable, *words], **how)


def wait_until(happened: Callable[[], bool], child: Child, timeout: float = SECONDS) -> None:
    """Until ``happened``, as long as the child lives and the time lasts."""
    give_up = time.monotonic() + timeout
    try:
        while not happened():
            if child.poll() is not None:
                fail(child, f"ended with code {child.returncode} before it was waited for")
            if time.monotonic() > give_up:
                fail(child, f"did not do in {timeout:.0f} s what was waited for")
            time.sleep(0.005)
    except BaseException:
        kill(child)
        raise


def kill(child: Child) -> tuple[Any, Any]:
    """End the child and all that it has started; what they have said."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    try:
        return child.communicate(timeout=10)
    except (subprocess.TimeoutExpired, ValueError):  # someone left the group and holds a stream
        return "", ""


def fail(child: Child, why: str) -> NoReturn:
    """End it, and say what it was and what it said."""
    out, err = kill(child)
    _raise(child, why, out, err)


def _raise(child: Child, why: str, out: Any, err: Any) -> NoReturn:
    words = shlex.join(map(str, child.args))  # type: ignore[union-attr]
    said = "".join(f"\n--- its {n} ---\n{_last(t)}" for n, t in (("stdout", out), ("stderr", err)))
    raise AssertionError(f"{words[:LAST]}\n{why}{said}")


def _last(said: Any) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said or ""
    return text[-LAST:]


@contextmanager
def _listening() -> Iterator[None]:
    """What is started in here has Ctrl-C's default: to handle it, or else to end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
