"""Programs: the last code block of an answer, judged by its tests in the sandbox.

The gold is JSON: `{"tests": ["assert f(2) == 4"], "setup": "import math"}`; setup may be left out.
"""

from __future__ import annotations

import functools
import json
import re

from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.extract import split_thinking
from pellucid.sandbox import Judgement, Outcome, Plan, Sandbox, judge, take_apart

METHOD = "sandbox"
MAX_PROGRAM_CHARS = 100_000
"""Longer programs are wrong unread: nobody writes one, and compiling it costs."""
_BLOCK = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:\n[ \t]*)?```", re.DOTALL)
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_PYTHON = ("", "python", "python3", "py")

_VERDICTS = {
    Outcome.PASSED: Verdict.CORRECT,
    Outcome.WRONG: Verdict.WRONG,
    Outcome.TIMEOUT: Verdict.TIMEOUT,
    Outcome.MEMORY: Verdict.WRONG,
    Outcome.OUTPUT_LIMIT: Verdict.WRONG,
    Outcome.ERROR: Verdict.ERROR,
}


def extract_program(response: str) -> str | None:
    """The last Python block after the thinking, else what the answer tags hold; None without."""
    text = split_thinking(response).answer
    if text is None:
        return None
    blocks = [body for language, body in _BLOCK.findall(text) if language.lower() in _PYTHON]
    if blocks:
        return blocks[-1] if blocks[-1].strip() else None
    tagged = _ANSWER.findall(text)
    return tagged[-1].strip("\n") or None if tagged and "```" not in tagged[-1] else None


@functools.lru_cache(maxsize=10_000)
def read_tests(gold: str) -> Plan:
    """The gold's tests, taken apart. Raises ValueError where it is none."""
    try:
        body = json.loads(gold)
    except ValueError as error:
        raise ValueError(f"gold is no JSON: {error}") from error
    tests = body.get("tests") if isinstance(body, dict) else None
    if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
        raise ValueError('gold has no list "tests" of Python statements')
    if not isinstance(setup := body.get("setup", ""), str):
        raise ValueError('"setup" of the gold is no text')
    return take_apart(tuple(tests), setup)


def grade_code_problem(problem: Problem, response: str) -> Score:
    """The table's entry: one response in a sandbox of its own. `GraderPool` keeps one for all.

    Raises SandboxError where this machine cannot isolate programs.
    """
    with Sandbox(num_jails=1) as sandbox:
        return sandbox.submit(grade_program, sandbox, problem, response).result()


def grade_program(sandbox: Sandbox, problem: Problem, response: str) -> Score:
    """The score of one response, on a thread of the sandbox (see `Sandbox.submit`)."""
    program = extract_program(response)
    if program is None:
        return Score(verdict=Verdict.UNPARSABLE, method=METHOD)
    if len(program) > MAX_PROGRAM_CHARS:
        detail = f"longer than {MAX_PROGRAM_CHARS} characters"
        return Score(verdict=Verdict.WRONG, method=METHOD, detail=detail)
    try:
        plan = read_tests(problem.gold)
    except ValueError as error:
        return Score(verdict=Verdict.ERROR, method=METHOD, detail=str(error))
    return _score(program, judge(sandbox, program, plan), unsafe=sandbox.unsafe)


def _score(program: str, judgement: Judgement, *, unsafe: bool) -> Score:
    detail = judgement.detail
    if judgement.outcome is not Outcome.PASSED:
        detail = f"{judgement.outcome}: {detail}"
    if unsafe:
        detail = f"without isolation; {detail}".removesuffix("; ")
    return Score(
        verdict=_VERDICTS[judgement.outcome], extracted=program, method=METHOD, detail=detail
    )
