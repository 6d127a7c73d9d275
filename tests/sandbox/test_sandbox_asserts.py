"""Tests taken apart: what the program computes, and what is compared outside of it."""

import pytest

from pellucid.sandbox import take_apart


def _cut(*tests, setup=""):
    plan = take_apart(tests, setup)
    return plan.calls, [check.text for check in plan.checks], plan.num_weak


@pytest.mark.parametrize(
    ("test", "calls", "check"),
    [
        ("assert f(1) == 2", ["f(1)"], "_hole_0 == 2"),
        ("assert 2 == f(1), 'message'", ["f(1)"], "2 == _hole_0"),
        ("assert sorted(f([2, 1])) == [1, 2]", ["f([2, 1])"], "sorted(_hole_0) == [1, 2]"),
        ("assert not f(1)", ["f(1)"], "not _hole_0"),
        ("assert f(1) == 1 or f(1) == 2", ["f(1)", "f(1)"], "_hole_0 == 1 or _hole_1 == 2"),
        ("assert Stack(3).push(1).size == 1", ["Stack(3).push(1).size"], "_hole_0 == 1"),
        ("assert all(x > 0 for x in f(1))", ["f(1)"], "all((x > 0 for x in _hole_0))"),
        ("assert f(lambda x: g(x)) == 1", ["f(lambda x: g(x))"], "_hole_0 == 1"),
        (
            "assert math.isclose(f(1), 0.5)",
            ["f(1)"],
            "(lambda math: math.isclose(_hole_0, 0.5))(__import__('math'))",
        ),
    ],
)
def test_the_largest_expressions_of_the_programs_names_become_calls(test, calls, check):
    assert _cut(test) == (tuple(calls), [check], 0)


@pytest.mark.parametrize(
    "test",
    [
        "assert sum(1, 2) == 3",  # the program's own `sum`, or Python's?
        "assert all(f(x) == y for x, y in [(1, 2)])",
        "for x in range(3): assert f(x) == x",
        "assert (y := f(1)) == 2",
    ],
)
def test_what_cannot_be_cut_is_kept_whole_and_counted_as_weak(test):
    calls, checks, num_weak = _cut(test)
    assert (calls, checks, num_weak) == ((), [], 1)


def test_a_literal_expectation_needs_no_interpreter():
    check = take_apart(("assert f(1) == {'a': (1, 2.5)}",)).checks[0]
    assert check.is_equality
    assert check.expected == {"a": (1, 2.5)}


def test_an_expected_value_never_reaches_the_program():
    plan = take_apart(("assert f(1) == 'secret'",))
    assert "secret" not in "".join((*plan.calls, plan.setup, plan.weak))


def test_statements_keep_the_asserts_after_them_beside_them():
    plan = take_apart(
        ("assert f(1) == 1", "s = Stack()\nassert s.pop() is None", "assert f(2) == 2")
    )
    assert len(plan.checks) == 1
    assert plan.weak == "s = Stack()\nassert s.pop() is None\nassert f(2) == 2"


def test_a_setup_that_needs_the_program_runs_after_it():
    plan = take_apart(("assert depth(root) == 1",), "root = Node(1)")
    assert (plan.setup, plan.num_weak) == ("", 1)
    assert plan.weak.startswith("root = Node(1)")


@pytest.mark.parametrize("tests", [("assert f(",), (), ("import math",)])
def test_tests_that_are_none_are_refused(tests):
    with pytest.raises(ValueError, match="test"):
        take_apart(tests)
