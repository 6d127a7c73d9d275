"""Shortcuts of grading again change no verdict."""

import random

from pellucid.evidence.core.grade import Regrader
from pellucid.records import Problem
from pellucid.rewards.table import GRADERS


def test_the_answer_of_a_random_ending_is_found_as_by_the_grader():
    draw, regrader, found = random.Random(5), Regrader(), 0
    parts = ["\\boxed{", "}", "{", "\\", "5", " ", "\n", "6", "<answer>", "</answer>", "<think>",
             "</think>", "\\boxed{5}", "\\boxed{5}", "\\fbox{", "so ", "."]  # fmt: skip
    for _ in range(4000):
        response = "".join(draw.choices(parts, k=draw.randrange(1, 9)))
        score = GRADERS["integer"](
            Problem(id="", question="", gold="5", grader="integer"), response
        )
        assert regrader.outcome("integer", "5", response) == (score.verdict.value, score.extracted)
        found += score.extracted is not None
    assert found > 200


def test_what_an_ending_gives_depends_on_the_gold_it_is_held_against():
    regrader = Regrader()
    for gold, verdict in (("5", "correct"), ("6", "wrong"), ("5", "correct")):
        assert regrader.outcome("integer", gold, "x</think>\\boxed{5}") == (verdict, "5")
    assert regrader.outcome("exact", "5", "x</think>\\boxed{05}") == ("wrong", "05")
    assert regrader.outcome("integer", "5", "x</think>\\boxed{05}") == ("correct", "05")
