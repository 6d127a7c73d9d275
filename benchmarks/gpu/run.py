"""Measures Pellucid and its peers side by side on one machine and writes one JSON.

    python benchmarks/gpu/run.py [--jobs a,b] [--peers] [--out FILE.json] [--budget SECONDS]

Every job has a process of its own. The file is written after each job, so an interrupted run keeps
what it has; a job that fails is in it with its error, one for which no time was left is named.
`--device cpu --shape tiny` rehearses everything without a GPU. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
from children import ROOT, result_of
from floor import BYTES_PER_S, FLOPS_PER_S
from jobs import JOBS, Job, parse
from peer_jobs import peer_records
from shapes import SPECS
from worker import MACHINE

from pellucid.artifacts import atomic_write_json
from pellucid.cli import set_environment

HERE = Path(__file__).resolve().parent
SCHEMA = 1


@dataclass(slots=True)
class Report:
    """The JSON, kept on disk."""

    path: Path
    content: dict[str, Any]
    start: float = field(default_factory=time.monotonic)

    def add(self, record: dict[str, Any]) -> None:
        """Appends a job's record, writes the file and prints a line."""
        self.content["jobs"].append(record)
        self.save()
        print(f"{time.monotonic() - self.start:6.0f} s  {line_of(record)}", flush=True)

    def save(self) -> None:
        atomic_write_json(self.path, self.content)


def main() -> None:
    # Whoever ends this process ends its child too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: asked to stop"))
    arguments = read_arguments()
    if arguments.list:
        print("\n".join(JOBS))
        return
    try:
        jobs = [parse(name) for name in arguments.jobs.split(",")]
    except ValueError as error:
        sys.exit(f"error: {error}")
    report = Report(arguments.out or default_path(arguments), new_content(arguments))
    described = project_record(MACHINE, arguments)
    if described["status"] != "ok":
        sys.exit(f"error: the device cannot be measured: {described['error']}")
    report.content["machine"] |= {k: v for k, v in described.items() if k != "status"}
    report.save()
    ceilings = described["ceilings"]
    print(
        f"{described['device']}: copy {ceilings['copy_bytes_per_s'] / 1e12:.2f} TB/s, "
        f"matrix product {ceilings['matmul_flops_per_s'] / 1e12:.0f} TFLOP/s",
        flush=True,
    )
    for record in records(jobs, arguments, report.start):
        report.add(record)
    print("\n" + table(report.content["jobs"]) + f"\n\nwritten to {report.path}")
    if any(r["status"] == "failed" for r in report.content["jobs"]):
        sys.exit(1)


def read_arguments() -> argparse.Namespace:
    return new_parser().parse_args()


