"""The filter on system calls of the child process: classic BPF, for two architectures.

A list of what is refused, not of what is allowed: PyTorch and its libraries use most of the rest.
Namespaces, rights and limits are the walls; the filter takes away what they do not hold: ways to
new namespaces (and with them to the kernel's less tested corners), other processes' memory, memory
that belongs to no process and so to no limit, and sockets that ignore the network namespace.
Numbers: the kernel's tables arch/x86/entry/syscalls/syscall_64.tbl and asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

from underpar.audit.walls import PR_SET_SECCOMP, call

#: name -> number on (x86_64, aarch64).
REFUSED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "personality": (135, 92),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
}
#: These say "not implemented", so that libraries take their older way.
ABSENT = {"clone3": (435, 435), "memfd_create": (319, 279), "memfd_secret": (447, 447)}
CLONE, SOCKET = (56, 220), (41, 198)
FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink (the list of interfaces)
NEW_NAMESPACE_FLAGS = 0x7E020000

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def program(machine: str) -> bytes:
    """The filter for an architecture, as struct sock_filter entries of 8 bytes."""
    column, audit = ARCHITECTURES[machine]
    refuse, absent = ERROR | errno.EPERM, ERROR | errno.ENOSYS
    steps = [(LOAD, 0, 0, ARCH), (JUMP_EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL)]
    steps += [(LOAD, 0, 0, NUMBER)]
    # x32 has the same architecture and other numbers
    steps += [(JUMP_AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, refuse)]
    for numbers, answer in ((REFUSED, refuse), (ABSENT, absent)):
        for pair in numbers.values():
            steps += [(JUMP_EQUAL, 0, 1, pair[column]), (RETURN, 0, 0, answer)]
    steps += [
        (JUMP_EQUAL, 0, 4, CLONE[column]),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_SET, 0, 1, NEW_NAMESPACE_FLAGS),
        (RETURN, 0, 0, refuse),
        (RETURN, 0, 0, ALLOW),
        (JUMP_EQUAL, 1, 0, SOCKET[column]),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, FIRST_ARGUMENT),
    ]
    for family in FAMILIES:
        steps += [(JUMP_EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
    steps += [(RETURN, 0, 0, refuse)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def install() -> None:
    """For this process and all it starts; needs no_new_privs. OSError on other architectures."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no filter for {machine}")
    code = ctypes.create_string_buffer(program(machine))
    count = (len(code) - 1) // 8
    header = struct.pack("HxxxxxxP", count, ctypes.addressof(code))
    call("prctl", PR_SET_SECCOMP, 2, header, 0, 0)
