"""Every gold is computed twice: by the generator, and here from the question's text alone."""

import ast
import contextlib
import io
import itertools
import operator
import re
from collections import Counter
from functools import cache

import pytest

from pellucid.errors import DataError
from pellucid.evidence.draw import Draw
from pellucid.evidence.fresh_items.make import (
    FAMILIES,
    LEVELS,
    fresh_seed,
    generator_digest,
    items_digest,
    make_items,
)
from pellucid.records import Verdict
from pellucid.rewards.table import check_gold, find_grader
from pellucid.tasks.chain import problems as chain_problems

ROOT = "ab" * 32
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


@cache
def _items(family, n=100):
    return make_items(ROOT, "1234", n, [family])


def _value(node):
    if isinstance(node, ast.Constant):
        return node.value
    return OPERATIONS[type(node.op)](_value(node.left), _value(node.right))


def _solve_arithmetic(question):
    return _value(ast.parse(re.fullmatch(r"Calculate (.*)\.", question)[1], mode="eval").body)


def _solve_modular(question):
    numbers = [int(n) for n in re.findall(r"\d+", question)]
    if "smallest" in question:
        a, rest, m = numbers
        return next(x for x in range(1, m + 1) if a * x % m == rest)
    one, other, m = numbers
    sign = re.search(r"\d+ ?([+*^]) ?\d+", question)[1]
    value = 1 if sign == "^" else one
    for _ in range(other if sign != "*" else other - 1):
        value = value + 1 if sign == "+" else value + one if sign == "*" else value * one
    return value - value // m * m


def _solve_strings(question):
    letters = list(re.search(r'"(\w+)"', question)[1])
    for sentence in re.findall(r"(?:First|Then) (.*?)\.", question):
        number = int(found[0]) - 1 if (found := re.findall(r"\d+", sentence)) else 0
        if sentence == "reverse it":
            letters.reverse()
        elif sentence.startswith("move"):
            for _ in range(number + 1):
                letters.append(letters.pop(0))
        elif sentence.startswith("swap"):
            letters[0], letters[-1] = letters[-1], letters[0]
        elif sentence.startswith("replace"):
            old, new = re.fullmatch(r"replace every (\w) with (\w)", sentence).groups()
            letters = [new if letter == old else letter for letter in letters]
        elif sentence.startswith("write"):
            letters.insert(number, letters[number])
        else:
            del letters[number]
    return "".join(letters)


def _solve_logic(question):
    places = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
    people = re.findall(r"\w+", question.partition(" stand ")[0].replace(" and ", " "))
    asked = places.index(re.search(r"Who is (\w+),", question)[1])
    before = re.findall(r"(\w+) is somewhere in front of (\w+)\.", question)
    behind = re.findall(r"(\w+) is directly behind (\w+)\.", question)
    absent = [(a, places.index(p)) for a, p in re.findall(r"(\w+) is not (\w+)\.", question)]
    assert len(before) + len(behind) + len(absent) == question.count(".") - 2
    rows = [
        row
        for row in itertools.permutations(people)
        if all(row[place] != name for name, place in absent)
        and all(row.index(a) < row.index(b) for a, b in before)
        and all(row.index(a) == row.index(b) + 1 for a, b in behind)
    ]
    assert len(rows) == 1, "the clues leave exactly one order"
    return rows[0][asked]


def _solve_programs(question):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(question.partition("\n")[2], {"__builtins__": {"range": range, "print": print}})  # noqa: S102
    return printed.getvalue().strip()


def _solve_chain(question):
    value = None
    for part in re.split(r", |\. ", question.rpartition(". ")[0]):
        number = int(found[0]) if (found := re.findall(r"\d+", part)) else None
        if value is None:
            value = number
        elif re.search(r"doubl|twice|(times|\*) 2", part):
            value += value
        elif re.search(r"tripl|three times|(times|\*) 3", part):
            value += value + value
        elif re.search(r"half|halve|(divided by|/) 2", part):
            value -= value // 2
        elif re.search(r"add|more|plus|\+|get on|up by|wins|rises by", part):
            value += number
        else:
            value -= number
    return value


