"""Recipes of several stages: references, overrides by name, one-line mistakes."""

import pytest

from pellucid.config_io import dump_recipe, load_recipe, load_run_recipe
from pellucid.config_stages import KINDS, PipelineConfig
from pellucid.errors import ConfigError, DataError
from pellucid.pipeline.check import check_recipe

RECIPE = """
name = "p"
template = "tiny"
[[stages]]
kind = "zero"
[stages.train]
steps = 7
[[stages]]
kind = "cold-start"
template = "r1-chat"
[[stages]]
kind = "reason-rl"
name = "dev2"
tasks = [{name = "chain", weight = 2.0}, {name = "countdown"}]
"""


@pytest.fixture
def write(tmp_path):
    def write(text=RECIPE):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return path

    return write


def test_stages_are_named_after_their_kind_and_build_on_the_papers_ones(write):
    config, set_by_hand = load_recipe(write())
    assert isinstance(config, PipelineConfig)
    assert [s.name for s in config.stages] == ["zero", "cold-start", "dev2"]
    assert config.stage("dev2").references() == {"start": "cold-start"}
    assert config.stage("cold-start").references() == {"start": "base", "sampler": "zero"}
    templates = [config.template_of(name) for name in ("base", "zero", "cold-start", "dev2")]
    assert templates == ["tiny", "tiny", "r1-chat", "r1-chat"]
    assert set_by_hand["stages.0.train.steps"] == "recipe"


def test_all_kinds_in_the_papers_order_need_nothing_more_than_their_kind(write):
    text = "\n".join(f'[[stages]]\nkind = "{kind}"' for kind in KINDS)
    config, _ = load_recipe(write(text))
    assert [s.kind for s in config.stages] == list(KINDS)
    assert config.stage("general-rl").rollout.temperature == 0.7
    assert config.stage("general-rl").reward.starts == {"helpful": 0.75, "safety": 0.75}
    assert config.stage("reason-rl").reward.terms["language"] == 1.0


def test_values_set_beside_a_default_of_a_kind_leave_it_in_place(write):
    text = '[[stages]]\nkind="general-rl"\nstart="base"\nrewards_from="zero"\n[stages.rollout]\n'
    text = '[[stages]]\nkind = "zero"\n' + text + "prompts = 3"
    config, _ = load_recipe(write(text))
    rollout = config.stage("general-rl").rollout
    assert (rollout.prompts, rollout.temperature) == (3, 0.7)


def test_set_reaches_a_stage_by_its_name_or_number_and_leaves_a_mark(write):
    overrides = ["stages.dev2.train.steps=5", "stages.1.sft.epochs=3", "stages.zero.reward=random"]
    config, set_by_hand = load_recipe(write(), overrides)
    assert config.stage("dev2").train.steps == 5
    assert config.stage("cold-start").sft.epochs == 3
    assert config.stage("zero").reward.terms == {"random": 1.0}
    assert set_by_hand["stages.2.train.steps"] == "--set"
    text = dump_recipe(config, set_by_hand)
    assert "steps = 5  # by --set" in text
    assert "steps = 7  # by the recipe" in text
    assert load_recipe(write(text))[0] == config


def test_set_reaches_into_a_mixture_by_the_tasks_name(write):
    config, _ = load_recipe(write(), ["stages.dev2.tasks.countdown.weight=3"])
    assert [t.weight for t in config.stage("dev2").tasks] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 7", "stepz = 7", "unknown key stages.zero.train.stepz; did you mean stages.zero"),
        ("steps = 7", "steps = 0", "stages.zero.train.steps = 0: must be at least 1"),
        ('kind = "cold-start"', 'kind = "cold-strt"', 'stages.cold-strt.kind = "cold-strt"'),
        ('kind = "cold-start"', 'kind = "cold-strt"', "did you mean 'cold-start'?"),
        ('kind = "cold-start"', 'name = "b"', "stages.b.kind is missing"),
        ('name = "dev2"', 'name = "zero"', "two stages are called 'zero'"),
        ('name = "dev2"', 'name = "De v2"', "lower-case letters"),
        ('name = "dev2"', 'start = "cold-strat"', "did you mean 'cold-start'?"),
        ('name = "dev2"', 'start = "reject"', "before it: base, zero, cold-start"),
        ('kind = "cold-start"', 'kind = "cold-start"\nsampler = "dev2"', "is no earlier stage"),
        ("weight = 2.0", "weight = 0.0", "stages.dev2.tasks.0.weight = 0.0: must be greater than"),
        ('template = "tiny"', 'templat = "tiny"', "unknown key templat; did you mean template?"),
        ("[[stages]]", "[[stagez]]", "unknown key stagez; did you mean stages?"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_stage(write, old, new, message):
    path = write(RECIPE.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.zerro.train.steps=5", "there is no entry zerro; did you mean zero?"),
        ("stages.9.train.steps=5", "9 is no index of its 3 entries"),
        ("stages.zero.train.stepz=5", "unknown key stages.zero.train.stepz"),
        ("stages.zero.name.x=5", "which has no parts"),
    ],
)
def test_an_override_that_hits_nothing_is_one_line(write, override, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(), [override])


def test_a_command_of_one_stage_says_that_it_takes_no_pipeline(write):
    with pytest.raises(ConfigError, match="recipe of several stages"):
        load_run_recipe(write())


def test_a_chat_template_that_the_base_lacks_is_missed_before_any_stage_needs_it(write):
    config, _ = load_recipe(write())
    with pytest.raises(ConfigError, match=r"stages\.cold-start: template 'r1-chat' needs"):
        check_recipe(config, None)
    assert check_recipe(load_recipe(write(RECIPE.replace("r1-chat", "plain")))[0], None) is None


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        (
            'kind = "reject"\ntemplate = "plain"\nsampler = "zero"\n'
            'general = {sources = ["dolly-1k"]}',
            "dolly-1k",
        ),
        (
            'kind = "reward-models"\nhelpful = {sources = ["hh/a.jsonl"]}',
            "no file hh/a.jsonl, here",
        ),
        ('kind = "reward-models"\nsafety = {measure_on = ["hh/b.jsonl"]}', "no file hh/b.jsonl"),
    ],
)
def test_files_of_late_stages_are_missed_before_the_first(write, tmp_path, stage, missing):
    recipe = RECIPE.replace("r1-chat", "plain")
    config, _ = load_recipe(write(f'data_dir = "{tmp_path}"\n{recipe}[[stages]]\n{stage}'))
    with pytest.raises(DataError, match=missing):
        check_recipe(config, None)
    assert check_recipe(config, {"zero"}) is None
    if "hh" in missing:
        (tmp_path / "hh").mkdir()
        for name in ("a", "b"):
            (tmp_path / "hh" / f"{name}.jsonl").write_text("")
        assert check_recipe(config, None) is None
