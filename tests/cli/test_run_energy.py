"""A run meters itself: each evaluation and the training have a window, and all is on the bill."""

import pytest
from small_model import write_small_model

from pellucid.artifacts import RunFolder
from pellucid.cli import run_command
from pellucid.energy.account import account, read_windows
from pellucid.energy.factors import find_factor
from pellucid.energy.meter import State

RECIPE = """
name = "metered"
seed = 3
device = "cpu"
threads = 1
[task]
template = "plain"
[rollout]
prompts = 2
group_size = 2
max_new_tokens = 8
[reward]
terms = {random = 1.0}
math_verify = false
[train]
steps = 1
[eval]
max_new_tokens = 8
suites = [{name = "chain", limit = 3, k = 2}]
"""


@pytest.mark.slow
def test_a_run_leaves_windows_of_its_evaluations_and_its_training(tmp_path):
    model = write_small_model(tmp_path / "model")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = ["run", str(tmp_path / "recipe.toml"), "--set", f"model.id={model}"]
    assert run_command([*command, "--out", str(tmp_path / "run"), "--json"]) == 0
    windows = read_windows(RunFolder(tmp_path / "run").energy)
    assert [(w.kind, w.name) for w in windows if w.kind != "other"] == [
        ("evaluation", "before/chain"),
        ("training", "zero"),
        ("evaluation", "after/chain"),
    ]
    assert {w.state for w in windows} == {State.ENDED}
    evaluations = [w for w in windows if w.kind == "evaluation"]
    assert all(w.answers == 6 and w.tokens > 0 for w in evaluations)
    report = account(windows, find_factor("world"), points={"chain": 1.0})
    assert report["total"]["joules"]["value"] > 0
    assert set(report["by_source"]) <= {"rapl", "estimate"}
    assert set(report["per_answer"]) == {"before/chain", "after/chain"}
