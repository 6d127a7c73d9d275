"""Problems of reasoning-gym, scored by the package itself.

Gold: `{"dataset": name, "seed": s, "index": i, "answer": text}`. The entry is generated again, so
that its scorer sees what it made and not a copy that went through JSON.
"""

from __future__ import annotations

import importlib.util
import json
from typing import NamedTuple

from pellucid.errors import DataError
from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.extract import extract_answer
from pellucid.rewards.simple import verdict_of
from pellucid.tasks.gym import make_dataset, make_entry

METHOD = "reasoning-gym"
MAX_CHARS = 4000
"""Longer answers are wrong unread."""


class Entry(NamedTuple):
    """What the gold says."""

    dataset: str
    seed: int
    index: int
    answer: str | None


def read_entry(gold: str) -> Entry:
    """Raises ValueError where the gold is not of the form above."""
    try:
        entry = Entry(**json.loads(gold))
    except (ValueError, TypeError) as error:
        raise ValueError('gold must be JSON {"dataset", "seed", "index", "answer"}') from error
    if not isinstance(entry.dataset, str) or not all(
        type(n) is int and n >= 0 for n in (entry.seed, entry.index)
    ):
        raise ValueError("dataset of the gold must be a name, seed and index whole numbers")
    return entry


def why_unusable(gold: str) -> str | None:
    """Why the package cannot score against a gold; None where it can."""
    if importlib.util.find_spec("reasoning_gym") is None:
        return "reasoning-gym is missing: install pellucid[reasoning-gym]"
    try:
        entry = read_entry(gold)
        made = make_entry(entry.dataset, entry.seed, entry.index)
    except (ValueError, DataError) as error:
        return str(error)
    if made["answer"] != entry.answer:
        return "another version of reasoning-gym made this problem"
    return None


def grade_gym(problem: Problem, response: str) -> Score:
    """Correct where the package's scorer gives full marks; partial ones are in the detail."""
    answer = extract_answer(response)
    if answer is None:
        return Score(verdict=Verdict.UNPARSABLE, method=METHOD)
    if len(answer) > MAX_CHARS:
        detail = f"longer than {MAX_CHARS} characters"
        return Score(verdict=Verdict.WRONG, extracted=answer, method=METHOD, detail=detail)

    if (why := why_unusable(problem.gold)) is not None:
        return Score(verdict=Verdict.ERROR, extracted=answer, method=METHOD, detail=why)
    gold = read_entry(problem.gold)
    scorer = make_dataset(gold.dataset, gold.seed)
    entry = make_entry(gold.dataset, gold.seed, gold.index)
    try:
        value = float(scorer.score_answer(answer, entry))
    except Exception as error:  # noqa: BLE001 - foreign code on a model's text: any type comes
        return Score(
            verdict=Verdict.WRONG,
            extracted=answer,
            method=METHOD,
            detail=f"its scorer raised {type(error).__name__}",
        )
    return Score(
        verdict=verdict_of(value >= 1.0),
        extracted=answer,
        method=METHOD,
        detail="" if value in (0.0, 1.0) else f"scored {value:g}",
    )
