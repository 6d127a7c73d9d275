"""Recipes in, checked values out; every mistake is one line with path, value and remedy."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.config import RunConfig, SuiteConfig
from pellucid.config_io import (
    config_digest,
    dump_recipe,
    find_recipe,
    load_recipe,
    parse_config,
)
from pellucid.errors import ConfigError

RECIPE = """
name = "small"
[train]
steps = 3
learning_rate = 1e-3
[[eval.suites]]
name = "chain"
k = 4
[[eval.suites]]
name = "gsm8k"
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def test_a_file_and_its_folder_are_the_same_recipe_and_defaults_fill_the_rest(recipe):
    config, by_hand = load_recipe(recipe)
    assert load_recipe(recipe / "recipe.toml") == (config, by_hand)
    assert (config.train.steps, config.train.learning_rate, config.train.minibatches) == (
        3,
        1e-3,
        1,
    )
    assert [(s.name, s.k) for s in config.eval.suites] == [("chain", 4), ("gsm8k", 1)]
    assert by_hand == {
        "name": "recipe",
        "train.steps": "recipe",
        "train.learning_rate": "recipe",
        "eval.suites.0.name": "recipe",
        "eval.suites.0.k": "recipe",
        "eval.suites.1.name": "recipe",
    }


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("train.steps=20", lambda c: c.train.steps, 20),
        ("train.learning_rate=1", lambda c: c.train.learning_rate, 1.0),
        ("model.id=Qwen/Qwen3-0.6B", lambda c: c.model.id, "Qwen/Qwen3-0.6B"),
        ('model.id="7"', lambda c: c.model.id, "7"),
        ("model.path=2026-01-01", lambda c: c.model.path, "2026-01-01"),
        ("reward=random", lambda c: c.reward.terms, {"random": 1.0}),
        ("reward=r1", lambda c: c.reward.terms, {"accuracy": 1.0, "format": 1.0}),
        ("reward.math_verify=false", lambda c: c.reward.math_verify, False),
        ("reward.terms.format=0.5", lambda c: c.reward.terms, {"accuracy": 1.0, "format": 0.5}),
        ('rollout.stop=["a", "b=c"]', lambda c: c.rollout.stop, ("a", "b=c")),
        ("eval.suites.1.k=8", lambda c: c.eval.suites[1], SuiteConfig(name="gsm8k", k=8)),
        ("algo.preset=dapo", lambda c: c.algo.preset, "dapo"),
    ],
)
def test_set_takes_toml_values_and_bare_words(recipe, override, read, value):
    config, by_hand = load_recipe(recipe, [override])
    assert read(config) == value
    assert "--set" in by_hand.values()


def test_set_reaches_into_a_default_array_and_the_last_one_wins(tmp_path):
    (tmp_path / "recipe.toml").write_text("")
    config, by_hand = load_recipe(tmp_path, ["eval.suites.0.k=4", "eval.suites.0.k=6"])
    assert config.eval.suites == (SuiteConfig(k=6),)
    assert by_hand == {"eval.suites.0.k": "--set"}


def test_reward_set_as_a_word_keeps_the_other_reward_settings(tmp_path):
    (tmp_path / "recipe.toml").write_text(
        '[reward]\ntruncated = "mask"\nterms = {accuracy = 2.0}\n'
    )
    config, _ = load_recipe(tmp_path, ["reward=random"])
    assert config.reward.terms == {"random": 1.0}
    assert config.reward.truncated == "mask"


def test_a_recipe_with_reward_as_a_word_can_still_be_set_into(tmp_path):
    (tmp_path / "recipe.toml").write_text('reward = "random"\n')
    config, _ = load_recipe(tmp_path, ["reward.terms.format=1.0"])
    assert config.reward.terms == {"random": 1.0, "format": 1.0}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stpes=20", "unknown key train.stpes; did you mean train.steps?"),
        ("eval.suites.0.kk=2", "unknown key eval.suites.0.kk; did you mean eval.suites.0.k?"),
        ("group_size=8", "unknown key group_size; did you mean rollout.group_size?"),
        ("train.schedule.zz=1", "unknown key train.schedule.zz; known there: kind, warmup_steps"),
        ("train.steps=0", "train.steps = 0: must be at least 1"),
        ("train.steps=many", 'train.steps = "many": must be an integer'),
        ("train.steps=2.5", "train.steps = 2.5: must be an integer"),
        ("train.steps=true", "train.steps = true: must be an integer"),
        ("train.learning_rate=nan", "train.learning_rate = nan: must be a finite number"),
        ("rollout.temperature=inf", "rollout.temperature = inf: must be a finite number"),
        ("reward.math_verify=1", "reward.math_verify = 1: must be a boolean"),
        ("device=gpu", "device = \"gpu\": must be 'auto', 'cpu' or 'cuda'"),
        ("train=3", "train = 3: must be a table"),
        ("train.betas=[0.9]", "train.betas.1 is missing"),
        ("train.betas=[0.9, 1.0]", "train.betas.1 = 1.0: must be less than 1"),
        ("rollout.group_size=1", "rollout.group_size = 1: must be at least 2"),
        ("reward.terms={}", "reward.terms = {}: must not be empty"),
        ("eval.suites=[]", "eval.suites = []: must not be empty"),
        ("eval.suites.0.pass_at=[0]", "eval.suites.0.pass_at.0 = 0: must be at least 1"),
        ("eval.suites.0.baseline_only=true", "the first suite is the headline"),
        ("eval.suites.0.pass_at=[64]", "pass_at asks for more samples than k = 4"),
        ("eval.suites.5.k=1", "--set eval.suites.5: 5 is no index of its 2 entries"),
        ("train.steps.x=1", "train.steps is already 3, which has no parts"),
        ("train.steps", "write it as key=value"),
        ("=3", "write it as key=value"),
    ],
)
def test_a_mistake_is_one_line_with_path_value_and_remedy(recipe, override, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_comes_before_other_mistakes_and_they_are_counted(recipe):
    with pytest.raises(
        ConfigError, match=r"^unknown key seeed; did you mean seed\? \(and 1 more\)$"
    ):
        load_recipe(recipe, ["train.steps=0", "seeed=1"])


def test_a_recipe_that_is_missing_or_no_toml_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"no recipe at .*nothing"):
        find_recipe(tmp_path / "nothing")
    (tmp_path / "recipe.toml").write_text("name = \n")
    with pytest.raises(ConfigError, match=r"recipe.toml is not TOML: Invalid value"):
        load_recipe(tmp_path)


