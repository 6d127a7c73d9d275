"""The jail's walls: the bubblewrap command line, and whether this machine can put them up.

As an ordinary user the jail has a user namespace of its own. As root it has none: root's own user
is exempt from process limits in any namespace, so every program runs as an unprivileged user
instead (`PROGRAM_UID`).
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from pellucid.errors import UserError

PROGRAM_UID = 2_000_000
"""A user that owns nothing on any machine. One more for each jail, so that none counts for all."""
INSIDE = Path(__file__).with_name("inside")
HOW_TO_INSTALL = "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap)"


class SandboxError(UserError):
    """This machine cannot isolate programs. The message is one line with the remedy."""


def jail_command(*, uid: int) -> list[str]:
    """The command that starts a zygote inside a jail. `uid` 0: in a user namespace of its own.

    Raises SandboxError where bubblewrap is not installed.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxError(
            f"code cannot be judged without isolation: {HOW_TO_INSTALL}, or run programs without "
            "it: --unsafe"
        )
    spaces = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    spaces += ["--unshare-cgroup-try", "--hostname", "jail"]
    if not uid:
        spaces += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    rights = ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
    if uid:
        rights += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_KILL"]
    walls = ["--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    environment = {
        "PATH": "/usr/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0",
    }  # fmt: skip
    for name, value in environment.items():
        walls += ["--setenv", name, value]
    python = os.path.realpath(sys.executable)
    return [
        bwrap, *spaces, *rights, *walls, *_files(python), "--chdir", "/",
        python, "-s", "-S", "-B", "/inside/zygote.py", "jail", str(uid),
    ]  # fmt: skip


def unsafe_command() -> list[str]:
    """The same zygote with nothing around it but resource limits."""
    return [sys.executable, "-s", "-S", "-B", str(INSIDE / "zygote.py"), "unsafe", "0"]


def _files(python: str) -> list[str]:
    """Read-only: interpreter, standard library, shared libraries. No package, no home, no /proc."""
    bound: list[str] = []
    shown = [Path(path) for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64")]
    shown.append(Path(sys.base_prefix) / "lib")
    shown += [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    ways = [*Path(python).parents, *Path(sys.base_prefix, "lib").parents]
    for parent in sorted(set(ways) - {Path("/")}):
        bound += ["--perms", "0755", "--dir", str(parent)]  # a home would be closed to the program
    for path in dict.fromkeys(shown):
        if path.is_symlink():
            bound += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir() and not _is_below(path, bound):
            bound += ["--ro-bind", str(path), str(path)]
    bound += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    bound += ["--ro-bind", python, python, "--ro-bind", str(INSIDE), "/inside"]
    for pattern in ("site-packages", "dist-packages"):
        for root in {str(Path(sys.base_prefix) / "lib"), "/usr/lib"}:
            for packages in sorted(Path(root).glob(f"python3*/{pattern}")):
                bound += ["--tmpfs", str(packages), "--remount-ro", str(packages)]
    for device in ("null", "zero", "urandom", "random"):
        bound += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    return [*bound, "--dir", "/tmp", "--remount-ro", "/"]


def _is_below(path: Path, bound: list[str]) -> bool:
    options = itertools.pairwise(bound)
    return any(path.is_relative_to(other) for option, other in options if option == "--ro-bind")


@functools.cache
def why_missing() -> str | None:
    """Why programs cannot be isolated here, with the remedy; None where they can. Asked once.

    Starts a jail, and lets a program in it try what it must not be able to do.
    """
    from pellucid.sandbox.jail import Jail, JailError
    from pellucid.sandbox.records import Job, Limits, Outcome

    try:
        with Jail() as jail:
            run = jail.run(Job(code=_PROBE, calls=("left",)), Limits(timeout_s=20.0, processes=4))
    except SandboxError as error:
        return str(error)
    except JailError as error:
        return (
            f"code cannot be judged: the jail does not start ({error}): allow unprivileged user"
            " namespaces, or run programs without it: --unsafe"
        )
    if run.outcome is not Outcome.PASSED:
        return f"code cannot be judged: the jail's self-test ended with {run.outcome} {run.detail}"
    if run.values != ([],):
        return f"code cannot be judged: a jailed program still can {', '.join(run.values[0])}"
    return None


def require_isolation() -> None:
    """Raises SandboxError where `why_missing` has a reason."""
    if (why := why_missing()) is not None:
        raise SandboxError(why)


_PROBE = """
import os, socket, time
left = []
def can(what, act):
    try:
        act()
    except OSError:
        return
    left.append(what)
def forks():
    for _ in range(8):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
can("start any number of processes", forks)
can("open sockets", lambda: socket.socket())
can("write outside /tmp", lambda: open("/x", "w"))
can("see processes", lambda: os.listdir("/proc/1"))
can("make namespaces", lambda: os.unshare(0x10000000) if hasattr(os, "unshare") else os.stat("/x"))
"""
