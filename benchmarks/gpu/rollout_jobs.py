"""Rollout: fixed lengths, mixed lengths, and a long prompt with and without sharing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import workload
from floor import rollout_floor
from jobs import Job
from measure import (
    NumberTokenizer,
    Setting,
    build_model,
    engine_of,
    forget_peak,
    groups_of,
    num_tokens,
    repeat,
    report,
    requests_of,
    sampling,
    timed,
)
from shapes import EOS_IDS

from pellucid.records import Completion, Request
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.pages import NO_PAGES

SHARE_PAGES = "pellucid.rollout.waves._pages"


def rollout(job: Job, setting: Setting) -> dict[str, Any]:
    """Samples all rows with the same length, prefill and host work included."""
    engine, requests = engine_of(job, build_model(setting)), requests_of(job, setting)
    repeats, last = _measure(engine, requests, job, setting)
    lengths = {len(c.token_ids) for row in last for c in row}
    if lengths != {job.new}:
        raise RuntimeError(f"every completion should have {job.new} tokens, found {lengths}")
    floor = rollout_floor(setting.spec, groups_of(requests, last))
    return report(
        repeats,
        setting,
        floor_s=floor.seconds,
        settings={"slots": job.rows},
        details={"floor_bytes": floor.num_bytes, "floor_flops": floor.flops},
    )


def mixed(job: Job, setting: Setting) -> dict[str, Any]:
    """Lognormal limits and real end tokens: the long tail of a rollout."""
    mean = min(workload.MIXED_MEAN, job.new / 2)
    limits = workload.mixed_limits(job.rows, longest=job.new, mean=mean)
    engine = engine_of(job, build_model(setting))
    requests = requests_of(job, setting, limits)
    repeats, last = _measure(engine, requests, job, setting)
    lengths = [len(c.token_ids) for row in last for c in row]
    floor = rollout_floor(setting.spec, groups_of(requests, last))
    return report(
        repeats,
        setting,
        floor_s=floor.seconds,
        settings={
            "slots": job.rows,
            "has_pdl": job.has_pdl,
            "drafts": job.drafts,
            "lengths": f"lognormal, mean {mean:g}, sigma {workload.MIXED_SIGMA:g}, "
            f"clipped to [1, {job.new}], seed {workload.LENGTH_SEED}",
        },
        details={
            "mean_length": sum(lengths) / len(lengths),
            "longest": max(lengths),
            "accepted_per_row_step": engine.accepted_per_row_step,
            "ended_by_eos": sum(n < m for n, m in zip(lengths, limits, strict=True)),
        },
    )


def pages(job: Job, setting: Setting) -> dict[str, Any]:
    """Limits far above what is written, and little memory for keys and values: rows that share
    pages, against slots with room for the limit."""
    model = build_model(setting)
    limits = workload.mixed_limits(
        job.rows, longest=job.new, mean=min(workload.PAGED_MEAN, job.new / 2)
    )
    requests = requests_of(job, setting, limits)
    eos = tuple(i for i in EOS_IDS if i < setting.spec.vocab_size)
    parts: dict[str, dict[str, Any]] = {}
    sampled: list[list[list[Completion]]] = []
    for name, has_pages in (("pages", True), ("slots", False)):
        forget_peak(setting.device)
        engine = InProcessEngine(
            model, NumberTokenizer(eos), slots=job.rows, kv_limit=workload.PAGED_KV_GIB * 2**30
        )
        with nullcontext() if has_pages else patch(SHARE_PAGES, return_value=NO_PAGES):
            repeats, last = _measure(engine, requests, job, setting)
        sampled.append(last)
        floor = rollout_floor(setting.spec, groups_of(requests, last))
        settings = {"slots": engine.most_rows, "kv_gib": workload.PAGED_KV_GIB}
        parts[name] = report(repeats, setting, floor_s=floor.seconds, settings=settings)
        parts[name]["restarts"] = engine.restarts
        del engine, last
    return {
        **parts["pages"],
        "details": {
            "slots": parts["slots"],
            "gain": parts["slots"]["median_s"] / parts["pages"]["median_s"],
            "is_same": sampled[0] == sampled[1],
            "mean_length": num_tokens(sampled[0]) / job.rows,
        },
    }


def long_prompt(job: Job, setting: Setting) -> dict[str, Any]:
    """A long prompt read once a group, against the same rows each with a prompt of its own.

    The second gives what nothing shared would cost; its prefill is told apart by a rollout of one
    token.
    """
    model = build_model(setting)
    alone = replace(job, prompts=job.rows, group=1)
    parts: dict[str, dict[str, Any]] = {}
    for name, variant in (("shared", job), ("alone", alone)):
        forget_peak(setting.device)
        engine, requests = engine_of(variant, model), requests_of(variant, setting)
        repeats, last = _measure(engine, requests, variant, setting)
        first = replace(variant, new=1)
        prefill, _ = _measure(engine, requests, first, replace(setting, warmups=1, repeats=1))
        floor = rollout_floor(setting.spec, groups_of(requests, last))
        parts[name] = report(repeats, setting, floor_s=floor.seconds, settings={})
        parts[name]["prefill_s"] = prefill[0]["seconds"]
        parts[name]["decode_s"] = parts[name]["median_s"] - prefill[0]["seconds"]
        del engine, last
    shared, other = parts["shared"], parts["alone"]
    return {
        **shared,
        "settings": {**shared["settings"], "slots": job.rows},
        "details": {
            "prefill_s": shared["prefill_s"],
            "decode_s": shared["decode_s"],
            "alone": other,
            "gain": other["median_s"] / shared["median_s"],
            "gain_decode": other["decode_s"] / shared["decode_s"],
        },
    }


def _measure(
    engine: InProcessEngine, requests: Sequence[Request], job: Job, setting: Setting
) -> tuple[list[dict[str, float]], list[list[Completion]]]:
    """Warm-ups, then every repeat with a seed of its own; returns the last completions too."""
    params = sampling(job)
    last: list[list[Completion]] = []

    def work(number: int) -> dict[str, float]:
        nonlocal last
        seconds, last = timed(
            lambda: engine.generate(requests, params, seed=number), setting.device
        )
        return {"seconds": seconds, "tokens": num_tokens(last)}

    return repeat(work, setting), last
