"""General RL end to end: reward models that count late, a watch over them, stops and mistakes."""

import io
import json
import os
import shutil
import signal
from types import SimpleNamespace

import pytest

from pellucid.artifacts import RunFolder
from pellucid.cli import run_command
from pellucid.config_io import load_recipe
from pellucid.config_stages import PipelineConfig
from pellucid.data.mixture import load_mixture
from pellucid.errors import ConfigError
from pellucid.jsonl import read_jsonl, read_zstd_jsonl
from pellucid.ledger import EventKind, Ledger, verify_ledger
from pellucid.pipeline.check import check_recipe
from pellucid.pipeline.stage import StageContext
from pellucid.pipeline.stages import find_stage
from pellucid.pipeline.stages.general_rl import ProbeSet, fit_scorers
from pellucid.records import Score, Verdict
from pellucid.runlog import Progress, read_metrics
from pellucid.sandbox import SandboxError
from pellucid.train.hack_watch import Probe, read_probes
from pellucid.train.update import PolicyUpdater

pytestmark = pytest.mark.slow

RECIPE = """
name = "general"
seed = 3
device = "cpu"
threads = 1
template = "tiny"
math_verify = false
[model]
id = "tiny-base"
[eval]
max_new_tokens = 2
suites = [{name = "chain", limit = 3}]
[[stages]]
kind = "reward-models"
start = "base"
helpful = {limit = 12, held_out = 0.2, max_length_gap = 1.0}
safety = {limit = 12, held_out = 0.2}
train = {batch_sequences = 16, learning_rate = 1e-3}
[[stages]]
kind = "general-rl"
start = "base"
tasks = [
  {name = "chain", limit = 20},
  {name = "smalltalk", limit = 20},
  {name = "smalltalk-safety", limit = 20},
]
rollout = {prompts = 3, group_size = 4, max_new_tokens = 16}
reward = {math_verify = false, starts = {helpful = 0.25, safety = 0.5}}
train = {steps = 4, learning_rate = 1e-3, checkpoint_every = 3, tokens_per_pack = 2048}
watch = {every = 2, limit = 4, window = 2}
"""
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """(arguments of the command without its folder, the run folder of an undisturbed run)"""
    root = tmp_path_factory.mktemp("general")
    (root / "recipe.toml").write_text(RECIPE)
    arguments = ["run", str(root / "recipe.toml"), "--json", "--out"]
    assert run_command([*arguments, str(root / "undisturbed")]) == 0
    return arguments, root / "undisturbed"


@pytest.fixture
def before(job, tmp_path):
    """A copy of the run as it was before general RL began."""
    shutil.copytree(job[1], tmp_path / "run")
    shutil.rmtree(_general(tmp_path / "run").root)
    return tmp_path / "run"


def _general(root):
    return RunFolder(root).stage(2, "general-rl")


def _rollouts(root):
    """Values of each step's metrics of rollouts."""
    records = read_metrics(_general(root).metrics)
    return {r.step: r.values for r in records if r.name == "rollout"}


def _outcome(root):
    """Everything that must not depend on how often the stage was stopped."""
    stage = _general(root)
    return {
        "metrics": [r for r in read_jsonl(stage.metrics) if r["name"] != "timing"],
        "probes": (stage.root / "probe.jsonl").read_bytes(),
        "rollouts": stage.rollouts.read_bytes(),
        "model": (stage.model / WEIGHTS).read_bytes(),
    }


def _recipe(job, edit=lambda tree: None):
    """The recipe, edited."""
    tree = load_recipe(job[0][1])[0].model_dump(mode="json")
    edit(tree)
    return PipelineConfig.model_validate_json(json.dumps(tree))


