"""Which problem stands at which position: shares to less than one, and no state to lose."""

import itertools
import random

import pytest

from pellucid.config import TaskEntry
from pellucid.data.mixture import Mixture, Part, load_mixture
from pellucid.errors import ConfigError, DataError
from pellucid.records import Problem


def row(name, count):
    return [Problem(id=f"{name}/{i}", question="?", gold="1", grader="math") for i in range(count)]


def mixed(*parts, seed=3):
    return Mixture([Part(row(name, count), weight) for name, count, weight in parts], seed)


def names(problems):
    return [p.id.split("/")[0] for p in problems]


def shuffles(problems, seed):
    """The rule for one task, written out: endless seeded shuffles, one an epoch."""
    for epoch in itertools.count():
        order = list(range(len(problems)))
        random.Random(f"epoch/{seed}/{epoch}").shuffle(order)
        yield from (problems[i] for i in order)


def test_one_task_comes_in_seeded_shuffles():
    problems = row("a", 7)
    expected = list(itertools.islice(shuffles(problems, 3), 40))
    assert Mixture.single(problems, 3).window(0, 40) == expected
    assert Mixture.single(problems, 4).window(0, 40) != expected


def test_one_task_is_drawn_again_as_by_a_plain_choice():
    problems = row("a", 7)
    mixture = Mixture.single(problems, 3)
    ours, plain = random.Random("x"), random.Random("x")
    assert [mixture.another(i, ours) for i in range(9)] == [
        plain.choice(problems) for _ in range(9)
    ]


@pytest.mark.parametrize(
    "weights",
    [
        (0.5, 0.3, 0.2),
        (1.0, 1.0),
        (3.0, 1.0, 1.0, 1.0),
        (0.7, 0.15, 0.1, 0.05),
        (1 / 3, 0.1),
        (14, 30, 3, 30, 4),
    ],
)
def test_shares_are_exact_up_to_rounding_over_every_window(weights):
    mixture = mixed(*[(f"t{i}", 5, w) for i, w in enumerate(weights)])
    drawn = names(mixture.window(0, 240))
    for i, weight in enumerate(weights):
        share = weight / sum(weights)
        counts = [0, *itertools.accumulate(name == f"t{i}" for name in drawn)]
        bound = 1 - 1 / (2 * len(weights) - 2) + 1e-9  # Tijdeman's theorem
        assert all(abs(count - share * n) <= bound for n, count in enumerate(counts))
        for size in (8, 32, 100):
            windows = [b - a for a, b in zip(counts, counts[size:], strict=False)]
            assert all(abs(count - share * size) < 2 for count in windows)


def test_each_task_keeps_its_own_shuffles_whatever_is_mixed_in():
    mixture = mixed(("a", 7, 0.6), ("b", 4, 0.4))
    drawn = mixture.window(0, 200)
    for name, count in (("a", 7), ("b", 4)):
        own = [p for p in drawn if p.id.startswith(name)]
        assert own == list(itertools.islice(shuffles(row(name, count), 3), len(own)))


def test_a_position_needs_no_history():
    parts = (("a", 7, 0.61), ("b", 4, 0.29), ("c", 3, 0.1))
    whole = mixed(*parts).window(0, 500)
    late = mixed(*parts)
    assert [late.at(n) for n in (499, 0, 250, 101)] == [whole[n] for n in (499, 0, 250, 101)]


def test_a_problem_drawn_again_is_of_the_same_task():
    mixture = mixed(("a", 7, 0.5), ("b", 4, 0.3), ("c", 3, 0.2))
    again = [mixture.another(n, random.Random(n)) for n in range(60)]
    assert names(again) == names(mixture.window(0, 60))


def test_entries_of_a_recipe_are_loaded_and_mixed():
    entries = (
        TaskEntry(name="arithmetic", weight=3.0, limit=6),
        TaskEntry(name="countdown", split="test", limit=2),
    )
    mixture = load_mixture(entries, seed=1)
    assert names(mixture.window(0, 8)).count("arithmetic") == 6
    assert len(mixture.problems) == 8
    assert {p.id.split("/")[1] for p in mixture.problems} == {"train", "test"}


def test_bad_entries_are_refused():
    with pytest.raises(ConfigError, match="at least one task"):
        load_mixture((), seed=0)
    with pytest.raises(ConfigError, match="each task a problem"):
        Mixture([Part([], 1.0)], 0)
    with pytest.raises(DataError, match="did you mean 'countdown'"):
        load_mixture((TaskEntry(name="count-down"),), seed=0)
    for weight in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError):
            TaskEntry(name="chain", weight=weight)
