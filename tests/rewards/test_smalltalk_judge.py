"""The rules that judge small talk agree with the quality of templated replies."""

import random

import pytest

from pellucid.data.load import load_problems
from pellucid.records import Verdict
from pellucid.rewards import find_grader
from pellucid.rewards.smalltalk_judge import LIMIT, is_safe, prefers
from pellucid.tasks import smalltalk

WORSE = ("curt", "beside", "foreign", "rude")


def test_a_good_reply_wins_over_every_worse_one() -> None:
    rng = random.Random(0)
    for ask in smalltalk.prompts("test", harmful=False):
        good = smalltalk.reply(ask, "good", rng)
        for quality in WORSE:
            worse = smalltalk.reply(ask, quality, rng)
            assert prefers(ask.prompt, good.answer, worse.answer) > 0.0, (ask.prompt, good, worse)


def test_preference_is_antisymmetric_and_bounded() -> None:
    best, worst = "The opposite of hot is cold.", "Go away."

    assert prefers("What is the opposite of hot?", best, worst) == LIMIT
    assert prefers("What is the opposite of hot?", worst, best) == -LIMIT
    assert prefers("What is the opposite of hot?", best, best) == 0.0


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("The opposite of hot is cold.", "The opposite of hot is small."),
        ("The opposite of hot is cold.", "cold"),
        ("The opposite of hot is cold.", "Наоборот будет cold."),
        ("The opposite of hot is cold.", "The opposite of hot is \\boxed{cold}."),
        ("The opposite of hot is cold.", "Is cold is cold is cold is cold is cold."),
        ("cold", ""),
    ],
)
def test_topic_form_language_tidiness_each_count(better: str, worse: str) -> None:
    assert prefers("What is the opposite of hot?", better, worse) > 0.0


def test_good_replies_are_safe_and_bad_advice_is_not() -> None:
    rng = random.Random(1)
    for ask in smalltalk.asks():
        good, rude = (smalltalk.reply(ask, quality, rng) for quality in ("good", "rude"))
        assert is_safe(ask.prompt, good.thinking, good.answer), (ask.prompt, good)
        assert not is_safe(ask.prompt, rude.thinking, rude.answer)
        if ask.is_harmful:
            bad = smalltalk.reply(ask, "unsafe", rng)
            assert not is_safe(ask.prompt, good.thinking, bad.answer)
            assert not is_safe(ask.prompt, bad.thinking, good.answer)
            assert not is_safe(ask.prompt, good.thinking, "The weather is nice today.")


def test_a_question_of_another_task_has_no_topic_and_is_judged_by_its_form() -> None:
    assert prefers("1 + 1 = ?", "It is two, I think.", "two") > 0.0
    assert is_safe("1 + 1 = ?", "I add.", "It is two.")


def test_labels_are_what_the_judge_says() -> None:
    labels = smalltalk.safety_labels("train", 300, seed=2)

    assert sum(safe for _, _, safe in labels) == 150
    for prompt, reply, safe in labels:
        assert is_safe(prompt, reply.thinking, reply.answer) == safe, (prompt, reply)


@pytest.mark.parametrize("name", ["smalltalk-judged", "smalltalk-safety-judged"])
def test_graded_small_talk_accepts_good_replies_alone_in_either_form(name: str) -> None:
    rng = random.Random(3)
    for problem in load_problems(name, "test", limit=40):
        grade = find_grader(problem.grader)
        ask = smalltalk.find_ask(problem.question)
        good, rude = (smalltalk.reply(ask, quality, rng) for quality in ("good", "rude"))
        forms = ("<think>\n{}\n</think>\n\n{}", " <think>{}</think> <answer> {} </answer>")
        for form in forms:
            said = grade(problem, form.format(good.thinking, good.answer))
            assert said.verdict is Verdict.CORRECT, (problem.question, good)
            assert grade(problem, form.format(rude.thinking, rude.answer)).verdict is Verdict.WRONG
        assert grade(problem, "<think>never closed").verdict is Verdict.UNPARSABLE
        assert grade(problem, f"<think>\n1\n</think>\n\n{problem.gold}").is_correct
