import ast
import json
import operator
import re
from itertools import combinations

import pytest

from pellucid.errors import DataError
from pellucid.tasks import PROCEDURAL, arithmetic, countdown
from pellucid.tasks.splits import draw_distinct

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
OWN = ["arithmetic", "countdown"]


def value_of(node: ast.expr) -> int:
    if isinstance(node, ast.Constant):
        return node.value
    return OPERATORS[type(node.op)](value_of(node.left), value_of(node.right))


def can_reach(values: tuple[float, ...], target: int) -> bool:
    """Every way to join two values until one is left."""
    if len(values) == 1:
        return abs(values[0] - target) < 1e-9
    for i, j in combinations(range(len(values)), 2):
        rest = tuple(v for k, v in enumerate(values) if k not in (i, j))
        a, b = values[i], values[j]
        joined = [a + b, a - b, b - a, a * b]
        joined += [a / b] if b else []
        joined += [b / a] if a else []
        if any(can_reach((*rest, value), target) for value in joined):
            return True
    return False


@pytest.mark.parametrize("name", OWN)
def test_problems_depend_on_split_and_seed_alone_and_a_shorter_list_is_a_prefix(name):
    make = PROCEDURAL[name]
    first = make("train", 40, 3)
    assert make("train", 40, 3) == first
    assert make("train", 15, 3) == first[:15]
    assert make("train", 40, 4) != first
    assert len({p.id for p in first}) == 40
    assert len({p.question for p in first}) == 40


@pytest.mark.parametrize("name", OWN)
def test_no_test_structure_occurs_in_training(name):
    train = {p.family for p in PROCEDURAL[name]("train", 3000, 0)}
    test = {p.family for p in PROCEDURAL[name]("test", 400, 1)}
    assert train
    assert test
    assert not train & test


def test_arithmetic_golds_are_the_values_of_the_expressions():
    for problem in arithmetic.problems("train", 200, 0) + arithmetic.problems("test", 200, 0):
        text = problem.question.removeprefix("Calculate ").removesuffix(".")
        assert str(value_of(ast.parse(text, mode="eval").body)) == problem.gold
        assert abs(int(problem.gold)) <= arithmetic.MAX_VALUE


def test_arithmetic_structures_are_the_expressions_without_numbers():
    for problem in arithmetic.problems("test", 50, 0):
        text = problem.question.removeprefix("Calculate ").removesuffix(".").replace(" ", "")
        assert problem.family == "arithmetic/" + re.sub(r"\d+", "n", text)


def test_arithmetic_difficulty_grows_by_one_operation_in_turn():
    def operations(problem):
        return sum(problem.question.count(sign) for sign in "+-*")

    assert [operations(p) for p in arithmetic.problems("train", 8, 0)] == [1, 2, 3, 4] * 2
    assert [operations(p) for p in arithmetic.problems("test", 6, 0)] == [2, 3, 4] * 2


def test_every_countdown_problem_can_be_solved_and_names_its_numbers():
    for problem in countdown.problems("train", 60, 0) + countdown.problems("test", 60, 0):
        gold = json.loads(problem.gold)
        assert can_reach(tuple(gold["numbers"]), gold["target"])
        assert gold["target"] not in gold["numbers"]
        for number in (*gold["numbers"], gold["target"]):
            assert str(number) in problem.question


@pytest.mark.parametrize("name", OWN)
def test_an_unknown_split_is_refused(name):
    with pytest.raises(DataError, match="did you mean 'train'"):
        PROCEDURAL[name]("tain", 1, 0)


def test_an_exhausted_task_says_how_many_there_are():
    problem = arithmetic.problems("train", 1, 0)[0]
    with pytest.raises(DataError, match="has only 1 distinct problems of this kind, 5 were asked"):
        draw_distinct("one", "train", 5, 0, lambda generator, number: problem)
