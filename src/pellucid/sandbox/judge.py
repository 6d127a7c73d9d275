"""Verdict on a program: it computes in one process, its tests are decided in another."""

from __future__ import annotations

from typing import Any

from pellucid.sandbox.asserts import Check, Plan
from pellucid.sandbox.inside import wire
from pellucid.sandbox.pool import Sandbox
from pellucid.sandbox.records import Job, Judgement, Outcome, Run


def judge(sandbox: Sandbox, program: str, plan: Plan) -> Judgement:
    """Whether `program` passes all tests of `plan`."""
    run = sandbox.run(Job(setup=plan.setup, code=program, calls=plan.calls, tail=plan.weak))

    def verdict(outcome: Outcome, detail: str) -> Judgement:
        return Judgement(
            outcome=outcome,
            detail=detail,
            num_tests=plan.num_tests,
            num_weak=plan.num_weak,
            run=run,
        )

    if run.outcome is not Outcome.PASSED:
        if run.detail.startswith("the setup") and (why := _why_setup_fails(sandbox, plan)):
            return verdict(Outcome.ERROR, why)
        return verdict(run.outcome, run.detail)
    others: list[Check] = []
    for check in plan.checks:
        if not check.is_equality:
            others.append(check)
        elif (miss := _miss(check.expected, run.values[check.calls[0]])) is not None:
            return verdict(Outcome.WRONG, f"{check.source[:300]}: {miss}")
    if others:
        outcome, detail = _check_apart(sandbox, plan, others, run)
        if outcome is not Outcome.PASSED:
            return verdict(outcome, detail)
    weaker = f"{plan.num_weak} of {plan.num_tests} tests ran in the program's own process"
    return verdict(Outcome.PASSED, weaker if plan.num_weak else "")


def _why_setup_fails(sandbox: Sandbox, plan: Plan) -> str | None:
    """The program says that the tests' own setup failed: only without it is that believed."""
    alone = sandbox.run(Job(setup=plan.setup, code=""))
    return None if alone.outcome is Outcome.PASSED else f"without any program: {alone.detail}"


def _miss(expected: Any, data: Any) -> str | None:
    """Why the value is not the expected one; None where it is."""
    try:
        # Equal values have equally many parts: nothing large is ever built from the program's data.
        if wire.count(data) != wire.count(wire.encode(expected)):
            return _opaque(data) or "other value"
        is_equal = wire.decode(data) == expected
    except wire.OpaqueError as error:
        return f"got {error}, which is no plain data"
    except RecursionError:
        return "got a value nested too deep"
    return None if is_equal else "other value"


def _opaque(data: Any) -> str | None:
    is_opaque = isinstance(data, dict) and "o" in data
    return f"got a {str(data['o'])[:80]}, which is no plain data" if is_opaque else None


def _check_apart(
    sandbox: Sandbox, plan: Plan, checks: list[Check], run: Run
) -> tuple[Outcome, str]:
    """Evaluate what is no plain equality in a jailed process without the program.

    The data may be hostile (a number of a million digits), so this has the same limits.
    """
    for check in checks:
        for call in check.calls:
            if miss := _opaque(run.values[call]):
                return Outcome.WRONG, f"{check.source[:300]}: {miss}"
    tests = tuple(f"bool({check.text})" for check in checks)
    verdict = sandbox.run(Job(code=plan.setup, calls=tests, values=run.values))
    if verdict.outcome is not Outcome.PASSED:
        return verdict.outcome, f"while its results were checked: {verdict.detail}"
    for check, is_true in zip(checks, verdict.values, strict=True):
        if is_true is not True:
            return Outcome.WRONG, f"{check.source[:300]}: does not hold"
    return Outcome.PASSED, ""
