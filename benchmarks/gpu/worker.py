"""One job in a process of its own, started by run.py: clean memory, its own peak.

python worker.py --job NAME --result FILE [--device cuda] [--shape tiny] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from jobs import parse
from measure import TOKENS_PER_PACK, Setting
from shapes import SPECS

MACHINE = "machine"
"""Name of the job that describes the machine and measures its ceilings."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", choices=sorted(SPECS), help="instead of the job's own")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmups", type=int, default=2)
    parser.add_argument("--tokens-per-pack", type=int)
    parser.add_argument("--job-seconds", type=float, default=float("inf"))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.job == MACHINE:
        found = describe(device, arguments.repeats)
    else:
        found = run(arguments, device)
    arguments.result.write_text(json.dumps(found))


def run(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The record of a job."""
    # Late: describing the machine needs no Pellucid that runs.
    import compile_jobs
    import overlap_jobs
    import rollout_jobs
    import train_jobs

    work = {
        "rollout": rollout_jobs.rollout,
        "mixed": rollout_jobs.mixed,
        "long-prompt": rollout_jobs.long_prompt,
        "train": train_jobs.train,
        "pages": rollout_jobs.pages,
        "step": train_jobs.step,
        "planned": train_jobs.planned,
        "gap": train_jobs.gap,
        "compiled": compile_jobs.compiled,
        "overlap": overlap_jobs.overlap,
    }
    job = parse(arguments.job)
    shape = arguments.shape or job.shape
    if shape == "tiny":
        job = job.shrunk()
    setting = Setting(
        device=device,
        spec=SPECS[shape],
        repeats=arguments.repeats,
        warmups=arguments.warmups,
        tokens_per_pack=arguments.tokens_per_pack or TOKENS_PER_PACK[shape],
        job_seconds=arguments.job_seconds,
        is_exact=job.is_exact,
    )
    return work[job.kind](job, setting)


def describe(device: torch.device, repeats: int) -> dict[str, Any]:
    """Device and ceilings."""
    from ceilings import ceilings

    is_cuda = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if is_cuda else None
    return {
        "device": properties.name if properties else f"CPU {platform.machine()}",
        "memory_bytes": properties.total_memory if properties else None,
        "capability": f"{properties.major}.{properties.minor}" if properties else None,
        "cuda": torch.version.cuda,
        "ceilings": ceilings(device, repeats),
    }


if __name__ == "__main__":
    main()
