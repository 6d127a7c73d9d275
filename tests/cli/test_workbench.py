"""The device part of the workbench, where the system says little."""

import os

from pellucid.cli import set_environment
from pellucid.config import RolloutConfig, RunConfig
from pellucid.pipeline import workbench
from pellucid.pipeline.workbench import open_run_workbench, usable_cores
from pellucid.runlog import Progress


def test_cores_are_counted_where_the_system_knows_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_what_torch_reads_is_set_unless_a_person_has_set_it():
    fresh: dict[str, str] = {}
    set_environment(fresh)
    assert fresh["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert int(fresh["GOMP_SPINCOUNT"]) < 300_000
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        mine = {name: "expandable_segments:False", "GOMP_SPINCOUNT": "7"}
        again = dict(mine)
        set_environment(again)
        assert again == mine


def test_the_engine_hears_of_slots_and_drafts(monkeypatch):
    told = []
    monkeypatch.setattr(workbench, "InProcessEngine", lambda *_, **more: told.append(more))
    config = RunConfig(device="cpu", rollout=RolloutConfig(slots=7, drafts=3))
    open_run_workbench(config, Progress(is_silent=True))
    assert (told[0]["slots"], told[0]["drafts"], told[0]["must_be_exact"]) == (7, 3, False)
