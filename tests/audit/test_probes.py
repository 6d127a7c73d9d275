"""Scripted models: one that learned the examination by heart, and one that can do it."""

import random
import re

import pytest

from pellucid.audit.probes import (
    STRENGTH,
    Subject,
    compare_twins,
    complete_prompts,
    permute_options,
    permuted,
    same_magnitudes,
)
from pellucid.errors import DataError
from pellucid.records import Completion, Problem, SamplingParams, Score, StopReason, Verdict
from pellucid.tasks.templates import get_template


class Letters:
    eos_ids = (0,)
    chat_template = None

    def encode(self, text):
        return [ord(c) for c in text]


class Engine:
    """Says what `reply` makes of the prompt."""

    def __init__(self, reply):
        self.reply, self.calls = reply, []

    def generate(self, requests, params, *, seed, progress=None, on_group=None):
        self.calls.append((requests, params))
        return [
            [
                Completion(
                    sample_id=identity,
                    token_ids=(1,),
                    logprobs=(-1.0,),
                    stop=StopReason.EOS,
                    text=self.reply("".join(map(chr, request.prompt_ids))),
                )
                for identity in request.sample_ids
            ]
            for request in requests
        ]


class LastWord:
    """Right where the last word is the gold; `broken` is an instrument that fails."""

    def grade(self, problems, responses):
        return [
            Score(
                verdict=Verdict.ERROR
                if "broken" in response
                else Verdict.CORRECT
                if response.split()[-1] == problem.gold
                else Verdict.WRONG
            )
            for problem, response in zip(problems, responses, strict=True)
        ]


def subject(reply):
    return Subject(engine=Engine(reply), tokenizer=Letters(), params=SamplingParams(temperature=0))


def questions(count=30):
    rng = random.Random(0)
    return [
        Problem(
            id=f"exam/test/{n}",
            question=" ".join(rng.choice(["red", "blue", "green", "old"]) for _ in range(20)),
            gold="1",
            grader="math",
        )
        for n in range(count)
    ]


def test_a_model_that_knows_the_questions_completes_them():
    exam = questions()
    rest = {" ".join(p.question.split()[:12]): " ".join(p.question.split()[12:]) for p in exam}
    knows = complete_prompts(subject(lambda shown: f" {rest[shown]}, and so on"), exam)
    assert (knows.exact.value, knows.overlap.value) == (1.0, 1.0)
    assert knows.exact.low > 0.85
    assert knows.strength == STRENGTH
    new = complete_prompts(subject(lambda shown: "something else altogether"), exam)
    assert (new.exact.value, new.overlap.value) == (0.0, 0.0)
    assert 0.0 < new.exact.high < 0.15


def test_half_of_the_words_in_order_are_half_an_overlap():
    (one,) = questions(1)
    hidden = one.question.split()[12:]
    half = complete_prompts(subject(lambda shown: " ".join([*hidden[:4], *"wxyz"])), [one])
    assert half.overlap.value == 0.5
    assert half.exact.value == 0.0


def test_short_questions_are_counted_and_not_asked():
    short = Problem(id="s/test/0", question="2 + 2 = ?", gold="4", grader="math")
    found = complete_prompts(subject(lambda shown: ""), [short, *questions(3)])
    assert (found.too_short, found.exact.n) == (1, 3)
    with pytest.raises(DataError, match="longer ones"):
        complete_prompts(subject(lambda shown: ""), [short])


def choice(number):
    options = "\n".join(f"{letter}. item {number}{letter}" for letter in "ABCD")
    return Problem(
        id=f"mc/test/{number}",
        question=f"Which is right, number {number}?\n{options}\nThe answer is the letter.",
        gold="ABCD"[number % 4],
        grader="exact",
    )


def test_the_right_option_moves_and_none_is_lost():
    for number in range(40):
        problem = choice(number)
        moved = permuted(problem)
        assert moved.gold != problem.gold
        assert f"{moved.gold}. item {number}{problem.gold}" in moved.question
        assert sorted(re.findall("item .*", moved.question)) == sorted(
            re.findall("item .*", problem.question)
        )
        assert permuted(problem) == moved
    assert permuted(questions(1)[0]) is None


def test_a_model_that_knows_letters_by_heart_loses_when_options_move():
    exam = [choice(n) for n in range(40)]
    by_heart = subject(lambda prompt: "ABCD"[int(re.search(r"number (\d+)", prompt)[1]) % 4])
    found = permute_options(by_heart, [*exam, *questions(2)], get_template("plain"), LastWord())
    assert (found.published.value, found.changed.value) == (1.0, 0.0)
    assert found.advantage.value == 1.0
    assert found.advantage.p < 0.01
    assert found.left_out == 2

    def able(prompt):
        number = re.search(r"number (\d+)", prompt)[1]
        return re.search(rf"(.)\. item {number}{'ABCD'[int(number) % 4]}", prompt)[1]

    honest = permute_options(subject(able), exam, get_template("plain"), LastWord())
    assert (honest.advantage.value, honest.changed.value) == (0.0, 1.0)


def sum_of(name, first, second):
    text = f"What is {first} + {second}?"
    return Problem(id=f"{name}/{first}", question=text, gold=str(first + second), grader="math")


def test_twins_tell_memory_from_skill_and_must_match_in_magnitude():
    pairs = [(sum_of("item", 20 + n, 31), sum_of("twin", 40 + n, 29)) for n in range(20)]
    wrong_size = (sum_of("item", 11, 12), sum_of("twin", 1100, 12))
    known = {item.question: item.gold for item, _ in pairs}

    def by_heart(prompt):
        return next((gold for text, gold in known.items() if text in prompt), "0")

    found = compare_twins(
        subject(by_heart), [*pairs, wrong_size], get_template("plain"), LastWord()
    )
    assert (found.advantage.value, found.left_out, found.advantage.n) == (1.0, 1, 20)
    assert not same_magnitudes(*wrong_size)
    assert not same_magnitudes(pairs[0][0], pairs[0][0])
    with pytest.raises(DataError, match="make others"):
        compare_twins(subject(by_heart), [wrong_size], get_template("plain"), LastWord())


def test_a_failed_instrument_is_left_out_and_pairs_share_their_randomness():
    pairs = [(sum_of("item", 20 + n, 31), sum_of("twin", 40 + n, 29)) for n in range(4)]
    model = subject(lambda prompt: "broken" if "20 + 31" in prompt else "0")
    found = compare_twins(model, pairs, get_template("plain"), LastWord())
    assert (found.left_out, found.advantage.n) == (1, 3)
    ((requests, _),) = model.engine.calls
    identities = [request.sample_ids for request in requests]
    assert identities[0::2] == identities[1::2]
    assert len(set(identities)) == 4
