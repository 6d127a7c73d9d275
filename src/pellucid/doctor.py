"""Is this machine fit to train? Versions, devices, compiler, memory, disk, graders; remedies."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from pellucid.manifest import PACKAGE_ROOT, package_versions
from pellucid.protocols import ProgressFn

MIN_PYTHON = (3, 11)
MIN_MEMORY_GIB = 4.0
"""Under this even the embedded demo swaps beside a browser."""
MIN_DISK_GIB = 2.0
OPTIONAL = {"pyarrow": "data", "transformers": "test", "pytest": "test"}
"""Package -> the extra that brings it."""
_CONSTRAINTS = PACKAGE_ROOT.parents[1] / "constraints.txt"
_GIB = 2**30


class Status(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    """Works, but not everything does or not well."""
    FAIL = "fail"
    """`run` would not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. Example: Finding(name="python", status=Status.OK, found="3.11.7")"""

    name: str
    status: Status
    found: str
    remedy: str = ""
    """What to do; empty where nothing needs doing."""

    def line(self) -> str:
        """`found; remedy`"""
        return f"{self.found}; {self.remedy}" if self.remedy else self.found

    def as_json(self) -> dict[str, str]:
        """Plain values for `--json`."""
        return {key: str(value) for key, value in asdict(self).items()}


def check(where: Path = Path("."), progress: ProgressFn | None = None) -> list[Finding]:
    """All findings. `where` is the folder whose disk would take the run."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _optional_packages,
        _cpu,
        _torch,
        _compiler,
        _kernels,
        _memory,
        lambda: _disk(where),
        _graders,
        _sandbox,
    )
    findings: list[Finding] = []
    for done, one in enumerate(checks, start=1):
        findings += one()
        if progress is not None:
            progress(done, len(checks))
    return findings


def _python() -> Iterator[Finding]:
    is_new = sys.version_info[:2] >= MIN_PYTHON
    needed = ".".join(map(str, MIN_PYTHON))
    yield Finding(
        name="python",
        status=Status.OK if is_new else Status.FAIL,
        found=platform.python_version(),
        remedy="" if is_new else f"install Python {needed} or newer",
    )


def _packages() -> Iterator[Finding]:
    """Every package that pellucid declares, against the range it declares."""
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires("pellucid") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            name="pellucid",
            status=Status.WARN,
            found="runs from its sources, not installed",
            remedy="`make install` checks the versions of what it needs",
        )
        return
    tested = reference_versions()
    for requirement in map(Requirement, declared):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = package_versions((requirement.name,))[requirement.name]
        is_fit = version is not None and requirement.specifier.contains(version, prereleases=True)
        reference = tested.get(_normal(requirement.name))
        found = version or "not installed"
        if version and reference and version.partition("+")[0] != reference:
            found += f" (tested with {reference})"
        yield Finding(
            name=requirement.name,
            status=Status.OK if is_fit else Status.FAIL,
            found=found,
            remedy="" if is_fit else f"pip install '{requirement.name}{requirement.specifier}'",
        )


def reference_versions(constraints: Path = _CONSTRAINTS) -> dict[str, str]:
    """Package -> version in constraints.txt; empty where there is no source checkout."""
    if not constraints.is_file():
        return {}
    lines = (line.partition("#")[0].strip() for line in constraints.read_text().splitlines())
    pairs = (line.split("==", 1) for line in lines if "==" in line)
    return {_normal(name): version for name, version in pairs}


def _normal(name: str) -> str:
    """Package names are equal up to case and the kind of dash."""
    return name.lower().replace("_", "-")


def _optional_packages() -> Iterator[Finding]:
    for name, version in package_versions(tuple(OPTIONAL)).items():
        yield Finding(
            name=f"{name} (optional)",
            status=Status.OK if version else Status.WARN,
            found=version or "not installed",
            remedy="" if version else f"pip install 'pellucid[{OPTIONAL[name]}]' if you need it",
        )


def _cpu() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = _cpu_flags()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    known = ", ".join(flag for flag in wanted if flag in flags) or "vector units not known"
    yield Finding(name="cpu", status=Status.OK, found=f"{usable} cores usable, {known}")


