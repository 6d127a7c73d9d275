"""Which peer does which job. Starting a peer takes minutes, so the jobs of a shape share one."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import workload
from children import records_of
from floor import Group, rollout_floor, step_floor_s
from jobs import Job
from machine import UsedMemory
from shapes import SPECS, hf_config

from pellucid.model.spec import ModelSpec

PEERS = Path(__file__).resolve().parent / "peers"
TRL_MICRO = {"0.5b": (64,), "1.5b": (32,), "7b": (8,)}
"""Micro-batches that fit beside a colocated vLLM on 139 GiB; --trl-micro tries others."""


def peer_records(
    jobs: Sequence[Job], arguments: argparse.Namespace, is_late: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """Records of vLLM, a process a shape, and of TRL, a process a job and micro-batch."""
    jobs = [job for job in jobs if not job.is_variant]
    for shape in dict.fromkeys(job.shape for job in jobs):
        sampled = [j for j in jobs if j.shape == shape and j.kind in ("rollout", "mixed")]
        if sampled:
            settings = arguments.peer_settings.split(",")
            work = {"jobs": [_work(j, arguments) for j in sampled], "settings": settings}
            expected = [(j.name, f"vllm-{s}") for j in sampled for s in settings if _does(j, s)]
            yield from _collect("vllm_rollout.py", shape, work, expected, arguments, is_late)
        for job in (j for j in jobs if j.shape == shape and j.kind == "step"):
            for micro in _micros(job, arguments):
                work = {"jobs": [_work(job, arguments)], "micro": micro}
                expected = [(job.name, "trl")]
                yield from _collect("trl_step.py", shape, work, expected, arguments, is_late)


def _does(job: Job, setting: str) -> bool:
    """The mixed job asks for every sample by itself: nothing sets the two ways of asking apart."""
    return setting == "best" or not job.is_mixed


def _micros(job: Job, arguments: argparse.Namespace) -> Sequence[int]:
    if arguments.trl_micro:
        return [int(text) for text in arguments.trl_micro.split(",")]
    return TRL_MICRO[job.shape]


def _work(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.shape == "tiny":
        job = job.shrunk()
    sizes = {"name": job.name, "prompts": job.prompts, "group": job.group}
    limits = None
    if job.is_mixed:
        mean = min(workload.MIXED_MEAN, job.new / 2)
        limits = workload.mixed_limits(job.rows, longest=job.new, mean=mean)
    return {**sizes, "prompt": job.prompt, "new": job.new, "limits": limits}


def _floor_s(spec: ModelSpec, work: dict[str, Any], *, is_step: bool) -> float:
    """What this project's records of the job are compared with, as if no end token were drawn."""
    size, limits = (
        work["group"],
        work["limits"] or [work["new"]] * (work["prompts"] * work["group"]),
    )
    groups = [
        Group(prompt=work["prompt"], completions=tuple(limits[p * size : (p + 1) * size]))
        for p in range(work["prompts"])
    ]
    return step_floor_s(spec, groups) if is_step else rollout_floor(spec, groups).seconds


def _collect(
    script: str,
    shape: str,
    work: dict[str, Any],
    expected: list[tuple[str, str]],
    arguments: argparse.Namespace,
    is_late: Callable[[], bool],
) -> Iterator[dict[str, Any]]:
    """Records of one peer process; a job that it was to do and did not has its error."""
    failure = {"status": "not started", "error": "no time left (--budget)"}
    done: set[tuple[str, str]] = set()
    if not is_late():
        failure = {"status": "failed", "error": "the peer ended without a word of this job"}
        shape = arguments.shape or shape
        work |= {"shape": shape, "model": hf_config(SPECS[shape])}
        work |= {"repeats": arguments.peer_repeats}
        with tempfile.TemporaryDirectory() as folder, UsedMemory() as memory:
            path = Path(folder, "work.json")
            path.write_text(json.dumps(work))
            command = [sys.executable, str(PEERS / script), str(path)]
            for record in records_of(
                command, timeout_s=arguments.peer_timeout, environment=_environment(arguments)
            ):
                if record["status"] == "failed":
                    failure = record
                    continue
                record.pop("record")
                done.add((record["job"], record["who"]))
                mine = next(j for j in work["jobs"] if j["name"] == record["job"])
                floor_s = _floor_s(SPECS[shape], mine, is_step=script == "trl_step.py")
                record |= {"floor_s": floor_s, "share_of_floor": floor_s / record["median_s"]}
                yield {**record, "used_memory_bytes": memory.peak_bytes}
    for job, who in expected:
        if (job, who) not in done:
            yield {"job": job, "who": who, **failure, "settings": {"micro": work.get("micro")}}


def _environment(arguments: argparse.Namespace) -> dict[str, str]:
    """This process's, with the peers' folder in front: no other process sees them."""
    environment = dict(os.environ)
    parts = [arguments.peer_path, environment.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(p for p in parts if p)
    return environment