def _context(job, root, recipe=None, progress=None):
    """The stage alone, on the reward models of the undisturbed run."""
    recipe = recipe or _recipe(job)
    return StageContext(
        recipe=recipe,
        config=recipe.stage("general-rl"),
        stage=_general(root),
        inputs={"reward-models": RunFolder(job[1]).stage(1, "reward-models")},
        address="0" * 64,
        ledger=Ledger(RunFolder(root).ledger),
        progress=progress or Progress(is_silent=True),
        should_stop=lambda: False,
    )


def _run(context):
    try:
        find_stage("general-rl")(context, context.config)
    finally:
        context.ledger.close()


def _warnings(context):
    return [e.payload for e in context.ledger.events if e.kind is EventKind.WARNED]


# Rewards and probes


def test_reward_models_count_from_their_step_on_and_only_for_their_kind(job):
    steps = _rollouts(job[1])
    for term, first in (("helpful", 2), ("safety", 3)):
        counted = [step for step, values in steps.items() if f"reward/{term}" in values]
        assert counted == list(range(first, 5)), term
        # One problem of each kind a step, four samples of each.
        assert {steps[step][f"reward/{term}/count"] for step in counted} == {4.0}
        assert all(0.0 <= steps[step][f"reward/{term}"] <= 1.0 for step in counted)
    assert {values["reward/accuracy/count"] for values in steps.values()} == {4.0}
    rated = {
        (rollout["problem"].partition("/")[0], term)
        for rollout in read_zstd_jsonl(_general(job[1]).rollouts)
        for term in rollout["terms"]
        if term in ("accuracy", "helpful", "safety")
    }
    assert rated == {
        ("chain", "accuracy"),
        ("smalltalk", "helpful"),
        ("smalltalk-safety", "safety"),
    }


def test_probes_hold_every_kind_and_no_problem_with_a_gold_that_is_trained_on(job):
    probes = read_probes(_general(job[1]).root / "probe.jsonl")
    assert [probe.step for probe in probes] == [2, 4]
    for probe in probes:
        # The suite has three: the fourth is not made up with what the policy trains on.
        assert sorted(probe.correct) == ["chain/test/0", "chain/test/1", "chain/test/2"]
        assert sorted(probe.rewards) == [
            "smalltalk-safety/train/0",
            "smalltalk-safety/train/1",
            "smalltalk/train/0",
            "smalltalk/train/1",
        ]
        assert any(probe.rewards.values())
    lines = [r.values for r in read_metrics(_general(job[1]).metrics) if r.name == "probe"]
    assert [line["reward"] for line in lines] == [probe.reward for probe in probes]
    assert "p_reward" in lines[1]


def _probe_set(job, root, watch):
    """What the watch would ask with these values."""
    recipe = _recipe(job, lambda tree: tree["stages"][1]["watch"].update(watch))
    context = _context(job, root, recipe)
    mixture = load_mixture(context.config.tasks, seed=context.seed)
    training = SimpleNamespace(mixture=mixture)
    scorers = dict.fromkeys(("helpful", "safety"))
    return ProbeSet(context, context.config, training, scorers, (None, None))


def test_tasks_of_the_watch_come_first_and_training_lends_the_kinds_they_lack(job, tmp_path):
    tasks = [
        {"name": "countdown", "split": "test", "limit": 2},
        {"name": "smalltalk", "split": "test", "limit": 2},
    ]
    probes = _probe_set(job, tmp_path, {"tasks": tasks, "limit": 3})
    assert [p.grader for p in probes.graded] == ["countdown", "countdown"]
    found = [p.id for p in probes.open]
    assert found == ["smalltalk/test/0", "smalltalk-safety/train/0", "smalltalk/test/1"]
    probes.watch()


def test_one_problem_a_probe_still_watches_every_reward_model(job, tmp_path):
    probes = _probe_set(job, tmp_path, {"limit": 1})
    assert [p.id for p in probes.graded] == ["chain/test/0"]
    assert [p.kind for p in probes.open] == ["helpful", "safety"]