def _cpu_flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return set()
    lines = (line for line in info.read_text().splitlines() if line.startswith("flags"))
    return set(next(lines, "").partition(":")[2].split())


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding(
            name="torch",
            status=Status.FAIL,
            found=f"does not load ({error})",
            remedy="pip install -c constraints.txt torch",
        )
        return
    if not torch.cuda.is_available():
        yield Finding(name="gpu", status=Status.OK, found="none; the CPU is used")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        has_bf16 = properties.major >= 8
        yield Finding(
            name=f"gpu {index}",
            status=Status.OK if has_bf16 else Status.WARN,
            found=f"{properties.name}, {properties.total_memory / _GIB:.0f} GiB"
            f", CUDA {torch.version.cuda}",
            remedy="" if has_bf16 else "no bfloat16 in hardware: --set dtype=float32",
        )


def _compiler() -> Iterator[Finding]:
    path = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    yield Finding(
        name="C compiler",
        status=Status.OK if path else Status.WARN,
        found=Path(path).name if path else "none",
        remedy="" if path else "compiled GPU kernels need one: install gcc",
    )


def _kernels() -> Iterator[Finding]:
    """Whether the fast path runs on the CUDA device, if there is one."""
    try:
        import torch
    except ImportError:
        return
    if not torch.cuda.is_available():
        return
    from pellucid.kernels.available import hopper_ready, triton_ready

    device = torch.device("cuda", torch.cuda.current_device())
    if hopper_ready(device):
        yield Finding(name="kernels", status=Status.OK, found="all run: rollouts are exact")
        return
    runs = "only those of the trainer run" if triton_ready(device) else "do not run"
    yield Finding(
        name="kernels",
        status=Status.WARN,
        found=f"{runs}: the plain path serves, slower",
        remedy="the log says why at the start of a run; capability 9.0, triton and a C compiler "
        "bring the fast path",
    )


def _memory() -> Iterator[Finding]:
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB
    is_enough = gib >= MIN_MEMORY_GIB
    yield Finding(
        name="memory",
        status=Status.OK if is_enough else Status.WARN,
        found=f"{gib:.1f} GiB",
        remedy="" if is_enough else "--set rollout.slots=64 and a smaller train.tokens_per_pack",
    )


def _disk(where: Path) -> Iterator[Finding]:
    gib = shutil.disk_usage(where).free / _GIB
    can_write = os.access(where, os.W_OK)
    is_enough = gib >= MIN_DISK_GIB
    if not can_write:
        status, remedy = Status.FAIL, "this folder cannot be written: work in another one"
    elif not is_enough:
        status, remedy = Status.WARN, "checkpoints of a larger model will not fit"
    else:
        status, remedy = Status.OK, ""
    yield Finding(name="disk", status=status, found=f"{gib:.1f} GiB free here", remedy=remedy)


def _graders() -> Iterator[Finding]:
    """The graders on the labelled responses that ship with them."""
    from pellucid.rewards import self_test

    result = self_test()
    misses = result.misses
    remedy = ""
    if result.num_errors:
        remedy = "the second grader failed: pip install -c constraints.txt math-verify"
    elif misses:
        first = misses[0]
        remedy = f"first: {first.vector.kind} graded {first.score.verdict}: reinstall pellucid"
    elif result.not_run:
        remedy = "; ".join(result.not_run)
    found = f"{result.num_vectors - len(misses)} of {result.num_vectors} labelled answers right"
    if result.not_run:
        found += f", {sum(result.not_run.values())} not run"
    yield Finding(
        name="graders",
        status=Status.FAIL if misses else Status.OK,
        found=found,
        remedy=remedy,
    )


def _sandbox() -> Iterator[Finding]:
    """Whether programs can be judged: starts a jail and lets a program attack it."""
    from pellucid.sandbox import why_missing

    why = why_missing()
    yield Finding(
        name="sandbox",
        status=Status.WARN if why else Status.OK,
        found="programs cannot be judged" if why else "bubblewrap isolates programs",
        remedy=(why or "").rpartition("cannot be judged")[2].lstrip(" :"),
    )
