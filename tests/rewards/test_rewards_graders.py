import json

import pytest

from pellucid.errors import ConfigError
from pellucid.records import Problem, Verdict
from pellucid.rewards import GRADERS, check_gold, find_grader, grade_math
from pellucid.rewards.math import Opinion
from pellucid.rewards.second import math_verify_opinion


def problem(gold: str, grader: str) -> Problem:
    return Problem(id="p", question="?", gold=gold, grader=grader)


def test_the_second_opinion_is_asked_only_where_strict_is_undecided():
    asked = []

    def second(gold: str, answer: str) -> Opinion:
        asked.append((gold, answer))
        return Opinion(verdict=Verdict.CORRECT, detail="equal")

    assert grade_math("1/3", r"\boxed{0.3333333}", second).verdict is Verdict.WRONG
    assert grade_math("1/3", r"\boxed{\frac{2}{6}}", second).verdict is Verdict.CORRECT
    assert asked == []
    score = grade_math(r"\cot x", r"\boxed{\frac{\cos x}{\sin x}}", second)
    assert asked == [(r"\cot x", r"\frac{\cos x}{\sin x}")]
    assert (score.verdict, score.method) == (Verdict.CORRECT, "math-verify")
    assert score.detail == "strict: undecided; math-verify: equal"


@pytest.mark.parametrize("verdict", [Verdict.TIMEOUT, Verdict.ERROR])
def test_a_second_opinion_that_fails_keeps_its_verdict(verdict):
    score = grade_math(r"\cot x", r"\boxed{\tan x}", lambda gold, answer: Opinion(verdict=verdict))
    assert score.verdict is verdict


def test_math_verify_tells_equal_from_different():
    assert math_verify_opinion(r"\ln 4", r"2 \ln 2").verdict is Verdict.CORRECT
    assert math_verify_opinion(r"\ln 4", r"3 \ln 2").verdict is Verdict.WRONG


def test_a_gold_that_math_verify_cannot_parse_is_an_instrument_error():
    assert math_verify_opinion("", "5").verdict is Verdict.ERROR


@pytest.mark.parametrize(
    ("grader", "gold", "is_usable"),
    [
        ("math", r"\frac{1}{2}", True),
        ("math", "", False),
        ("math", r"\frac{1}{", False),
        ("math", r"\text{October 30}", True),
        ("math", r"\int_0^1 x dx", True),
        ("math", "None", False),
        ("math", r"x^2 + \sin", False),
        ("integer", "073", True),
        ("integer", "1/2", False),
        ("exact", "Paris", True),
        ("exact", "$$", False),
        ("choice", "(C)", True),
        ("choice", "12", False),
        ("countdown", '{"numbers": [1, 2], "target": 3}', True),
        ("countdown", '{"numbers": [], "target": 3}', False),
        ("countdown", '{"numbers": [1, 2]}', False),
        ("countdown", "[1, 2]", False),
        ("countdown", "3", False),
        ("open", "", True),
    ],
)
def test_golds_that_a_grader_cannot_use_are_named(grader, gold, is_usable):
    reason = check_gold(problem(gold, grader))
    assert (reason is None) is is_usable


def test_an_unknown_grader_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'countdown'"):
        find_grader("count-down")


@pytest.mark.parametrize("grader", ["integer", "choice", "countdown"])
def test_an_unusable_gold_is_an_error_and_never_a_wrong_answer(grader):
    score = GRADERS[grader](problem("no gold", grader), r"\boxed{B}")
    assert score.verdict is Verdict.ERROR


def test_an_open_problem_is_never_graded():
    score = GRADERS["open"](problem("", "open"), r"\boxed{B}")
    assert score.verdict is Verdict.UNGRADED
    assert not score.is_correct
    assert [v for v in Verdict if not v.is_graded] == [Verdict.ERROR, Verdict.UNGRADED]


@pytest.mark.parametrize("grader", sorted(set(GRADERS) - {"open"}))
def test_a_response_without_answer_is_unparsable(grader):
    gold = json.dumps({"numbers": [1, 2], "target": 3}) if grader == "countdown" else "B"
    score = GRADERS[grader](problem(gold, grader), "<think>hm")
    assert score.verdict is Verdict.UNPARSABLE


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("(1+2)*3", ""),
        ("9", "does not use"),
        ("1+2*3", "equals 7"),
        ("(1+2)*3*1", "does not use"),
        ("(1+2)*3 = 9", ""),
        ("(1+2)*3 = 8", "states another target"),
        ("1" * 500, "too long"),
        ("(1+2)**3", "not an arithmetic"),
        ("(1.0+2)*3", "not an arithmetic"),
        ("True+2*3", "not an arithmetic"),
        ("(1+2)*3/(1-1)", "divides by zero"),
        (r"\left(1+2\right) \times 3", ""),
        ("(1+2)×3", ""),
        ("(((" * 90, "not an arithmetic"),
    ],
)
def test_countdown_says_what_is_wrong(answer, fault):
    gold = json.dumps({"numbers": [1, 2, 3], "target": 9})
    score = GRADERS["countdown"](problem(gold, "countdown"), f"<answer>{answer}</answer>")
    assert fault in score.detail
    assert score.is_correct is (fault == "")