def _without_general_tasks(tree):
    tree["stages"][1].update(tasks=[{"name": "chain"}])
    tree["stages"][1]["reward"].update(terms={"accuracy": 1.0, "helpful": 1.0}, starts={})


@pytest.mark.parametrize(
    ("edit", "missing"),
    [
        (
            lambda tree: tree["stages"][1]["watch"].update(tasks=[{"name": "smalltalk"}]),
            "with a right answer",
        ),
        (_without_general_tasks, "that a reward model scores"),
    ],
)
def test_a_watch_with_nothing_to_compare_is_one_line_before_any_work(job, edit, missing):
    with pytest.raises(ConfigError) as error:
        check_recipe(_recipe(job, edit), None)
    assert str(error.value) == (
        f"stages.general-rl.watch has no problems {missing}: name some in watch.tasks, or set "
        "watch.every = 0"
    )


def test_a_watch_that_is_off_needs_nothing_to_compare(job):
    def edit(tree):
        _without_general_tasks(tree)
        tree["stages"][1]["watch"].update(every=0)

    check_recipe(_recipe(job, edit), None)


def test_tasks_of_a_watch_that_need_isolation_are_refused_without_it(job, monkeypatch):
    monkeypatch.setattr("pellucid.data.load.why_missing", lambda: "bubblewrap is missing")
    recipe = _recipe(job, lambda tree: tree["stages"][1]["watch"].update(tasks=[{"name": "mbpp"}]))
    with pytest.raises(SandboxError, match="mbpp has programs judged, but bubblewrap is missing"):
        check_recipe(recipe, None)


class _Broken:
    """A grader whose instrument fails."""

    def grade(self, problems, responses):
        return [Score(verdict=Verdict.ERROR, detail="no such package") for _ in problems]


def test_a_probe_that_nothing_graded_is_told_and_not_kept(job, tmp_path, monkeypatch):
    console = io.StringIO()
    monkeypatch.setattr(ProbeSet, "_answers", lambda self, problems: ["?"] * len(problems))
    context = _context(job, tmp_path, progress=Progress(stream=console))
    mixture = load_mixture(context.config.tasks, seed=context.seed)
    scorer = SimpleNamespace(score=lambda problems, responses: [0.5 for _ in problems])
    probes = ProbeSet(
        context,
        context.config,
        SimpleNamespace(mixture=mixture),
        {"helpful": scorer, "safety": scorer},
        (None, _Broken()),
    )
    assert probes.watch().after_update(2) == {"probe": {"reward": 0.5}}
    assert read_probes(context.stage.root / "probe.jsonl") == []
    [line] = console.getvalue().splitlines()
    assert "all 3 problems with a right answer failed to be graded (no such package)" in line


def test_scoring_packs_are_those_of_the_plan_where_there_is_one():
    scorer = SimpleNamespace(tokens_per_pack=8192)
    fit_scorers({"helpful": scorer}, None)
    assert scorer.tokens_per_pack == 8192
    fit_scorers({"helpful": scorer}, SimpleNamespace(scoring_tokens=2048))
    assert scorer.tokens_per_pack == 2048


# Stops


def test_a_stage_killed_then_stopped_ends_with_the_same_metrics(job, before, monkeypatch):
    real, calls = PolicyUpdater.update, []

    def update(*given, **named):
        calls.append(named["step"])
        if len(calls) == 3:
            raise KeyboardInterrupt  # behind the probe of step 2, before any checkpoint
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)  # saved behind this step, which has a probe
        return real(*given, **named)

    monkeypatch.setattr(PolicyUpdater, "update", update)
    command = [*job[0], str(before)]
    assert run_command(command) == 130
    assert [p.step for p in read_probes(_general(before).root / "probe.jsonl")] == [2]
    assert run_command(command) == 143
    assert run_command(command) == 0
    assert calls == [1, 2, 3, 1, 2, 3, 4]
    assert _outcome(before) == _outcome(job[1])
    assert verify_ledger(before / "ledger.jsonl") == []


