"""Graders that compare a short answer without any algebra: integer, exact text, choice letter."""

from __future__ import annotations

import re

from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.extract import extract_answer
from pellucid.rewards.latex import tidy

_INTEGER = re.compile(r"[+-]?\d{1,4000}")
_LETTER_ALONE = re.compile(r"\(?([A-Za-z])\)?\.?")
_LETTER_FIRST = re.compile(r"\(?([A-Z])\s*[).:]\s*\S")
_LETTERS = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z'])")


def verdict_of(is_equal: bool) -> Verdict:
    return Verdict.CORRECT if is_equal else Verdict.WRONG


def grade_integer(problem: Problem, response: str) -> Score:
    """Equal integers; `073` is 73, `5.0` and `10/2` are not integers as written."""
    answer = extract_answer(response)
    if answer is None:
        return Score(verdict=Verdict.UNPARSABLE, method="integer")
    gold, value = read_integer(problem.gold), read_integer(answer)
    if gold is None:
        detail = f"gold {problem.gold!r} is no integer"
        return Score(verdict=Verdict.ERROR, extracted=answer, method="integer", detail=detail)
    return Score(verdict=verdict_of(gold == value), extracted=answer, method="integer")


def read_integer(text: str) -> int | None:
    """The integer that `text` writes, with sign and thousands separators; else None."""
    text = tidy(text).rstrip(".")
    return int(text) if _INTEGER.fullmatch(text) else None


def grade_exact(problem: Problem, response: str) -> Score:
    """Equal text after LaTeX wrappers, case and spacing are taken away."""
    answer = extract_answer(response)
    if answer is None:
        return Score(verdict=Verdict.UNPARSABLE, method="exact")
    is_equal = plain_text(answer) == plain_text(problem.gold)
    return Score(verdict=verdict_of(is_equal), extracted=answer, method="exact")


def plain_text(text: str) -> str:
    return " ".join(tidy(text).casefold().split()).rstrip(".")


def grade_choice(problem: Problem, response: str) -> Score:
    """Equal option letters. `B`, `(B)`, `\\text{B}`, `B. Paris` name B; `A or B` names none."""
    answer = extract_answer(response)
    if answer is None:
        return Score(verdict=Verdict.UNPARSABLE, method="choice")
    gold = read_letter(problem.gold)
    if gold is None:
        detail = f"gold {problem.gold!r} is no letter"
        return Score(verdict=Verdict.ERROR, extracted=answer, method="choice", detail=detail)
    return Score(verdict=verdict_of(read_letter(answer) == gold), extracted=answer, method="choice")


def read_letter(text: str) -> str | None:
    text = tidy(text).strip()
    if match := _LETTER_ALONE.fullmatch(text) or _LETTER_FIRST.match(text):
        return match[1].upper()
    letters = set(_LETTERS.findall(text))
    return letters.pop() if len(letters) == 1 else None
