"""Sequences: numbers or words in a stated order, with commas between."""

from __future__ import annotations

import re

from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.extract import extract_answer
from pellucid.rewards.simple import verdict_of

METHOD = "sequence"
MAX_CHARS = 2000
"""Longer answers are wrong unread."""
_FONT = re.compile(r"\\(?:text|math)(?:bf|it|rm|tt|sf)?\s*\{([^{}]*)\}")
_TYPESETTING = re.compile(r"\\(?:left|right)(?![a-z])|\\[,;:! ]|[$~]")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_PARTS = re.compile(r"\s*(?:[,;]\s*(?:and\b)?|\band\b)\s*")
_ITEM = re.compile(r"[^\W_][\w'.+-]*(?: [\w'.+-]+)*|[+-]\d[\d.]*")


def grade_sequence(problem: Problem, response: str) -> Score:
    """Correct where all items are there, in this order, and none besides. Case does not count."""
    answer = extract_answer(response)
    if answer is None:
        return Score(verdict=Verdict.UNPARSABLE, method=METHOD)
    try:
        gold = read_sequence(problem.gold)
    except ValueError as error:
        return Score(verdict=Verdict.ERROR, extracted=answer, method=METHOD, detail=str(error))
    try:
        is_equal = read_sequence(answer) == gold
    except ValueError as error:
        detail = str(error)
        return Score(verdict=Verdict.WRONG, extracted=answer, method=METHOD, detail=detail)
    return Score(verdict=verdict_of(is_equal), extracted=answer, method=METHOD)


def read_sequence(text: str) -> tuple[str, ...]:
    """The items, in lower case. Raises ValueError where there is something else."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"longer than {MAX_CHARS} characters")
    text = _TYPESETTING.sub(" ", _FONT.sub(r"\1", text)).replace("−", "-")
    text = text.strip().removesuffix(".").strip()
    while text and _BRACKETS.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    items = [item.strip(" \"'`") for item in _PARTS.split(text)]
    for item in items:
        if not _ITEM.fullmatch(item):
            raise ValueError(f"{item[:80]!r} is no item of a sequence")
    return tuple(item.casefold() for item in items)