def new_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--jobs", default=",".join(JOBS), help="names, most important first; default: all")
    add("--list", action="store_true", help="print the names and stop")
    add(
        "--out", type=Path, help="default: benchmarks/results/gpu-DATE.json; a rehearsal's: in /tmp"
    )
    add("--repeats", type=int, default=5, help="of each job, after its warm-ups (default 5)")
    add("--budget", type=float, default=float("inf"), help="seconds after which no job is started")
    add("--job-seconds", type=float, default=float("inf"),
        help="seconds of repeats after which three are enough")  # fmt: skip
    add("--timeout", type=float, default=300.0, help="of one job, in seconds (default 300)")
    add("--tokens-per-pack", type=int, help="of steps and training; default: by shape")
    add("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    add("--shape", choices=sorted(SPECS), help="instead of each job's own: a rehearsal")
    add("--no-project", action="store_true", help="peers only")
    add("--peers", action="store_true", help="vLLM and TRL on the same jobs, behind the project's")
    add("--peer-path", metavar="SITE", help="folder that the peers are installed in")
    add("--peer-repeats", type=int, default=5, help="of each job of a peer (default 5)")
    add("--peer-timeout", type=float, default=900.0, help="of one peer process (default 900)")
    add("--peer-settings", default="best,rl", help="of vLLM (default best,rl)")
    add("--trl-micro", help="TRL's micro-batches to try, as 32,64; default: one by shape")
    return parser


def default_path(arguments: argparse.Namespace) -> Path:
    if is_rehearsal(arguments):
        return Path(tempfile.gettempdir(), "gpu-rehearsal.json")
    return (
        ROOT
        / "benchmarks"
        / "results"
        / f"gpu-{time.strftime('%Y-%m-%d-%H%M', time.gmtime())}.json"
    )


def is_rehearsal(arguments: argparse.Namespace) -> bool:
    return arguments.device != "cuda" or arguments.shape is not None


def new_content(arguments: argparse.Namespace) -> dict[str, Any]:
    environment = machine.environment()
    return {
        "schema": SCHEMA,
        "date": environment.pop("date"),
        "is_rehearsal": is_rehearsal(arguments),
        "arguments": {k: v for k, v in vars(arguments).items() if isinstance(v, int | float | str)
                      and v != float("inf") and k != "peer_path"},
        "code": machine.code(),
        "machine": environment,
        "floor": {"bytes_per_s": BYTES_PER_S, "flops_per_s": FLOPS_PER_S},
        "jobs": [],
    }  # fmt: skip


def records(
    jobs: list[Job], arguments: argparse.Namespace, start: float
) -> Iterator[dict[str, Any]]:
    """A record of every job: Pellucid's first, then the peers'."""

    def is_late() -> bool:
        return time.monotonic() - start > arguments.budget

    for job in [] if arguments.no_project else jobs:
        named = {"job": job.name, "who": "pellucid"}
        if is_late():
            yield {**named, "status": "not started", "error": "no time left (--budget)"}
        else:
            yield {**named, **project_record(job.name, arguments, job)}
    if arguments.peers:
        yield from peer_records(jobs, arguments, is_late)


def project_record(
    name: str, arguments: argparse.Namespace, job: Job | None = None
) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "worker.py"), "--job", name]
    command += ["--device", arguments.device, "--repeats", str(arguments.repeats)]
    command += ["--warmups", str(warmups(job)), "--job-seconds", str(arguments.job_seconds)]
    if arguments.shape:
        command += ["--shape", arguments.shape]
    if arguments.tokens_per_pack:
        command += ["--tokens-per-pack", str(arguments.tokens_per_pack)]
    environment = dict(os.environ) | (job.environment if job is not None else {})
    set_environment(environment)  # as the command line does
    if job is None or job.kind != "planned":
        return result_of(command, timeout_s=arguments.timeout, environment=environment)
    # Asking the driver twice a second takes host time: only where memory is what is measured.
    with machine.UsedMemory() as memory:
        record = result_of(command, timeout_s=arguments.timeout, environment=environment)
    return record | {"used_memory_bytes": memory.peak_bytes}


def warmups(job: Job | None) -> int:
    """Two where they are cheap: the first one compiles and captures."""
    is_cheap = job is not None and job.kind in ("rollout", "mixed", "pages") and job.shape != "7b"
    return 2 if is_cheap else 1


def line_of(record: dict[str, Any]) -> str:
    """One job in one line."""
    name = f"{record['job']:30} {record['who']:12}"
    if record["status"] != "ok":
        return f"{name} {record['status'].upper()}: {record['error']}"
    parts = [f"{record['median_s']:9.3f} s", f"{record['tokens_per_s']:11,.0f} tok/s"]
    if record.get("share_of_floor") is not None:
        parts.append(f"{record['share_of_floor']:6.1%} of the floor")
    details = record.get("details", {})
    if "mfu" in details:
        parts.append(f"MFU {details['mfu']:.1%}")
    if "normal" in details:
        parts.append(f"gap {details['normal']['mean_gap']:.2e}")
        exact = details["exact"]
        parts.append(f"exact {exact.get('error') or format(exact['mean_gap'], '.2e')}")
    if "planned" in details:
        plan = details["planned"]
        parts.append(f"planned {plan['peak'] / 2**30:.1f} GiB, {plan['step_s'] or 0.0:.2f} s")
    if "gain" in details:
        parts.append(f"gain {details['gain']:.2f} x")
    kinds = {"peak_allocated_bytes": "in use", "peak_reserved_bytes": "reserved",
             "used_memory_bytes": "taken"}  # fmt: skip
    for key, word in kinds.items():
        if record.get(key):
            parts.append(f"{record[key] / 2**30:.1f} GiB {word}")
    return " ".join([name, *parts])


def table(jobs: list[dict[str, Any]]) -> str:
    return "\n".join(line_of(record) for record in jobs)


if __name__ == "__main__":
    main()
