"""The chain task: right answers, disjoint structures, a list that only grows."""

import random
import re

import pytest

from pellucid.errors import DataError
from pellucid.tasks import chain
from pellucid.tasks.chain import Chain, Step


def test_a_chain_told_in_words_reads_as_written() -> None:
    told = Chain(
        values=(7, 12, 24, 21),
        steps=(
            Step(kind="add", operand=5),
            Step(kind="double", operand=2),
            Step(kind="take", operand=3),
        ),
    )
    bus = next(w for w in chain.WORDINGS if w.name == "bus")

    question = chain.tell(told, bus, random.Random(0))

    assert question == (
        "A bus has 7 people, 5 get on, the number doubles, 3 get off. How many people?"
    )


@pytest.mark.parametrize(
    ("step", "value", "expected"),
    [
        (Step(kind="add", operand=9), 90, 99),
        (Step(kind="add", operand=9), 91, None),
        (Step(kind="take", operand=4), 5, 1),
        (Step(kind="take", operand=5), 5, None),
        (Step(kind="triple", operand=3), 33, 99),
        (Step(kind="double", operand=2), 50, None),
        (Step(kind="halve", operand=2), 18, 9),
        (Step(kind="halve", operand=2), 19, None),
    ],
)
def test_a_step_stays_between_1_and_99(step: Step, value: int, expected: int | None) -> None:
    assert step.apply(value) == expected


def test_the_gold_answer_follows_from_the_words_of_the_symbols_wording() -> None:
    checked = 0
    for problem in chain.problems("test", 400):
        if not problem.family.endswith("/symbols"):
            continue
        start, rest = re.fullmatch(r"Let x = (\d+), (.*)\. Find x\.", problem.question).groups()
        value = int(start)
        for sign, operand in re.findall(r"x ([-+*/]) (\d+)", rest):
            by = {
                "+": value.__add__,
                "-": value.__sub__,
                "*": value.__mul__,
                "/": value.__floordiv__,
            }
            value = by[sign](int(operand))
        assert problem.gold == str(value)
        checked += 1
    assert checked > 30


def test_train_and_test_share_no_structure_and_no_sequence() -> None:
    train, test = set(chain.sequences("train")), set(chain.sequences("test"))
    assert not train & test
    assert len(test) > 60
    families = [
        {p.family.split("/")[0] for p in chain.problems(split, 800)} for split in chain.SPLITS
    ]
    assert not families[0] & families[1]


def test_a_longer_list_begins_with_the_shorter_one_and_repeats_no_question() -> None:
    long = chain.problems("test", 900, seed=3)
    assert chain.problems("test", 100, seed=3) == long[:100]
    assert chain.problems("test", 100, seed=4) != long[:100]
    assert len({p.question for p in long}) == len({p.id for p in long}) == 900


def test_an_unknown_split_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(DataError, match="use one of train, test"):
        chain.problems("validation", 1)
