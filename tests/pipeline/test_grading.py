"""The graders of a recipe are set as the recipe says."""

import pytest

from pellucid.config_io import parse_recipe
from pellucid.errors import ConfigError
from pellucid.pipeline.grading import Grading, grading_of, open_grader
from pellucid.pipeline.stage import common_config
from pellucid.records import Problem, Verdict
from pellucid.rewards.math import Opinion
from pellucid.rewards.pool import GraderPool

STAGES = [{"kind": "zero"}]


def endless(gold: str, answer: str) -> Opinion:
    """A second grader that never comes to an end."""
    while True:
        pass


def test_a_recipe_of_one_stage_and_a_pipeline_say_how_answers_are_graded():
    knobs = {"math_verify_timeout_s": 0.5, "code_timeout_s": 2.0}
    one = parse_recipe({**knobs, "reward": {"math_verify": False}})
    assert grading_of(one) == Grading(math_verify=False, **knobs)
    several = parse_recipe({**knobs, "stages": STAGES})
    assert grading_of(several) == Grading(math_verify=True, **knobs)
    assert grading_of(several, math_verify=False).math_verify is False
    stage = common_config(several, several.model, template="plain", seed=1)
    assert grading_of(stage) == grading_of(several)


def test_defaults_are_math_verifys_own_limit_and_three_seconds():
    assert grading_of(parse_recipe({})).words() == "math-verify 5 s an answer, programs 3 s"
    off = parse_recipe({"reward": {"math_verify": False}, "code_timeout_s": 0.25})
    assert grading_of(off).words() == "math-verify off, programs 0.25 s"


def test_a_recipe_says_how_long_math_verify_may_take(monkeypatch):
    made = []

    def with_endless_judge(**settings):
        made.append(GraderPool(judge="test_grading:endless", num_workers=1, **settings))
        return made[0]

    monkeypatch.setattr("pellucid.pipeline.grading.GraderPool", with_endless_judge)
    problem = Problem(id="p", question="?", gold=r"\f(x)", grader="math")
    with open_grader(parse_recipe({"math_verify_timeout_s": 0.25})) as grader:
        [score] = grader.grade([problem], [r"\boxed{\g(x)}"])
    assert score.verdict is Verdict.TIMEOUT
    # Twice the time where the machine was busy elsewhere.
    assert score.detail.endswith(("no answer in 0.25 s", "no answer in 0.5 s"))


@pytest.mark.parametrize("tree", [{}, {"stages": STAGES}])
def test_no_time_at_all_is_refused(tree):
    with pytest.raises(ConfigError, match="math_verify_timeout_s = 0"):
        parse_recipe({**tree, "math_verify_timeout_s": 0})
