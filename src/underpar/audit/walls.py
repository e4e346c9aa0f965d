"""The walls around the child process: namespaces, a root of its own, no rights, fewer system calls.

Runs in a young Python process that will become process 1 of the jail. In order:

1. new user, mount, process, network, IPC and host name namespaces. A helper that stayed outside
   writes the map of user ids. Somebody with an account maps himself; root maps *nobody* beside
   himself and becomes nobody before the stranger runs, because the limit on processes does not
   bind the real root;
2. a tmpfs becomes the root. What the job needs to read is bound into it read-only at its own path
   (Python, site-packages, system libraries, the child package); a second, sized tmpfs is the
   scratch folder, the only place that can be written. Disk and inodes end there. Then the old root
   is let go: there is no path back to it, by symlink or otherwise;
3. loopback comes up in the new network namespace: two ranks can talk, nobody else can be reached;
4. all capabilities go, for good (no_new_privs), and a filter refuses the system calls that could
   make new namespaces, trace other processes, or hold memory that no limit counts (memfd, System V
   segments), and sockets of families that namespaces do not confine (vsock).

Sources: namespaces(7), user_namespaces(7), pivot_root(2), seccomp(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import socket
import struct
from contextlib import suppress
from pathlib import Path

SCRATCH = "/scratch"
UID = 1000  # of the stranger, inside
NOBODY = 65534  # of the stranger, seen from outside, when root runs the audit

NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x0E000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MNT_DETACH = 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 24, 38, 36

MOUNT_SETATTR = 442  # the same number on every architecture
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
CAPSET = {"x86_64": 126, "aarch64": 91}

DEVICES = ("null", "zero", "full", "random", "urandom")
PROC_FILES = ("cpuinfo", "meminfo", "stat")  # where no proc of our own may be mounted
ETC = {
    "passwd": f"user:x:{UID}:{UID}::{SCRATCH}:/bin/sh\n",
    "group": f"user:x:{UID}:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "hosts: files\n",
}

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """A function of the C library; OSError with its name when it fails."""
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    try:
        result = getattr(_libc, name)(*plain)
    except AttributeError as error:
        raise OSError(errno.ENOSYS, f"{name}: not on this system") from error
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return int(result)


def system_call(numbers: dict[str, int], *arguments: object) -> None:
    number = numbers.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no jail for {platform.machine()}")
    call("syscall", number, *arguments)


def unshare() -> None:
    """Into new namespaces; this process's next child is process 1 of the new process namespace."""
    outside, group = os.geteuid(), os.getegid()
    ready, go = os.pipe(), os.pipe()
    target = os.getpid()
    helper = os.fork()
    if not helper:
        os.close(ready[1])
        code = 1
        with suppress(OSError):
            if os.read(ready[0], 1):
                _write_maps(target, outside, group)
                os.write(go[1], b"1")
                code = 0
        os._exit(code)
    os.close(go[1])
    try:
        call("unshare", NEW_NAMESPACES)
        os.write(ready[1], b"1")
        if not os.read(go[0], 1):
            raise OSError(errno.EPERM, "uid_map: not permitted")
    finally:
        for handle in (*ready, go[0]):
            os.close(handle)
        os.waitpid(helper, 0)


def _write_maps(target: int, outside: int, group: int) -> None:
    if outside == 0:
        uids = gids = f"0 0 1\n{UID} {NOBODY} 1\n"
    else:
        uids, gids = f"{UID} {outside} 1\n", f"{UID} {group} 1\n"
        Path(f"/proc/{target}/setgroups").write_text("deny")
    Path(f"/proc/{target}/uid_map").write_text(uids)
    Path(f"/proc/{target}/gid_map").write_text(gids)


def build_root(binds: list[tuple[str, str]], links: list[tuple[str, str]], size: int) -> None:
    """Make the new root and go there. binds: (source, place), read-only; links: (target, place).

    size: bytes of the scratch folder.
    """
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    _tmpfs("/tmp", "mode=755,size=8m,nr_inodes=4096")
    os.mkdir("/tmp/.old")
    system_call(PIVOT_ROOT, b"/tmp", b"/tmp/.old")
    os.chdir("/")
    for target, place in [*links, ("/scratch/shm", "/dev/shm"), ("/proc/self/fd", "/dev/fd")]:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(target, place)
    for source, place in binds:
        _bind(f"/.old{source}", place, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    for device in DEVICES:
        _bind(f"/.old/dev/{device}", f"/dev/{device}", ATTR_NOSUID | ATTR_NOEXEC)
    _proc()
    os.makedirs("/etc", exist_ok=True)
    for name, text in ETC.items():
        Path("/etc", name).write_text(text)
    os.mkdir(SCRATCH)
    _tmpfs(SCRATCH, f"mode=700,size={size},nr_inodes=20000,uid={UID},gid={UID}")
    for place in ("/tmp", "/var/tmp"):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(f"{SCRATCH}/tmp", place)
    call("umount2", b"/.old", MNT_DETACH)
    os.rmdir("/.old")
    _attributes("/", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, recursive=False)
    call("sethostname", b"localhost", 9)


def _tmpfs(place: str, options: str) -> None:
    call("mount", b"tmpfs", place.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())


def _bind(source: str, place: str, attributes: int) -> None:
    if os.path.isdir(source):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        Path(place).touch()
    call("mount", source.encode(), place.encode(), None, MS_BIND | MS_REC, None)
    _attributes(place, attributes, recursive=True)


def _attributes(place: str, attributes: int, *, recursive: bool) -> None:
    """mount_setattr(2): takes whole trees, and keeps what the outer namespace has locked."""
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    call("syscall", MOUNT_SETATTR, AT_FDCWD, place.encode(), flags, wanted, len(wanted))


def _proc() -> None:
    """A proc that shows the jail only; a container may forbid it, three plain files do then."""
    os.makedirs("/proc")
    try:
        call("mount", b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    except OSError:
        for name in PROC_FILES:
            _bind(f"/.old/proc/{name}", f"/proc/{name}", ATTR_RDONLY | ATTR_NOSUID)
        return
    with suppress(OSError):  # the kernel's first choice when memory is short
        Path("/proc/self/oom_score_adj").write_text("1000")
    _attributes("/proc", ATTR_RDONLY, recursive=False)


def loopback() -> None:
    """Bring up ``lo``: netdevice(7), SIOCGIFFLAGS and SIOCSIFFLAGS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sH22x", b"lo", 0)
        (flags,) = struct.unpack_from("16xH", fcntl.ioctl(handle, 0x8913, request))
        fcntl.ioctl(handle, 0x8914, struct.pack("16sH22x", b"lo", flags | 1))


def drop_rights() -> None:
    """Become the stranger: no capability now or ever, invisible to the others of the same name."""
    for capability in range(64):
        try:
            call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError:
            break
    if os.geteuid() == 0:
        os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    system_call(CAPSET, struct.pack("Ii", 0x20080522, 0), bytes(24))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    die_with_parent()


def die_with_parent() -> None:
    call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)


def adopt_orphans() -> None:
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
