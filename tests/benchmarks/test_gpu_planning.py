"""What the planner says, against the peaks of every stored measurement."""

from dataclasses import replace

import benchmark_table as table
import planning
import pytest
from jobs import parse
from shapes import SPECS

from pellucid.train.memory_plan import GIB, choose_plan
from pellucid.train.memory_sizes import OVERHEAD_BYTES
from pellucid.train.phase_plans import sampling_plan
from pellucid.train.step_time import PEAKS, predict

STORED = [
    m
    for m in table.load(table.ROOT / "benchmarks" / "results")
    if m.record["who"] == "pellucid" and m.is_ok and m.job.kind in planning.PLANNED_KINDS
]


def test_the_stored_peaks_are_within_a_tenth_of_the_plan() -> None:
    assert {m.job.kind for m in STORED} >= {"rollout", "mixed", "step"}
    far = {
        m.record["job"]: round(planned / measured, 3)
        for m in STORED
        if (measured := planning.measured_peak(m.record))
        and (planned := planning.planned_peak(m.record, m.job))
        and not 0.9 <= planned / measured <= 1.1
    }
    assert far == {}


def test_the_steps_of_the_newest_results_take_about_as_long_as_predicted() -> None:
    newest = table.newest_of_project(STORED)
    steps = {name: m for name, m in newest.items() if m.job.kind == "step"}
    assert steps
    for m in steps.values():
        asked = planning.training_job(m.job, SPECS[m.job.shape])
        plan = choose_plan(asked, planning.EVERYTHING)
        seconds = predict(asked, plan, PEAKS[0], float(m.job.new)).step_s
        assert seconds == pytest.approx(m.record["median_s"], rel=0.25)


def test_the_newest_rollouts_take_about_as_long_as_predicted() -> None:
    far = {}
    for name, m in table.newest_of_project(STORED).items():
        if m.job.kind in ("rollout", "mixed"):
            asked = replace(
                planning.training_job(m.job, SPECS[m.job.shape]),
                slots=m.job.rows,
            )
            plan = sampling_plan(asked, planning.EVERYTHING)
            mean = m.record["details"].get("mean_length", float(m.job.new))
            found = predict(asked, plan, PEAKS[0], mean)
            ratio = (found.prefill_s + found.decode_s) / m.record["median_s"]
            if not 0.75 <= ratio <= 1.25:
                far[name] = round(ratio, 2)
    assert far == {}


def test_a_steps_plan_is_that_of_the_packs_there_were() -> None:
    job = parse("step-0.5b")
    record = {"settings": {"tokens_per_pack": 32768}}
    group = 127 + 16 * 512
    asked = planning.training_job(job, SPECS["0.5b"])
    three = choose_plan(replace(asked, tokens_per_pack=3 * group), 139 * GIB).peak
    assert planning.planned_peak(record, job) == three


def test_what_the_driver_saw_goes_before_what_torch_had_in_use() -> None:
    assert planning.measured_peak({"peak_allocated_bytes": 5}) == 5 + OVERHEAD_BYTES
    assert planning.measured_peak({"peak_allocated_bytes": 5, "used_memory_bytes": 7}) == 7
    assert planning.measured_peak({"peak_allocated_bytes": None}) is None
    assert planning.planned_peak({}, parse("gap-0.5b")) is None
