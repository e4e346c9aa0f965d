"""The same walls by bubblewrap, for machines that let it do what they do not let us do.

Some systems reserve user namespaces to programs that they know; bubblewrap is one of them. The tree
is the one of `underpar.audit.walls`; rights, filter and limits are again our own, set from inside.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from underpar.audit.jail import JailOrder
from underpar.audit.walls import DEVICES, SCRATCH, UID

HERE = Path(__file__).parent


def command(order: JailOrder, code: str) -> list[str]:
    """What to put before the jail's own command; [] where there is no bubblewrap to use.

    code: where the package's files are in the jail.
    """
    program = shutil.which("bwrap")
    # root would stay root behind these walls: owner of /proc/sys, and free of the process limit
    if not program or os.geteuid() == 0:
        return []
    words = [program, "--unshare-all", "--as-pid-1", "--die-with-parent", "--new-session"]
    words += ["--hostname", "localhost", "--uid", str(UID), "--gid", str(UID), "--cap-drop", "ALL"]
    for source, place in order.binds:
        words += ["--ro-bind", source, place]
    for name in ("jail.py", "walls.py", "callfilter.py"):
        words += ["--ro-bind", str(HERE / name), f"{code}/underpar/audit/{name}"]
    for device in DEVICES:
        words += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    links = [*order.links, (f"{SCRATCH}/shm", "/dev/shm"), ("/proc/self/fd", "/dev/fd")]
    links += [(f"{SCRATCH}/tmp", "/tmp"), (f"{SCRATCH}/tmp", "/var/tmp")]
    for target, place in links:
        words += ["--symlink", target, place]
    words += ["--proc", "/proc", "--size", str(order.disk), "--perms", "700", "--tmpfs", SCRATCH]
    return [*words, "--remount-ro", "/", "--"]


def inside(order: JailOrder) -> JailOrder:
    """The order of a jail whose walls stand already."""
    return replace(order, mode="inside", binds=[], links=[])
