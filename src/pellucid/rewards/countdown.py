"""Countdown: reach a target with each given number used exactly once.

Gold: `{"numbers": […], "target": n}`.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.extract import extract_answer
from pellucid.rewards.latex import tidy

MAX_CHARS = 400
"""Longer expressions are wrong unread: a handful of numbers needs no more."""
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "{": "(", "}": ")"})


class Puzzle(NamedTuple):
    """What the gold says."""

    numbers: tuple[int, ...]
    target: int


def read_puzzle(gold: str) -> Puzzle:
    """Raises ValueError where the gold is not of the form above."""
    try:
        fields = json.loads(gold)
        numbers, target = tuple(fields["numbers"]), fields["target"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError('gold must be JSON {"numbers": [...], "target": n}') from error
    if not numbers or not all(type(n) is int for n in (*numbers, target)):
        raise ValueError("numbers and target of the gold must be integers")
    return Puzzle(numbers, target)


def grade_countdown(problem: Problem, response: str) -> Score:
    """Correct where the expression uses every number once and equals the target exactly."""
    answer = extract_answer(response)
    if answer is None:
        return Score(verdict=Verdict.UNPARSABLE, method="countdown")
    try:
        puzzle = read_puzzle(problem.gold)
    except ValueError as error:
        return Score(verdict=Verdict.ERROR, extracted=answer, method="countdown", detail=str(error))
    fault = find_fault(answer, puzzle)
    return Score(
        verdict=Verdict.WRONG if fault else Verdict.CORRECT,
        extracted=answer,
        method="countdown",
        detail=fault,
    )


def find_fault(expression: str, puzzle: Puzzle) -> str:
    """Why the expression does not solve the puzzle; empty where it does."""
    if len(expression) > MAX_CHARS:
        return "expression too long"
    left, equals, right = plain_operators(expression).partition("=")
    if equals and right.strip() != str(puzzle.target):
        return "states another target"
    used: Counter[int] = Counter()
    try:
        value = _value(ast.parse(left.strip(), mode="eval").body, used)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "not an arithmetic expression"
    except ZeroDivisionError:
        return "divides by zero"
    if used != Counter(puzzle.numbers):
        return "does not use each number exactly once"
    return "" if value == puzzle.target else f"equals {value}"


def plain_operators(text: str) -> str:
    for command in (r"\times", r"\cdot"):
        text = text.replace(command, "*")
    return tidy(text.replace(r"\div", "/")).translate(_SIGNS)


def _value(node: ast.expr, used: Counter[int]) -> Fraction:
    """Exact value of + - * / over integers; raises ValueError on anything else."""
    match node:
        case ast.Constant(value=int(number)) if type(number) is int:
            used[number] += 1
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, used)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, used), _value(right, used)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div():
                    return a / b
    raise ValueError("only + - * / and integers")