# Mistakes


@pytest.mark.parametrize(
    "edit",
    [
        lambda tree: tree["stages"][1].update(rewards_from=None),
        lambda tree: tree["stages"][0].update(helpful=None),
    ],
    ids=["no stage", "a stage that trains no such model"],
)
def test_a_term_without_a_reward_model_is_one_line_before_any_work(job, edit):
    with pytest.raises(ConfigError) as error:
        check_recipe(_recipe(job, edit), None)
    assert "'helpful' needs a reward model and there is none: train one" in str(error.value)
    assert "\n" not in str(error.value)


def test_rewards_from_a_stage_of_another_kind_leave_no_folder(job, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    zero = '[[stages]]\nkind = "zero"\n'
    recipe.write_text(RECIPE.replace("[[stages]]", f"{zero}[[stages]]", 1))
    command = ["run", str(recipe), "--json", "--out", str(tmp_path / "run")]
    assert run_command([*command, "--set", "stages.general-rl.rewards_from=zero"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "the reward term 'helpful' needs a reward model" in line
    assert not (tmp_path / "run").exists()


def test_a_reward_model_that_was_not_made_is_named_before_the_policy_is_loaded(job, tmp_path):
    context = _context(job, tmp_path)
    made = RunFolder(tmp_path / "other").stage(1, "reward-models")
    source = context.inputs["reward-models"].root
    shutil.copytree(source / "safety", made.root / "safety")
    context.inputs["reward-models"] = made
    with pytest.raises(ConfigError) as error:
        _run(context)
    assert str(error.value) == (
        "stage reward-models trained no helpful model: let it do so, or take 'helpful' out of "
        "stages.general-rl.reward.terms"
    )
    assert not context.ledger.events


def test_a_reward_model_that_is_gone_is_one_line(job, before, capsys):
    shutil.rmtree(before / "stages" / "01-reward-models" / "helpful")
    capsys.readouterr()
    assert run_command([*job[0], str(before)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "01-reward-models/helpful/" in line
    assert "is gone, and later stages build on it: restore it" in line


# The warning


def _hacking(self, step):
    """Rewards rise and accuracy falls from probe to probe, on enough problems to be sure."""
    rewards = {f"general/{i}": 0.2 * step for i in range(12)}
    return Probe(
        step=step, rewards=rewards, correct={f"gold/{i}": 1 - 0.2 * step for i in range(12)}
    )


def test_hacking_is_warned_of_once_in_ledger_and_console_even_behind_a_kill(
    job, tmp_path, monkeypatch
):
    monkeypatch.setattr(ProbeSet, "measure", _hacking)
    real, calls = PolicyUpdater.update, []

    def update(*given, **named):
        calls.append(named["step"])
        if len(calls) == 3:
            raise KeyboardInterrupt  # behind the warning of step 2, before any checkpoint
        return real(*given, **named)

    monkeypatch.setattr(PolicyUpdater, "update", update)
    recipe = _recipe(job, lambda tree: tree["stages"][1]["watch"].update(every=1))
    for is_continued in (False, True):
        console = io.StringIO()
        context = _context(job, tmp_path, recipe, Progress(stream=console))
        if not is_continued:
            with pytest.raises(KeyboardInterrupt):
                _run(context)
        else:
            _run(context)
        [warning] = _warnings(context)
        assert (warning["stage"], warning["step"]) == ("general-rl", 2)
        assert "between steps 1 and 2" in warning["warning"]
        assert "accuracy on the probe set fell by 20.0%" in warning["warning"]
        assert console.getvalue().count("reward hacking?") == 1
        assert warning["warning"] in console.getvalue()
    assert calls == [1, 2, 3, 1, 2, 3, 4]
    lines = [r.values for r in read_metrics(context.stage.metrics) if r.name == "probe"]
    assert [line.get("is_parting") for line in lines] == [None, 1.0, 1.0, 1.0]
