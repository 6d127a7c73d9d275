"""Chains of small operations on one number: guessing is hard, one step at a time is easy.

    A bus has 7 people, 5 get on, the number doubles, 3 get off. How many people?
    7+5=12, 12*2=24, 24-3=21

The structure of a problem is its sequence of operations with its wording. Sequences are split by
hash: those of `test` occur in no wording among the training problems. (A shorter sequence may lie
inside a longer one of the other split.) All values stay between 1 and 99.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from dataclasses import dataclass
from typing import Literal

from pellucid.errors import DataError
from pellucid.records import Problem

Kind = Literal["add", "take", "double", "triple", "halve"]
KINDS: tuple[Kind, ...] = ("add", "take", "double", "triple", "halve")
SPLITS = ("train", "test")
LARGEST = 99
"""Two digits, so that a step is one easy sum or a small table."""
_HELD_OUT_SHARE = 5  # one sequence in five belongs to the test split


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation. Example: Step(kind="add", operand=5) turns 7 into 12."""

    kind: Kind
    operand: int
    """What is added, taken, multiplied or divided by (2, 3 and 2 for double, triple and halve)."""

    def apply(self, value: int) -> int | None:
        """The next value, None where it leaves 1 … 99 or is not whole."""
        if self.kind == "halve":
            return value // 2 if value % 2 == 0 else None
        if self.kind == "add":
            result = value + self.operand
        elif self.kind == "take":
            result = value - self.operand
        else:
            result = value * self.operand
        return result if 1 <= result <= LARGEST else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A start value and the steps from it. Example: 7, add 5, double -> values (7, 12, 24)."""

    values: tuple[int, ...]
    """Start value and the value after each step."""
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How a chain is told. `{n}` is a number, `{who}` a name, `{what}` a thing."""

    name: str
    opening: str
    phrases: dict[Kind, str]
    closing: str


WORDINGS = (
    Wording(
        name="plain",
        opening="Start with {n}",
        phrases={
            "add": "add {n}",
            "take": "take away {n}",
            "double": "double it",
            "triple": "triple it",
            "halve": "halve it",
        },
        closing="What do you get?",
    ),
    Wording(
        name="things",
        opening="{who} has {n} {what}",
        phrases={
            "add": "finds {n} more",
            "take": "loses {n}",
            "double": "doubles them",
            "triple": "triples them",
            "halve": "gives half away",
        },
        closing="How many {what} now?",
    ),
    Wording(
        name="number",
        opening="{who} thinks of {n}",
        phrases={
            "add": "plus {n}",
            "take": "minus {n}",
            "double": "times 2",
            "triple": "times 3",
            "halve": "divided by 2",
        },
        closing="What is the result?",
    ),
    Wording(
        name="symbols",
        opening="Let x = {n}",
        phrases={
            "add": "x + {n}",
            "take": "x - {n}",
            "double": "x * 2",
            "triple": "x * 3",
            "halve": "x / 2",
        },
        closing="Find x.",
    ),
    Wording(
        name="bus",
        opening="A bus has {n} people",
        phrases={
            "add": "{n} get on",
            "take": "{n} get off",
            "double": "the number doubles",
            "triple": "the number triples",
            "halve": "half get off",
        },
        closing="How many people?",
    ),
    Wording(
        name="price",
        opening="The price of {what} is {n}",
        phrases={
            "add": "goes up by {n}",
            "take": "drops by {n}",
            "double": "doubles",
            "triple": "triples",
            "halve": "is cut in half",
        },
        closing="What is the price?",
    ),
    Wording(
        name="score",
        opening="{who} is at {n} points",
        phrases={
            "add": "wins {n}",
            "take": "drops {n}",
            "double": "gets twice as many",
            "triple": "gets three times as many",
            "halve": "keeps half",
        },
        closing="How many points?",
    ),
    Wording(
        name="level",
        opening="The water is at {n}",
        phrases={
            "add": "rises by {n}",
            "take": "falls by {n}",
            "double": "rises to double",
            "triple": "rises to triple",
            "halve": "falls to half",
        },
        closing="Where is it?",
    ),
)
PEOPLE = ("Tom", "Anna", "Ben", "Mia", "Sam", "Lea", "Max", "Eva")
THINGS = ("apples", "books", "cards", "coins", "eggs", "nuts", "pens", "shells")


def sequences(split: str) -> list[tuple[Kind, ...]]:
    """The operation sequences of a split: three or four steps, at most two of them scaling.

    More than two scalings would leave the range for almost every start value.
    """
    if split not in SPLITS:
        raise DataError(f"chain has no split '{split}'; use one of {', '.join(SPLITS)}")
    scaling = ("double", "triple", "halve")
    every = itertools.chain(*(itertools.product(KINDS, repeat=n) for n in (3, 4)))
    usable = (s for s in every if sum(kind in scaling for kind in s) <= 2)
    return [s for s in usable if is_held_out(s) == (split == "test")]


def is_held_out(sequence: tuple[Kind, ...]) -> bool:
    """True for a sequence of three or more steps that belongs to the test split."""
    digest = hashlib.blake2b(" ".join(sequence).encode(), digest_size=8).digest()
    return len(sequence) >= 3 and int.from_bytes(digest, "big") % _HELD_OUT_SHARE == 0


def draw_chain(sequence: tuple[Kind, ...], rng: random.Random) -> Chain:
    """Numbers for a sequence, drawn until every value lies in range."""
    fixed = {"double": 2, "triple": 3, "halve": 2}
    while True:
        values = [rng.randint(2, 30)]
        steps: list[Step] = []
        for kind in sequence:
            step = Step(kind=kind, operand=fixed.get(kind) or rng.randint(1, 9))
            following = step.apply(values[-1])
            if following is None:
                break
            steps.append(step)
            values.append(following)
        else:
            return Chain(values=tuple(values), steps=tuple(steps))


def tell(chain: Chain, wording: Wording, rng: random.Random) -> str:
    """The question in words."""
    names = {"who": rng.choice(PEOPLE), "what": rng.choice(THINGS)}
    parts = [wording.opening.format(n=chain.values[0], **names)]
    parts += [wording.phrases[s.kind].format(n=s.operand) for s in chain.steps]
    return ", ".join(parts) + ". " + wording.closing.format(**names)


def problems(split: str, count: int, seed: int = 0) -> list[Problem]:
    """`count` different problems, the structures of the split taken in turn in a shuffled order.

    The first n of a longer list are the list of n, so `limit` changes no problem.
    """
    rng = random.Random(f"chain/{split}/{seed}")
    structures = list(itertools.product(sequences(split), WORDINGS))
    rng.shuffle(structures)
    found: list[Problem] = []
    asked: set[str] = set()
    for sequence, wording in itertools.cycle(structures):
        if len(found) >= count:
            return found
        chain = draw_chain(sequence, rng)
        question = tell(chain, wording, rng)
        if question in asked:
            continue
        asked.add(question)
        found.append(
            Problem(
                id=f"chain/{split}/{len(found)}",
                question=question,
                gold=str(chain.values[-1]),
                grader="integer",
                family="-".join(sequence) + "/" + wording.name,
            )
        )
    return found
