"""Whether generated test problems were trained on: the very same question, sign for sign.

Problems of one template are alike by intention, and `11 - 4` and `11 + 4` have the same words, so
shares of common phrases say nothing of them; a scan for near copies (`audit.contamination`) is for
text that people wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pellucid.evaluate.suites import Suite
from pellucid.evidence.core.containment import EQUAL, signs
from pellucid.records import Problem

WHOLE = 1.0
"""Threshold of this scan: the whole question, or nothing of it."""
TOOL = "the same words and signs in the same order, for generated problems"


def scan_generated(suites: Sequence[Suite], training: Sequence[Problem]) -> dict[str, Any]:
    """scan.json of generated suites, tested on copies of their own questions."""
    seen: dict[str, int] = {}
    for row, problem in enumerate(training):
        seen.setdefault(signs(problem.question), row)
    found = {suite.key: {"compared": EQUAL, "items": _items(suite, seen)} for suite in suites}
    questions = [problem.question for suite in suites for problem in suite.problems]
    return {
        "v": 1,
        "tool": TOOL,
        "threshold": WHOLE,
        "suites": found,
        "self_test": {
            "recall": {"verbatim": _recall(questions, str), "case": _recall(questions, str.upper)},
            "false_positives": 0,
            "documents": len(training),
        },
    }


def _items(suite: Suite, seen: dict[str, int]) -> dict[str, Any]:
    items = {}
    for problem in suite.problems:
        row = seen.get(signs(problem.question))
        matches = [] if row is None else [{"source": "training problems", "row": row}]
        items[problem.id] = {"containment": float(row is not None), "matches": matches}
    return items


def _recall(questions: Sequence[str], change: Any) -> float:
    """Share of changed copies that would have been found in training."""
    planted = {signs(change(question)) for question in questions}
    return sum(signs(question) in planted for question in questions) / max(1, len(questions))
