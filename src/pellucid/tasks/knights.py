"""Knights and knaves: who tells the truth? Two to five people, one statement each.

    Ada says: "Ben is a knave." Ben says: "Ada and I are of the same kind."      knight, knave

Knights always tell the truth and knaves always lie (R. Smullyan, What Is the Name of This Book?,
1978). Every problem has exactly one solution: all 2^n are tried. The structure is the statements
with people by number, whatever their names: one in five is held out.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pellucid.records import Problem
from pellucid.tasks.splits import draw_distinct, split_of

PEOPLE = (2, 3, 4, 5)
"""How many people a problem has, in turn."""
TEST_SHARE = 0.2
NAMES = (
    "Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal", "Ida", "Jon", "Kim", "Lea", "Max",
    "Nell", "Otto", "Pia", "Quinn", "Rob", "Sue", "Tom", "Uma", "Vic", "Wes", "Zoe",
)  # fmt: skip

Kinds = Sequence[bool]
"""Of each person, whether a knight."""


class Statement(NamedTuple):
    """What one person says."""

    form: str
    others: tuple[int, ...]
    """People it names, in the order in which the words name them."""


class _Form(NamedTuple):
    words: Callable[[Sequence[str]], str]
    holds: Callable[[Kinds, int, Sequence[int]], bool]
    """(kinds, speaker, people named) -> whether the statement is true."""
    num_named: int


_FORMS = {
    "knight": _Form(lambda n: f"{n[0]} is a knight", lambda k, me, o: k[o[0]], 1),
    "knave": _Form(lambda n: f"{n[0]} is a knave", lambda k, me, o: not k[o[0]], 1),
    "same": _Form(
        lambda n: f"{n[0]} and I are of the same kind", lambda k, me, o: k[o[0]] == k[me], 1
    ),
    "different": _Form(
        lambda n: f"{n[0]} and I are of different kinds", lambda k, me, o: k[o[0]] != k[me], 1
    ),
    "one-of-us": _Form(
        lambda n: f"At least one of {n[0]} and me is a knave",
        lambda k, me, o: not (k[o[0]] and k[me]),
        1,
    ),
    "neither": _Form(
        lambda n: f"{n[0]} and I are both knaves", lambda k, me, o: not k[o[0]] and not k[me], 1
    ),
    "some-knave": _Form(
        lambda n: f"At least one of {n[0]} and {n[1]} is a knave",
        lambda k, me, o: not (k[o[0]] and k[o[1]]),
        2,
    ),
    "both-knights": _Form(
        lambda n: f"Both {n[0]} and {n[1]} are knights", lambda k, me, o: k[o[0]] and k[o[1]], 2
    ),
    "if": _Form(
        lambda n: f"If {n[0]} is a knight, then {n[1]} is a knave",
        lambda k, me, o: not k[o[0]] or not k[o[1]],
        2,
    ),
    "pair": _Form(
        lambda n: f"{n[0]} and {n[1]} are of different kinds",
        lambda k, me, o: k[o[0]] != k[o[1]],
        2,
    ),
}


def problems(split: str, count: int, seed: int) -> list[Problem]:
    """`count` distinct problems of two, three, four and five people in turn."""

    def draw(generator: random.Random, number: int) -> Problem | None:
        size = PEOPLE[number % len(PEOPLE)]
        statements = [_draw_statement(generator, me, size) for me in range(size)]
        structure = ";".join(f"{s.form}{','.join(map(str, s.others))}" for s in statements)
        if split_of(structure, TEST_SHARE) != split:
            return None
        solutions = solve(statements)
        if len(solutions) != 1:
            return None
        names = generator.sample(NAMES, size)
        return Problem(
            id=f"knights/{split}/{seed}-{number}",
            question=_question(names, statements),
            gold=", ".join("knight" if kind else "knave" for kind in solutions[0]),
            grader="sequence",
            family=f"knights/{structure}",
        )

    return draw_distinct("knights", split, count, seed, draw)


def solve(statements: Sequence[Statement]) -> list[Kinds]:
    """All kinds of people that fit: a knight's statement is true, a knave's is not."""
    return [
        kinds
        for kinds in itertools.product((True, False), repeat=len(statements))
        if all(
            _FORMS[s.form].holds(kinds, me, s.others) == kinds[me]
            for me, s in enumerate(statements)
        )
    ]


def _draw_statement(generator: random.Random, me: int, size: int) -> Statement:
    """Nobody names themselves other than as "I"."""
    others = [person for person in range(size) if person != me]
    form = generator.choice([f for f, form in _FORMS.items() if form.num_named <= len(others)])
    return Statement(form, tuple(generator.sample(others, _FORMS[form].num_named)))


def _question(names: Sequence[str], statements: Sequence[Statement]) -> str:
    said = [
        f'{name} says: "{_FORMS[s.form].words([names[i] for i in s.others])}."'
        for name, s in zip(names, statements, strict=True)
    ]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return (
        "Knights always tell the truth, knaves always lie, and everybody is one or the other. "
        f"{' '.join(said)} What are {listed}? The answer is a word for each, knight or knave, in "
        "this order, with commas between."
    )
