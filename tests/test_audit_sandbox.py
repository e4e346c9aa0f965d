"""Every way out of the jail that we could think of, tried from inside: none leads anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import children
from underpar.audit import callfilter, cell, sandbox, walls
from underpar.audit.cell import Ended, Limits, execute
from underpar.audit.facts import Job, StreamSpec
from underpar.errors import DataError

MB = 1 << 20
LIMITS = Limits(seconds=20, memory=256 * MB, all_memory=400 * MB, disk=16 * MB, processes=40)


def inside(code: str, *words: object, limits: Limits = LIMITS, trust: bool = False, world: int = 1,
           take: dict[str, int] | None = None) -> Ended:  # fmt: skip
    """Run Python code in the jail; its argv is [-c, words..., rank]."""
    program = [sys.executable, "-P", "-s", "-B", "-c", code, *map(str, words)]
    ended = execute(program, {"given/a.txt": b"given"}, take or {"out": 1000}, limits,
                    environment=sandbox.ENVIRONMENT, world=world, trust=trust)  # fmt: skip
    if ended.status == "refused":
        pytest.skip(f"no user namespaces here: {ended.why}")
    return ended


def tried(code: str, *words: object, limits: Limits = LIMITS) -> list[str]:
    """Lines of ``attempt(label, function)``: those that worked, of an escape attempt each."""
    start = (
        "import errno, os, socket, sys, ctypes\n"
        "def attempt(label, function):\n"
        "    try:\n"
        "        got = function()\n"
        "    except (OSError, MemoryError) as error:\n"
        "        print('failed', label, error)\n"
        "    else:\n"
        "        print('WORKED', label, repr(got)[:200])\n"
        "def syscall(number, *arguments):\n"
        "    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    result = libc.syscall(number, *arguments)\n"
        "    if result < 0:\n"
        "        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"
        "    return result\n"
    )
    ended = inside(start + code, *words, limits=limits)
    assert ended.status == "finished", ended
    lines = ended.out.splitlines()
    assert any(line.startswith("failed") for line in lines), ended
    return [line for line in lines if not line.startswith("failed")]


def test_it_runs_and_hands_back_what_was_asked_for() -> None:
    ended = inside(
        "import os, sys; print(os.getcwd(), open('given/a.txt').read(), sys.argv[1:]);"
        "print('said', file=sys.stderr); open('out', 'w').write('made')",
        "word",
    )
    assert (ended.status, ended.why, ended.files) == ("finished", "", {"out": b"made"})
    assert ended.out == "/scratch given ['word', '0']\n"
    assert ended.err == "said\n"


def test_two_ranks_talk_on_loopback() -> None:
    code = (
        "import os, socket, sys, time\n"
        "if sys.argv[1] == '0':\n"
        "    server = socket.create_server(('127.0.0.1', 29500))\n"
        "    print(server.accept()[0].recv(9).decode(), os.environ['RANK'])\n"
        "else:\n"
        "    for _ in range(500):\n"
        "        try:\n"
        "            socket.create_connection(('localhost', 29500)).sendall(b'hello')\n"
        "            break\n"
        "        except OSError:\n"
        "            time.sleep(0.01)\n"
    )
    ended = inside(code, world=2)
    assert (ended.status, ended.out) == ("finished", "hello 0\n"), ended


def test_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        name = f"underpar-test-{os.getpid()}"
        unix.bind("\0" + name)
        unix.listen()
        code = (
            "port, name = int(sys.argv[1]), sys.argv[2]\n"
            "connect = lambda *a: socket.create_connection(a, 2)\n"
            "attempt('our port', lambda: connect('127.0.0.1', port))\n"
            "attempt('tcp', lambda: connect('192.0.2.1', 80))\n"
            "attempt('tcp6', lambda: connect('2001:db8::1', 80))\n"
            "attempt('name', lambda: socket.getaddrinfo('example.org', 80))\n"
            "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "attempt('udp', lambda: udp.sendto(b'x', ('192.0.2.1', 53)))\n"
            "attempt('abstract', lambda: socket.socket(1).connect(chr(0) + name))\n"
            "attempt('vsock', lambda: socket.socket(40, socket.SOCK_STREAM))\n"
            "attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))\n"
            "attempt('packet', lambda: socket.socket(17, socket.SOCK_RAW, 3))\n"
            "print(socket.if_nameindex())\n"
        )
        assert tried(code, tcp.getsockname()[1], name) == ["[(1, 'lo')]"]


def test_reading_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    root = Path(cell.__file__).parents[1]
    paths = [secret, root / "errors.py", root / "audit/sandbox.py", "/etc/shadow", "/root/.profile",
             Path.home() / ".bashrc", "/var/log", "/home", "/proc/1/environ", "/proc/1/fd",
             "/proc/1/root", "/proc/1/mem", "/dev/mem", "/dev/vda", "/dev/sda", "/dev/kmsg",
             f"/proc/{os.getpid()}/environ", "/.old", "/tmp/.old", "/proc/kcore"]  # fmt: skip
    code = (
        "def look(path):\n"
        "    return os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(100)\n"
        "for path in sys.argv[1:-1]:\n"
        "    attempt(path, lambda: look(path))\n"
        "    attempt('up to ' + path, lambda: look('/scratch/' + '../' * 40 + path))\n"
    )
    assert tried(code, *paths) == []


def test_writing_outside(tmp_path: Path) -> None:
    code = (
        "places = ['/', '/etc', '/usr/lib', '/usr/bin', '/var', '/dev', '/proc', '/proc/sys',\n"
        "          '/proc/1', '/underpar', '/underpar/underpar/audit', os.__file__ + '/..',\n"
        "          sys.prefix, sys.argv[1], '/home', '/root', '/sys/devices/system/cpu']\n"
        "places += [line.split()[1] for line in open('/proc/mounts')]\n"
        "for place in set(places) - {'/scratch'}:\n"
        "    attempt(place, lambda: open(place + '/new', 'w'))\n"
        "    attempt(place, lambda: os.mkdir(place + '/folder'))\n"
        "    attempt(place, lambda: os.symlink('/etc', place + '/link'))\n"
        "for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', sys.executable,\n"
        "             os.__file__, '/etc/passwd', '/proc/self/oom_score_adj'):\n"
        "    attempt(path, lambda: open(path, 'a').write('x') and 0)\n"
        "    attempt(path, lambda: os.chmod(path, 0o777))\n"
        "    attempt(path, lambda: os.unlink(path))\n"
    )
    assert tried(code, tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_new_rights_and_namespaces() -> None:
    code = (
        "numbers = dict(p.split('=') for p in sys.argv[1:-1])\n"
        "call = lambda name, *a: attempt(name, lambda: syscall(int(numbers[name]), *a))\n"
        "call('unshare', 0x10000000)\n"
        "call('setns', 0, 0)\n"
        "call('clone', 0x10000000 | 17, 0, 0, 0, 0)\n"
        "call('clone3', 0, 88)\n"
        "call('mount', b'x', b'/scratch', b'tmpfs', 0, 0)\n"
        "call('umount2', b'/usr/lib', 2)\n"
        "call('pivot_root', b'/scratch', b'/scratch')\n"
        "call('chroot', b'/scratch')\n"
        "call('ptrace', 16, 1, 0, 0)\n"
        "call('bpf', 0, 0, 0)\n"
        "call('io_uring_setup', 1, 0)\n"
        "call('keyctl', 0, -3, 1)\n"
        "call('memfd_create', b'x', 0)\n"
        "call('shmget', 0, 1 << 20, 0o1600)\n"
        "attempt('setuid', lambda: os.setuid(0))\n"
        "attempt('sethostname', lambda: socket.sethostname('x'))\n"
        "attempt('mknod', lambda: os.mknod('/scratch/d', 0o60600, os.makedev(254, 0)))\n"
        "attempt('nice', lambda: os.nice(-5))\n"
    )
    column = callfilter.ARCHITECTURES[os.uname().machine][0]
    numbers = {**callfilter.REFUSED, **callfilter.ABSENT, "clone": callfilter.CLONE}
    assert tried(code, *(f"{name}={pair[column]}" for name, pair in numbers.items())) == []


def test_limits_cannot_be_raised() -> None:
    code = (
        "import resource\n"
        "for kind in ('NPROC', 'DATA', 'AS', 'FSIZE', 'CPU', 'CORE', 'NOFILE'):\n"
        "    number = getattr(resource, 'RLIMIT_' + kind)\n"
        "    hard = resource.getrlimit(number)[1]\n"
        "    try:\n"
        "        resource.setrlimit(number, (hard + 1, hard + 1))\n"
        "        print('RAISED', kind)\n"
        "    except ValueError:\n"
        "        print('kept', kind)\n"
    )
    assert [line.split()[0] for line in inside(code).out.splitlines()] == ["kept"] * 7


def test_environment_and_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    code = (
        "import glob, json, os\n"
        "fds = sorted(int(f) for f in os.listdir('/proc/self/fd'))\n"
        "raw = b''.join(open(p, 'rb').read() for p in glob.glob('/proc/self/environ'))\n"
        "print(json.dumps([dict(os.environ), fds[:3], len(fds), raw.decode()]))\n"
    )
    environment, fds, many, raw = json.loads(inside(code).out)
    fixed = {k: v.replace("{scratch}", "/scratch") for k, v in sandbox.ENVIRONMENT.items()}
    assert environment == {**fixed, "RANK": "0", "LOCAL_RANK": "0"}
    assert (fds, many) == ([0, 1, 2], 4)  # the fourth lists them
    assert "hunter2" not in raw


def test_fork_bomb() -> None:
    code = (
        "import os, time\n"
        "made = 0\n"
        "for _ in range(5000):\n"
        "    try:\n"
        "        if not os.fork():\n"
        "            time.sleep(100)\n"
        "        made += 1\n"
        "    except OSError as error:\n"
        "        print(made, error.errno)\n"
        "        break\n"
    )
    ended = inside(code)
    made, error = map(int, ended.out.split())
    assert (ended.status, error) == ("finished", 11), ended
    assert made < LIMITS.processes
    bomb = (
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    )
    ended = inside(bomb, limits=Limits(1, 256 * MB, 400 * MB, 16 * MB, 40))
    assert ended.status in ("timeout", "killed")
    assert ended.seconds < 8


def test_memory_of_one_process() -> None:
    code = "x = []\nwhile True:\n    x.append(bytearray(8 << 20))\n"
    ended = inside(code)
    assert ended.status == "failed"
    assert "MemoryError" in ended.err


@pytest.mark.parametrize("how", ["many", "shared"])
def test_memory_of_all_together(how: str) -> None:
    code = {
        "many": "import os, time\n[os.fork() for _ in range(2)]\n"
        "x = bytearray(b'x') * (200 << 20)\ntime.sleep(30)\n",
        "shared": "import mmap, time\nx = mmap.mmap(-1, 600 << 20)\n"
        "for i in range(0, len(x), 4096):\n    x[i] = 1\ntime.sleep(30)\n",
    }[how]
    ended = inside(code)
    assert ended.status == "killed"
    assert "MB of memory" in ended.why
    assert ended.seconds < 10


def test_filling_the_disk() -> None:
    code = (
        "import os\n"
        "def fill():\n"
        "    n = 0\n"
        "    with open(f'/scratch/big{len(os.listdir())}', 'wb') as f:\n"
        "        while n < 200 << 20:\n"
        "            n += f.write(b'x' * 65536)\n"
        "for _ in range(4):\n"
        "    try:\n"
        "        fill()\n"
        "        print('all')\n"
        "    except OSError as error:\n"
        "        print(error.errno)\n"
        "about = os.statvfs('/scratch')\n"
        "print(about.f_blocks * about.f_frsize, about.f_files)\n"
    )
    *errors, size, files = map(int, inside(code).out.split())
    assert set(errors) <= {27, 28}  # file too large, no space
    assert size == LIMITS.disk
    assert files <= 20_000


def test_endless_loop() -> None:
    start = time.monotonic()
    ended = inside("while True: pass", limits=Limits(0.5, 256 * MB, 400 * MB))
    assert ended.status == "timeout"
    assert "0 s" in ended.why or "1 s" in ended.why
    assert time.monotonic() - start < 5


def test_signals_reach_nobody(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "for target in (int(os.sys.argv[1]), int(os.sys.argv[2])):\n"
        "    for number in (0, signal.SIGTERM, signal.SIGKILL):\n"
        "        try:\n"
        "            os.kill(target, number)\n"
        "            print('sent')\n"
        "        except OSError:\n"
        "            print('nobody')\n"
        "for number in range(1, 65):\n"
        "    try:\n"
        "        os.kill(1, number)\n"
        "    except OSError:\n"
        "        pass\n"
        "try:\n"
        "    os.kill(-1, signal.SIGKILL)\n"
        "except OSError:\n"
        "    pass\n"
        "open('out', 'w').write('alive')\n"
    )
    other = children.start(["sleep", "60"])
    try:
        ended = inside(code, os.getpid(), other.pid)
        assert ended.files == {"out": b"alive"}
        assert ended.out.split() == ["nobody"] * 6
        assert other.poll() is None
    finally:
        children.kill(other)


def processes_with(marker: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            found += [int(entry.name)] * (marker.encode() in words)
    return found


LEAVER = (
    "import os, time\n"
    "if not os.fork():\n"
    "    os.setsid()\n"
    "    if not os.fork():\n"
    "        os.close(1); os.close(2)\n"
    "        time.sleep(100)\n"
    "    os._exit(0)\n"
)


@pytest.mark.parametrize("trust", [False, True])
def test_nobody_stays_behind(trust: bool) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    assert inside(LEAVER, marker, trust=trust).status == "finished"
    assert processes_with(marker) == []


def test_the_jail_falls_with_its_owner() -> None:
    inside("")  # skips where there is no jail
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    code = f"import time; time.sleep(100)  # {marker}"
    owner = children.call(inside, code)
    children.wait_until(lambda: bool(processes_with(marker)), owner)
    os.kill(owner.pid, signal.SIGKILL)
    children.end(owner, code=-signal.SIGKILL)
    wait(lambda: not processes_with(marker))


def wait(done: Callable[[], bool], seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize(
    "make",
    [
        "os.symlink('/etc/passwd', 'out')",
        "os.symlink('/proc/1/environ', 'out')",
        "os.symlink('given/a.txt', 'out')",
        "os.mkfifo('out')",
        "os.mkdir('out')",
        "open('out', 'w').write('x' * 1001)",
        "os.mkdir('d'); open('d/out', 'w')",
        "import socket; socket.socket(1).bind('out')",
    ],
)
def test_results_that_are_none(make: str) -> None:
    ended = inside(f"import os; {make}")
    assert (ended.status, ended.files) == ("finished", {})


def test_a_flood_of_words_is_cut() -> None:
    code = "for _ in range(100):\n    print('x' * 100_000)\nprint('the end')\n"
    ended = inside(code)
    assert ended.status == "finished"
    assert len(ended.out) < 3 * MB
    assert ended.out.endswith("the end\n")


def test_a_crash_is_named() -> None:
    ended = inside("import os; os.kill(os.getpid(), 11)")
    assert (ended.status, ended.why) == ("killed", "rank 0 ended with SIGSEGV")
    ended = inside("raise SystemExit(3)")
    assert (ended.status, ended.why) == ("failed", "rank 0 ended with code 3")


@given(st.binary(max_size=200))
def test_a_result_that_is_noise_is_no_result(data: bytes) -> None:
    for prefix in (b"", len(data).to_bytes(8, "little")):
        told, files = cell._unpacked(prefix + data, {"out": 10})
        assert "files" in told or (told, files) == ({}, {})


@pytest.mark.parametrize(
    "listed", [[["other", 3]], [["out", 11]], [["out", -1]], [[]], 3, [["out", "3"]]]
)
def test_files_that_were_not_asked_for(listed: object) -> None:
    header = json.dumps({"ended": "finished", "files": listed}).encode()
    data = len(header).to_bytes(8, "little") + header + b"x" * 20
    assert cell._unpacked(data, {"out": 10}) == ({}, {})


def test_bubblewrap_makes_the_same_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0 or not shutil.which("bwrap"):
        pytest.skip("no bubblewrap to use here (root does not use it)")
    run = cell._run

    def only_wrapped(*arguments: object) -> Ended:
        return run(*arguments) if arguments[3] else Ended("refused", 0.0, why="for this test")

    monkeypatch.setattr(cell, "_run", only_wrapped)
    code = "import os; open('out', 'w').write(f'{os.getpid()} {sorted(os.listdir(\"/\"))}')"
    ended = inside(code)
    assert ended.status == "finished", ended
    assert b"home" not in ended.files["out"]
    assert b"scratch" in ended.files["out"]


def locked() -> None:
    """An auditor that may make no namespaces: our own filter is upon it."""
    walls.call("prctl", walls.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    callfilter.install()
    job = Job("print('ran')", "train.py", {}, {}, 1, StreamSpec(64, 256, 0), 0, 20.0, 512)
    refused = sandbox.run(job)
    program = [sys.executable, "-c", "print('ran')"]
    ran = execute(program, {}, {}, LIMITS, environment=sandbox.ENVIRONMENT, trust=True)
    print(refused.status, refused.error, ran.status, ran.out)


@pytest.mark.skipif(os.uname().machine not in callfilter.ARCHITECTURES, reason="no filter here")
def test_without_walls_it_refuses() -> None:
    said = children.end(children.call(locked)).out
    assert said.startswith("refused cannot lock in the submission's code: got unshare: ")
    assert "--trust" in said
    assert said.endswith(" finished ran\n\n")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a\0b"])
def test_a_sibling_stays_below(name: str) -> None:
    job = Job("", "train.py", {name: b""}, {}, 1, StreamSpec(64, 256, 0), 0, 20.0, 512)
    with pytest.raises(DataError, match="a file of the submission"):
        sandbox.run(job)
