"""Values that may be absent: `false` switches them off, and a dumped recipe keeps them so."""

from __future__ import annotations

import pytest

from pellucid.config import RunConfig
from pellucid.config_errors import section_of
from pellucid.config_io import dump_recipe, load_recipe, parse_recipe
from pellucid.config_off import may_be_absent
from pellucid.config_stages import KINDS, PipelineConfig
from pellucid.errors import ConfigError

STAGES = {"stages": [{"kind": kind} for kind in KINDS]}


def absent_fields(section, path=()):
    """Paths of all fields of a section, and below it, that may be absent."""
    for name, field in section.model_fields.items():
        if may_be_absent(field):
            yield (*path, name)
        below = section_of(field)
        if below is not None:
            yield from absent_fields(below, (*path, name))


def stage_fields():
    stages = parse_recipe(STAGES).stages
    return [(s.kind, path) for s in stages for path in absent_fields(type(s))]


def switched_off(section, path):
    """The section without what the path names; None where it is absent as it is."""
    value = getattr(section, path[0])
    if value is None:
        return None
    changed = switched_off(value, path[1:]) if len(path) > 1 else None
    if len(path) > 1 and changed is None:
        return None
    return section.model_copy(update={path[0]: changed})


def again(config, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(dump_recipe(config, {}))
    return load_recipe(file)[0]


@pytest.mark.parametrize(("kind", "path"), stage_fields(), ids=lambda v: str(v))
def test_a_stage_without_a_value_is_dumped_and_read_as_one_without_it(kind, path, tmp_path):
    config = parse_recipe(STAGES)
    stages = [switched_off(s, path) or s if s.kind == kind else s for s in config.stages]
    changed = config.model_copy(update={"stages": tuple(stages)})
    assert again(changed, tmp_path) == changed


def test_defaults_of_stages_can_be_switched_off():
    kinds = {
        (kind, ".".join(path))
        for kind, path in stage_fields()
        if switched_off(parse_recipe(STAGES).stage(kind), path) is not None
    }
    assert {
        ("general-rl", "rewards_from"),
        ("reject", "general"),
        ("reward-models", "helpful"),
        ("reward-models", "safety"),
        ("reward-models", "train.max_tokens"),
    } <= kinds


@pytest.mark.parametrize("field", ["helpful", "safety"])
def test_false_in_a_recipe_switches_a_reward_model_off(field, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(f'[[stages]]\nkind = "reward-models"\nstart = "base"\n{field} = false\n')
    config, by_hand = load_recipe(file)
    assert getattr(config.stages[0], field) is None
    assert by_hand[f"stages.0.{field}"] == "recipe"
    assert f"{field} = false  # by the recipe" in dump_recipe(config, by_hand)
    assert again(config, tmp_path) == config


def test_false_by_set_replaces_a_table_and_a_name(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(
        '[[stages]]\nkind = "zero"\n[[stages]]\nkind = "general-rl"\nstart = "zero"\n'
        'rewards_from = "zero"\n'
        '[[stages]]\nkind = "reward-models"\nstart = "zero"\n[stages.helpful]\nlimit = 9\n'
    )
    overrides = ["stages.general-rl.rewards_from=false", "stages.reward-models.helpful=false"]
    config, _ = load_recipe(file, overrides)
    assert config.stage("general-rl").references() == {"start": "zero"}
    assert config.stage("reward-models").helpful is None


def test_both_reward_models_off_is_one_line():
    stage = {"kind": "reward-models", "start": "base", "helpful": False, "safety": False}
    with pytest.raises(ConfigError, match="leave helpful or safety in"):
        parse_recipe({"stages": [stage]})


def test_entries_of_an_array_know_false_too(tmp_path):
    suite = {"name": "chain", "max_new_tokens": False}
    task = {"name": "chain", "limit": False}
    config = parse_recipe(
        {"eval": {"suites": [suite]}, "stages": [{"kind": "zero", "tasks": [task]}]}
    )
    assert config.eval.suites[0].max_new_tokens is None
    assert config.stages[0].tasks[0].limit is None
    assert again(config, tmp_path) == config


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"train": {"steps": False}}, "train.steps = false: must be an integer"),
        ({"name": False}, "name = false: must be a "),
        ({"eval": False}, "eval = false: must be "),
    ],
)
def test_what_must_be_there_cannot_be_switched_off(tree, message):
    with pytest.raises(ConfigError) as caught:
        parse_recipe(tree)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_false_stays_false_where_it_is_a_value(tmp_path):
    config = parse_recipe({"exact": False, "reward": {"math_verify": False}})
    assert (config.exact, config.reward.math_verify) == (False, False)
    assert again(config, tmp_path) == config


def test_no_field_takes_both_false_and_nothing():
    for root in (RunConfig, PipelineConfig, *(type(s) for s in parse_recipe(STAGES).stages)):
        for path in absent_fields(root):
            section = root
            for name in path[:-1]:
                section = section_of(section.model_fields[name])
            assert "bool" not in str(section.model_fields[path[-1]].annotation), path