def test_a_shipped_recipe_is_found_by_name_from_anywhere(tmp_path, monkeypatch):
    shipped = tmp_path / "recipes"
    (shipped / "r1-zero-tiny").mkdir(parents=True)
    (shipped / "r1-zero-tiny" / "recipe.toml").write_text("seed = 5\n")
    monkeypatch.setattr("pellucid.config_io._SHIPPED", shipped)
    monkeypatch.chdir(tmp_path.parent)
    for name in ("r1-zero-tiny", "recipes/r1-zero-tiny", "recipes/r1-zero-tiny.toml"):
        assert load_recipe(name)[0].seed == 5
    with pytest.raises(ConfigError, match=r"did you mean r1-zero-tiny\? \(shipped: r1-zero-tiny\)"):
        find_recipe("r1-zero-tny")


def test_a_folder_stands_for_a_file_of_its_name_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recipes" / "r1-0.5b"  # a dot in the name is no suffix
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text("seed = 5\n")
    for name in ("recipes/r1-0.5b.toml", "recipes/r1-0.5b", folder):
        assert load_recipe(name)[0].seed == 5
    (tmp_path / "recipes" / "r1-0.5b.toml").write_text("seed = 6\n")
    assert load_recipe("recipes/r1-0.5b.toml")[0].seed == 6


def test_the_resolved_recipe_says_who_set_what(recipe):
    text = dump_recipe(*load_recipe(recipe, ["train.steps=20", "reward=random"]))
    lines = text.splitlines()
    assert "steps = 20  # by --set" in lines
    assert "learning_rate = 0.001  # by the recipe" in lines
    assert "random = 1.0  # by --set" in lines
    assert "minibatches = 1" in lines
    assert lines.count("[[eval.suites]]") == 2
    assert tomllib.loads(text)["eval"]["suites"][0]["k"] == 4


def test_the_resolved_recipe_loads_to_an_equal_configuration(recipe, tmp_path):
    config, by_hand = load_recipe(
        recipe, ["reward=random", 'task.data_dir="a \\"b\\"\\n\\u007f é"']
    )
    (tmp_path / "again.toml").write_text(dump_recipe(config, by_hand), encoding="utf-8")
    again, _ = load_recipe(tmp_path / "again.toml")
    assert again == config
    assert config_digest(again) == config_digest(config)


@given(
    rate=st.floats(min_value=1e-300, max_value=1e300),
    stop=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
    terms=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.floats(-10, 10),
        min_size=1,
        max_size=3,
    ),
    suites=st.lists(st.builds(SuiteConfig, k=st.integers(1, 99)), min_size=1, max_size=3),
)
def test_any_configuration_survives_toml(rate, stop, terms, suites):
    config = parse_config(
        {
            "train": {"learning_rate": rate},
            "rollout": {"stop": stop},
            "reward": {"terms": terms},
            "eval": {"suites": [s.model_dump(mode="json", exclude_none=True) for s in suites]},
        }
    )
    assert parse_config(tomllib.loads(dump_recipe(config, {}))) == config


def test_the_digest_sees_every_value_and_only_values():
    base = RunConfig()
    assert config_digest(base) == config_digest(parse_config({"train": {"steps": 100}}))
    assert config_digest(base) != config_digest(parse_config({"train": {"steps": 101}}))


def test_a_mismatch_correction_that_could_see_nothing_is_refused():
    blind = {"algo": {"mismatch": "tis", "old_logprobs": "rollout"}, "train": {"minibatches": 2}}
    with pytest.raises(ConfigError, match="nothing to compare"):
        parse_config(blind)
    assert parse_config(blind | {"train": {"minibatches": 1}}).algo.mismatch == "tis"
