"""Writing tasks with checkable instructions: each can be done, and says what is checked."""

import itertools
import json
import re

from pellucid.records import Verdict
from pellucid.rewards import GRADERS, check_gold
from pellucid.tasks import constraints

ALL_NAMES = {name for group in constraints.GROUPS for name in group}


def content(asked):
    """Words and forms that the instructions name."""
    lines = []
    if found := asked.get("keywords:existence"):
        lines += [f"I saw {word} things" for word in found["keywords"]]
    if found := asked.get("keywords:frequency"):
        lines += [f"{found['keyword']} again"] * found["frequency"]
    if found := asked.get("keywords:letter_frequency"):
        lines += [found["letter"] * found["let_frequency"]]
    if found := asked.get("detectable_format:number_highlighted_sections"):
        lines += [f"so *it* {'*was* ' * (found['num_highlights'] - 1)}"]
    if found := asked.get("detectable_content:number_placeholders"):
        lines += ["hello [name] " * found["num_placeholders"]]
    if "detectable_format:title" in asked:
        lines = ["<<Note>>", *lines]
    if found := asked.get("detectable_format:number_bullet_lists"):
        lines += ["\n- one" * found["num_bullets"] + "\n"]
    return " ".join(lines or ["it rained"])


def write(asked):
    """A text that follows all instructions, put together without asking the grader."""
    text = content(asked)
    found = asked.get("length_constraints:number_words", {})
    if found.get("relation") == "at least":
        text = "it rained " * found["num_words"] + text
    found = asked.get("length_constraints:number_sentences", {})
    if found.get("relation") == "at least":
        text = "Rain fell. " * found["num_sentences"] + text
    if found := asked.get("length_constraints:number_paragraphs"):
        text = "\n***\n".join([*["Rain fell"] * (found["num_paragraphs"] - 1), text])
    if "detectable_content:postscript" in asked:
        text += "\nP.S. bye"
    if found := asked.get("startend:end_checker"):
        text += " " + found["end_phrase"]
    if "startend:quotation" in asked:
        text = f'"{text}"'
    if "change_case:english_capital" in asked:
        text = text.upper()
    return text.lower() if "change_case:english_lowercase" in asked else text


def test_every_problem_can_be_done():
    problems = constraints.problems("train", 600, 0) + constraints.problems("test", 200, 0)
    for problem in problems:
        assert check_gold(problem) is None
        asked = {entry["id"]: entry["kwargs"] for entry in json.loads(problem.gold)}
        score = GRADERS["constraints"](problem, f"<think>x</think>{write(asked)}")
        assert score.verdict is Verdict.CORRECT, (problem.question, score)


def test_a_text_that_ignores_the_instructions_fails():
    problems = constraints.problems("train", 300, 0)
    text = "Rivers, of course, flow down the hills and very often with a PURPOSE. " * 2
    passed = [p for p in problems if GRADERS["constraints"](p, text).verdict is Verdict.CORRECT]
    assert len(passed) < 0.1 * len(problems)


def test_the_question_says_every_number_and_word_that_is_checked():
    for problem in constraints.problems("train", 200, 1):
        for entry in json.loads(problem.gold):
            values = itertools.chain.from_iterable(
                value if isinstance(value, list) else [value] for value in entry["kwargs"].values()
            )
            assert all(re.search(re.escape(str(value)), problem.question) for value in values)


def test_instructions_grow_and_all_are_used():
    train = constraints.problems("train", 600, 0)
    sizes = [len(json.loads(p.gold)) for p in train[:6]]
    assert sizes == [1, 2, 3, 1, 2, 3]
    assert {entry["id"] for p in train for entry in json.loads(p.gold)} == ALL_NAMES
    assert len(json.loads(constraints.problems("test", 1, 0)[0].gold)) == 2


def test_no_set_of_instructions_of_a_test_problem_occurs_in_training():
    train = {p.family for p in constraints.problems("train", 3000, 0)}
    test = {p.family for p in constraints.problems("test", 300, 1)}
    assert test
    assert not train & test


def test_problems_depend_on_split_and_seed_alone_and_a_shorter_list_is_a_prefix():
    first = constraints.problems("train", 40, 3)
    assert constraints.problems("train", 15, 3) == first[:15]
    assert constraints.problems("train", 40, 4) != first
    assert len({p.question for p in first}) == 40
