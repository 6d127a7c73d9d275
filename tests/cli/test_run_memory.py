"""metrics.jsonl says what each step took of a GPU; on a CPU there is nothing to say."""

import json

import pytest
from small_model import write_small_model

from pellucid.cli import run_command
from pellucid.train.peak_memory import PeakMemory

RECIPE = """
seed = 3
device = "cpu"
threads = 1
[task]
template = "plain"
limit = 40
[rollout]
prompts = 2
group_size = 2
max_new_tokens = 6
[reward]
terms = {random = 1.0}
math_verify = false
[train]
steps = 2
[eval]
max_new_tokens = 4
suites = [{name = "chain", limit = 2}]
"""


@pytest.fixture
def arguments(tmp_path):
    model = write_small_model(tmp_path / "model")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    out = str(tmp_path / "run")
    return ["run", str(tmp_path / "recipe.toml"), "--set", f"model.id={model}", "--out", out]


def records_of(tmp_path):
    lines = (tmp_path / "run/stages/01-zero/metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_each_step_is_looked_at_twice_and_an_evaluation_between_is_left_out(
    arguments, tmp_path, monkeypatch, capsys
):
    seen = []
    monkeypatch.setattr(PeakMemory, "look", lambda self: seen.append("look"))
    monkeypatch.setattr(PeakMemory, "forget", lambda self: seen.append("forget"))
    monkeypatch.setattr(
        PeakMemory, "take", lambda self: seen.append("take") or {"used_gib": 0.1 * len(seen)}
    )
    monkeypatch.setattr(PeakMemory, "summary", lambda self: "memory: 7.0 GiB of the device taken")
    assert run_command(arguments) == 0
    assert seen == ["look", "look", "take", "forget"] * 2
    memory = {r["step"]: r["values"] for r in records_of(tmp_path) if r["name"] == "memory"}
    assert memory == {1: {"used_gib": pytest.approx(0.3)}, 2: {"used_gib": pytest.approx(0.7)}}
    assert "memory: 7.0 GiB of the device taken" in capsys.readouterr().err


def test_a_cpu_has_no_such_record(arguments, tmp_path):
    assert run_command(arguments) == 0
    assert {r["name"] for r in records_of(tmp_path)} >= {"rollout", "train", "timing"}
    assert not any(r["name"] == "memory" for r in records_of(tmp_path))
