"""Checkable instructions: every kind has its labelled vectors, and bad golds are named."""

import json
from collections import defaultdict

import pytest

from pellucid.records import Problem, Verdict
from pellucid.rewards import GRADERS, check_gold
from pellucid.rewards.constraints import KINDS, read_constraints
from pellucid.rewards.identify import identify
from pellucid.rewards.ifbench import IFBENCH_KINDS, NOT_CHECKED
from pellucid.rewards.instruction import split_sentences
from pellucid.rewards.vectors import load_vectors

VECTORS = [v for v in load_vectors() if v.grader in ("constraints", "sequence", "choice")]


def problem(*instructions):
    gold = json.dumps([{"id": name, "kwargs": kwargs} for name, kwargs in instructions])
    return Problem(id="x", question="?", gold=gold, grader="constraints")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v.kind}: {v.why}")
def test_a_labelled_response_gets_its_verdict(vector):
    assert GRADERS[vector.grader](vector.problem(), vector.response).verdict is vector.verdict


def test_every_kind_has_a_right_and_a_wrong_vector():
    verdicts = defaultdict(set)
    for vector in VECTORS:
        verdicts[vector.kind].add(vector.verdict)
    for kind in KINDS:
        assert {Verdict.CORRECT, Verdict.WRONG} <= verdicts[kind], kind


def test_what_no_rule_decides_is_named_and_an_error_whatever_else_is_asked():
    assert not KINDS.keys() & NOT_CHECKED.keys()
    assert KINDS.keys() >= IFBENCH_KINDS.keys()
    for kind, why in NOT_CHECKED.items():
        asked = problem(("punctuation:no_comma", {}), (kind, {}))
        assert check_gold(asked) == f"{kind} is not checked here: {why}"
        assert GRADERS["constraints"](asked, "One, two").verdict is Verdict.ERROR


def test_the_detail_names_what_was_not_followed():
    asked = problem(("punctuation:no_comma", {}), ("startend:quotation", {}))
    score = GRADERS["constraints"](asked, '"One, two."')
    assert (score.verdict, score.detail) == (Verdict.WRONG, "not followed: punctuation:no_comma")


@pytest.mark.parametrize(
    ("gold", "why"),
    [
        ("no comma", "must be JSON"),
        ("[]", "no instruction"),
        ('[{"id": "punctuation:no_comma"}]', "must be JSON"),
        ('[{"id": "punctuation:no_full_stop", "kwargs": {}}]', "unknown instruction"),
        ('[{"id": "keywords:existence", "kwargs": {}}]', "needs keywords, a list, not None"),
        ('[{"id": "keywords:existence", "kwargs": {"keywords": []}}]', "needs keywords"),
        (
            '[{"id": "length_constraints:number_words", '
            '"kwargs": {"relation": "more than", "num_words": 3}}]',
            "relation must be",
        ),
        (
            '[{"id": "length_constraints:number_words", '
            '"kwargs": {"relation": "at least", "num_words": "3"}}]',
            "needs num_words, a int",
        ),
    ],
)
def test_a_gold_that_cannot_be_checked_is_named_and_never_wrong(gold, why):
    asked = Problem(id="x", question="?", gold=gold, grader="constraints")
    assert why in check_gold(asked)
    assert GRADERS["constraints"](asked, "text").verdict is Verdict.ERROR


@pytest.mark.parametrize(
    "text",
    ["<" * 99_000, "[" * 99_000, "* " * 49_000, "-\n" * 49_000, "P." * 49_000, "a" * 200_000],
    ids=lambda text: text[:2],
)
def test_texts_made_to_be_costly_are_graded_by_every_kind(text):
    kwargs = {
        "keywords": ["aab"], "keyword": "aab", "relation": "at least", "frequency": 2,
        "forbidden_words": ["ab"], "letter": "a", "let_relation": "at least", "let_frequency": 1,
        "language": "en", "num_sentences": 2, "num_paragraphs": 2, "num_words": 3,
        "nth_paragraph": 1, "first_word": "x", "num_placeholders": 1, "postscript_marker": "P.P.S",
        "num_bullets": 3, "num_highlights": 1, "section_spliter": "SECTION", "num_sections": 2,
        "prompt_to_repeat": "x", "end_phrase": "x", "capital_relation": "at least",
        "capital_frequency": 2, "N": 2, "small_n": 2, "min_words": 1, "max_words": 9, "word": "x",
        "keyword1": "x", "keyword2": "x", "keyword3": "x", "keyword4": "x", "keyword5": "x",
        "sep": "-", "options": "x/y", "n": 1, "m": 1,
    }  # fmt: skip
    score = GRADERS["constraints"](problem(*((kind, kwargs) for kind in KINDS)), text)
    assert score.verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One", 1),
        ("One. Two.", 2),
        ('"Stop!" she said. He did?', 3),
        ("See e.g. J. R. Smith, p. 3.5 of it.", 2),
        ("今天下雨。我们等。", 2),
        ("Really?! Yes...", 2),
    ],
)
def test_sentences_are_counted_by_their_ends(text, count):
    assert len(split_sentences(text)) == count


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Das Haus ist nicht groß und der Garten auch nicht.", "de"),
        ("La maison est petite et le jardin n'est pas grand.", "fr"),
        ("Дом не большой, и сад тоже, но они его любят.", "ru"),
        ("이것은 작은 마을입니다.", "ko"),
        ("これは小さな村です。", "ja"),
        ("这是一个小村庄。", "zh"),
        ("این یک روستای کوچک است که در آن مردم را می‌بینیم.", "fa"),
        ("Ngôi nhà của một người không có cây và những con chim.", "vi"),
        ("12 + 3 = 15", None),
        ("Brrr zzz qqq", None),
    ],
)
def test_a_language_is_told_by_script_and_common_words(text, language):
    assert identify(text) == language


def test_real_instructions_with_two_kinds_are_read():
    gold = problem(
        ("keywords:frequency", {"keyword": "a", "relation": "at least", "frequency": 2}),
        ("detectable_format:title", {}),
    ).gold
    assert [c.id for c in read_constraints(gold)] == [
        "keywords:frequency",
        "detectable_format:title",
    ]
