"""Every kind of job, rehearsed with a tiny model on a CPU."""

from dataclasses import replace

import pytest
import rollout_jobs
import torch
import train_jobs
import worker
from jobs import parse
from measure import Setting
from shapes import SPECS

from pellucid.records import Request

CPU = Setting(
    device=torch.device("cpu"), spec=SPECS["tiny"], repeats=2, warmups=0, tokens_per_pack=64
)
FIELDS = {"repeats", "median_s", "tokens_per_s", "floor_s", "share_of_floor", "settings", "details"}


def test_a_rollout_reports_every_repeat_and_its_floor() -> None:
    got = rollout_jobs.rollout(parse("rollout-0.5b-2x2-8+4"), CPU)
    assert got.keys() >= FIELDS
    assert [r["tokens"] for r in got["repeats"]] == [16, 16]
    assert got["share_of_floor"] == pytest.approx(got["floor_s"] / got["median_s"])


@pytest.mark.skipif(
    "limits" not in Request.__dataclass_fields__, reason="one limit for all samples"
)
def test_a_mixed_job_keeps_each_samples_limit() -> None:
    job = parse("mixed-0.5b").shrunk()
    got = rollout_jobs.mixed(job, CPU)
    assert got["details"]["longest"] <= job.new
    assert got["repeats"][0]["tokens"] < job.rows * job.new


def test_a_step_takes_its_rollout_its_update_and_what_lies_between() -> None:
    got = train_jobs.step(parse("step-0.5b").shrunk(), CPU)
    for repeat in got["repeats"]:
        assert repeat["seconds"] > repeat["rollout_s"] + repeat["update_s"]
    assert got["details"]["last_metrics"]["grad_norm"] > 0


def test_a_planned_step_runs_under_its_plan_and_says_what_that_was(monkeypatch) -> None:
    suspended, built = [], []
    monkeypatch.setattr(
        train_jobs.InProcessEngine, "suspend", lambda self: suspended.append(self._is_shared)
    )
    build, choose = train_jobs.build_model, train_jobs.choose_plan
    monkeypatch.setattr(train_jobs, "build_model", lambda s: built.append(build(s)) or built[-1])

    def tight(job, free):
        return replace(choose(job, free), is_time_shared=True, checkpointed_blocks=1)

    monkeypatch.setattr(train_jobs, "choose_plan", tight)
    monkeypatch.setattr(train_jobs, "free_bytes", lambda device: 2 << 30)
    got = train_jobs.planned(parse("planned-0.5b").shrunk(), CPU)
    plan = got["details"]["planned"]
    assert plan["peak"] == max(plan["rollout_peak"], plan["training_peak"])
    assert plan["peak"] <= plan["available"]
    chosen = ("slots", "tokens_per_pack", "checkpointed_blocks", "is_time_shared")
    assert {name: got["settings"][name] for name in chosen} == {n: plan[n] for n in chosen}
    assert got["settings"]["free_bytes"] == 2 << 30
    assert suspended == [True] * 2
    assert [model.checkpointed_blocks for model in built] == [1]
    for repeat in got["repeats"]:
        assert repeat["seconds"] > repeat["rollout_s"] + repeat["update_s"]


def test_training_counts_what_is_fed() -> None:
    job = parse("train-0.5b").shrunk()
    got = train_jobs.train(job, CPU)["details"]
    shared = job.prompts * (job.prompt - 1) + job.rows * job.new
    assert got["counted_fed_tokens"] == shared
    assert got["seen_fed_tokens"] >= shared
    assert got["plain_fed_tokens"] == job.rows * (job.prompt + job.new - 1)
    assert got["mfu"] > 0


def test_training_without_optimizer_states_leaves_the_weights_alone(monkeypatch) -> None:
    built = []
    build = train_jobs.build_model
    monkeypatch.setattr(train_jobs, "build_model", lambda s: built.append(build(s)) or built[-1])
    monkeypatch.setattr(train_jobs, "states_fit", lambda setting: False)
    monkeypatch.setattr(train_jobs.update_module, "Optimizer", train_jobs.update_module.Optimizer)
    got = train_jobs.train(parse("train-7b").shrunk(), CPU)
    assert got["settings"]["has_optimizer"] is False
    fresh = dict(build(CPU).named_parameters())
    assert all(torch.equal(p, fresh[name]) for name, p in built[0].named_parameters())


def test_the_gap_of_a_float32_model_is_small_and_both_modes_are_reported() -> None:
    got = train_jobs.gap(parse("gap-0.5b").shrunk(), CPU)
    assert got["share_of_floor"] == pytest.approx(got["floor_s"] / got["median_s"])
    assert 0.0 <= got["details"]["normal"]["mean_gap"] < 1e-5
    exact = got["details"]["exact"]
    assert "error" in exact or exact["max_gap"] == 0.0


def test_a_long_prompt_is_measured_with_and_without_sharing() -> None:
    got = rollout_jobs.long_prompt(parse("long-prompt-1.5b").shrunk(), CPU)
    details = got["details"]
    assert details["gain"] == pytest.approx(details["alone"]["median_s"] / got["median_s"])
    assert got["floor_s"] < details["alone"]["floor_s"]


def test_the_machine_is_described() -> None:
    got = worker.describe(torch.device("cpu"), repeats=1)
    assert got["ceilings"]["copy_bytes_per_s"] > 0
    assert got["ceilings"]["matmul_flops_per_s"] > 0
