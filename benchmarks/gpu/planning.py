"""What `pellucid plan` says of a job's memory and time, to be held against what was measured."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import workload
from jobs import Job
from shapes import SPECS

from pellucid.model.spec import ModelSpec
from pellucid.train import job as training
from pellucid.train.memory_plan import GIB, MemoryPlan, choose_plan, layout_of
from pellucid.train.memory_sizes import OVERHEAD_BYTES
from pellucid.train.packing import level_packs
from pellucid.train.phase_plans import sampling_plan
from pellucid.train.step_time import DevicePeaks, predict

PLANNED_KINDS = ("rollout", "mixed", "pages", "long-prompt", "step", "planned")
"""The other kinds take memory that no recipe takes: a model without its optimiser, two of them."""
EVERYTHING = 139 * GIB
"""Free on an empty H200."""


def training_job(job: Job, spec: ModelSpec, element: int = 2) -> training.Job:
    """The job as the planner sees it, with nothing chosen by hand."""
    return training.Job(
        spec=spec,
        element=element,
        prompts=job.prompts,
        group_size=job.group,
        prompt_tokens=job.prompt,
        max_new_tokens=job.new,
    )


def planned_peak(record: dict[str, Any], job: Job) -> int | None:
    """Bytes at the peak by the plan, for a record of this project; None: the kind is not planned.

    A step's packs are of fixed length, so that less may lie in them than `tokens_per_pack` allows:
    the plan is asked for the largest that there was.
    """
    if job.kind not in PLANNED_KINDS:
        return None
    if job.kind == "planned":
        return int(record["details"]["planned"]["peak"])
    asked = replace(training_job(job, SPECS[job.shape]), slots=job.rows)
    if job.kind != "step":
        plan = sampling_plan(asked, EVERYTHING)
        if job.kind == "pages":
            layout = layout_of(asked, workload.PAGED_KV_GIB * GIB)
            plan = replace(plan, kv=layout.size.num_bytes(asked.spec, asked.element))
        return plan.rollout_peak
    capacity = record["settings"]["tokens_per_pack"]
    group = job.prompt - 1 + job.group * job.new
    assert group <= capacity, "no group of these jobs is split"
    packs = level_packs([group] * job.prompts, capacity)
    largest = max(len(pack) for pack in packs) * group
    return choose_plan(replace(asked, tokens_per_pack=largest), EVERYTHING).peak


def measured_peak(record: dict[str, Any]) -> int | None:
    """Bytes at the peak: what the driver saw; where nobody asked it, what torch had in use and the
    plan's allowance for what lies outside of torch. None: not measured.
    """
    if record.get("used_memory_bytes"):
        return int(record["used_memory_bytes"])
    if record.get("peak_allocated_bytes"):
        return int(record["peak_allocated_bytes"]) + OVERHEAD_BYTES
    return None


def as_json(asked: training.Job, plan: MemoryPlan, peaks: DevicePeaks | None) -> dict[str, Any]:
    """The plan by class, and the seconds of a step whose completions are all of full length."""
    length = float(asked.max_new_tokens)
    seconds = None if peaks is None else predict(asked, plan, peaks, length).step_s
    return asdict(plan) | {
        "rollout_peak": plan.rollout_peak,
        "training_peak": plan.training_peak,
        "peak": plan.peak,
        "step_s": seconds,
    }
