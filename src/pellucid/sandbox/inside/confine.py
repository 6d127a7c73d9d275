"""A process of its own for every program: fresh namespaces, no rights, few system calls.

Bubblewrap makes the jail. Inside it this adds what a program must not share with the next one (a
process namespace, /tmp, IPC), takes the last capability away and filters system calls, so that a
mistake in one layer is not yet an escape.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct

_LIBC = ctypes.PyDLL(None, use_errno=True)
"""PyDLL: a clone must not happen while the interpreter lock is handed over."""

NEW_NAMESPACES = 0x20000000 | 0x00020000 | 0x08000000
"""CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC."""
_ANY_NAMESPACE = 0x7E020000
_SIGCHLD = 17
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_NOSUID_NODEV = 0x2 | 0x4

_CALLS = {
    # name: (x86_64, aarch64); None where the architecture has no such call
    "socket": (41, 198), "ptrace": (101, 117), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
    "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "swapon": (167, 224), "reboot": (169, 142),
    "personality": (135, 92), "quotactl": (179, 60), "acct": (163, 89), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "mknod": (133, None),
    "mknodat": (259, 33), "iopl": (172, None), "ioperm": (173, None),
}  # fmt: skip
_ARCHITECTURES = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}
"""machine -> column above, AUDIT_ARCH, number of clone."""
_CLONE3 = 435


class ConfineError(OSError):
    """A wall could not be put up."""


def can_confine() -> bool:
    return platform.machine() in _ARCHITECTURES


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise ConfineError(number, f"{what}: {os.strerror(number)}")
    return result


def clone(flags: int) -> int:
    """fork() into new namespaces: 0 in the child, its process id in the parent."""
    if not flags:
        return os.fork()
    number = _ARCHITECTURES[platform.machine()][2]
    ctypes.pythonapi.PyOS_BeforeFork()
    zero = ctypes.c_long(0)
    pid = _LIBC.syscall(ctypes.c_long(number), ctypes.c_long(flags | _SIGCHLD), *[zero] * 4)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    return _check(pid, "clone")


def hide_memory() -> None:
    """No other process may trace this one or read its memory."""
    _check(_LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def private_tmp(size_mib: int) -> None:
    """An empty /tmp that ends with the namespace."""
    options = f"size={size_mib}m,nr_inodes=4096,mode=1777".encode()
    result = _LIBC.mount(b"tmpfs", b"/tmp", b"tmpfs", ctypes.c_ulong(_NOSUID_NODEV), options)
    _check(result, "mount /tmp")


def limit(limits: dict[str, float]) -> None:
    """Resource limits of each process of the program."""
    cpu_s = max(1, int(limits["timeout_s"] + 0.999))
    mib = 2**20
    for kind, value in (
        (resource.RLIMIT_AS, int(limits["memory_mib"]) * mib),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_NPROC, int(limits["processes"])),
        (resource.RLIMIT_FSIZE, int(limits["disk_mib"]) * mib),
        (resource.RLIMIT_NOFILE, int(limits["open_files"])),
        (resource.RLIMIT_STACK, 64 * mib),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def resign(uid: int) -> None:
    """Give up root (where `uid` is set), every capability, and the way back."""
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = struct.pack("II", 0x20080522, 0)
    _check(_LIBC.capset(header, bytes(24)), "capset")
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def build_filter() -> bytes:
    """The system-call filter (seccomp BPF): what is listed fails with EPERM."""
    column, audit, clone_number = _ARCHITECTURES[platform.machine()]
    numbers = [row[column] for row in _CALLS.values() if row[column] is not None]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    kill, allow, deny, unknown = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
    code = [(load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, kill), (load, 0, 0, 0)]
    code += [(at_least, 0, 1, 0x40000000), (give, 0, 0, deny)]  # the x32 numbering
    for number in numbers:
        code += [(equal, 0, 1, number), (give, 0, 0, deny)]
    # clone3 hides its flags behind a pointer; libc falls back to clone where it is unknown.
    code += [(equal, 0, 1, _CLONE3), (give, 0, 0, unknown)]
    code += [(equal, 0, 3, clone_number), (load, 0, 0, 16)]
    code += [(any_bit, 0, 1, _ANY_NAMESPACE), (give, 0, 0, deny), (give, 0, 0, allow)]
    return b"".join(struct.pack("HBBI", *row) for row in code)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def filter_calls(code: bytes) -> None:
    program = _Program(len(code) // 8, code)
    _check(_LIBC.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0), "seccomp")
