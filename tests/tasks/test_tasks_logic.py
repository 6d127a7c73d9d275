"""Golds of the logic tasks, computed again by other means from the words of the question."""

import ast
import itertools
import re

import pytest

from pellucid.errors import DataError
from pellucid.records import Verdict
from pellucid.rewards import GRADERS, check_gold
from pellucid.tasks import boolean, knights, sorting

TASKS = [boolean, knights, sorting]


def both_splits(task, train, test):
    return task.problems("train", train, 0) + task.problems("test", test, 0)


@pytest.mark.parametrize("task", TASKS)
def test_problems_are_reproducible_distinct_and_gradable(task):
    first = task.problems("train", 36, 3)
    assert task.problems("train", 36, 3) == first
    assert task.problems("train", 15, 3) == first[:15]
    assert task.problems("train", 36, 4) != first
    assert len({p.question for p in first}) == len({p.id for p in first}) == 36
    for problem in first:
        assert check_gold(problem) is None
        score = GRADERS[problem.grader](problem, rf"<think>x</think> \boxed{{{problem.gold}}}")
        assert score.verdict is Verdict.CORRECT


@pytest.mark.parametrize("task", TASKS)
def test_no_test_structure_occurs_in_training(task):
    train = {p.family for p in task.problems("train", 1500, 0)}
    test = {p.family for p in task.problems("test", 300, 1)}
    assert train
    assert test
    assert not train & test


@pytest.mark.parametrize("task", TASKS)
def test_an_unknown_split_is_refused(task):
    with pytest.raises(DataError, match="did you mean 'train'"):
        task.problems("tain", 1, 0)


# --- knights and knaves: the English of the statements, read by patterns ---

SAYINGS = [
    (r"(\w+) is a knight", lambda kind, me, a: kind[a]),
    (r"(\w+) is a knave", lambda kind, me, a: not kind[a]),
    (r"(\w+) and I are of the same kind", lambda kind, me, a: kind[a] is kind[me]),
    (r"(\w+) and I are of different kinds", lambda kind, me, a: kind[a] is not kind[me]),
    (r"At least one of (\w+) and me is a knave", lambda kind, me, a: {kind[a], kind[me]} != {True}),
    (r"(\w+) and I are both knaves", lambda kind, me, a: {kind[a], kind[me]} == {False}),
    (r"At least one of (\w+) and (\w+) is a knave", lambda kind, me, a, b: kind[a] + kind[b] < 2),
    (r"Both (\w+) and (\w+) are knights", lambda kind, me, a, b: kind[a] + kind[b] == 2),
    (
        r"If (\w+) is a knight, then (\w+) is a knave",
        lambda kind, me, a, b: not kind[b] if kind[a] else True,
    ),
    (r"(\w+) and (\w+) are of different kinds", lambda kind, me, a, b: kind[a] + kind[b] == 1),
]


def is_true(saying, kind, me):
    for pattern, rule in SAYINGS:
        if match := re.fullmatch(pattern, saying):
            return rule(kind, me, *match.groups())
    raise AssertionError(saying)


def solutions(question):
    said = re.findall(r'(\w+) says: "([^"]*)\."', question)
    names = [name for name, _ in said]
    worlds = (
        dict(zip(names, kinds, strict=True))
        for kinds in itertools.product((True, False), repeat=len(names))
    )
    return [w for w in worlds if all(is_true(what, w, name) is w[name] for name, what in said)]


def test_every_knights_problem_has_one_solution_and_it_is_the_gold():
    for problem in both_splits(knights, 240, 80):
        [only] = solutions(problem.question)
        words = ", ".join("knight" if kind else "knave" for kind in only.values())
        assert words == problem.gold


def test_knights_grow_from_two_people_to_five():
    sizes = [p.question.count(" says: ") for p in knights.problems("train", 8, 0)]
    assert sizes == [2, 3, 4, 5] * 2


# --- sorting: no key functions, but pairs compared one by one ---


def comes_first(rule, a, b):
    def digits(n):
        return sum(int(d) for d in n)

    if "smallest to the largest" in rule:
        return int(a) < int(b)
    if "largest to the smallest" in rule:
        return int(a) > int(b)
    if "last digit" in rule:
        return a[-1] < b[-1] or (a[-1] == b[-1] and int(a) < int(b))
    if "sum of their digits" in rule:
        return digits(a) < digits(b) or (digits(a) == digits(b) and int(a) < int(b))
    if "shortest to the longest" in rule:
        return len(a) < len(b) or (len(a) == len(b) and a < b)
    assert "alphabetical order" in rule
    return a < b


def test_sorted_golds_hold_the_same_things_in_the_stated_order():
    for problem in both_splits(sorting, 180, 90):
        rule, _, rest = problem.question.partition(": ")
        things = rest.split(". ")[0].split(", ")
        gold = problem.gold.split(", ")
        assert sorted(things) == sorted(gold)
        assert things != gold
        assert all(comes_first(rule, a, b) for a, b in itertools.combinations(gold, 2)), rule


def test_sorting_grows_and_takes_every_rule():
    train = sorting.problems("train", 36, 0)
    assert [len(p.gold.split(", ")) for p in train[:6]] == [3, 4, 5, 6, 7, 8]
    assert len({p.question.split(":")[0] for p in train}) == 6


# --- boolean: Python's own parser, evaluated node by node ---


def value_of(node):
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp):
        return not value_of(node.operand)
    values = [value_of(v) for v in node.values]
    return all(values) if isinstance(node.op, ast.And) else any(values)


def expressions(question):
    return re.findall(r"\d\. (.*?)\.(?= )", question)


def test_boolean_golds_are_the_values_of_the_expressions():
    for problem in both_splits(boolean, 150, 60):
        values = [value_of(ast.parse(e, mode="eval").body) for e in expressions(problem.question)]
        assert ", ".join(str(v).lower() for v in values) == problem.gold


def test_no_single_expression_of_a_boolean_test_problem_has_a_shape_of_training():
    def shapes(problems):
        return {s for p in problems for s in p.family.removeprefix("boolean/").split("; ")}

    train, test = (boolean.problems(split, 300, 0) for split in ("train", "test"))
    assert not shapes(train) & shapes(test)
    for problem in train[:30]:
        found = [re.sub("True|False", "v", e) for e in expressions(problem.question)]
        assert "boolean/" + "; ".join(found) == problem.family


def test_boolean_expressions_grow_by_one_operation_in_turn():
    def operations(problem):
        return len(re.findall(r"and|or|not", expressions(problem.question)[0]))

    assert [operations(p) for p in boolean.problems("train", 10, 0)] == [2, 3, 4, 5, 6] * 2