SOLVERS = {
    "arithmetic": _solve_arithmetic,
    "modular": _solve_modular,
    "strings": _solve_strings,
    "logic": _solve_logic,
    "programs": _solve_programs,
    "chain": _solve_chain,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_golds_are_what_another_reading_of_the_question_gives(family):
    for problem in _items(family):
        assert problem.gold == str(SOLVERS[family](problem.question)), problem.question


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graders_take_the_gold_and_refuse_another_items_gold(family):
    items = _items(family)
    for problem, other in itertools.pairwise(items):
        grade = find_grader(problem.grader)
        assert check_gold(problem) is None
        answer = f"<think>so</think> <answer>{problem.gold}</answer>"
        assert grade(problem, answer).verdict is Verdict.CORRECT
        if other.gold != problem.gold:
            wrong = f"<think>so</think> <answer>{other.gold}</answer>"
            assert grade(problem, wrong).verdict is Verdict.WRONG


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "chain"])
def test_higher_levels_ask_longer_questions(family):
    items = _items(family)
    sizes = [sum(len(p.question) for p in items[level::LEVELS]) for level in range(LEVELS)]
    if family == "modular":  # graded by operation, not by length
        kinds = [
            Counter(re.sub(r"\d+", "n", p.question) for p in items[i::LEVELS]) for i in range(5)
        ]
        assert len({next(iter(kind)) for kind in kinds}) == 4
        assert all(len(kind) == 1 for kind in kinds)
    else:
        assert sizes == sorted(sizes)


@pytest.mark.parametrize("family", FAMILIES)
def test_golds_are_spread_so_that_no_constant_answer_scores(family):
    commonest = Counter(p.gold for p in _items(family)).most_common(1)[0][1]
    assert commonest <= 100 * (0.25 if family == "logic" else 0.12)


def test_items_hang_on_weights_and_nonce_and_nothing_else():
    items = make_items(ROOT, "1234", 30)
    assert make_items(ROOT, "1234", 30) == items
    assert make_items(ROOT, "1234", 12) == items[:12]
    others = [make_items(ROOT, "1235", 30), make_items("cd" * 32, "1234", 30)]
    for other in others:
        assert not {p.question for p in items} & {p.question for p in other}
    assert len({p.question for p in items}) == 30


def test_the_parts_of_the_seed_cannot_be_shifted_into_each_other():
    assert fresh_seed("ab", "c") != fresh_seed("a", "bc")


def test_items_of_this_version_never_change():
    """A change here changes every sealed generator: give it another DOMAIN."""
    items = make_items("0" * 64, "referee", 60, list(FAMILIES))
    assert items_digest(items) == "751dcfc4d18b9679bfede2378bca4f68d746da1088f1e7cbbf6beacc0175548f"


def test_the_generators_digest_covers_each_file_that_makes_items(monkeypatch, tmp_path):
    import shutil
    from pathlib import Path

    import pellucid

    copy = tmp_path / "pellucid"
    shutil.copytree(Path(pellucid.__file__).parent / "evidence", copy / "evidence")
    (copy / "tasks").mkdir()
    shutil.copy(Path(pellucid.__file__).parent / "tasks" / "chain.py", copy / "tasks")
    whole = generator_digest()
    monkeypatch.setattr(pellucid, "__file__", str(copy / "__init__.py"))
    assert generator_digest() == whole
    for name in ("evidence/draw.py", "evidence/fresh_items/strings.py", "tasks/chain.py"):
        text = (copy / name).read_text()
        (copy / name).write_text(text + "\n# changed\n")
        assert generator_digest() != whole
        (copy / name).write_text(text)


def test_chain_items_have_structures_of_the_test_split_and_its_families():
    held_out = {p.family for p in chain_problems("test", 2000)}
    trained = {p.family for p in chain_problems("train", 4000)}
    families = {p.family for p in _items("chain")}
    assert families <= held_out
    assert not families & trained


def test_user_mistakes_are_named():
    with pytest.raises(DataError, match="nonce is empty"):
        make_items(ROOT, "", 3)
    with pytest.raises(DataError, match="did you mean 'strings'"):
        make_items(ROOT, "1", 3, ["string"])
    with pytest.raises(DataError, match="at least one"):
        make_items(ROOT, "1", 0)


def test_choices_are_even_and_shuffles_lose_nothing():
    draw = Draw(b"key")
    counts = Counter(draw.below(6) for _ in range(6000))
    assert all(850 < counts[face] < 1150 for face in range(6))
    assert sorted(draw.shuffled(range(20))) == list(range(20))
    assert {draw.randint(3, 5) for _ in range(100)} == {3, 4, 5}
    with pytest.raises(ValueError, match="nothing to choose"):
        draw.below(0)
