"""Decoding and training at once, rehearsed with a tiny model on a CPU: two threads, no streams."""

import threading
from dataclasses import replace

import overlap_jobs
import pytest
import torch
from jobs import parse
from measure import Setting
from overlap_jobs import GradientNorm, Way, overlap, watched
from shapes import SPECS

from pellucid.rollout.captured import CapturedSteps
from pellucid.rollout.engine import InProcessEngine

CPU = Setting(
    device=torch.device("cpu"), spec=SPECS["tiny"], repeats=2, warmups=0, tokens_per_pack=64
)
JOB = parse("overlap-0.5b").shrunk()


@pytest.fixture
def built(monkeypatch) -> list[torch.nn.Module]:
    """The models that a job makes."""
    models, build = [], overlap_jobs.build_model
    monkeypatch.setattr(
        overlap_jobs, "build_model", lambda s: models.append(build(s)) or models[-1]
    )
    return models


def test_the_gain_is_one_after_the_other_over_both(built) -> None:
    got = overlap(JOB, CPU)
    way = got["details"]["ways"]["equal"]
    apart = [way[name]["seconds"] for name in ("decode_alone", "train_alone")]
    assert got["details"]["gain"] == pytest.approx(sum(apart) / got["median_s"])
    assert got["details"]["gain_at_most"] == pytest.approx(sum(apart) / max(apart))
    assert [len(r) for r in way["repeats"].values()] == [2, 2, 2]
    for both in got["repeats"]:
        assert both["tokens"] == JOB.rows * JOB.new
        assert max(both["decode_s"], both["train_s"]) <= both["seconds"]
        assert 0 < both["train_host_s"] <= both["train_s"]
    assert "CUDA" in got["details"]["partition_absent"]
    fresh = dict(overlap_jobs.build_model(CPU).named_parameters())
    assert all(torch.equal(p, fresh[name]) for name, p in built[0].named_parameters())


def test_both_give_the_bits_that_each_gives_alone() -> None:
    details = overlap(JOB, CPU)["details"]
    assert details["is_same"] is True
    assert details["ways"]["equal"]["is_same"] == dict.fromkeys(
        ("decode_alone", "decode_both", "train_alone", "train_both"), True
    )


def test_a_weight_that_changes_meanwhile_is_noticed(monkeypatch, built) -> None:
    step = GradientNorm.step

    def careless(self: GradientNorm, learning_rate: float, *, where: str) -> float:
        norm = step(self, learning_rate, where=where)
        with torch.no_grad():
            built[0].head.weight.mul_(1.5)
        return norm

    monkeypatch.setattr(GradientNorm, "step", careless)
    details = overlap(JOB, CPU)["details"]
    assert details["is_same"] is False
    # Decoding alone comes before the first update.
    assert details["ways"]["equal"]["is_same"] == {
        "decode_alone": True, "decode_both": False, "train_alone": False, "train_both": False
    }  # fmt: skip


def test_both_run_at_the_same_time_in_two_threads(monkeypatch) -> None:
    meeting = threading.Barrier(2, timeout=60)
    threads = set()

    def meets_the_other(owner, name):
        function, calls = getattr(owner, name), []

        def call(*arguments, **named):
            calls.append(name)
            if len(calls) > 2:  # a warm-up and a repeat alone come before
                meeting.wait()
                threads.add(threading.get_ident())
            return function(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    meets_the_other(InProcessEngine, "generate")
    meets_the_other(overlap_jobs.update_module.PolicyUpdater, "update")
    overlap(JOB, replace(CPU, repeats=1))
    assert len(threads) == 2


def test_a_step_captured_while_training_runs_ends_the_job(monkeypatch) -> None:
    calls, generate = [0], InProcessEngine.generate

    def capturing(self, *arguments, **named):
        calls[0] += 1
        if calls[0] == 3:  # a warm-up and a repeat alone come before
            CapturedSteps().put((8, 256, 256, 0), None, torch.empty(2, 1, 1))
        return generate(self, *arguments, **named)

    monkeypatch.setattr(InProcessEngine, "generate", capturing)
    with pytest.raises(RuntimeError, match="1 steps were captured while training ran"):
        overlap(JOB, replace(CPU, repeats=1))


def test_a_way_that_fails_is_told_and_leaves_the_others(monkeypatch) -> None:
    def partition(device, decoding):
        return Way(name="partition", decoding=decoding)

    def measure(self, way):
        if way.name == "partition":
            raise RuntimeError("cuGreenCtxCreate: CUDA_ERROR_NOT_SUPPORTED\nmore")
        return kept(self, way)

    kept = overlap_jobs.Pair.measure
    monkeypatch.setattr(overlap_jobs, "partition", partition)
    monkeypatch.setattr(overlap_jobs.Pair, "measure", measure)
    details = overlap(JOB, replace(CPU, repeats=1))["details"]
    assert list(details["ways"]) == ["equal"]
    expected = "RuntimeError: cuGreenCtxCreate: CUDA_ERROR_NOT_SUPPORTED"
    assert details["partition_absent"] == expected


def test_watching_counts_calls_also_those_that_fail_and_puts_the_function_back() -> None:
    class Owner:
        def half(self, number: int) -> float:
            return 1 / number

    function = Owner.half
    with watched(Owner, "half") as calls:
        assert Owner().half(2) == 0.5
        with pytest.raises(ZeroDivisionError):
            Owner().half(0)
    assert calls.count == 2
    assert calls.seconds > 0
    assert Owner.half is function
