"""`pellucid plan` of a recipe of several stages, for a GPU that is not here."""

import json

import pytest
from small_model import write_small_model

from pellucid.cli import run_command

GIB = 2**30
SHARED = "prompts = 4\ngroup_size = 4\nmax_new_tokens = 64\n"


@pytest.fixture
def model(tmp_path):
    return write_small_model(tmp_path / "model")


@pytest.fixture
def one(model, tmp_path):
    path = tmp_path / "one.toml"
    path.write_text(
        f'[model]\nid = "{model}"\n[task]\ntemplate = "plain"\nlimit = 40\n[rollout]\n{SHARED}'
    )
    return str(path)


@pytest.fixture
def recipe(model, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'template = "plain"\n[model]\nid = "{model}"\n'
        '[[stages]]\nkind = "zero"\ntasks = [{name = "chain", limit = 40}]\ntrain = {steps = 7}\n'
        f"[stages.rollout]\n{SHARED}"
        '[[stages]]\nkind = "cold-start"\ntemplate = "plain"\nproblems = 600\nkeep = 2\n'
        '[[stages]]\nkind = "reward-models"\nsafety = {sources = ["sampled"]}\n'
        '[[stages]]\nkind = "general-rl"\nstart = "cold-start"\n'
        'tasks = [{name = "chain", limit = 40}, {name = "smalltalk", limit = 40}]\n'
        f"[stages.rollout]\n{SHARED}"
        f'[[stages]]\nkind = "distill"\ndata_from = "cold-start"\nstudent = {{id = "{model}"}}\n'
    )
    return str(path)


def plan(capsys, recipe, *options):
    assert run_command(["plan", recipe, "--device-name", "H200", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def phases(capsys, recipe, *options):
    found = plan(capsys, recipe, *options)["phases"]
    return {(p["stage"], p["phase"]): p for p in found}


def test_every_part_of_every_stage_is_there_in_order(recipe, capsys):
    assert list(phases(capsys, recipe)) == [
        ("zero", "training"),
        ("cold-start", "sampling"),
        ("cold-start", "fine-tuning"),
        ("reward-models", "training helpful"),
        ("reward-models", "sampling safety"),
        ("reward-models", "training safety"),
        ("general-rl", "training"),
        ("distill", "sft"),
        ("distill", "on-policy"),
        ("distill", "iterative-sft, sampling"),
        ("distill", "iterative-sft"),
    ]


def test_a_stage_of_reinforcement_has_the_numbers_of_a_recipe_of_one_stage(recipe, one, capsys):
    prompts = ("--prompt-tokens", "60")  # a stage has a seed, and so problems, of its own
    stage = phases(capsys, recipe, *prompts)["zero", "training"]
    alone = plan(capsys, one, *prompts)
    assert stage["bytes"] == alone["bytes"]
    assert stage["slots"] == alone["choices"]["slots"]
    assert stage["seconds"]["step"] == alone["seconds"]["step"]
    assert stage["seconds"]["total"] == pytest.approx(7 * alone["seconds"]["step"])


def test_reward_models_and_teachers_take_memory_and_time_beside_the_policy(recipe, capsys):
    found = phases(capsys, recipe)
    zero, general = found["zero", "training"], found["general-rl", "training"]
    assert general["bytes"]["beside"] == 2 * general["bytes"]["weights"] > 0
    assert general["bytes"]["scoring"] > 0
    assert general["scoring_tokens"] == 8192
    assert zero["bytes"]["beside"] == zero["bytes"]["scoring"] == zero["scoring_tokens"] == 0
    teacher = found["distill", "on-policy"]["bytes"]
    assert teacher["beside"] == teacher["weights"]
    assert teacher["scoring"] > 0
    without = phases(capsys, recipe, "--set", "stages.general-rl.rewards_from=false")
    alone = without["general-rl", "training"]
    assert alone["bytes"]["beside"] == 0
    assert alone["seconds"]["step"] < general["seconds"]["step"]


def test_a_teacher_compared_over_the_whole_vocabulary_is_planned_so(recipe, capsys):
    bytes_of = {
        estimate: phases(capsys, recipe, "--set", f"stages.distill.on_policy.estimate={estimate}")[
            "distill", "on-policy"
        ]["bytes"]
        for estimate in ("token", "vocabulary")
    }
    assert bytes_of["token"]["logits"] > 0 == bytes_of["vocabulary"]["logits"]
    assert bytes_of["vocabulary"]["head_work"] > bytes_of["token"]["head_work"]
    assert bytes_of["vocabulary"]["activations"] > bytes_of["token"]["activations"]


def test_steps_are_at_most_what_the_recipe_can_make(recipe, capsys):
    found = phases(capsys, recipe)
    assert found["zero", "training"]["steps"] == 7
    assert found["cold-start", "sampling"]["steps"] == 2  # 600 problems, 512 at once
    assert found["cold-start", "fine-tuning"]["steps"] == 2 * 19  # 1,200 examples by 64
    assert found["distill", "on-policy"]["steps"] is None


def test_the_table_has_a_line_for_each_part(recipe, capsys):
    assert run_command(["plan", recipe, "--device-name", "H200"]) == 0
    out = capsys.readouterr().out
    assert out.count("general-rl") == 2
    for word in ("beside", "scoring", "peak", "s a step", "on-policy"):
        assert word in out


def test_what_does_not_fit_is_one_line_that_names_the_stage(recipe, capsys):
    def refused(*options):
        assert run_command(["plan", recipe, "--device-name", "H200", *options]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    assert "stages.zero: weights need" in refused("--memory-gib", "1")
    long = refused("--set", "stages.general-rl.rollout.max_new_tokens=5000")
    assert "stages.general-rl: rollout.max_new_tokens = 5000" in long
    tight = refused("--set", "stages.general-rl.train.memory_gib=1.0")
    assert "stages.general-rl: " in tight
