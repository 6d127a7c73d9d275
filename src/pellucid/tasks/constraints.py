"""Short writing tasks with one to three instructions that a program can check.

    Write a note about rivers. Use no commas. Use at least 3 sentences.

Names and arguments of the instructions are IFEval's (arXiv 2311.07911). Instructions that cannot
all be followed, or only by emptying the text, are not asked for together: one of each group at
most. The structure is the set of instructions: one pair or triple in five is held out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from pellucid.records import Problem
from pellucid.tasks.splits import draw_distinct, split_of

INSTRUCTIONS = (1, 2, 3)
"""How many a problem has, in turn; in test problems from two."""
TEST_SHARE = 0.2
FORMS = (
    "a note",
    "a letter",
    "a short story",
    "an advertisement",
    "a description",
    "a diary entry",
)
TOPICS = (
    "rivers", "a market", "winter", "an old house", "bees", "the sea", "a bicycle", "bread",
    "a journey by train", "gardens", "the moon", "a library", "rain", "horses", "a small town",
    "music", "a lost key", "mountains", "tea", "a birthday", "a bridge", "snow", "clocks", "stars",
)  # fmt: skip
KEYWORDS = (
    "bright", "quiet", "window", "morning", "green", "friend", "often", "paper", "stone", "warm",
    "slowly", "letter", "yellow", "road", "promise", "corner", "remember", "simple", "voice",
)  # fmt: skip
ENDINGS = (
    "That is all for now.",
    "Thank you for reading.",
    "See you tomorrow.",
    "What do you think?",
)


class _Drawn(NamedTuple):
    words: str
    kwargs: dict[str, Any]


def _amount(generator: random.Random, what: str, least: range, most: range) -> tuple[str, str, int]:
    """An instruction about a number of things, its relation and number."""
    if generator.random() < 0.5:
        number = generator.choice(least)
        return f"Use at least {number} {what}.", "at least", number
    number = generator.choice(most)
    return f"Use less than {number} {what}.", "less than", number


def _words(g: random.Random) -> _Drawn:
    text, relation, number = _amount(g, "words", range(20, 81, 5), range(30, 101, 5))
    return _Drawn(text, {"relation": relation, "num_words": number})


def _sentences(g: random.Random) -> _Drawn:
    text, relation, number = _amount(g, "sentences", range(3, 9), range(3, 9))
    return _Drawn(text, {"relation": relation, "num_sentences": number})


def _paragraphs(g: random.Random) -> _Drawn:
    number = g.randint(2, 4)
    text = f"Write {number} paragraphs and separate them with the mark ***."
    return _Drawn(text, {"num_paragraphs": number})


def _existence(g: random.Random) -> _Drawn:
    one, other = g.sample(KEYWORDS, 2)
    return _Drawn(f'Use the words "{one}" and "{other}".', {"keywords": [one, other]})


def _frequency(g: random.Random) -> _Drawn:
    word, number = g.choice(KEYWORDS), g.randint(2, 4)
    kwargs = {"keyword": word, "relation": "at least", "frequency": number}
    return _Drawn(f'Use the word "{word}" at least {number} times.', kwargs)


def _forbidden(g: random.Random) -> _Drawn:
    one, other = g.sample(("the", "and", "very", "with", "of", "in"), 2)
    return _Drawn(f'Do not use the words "{one}" and "{other}".', {"forbidden_words": [one, other]})


def _letters(g: random.Random) -> _Drawn:
    letter, number = g.choice("bkmvz"), g.randint(3, 6)
    kwargs = {"letter": letter, "let_relation": "at least", "let_frequency": number}
    return _Drawn(f"Use the letter {letter} at least {number} times.", kwargs)


def _bullets(g: random.Random) -> _Drawn:
    number = g.randint(2, 4)
    text = f"Include exactly {number} bullet points, each a line that begins with a hyphen."
    return _Drawn(text, {"num_bullets": number})


def _highlights(g: random.Random) -> _Drawn:
    number = g.randint(2, 3)
    text = f"Highlight at least {number} phrases with asterisks, *like this*."
    return _Drawn(text, {"num_highlights": number})


def _placeholders(g: random.Random) -> _Drawn:
    number = g.randint(2, 3)
    text = f"Include at least {number} placeholders in square brackets, such as [name]."
    return _Drawn(text, {"num_placeholders": number})


def _ending(g: random.Random) -> _Drawn:
    phrase = g.choice(ENDINGS)
    return _Drawn(f'End with the words "{phrase}" and nothing after them.', {"end_phrase": phrase})


def _plain(words: str, **kwargs: Any) -> Callable[[random.Random], _Drawn]:
    return lambda generator: _Drawn(words, kwargs)


GROUPS: tuple[dict[str, Callable[[random.Random], _Drawn]], ...] = (
    {
        "change_case:english_lowercase": _plain("Use lower case letters only."),
        "change_case:english_capital": _plain("Use capital letters only."),
    },
    {
        "length_constraints:number_words": _words,
        "length_constraints:number_sentences": _sentences,
        "length_constraints:number_paragraphs": _paragraphs,
    },
    {
        "keywords:existence": _existence,
        "keywords:frequency": _frequency,
        "keywords:forbidden_words": _forbidden,
        "keywords:letter_frequency": _letters,
    },
    {
        "detectable_format:number_bullet_lists": _bullets,
        "detectable_format:number_highlighted_sections": _highlights,
        "detectable_content:number_placeholders": _placeholders,
        "detectable_format:title": _plain("Give it a title in double angle brackets, <<title>>."),
    },
    {
        "startend:quotation": _plain("Wrap the whole text in double quotation marks."),
        "startend:end_checker": _ending,
        "detectable_content:postscript": _plain(
            "Add a postscript at the end that begins with P.S.", postscript_marker="P.S."
        ),
    },
    {"punctuation:no_comma": _plain("Use no commas.")},
)
"""Instructions by name; of a group at most one is asked for."""


def problems(split: str, count: int, seed: int) -> list[Problem]:
    """`count` distinct problems with one, two and three instructions in turn (test: from two)."""

    def draw(generator: random.Random, number: int) -> Problem | None:
        sizes = INSTRUCTIONS if split == "train" else INSTRUCTIONS[1:]
        groups = generator.sample(GROUPS, sizes[number % len(sizes)])
        names = [generator.choice(list(group)) for group in groups]
        structure = "+".join(sorted(names))
        home = "train" if len(names) == 1 else split_of(structure, TEST_SHARE)
        if home != split:
            return None
        drawn = [group[name](generator) for group, name in zip(groups, names, strict=True)]
        task = f"Write {generator.choice(FORMS)} about {generator.choice(TOPICS)}."
        return Problem(
            id=f"constraints/{split}/{seed}-{number}",
            question=" ".join([task, *(d.words for d in drawn)]),
            gold=json.dumps(
                [{"id": n, "kwargs": d.kwargs} for n, d in zip(names, drawn, strict=True)]
            ),
            grader="constraints",
            family=f"constraints/{structure}",
        )

    return draw_distinct("constraints", split, count, seed, draw)
