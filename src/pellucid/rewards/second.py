"""The second grader: math-verify, behind guards against what it is known to get wrong.

Runs only inside a worker process: its parser can hang, and its own time limit fails off the main
thread.
"""

from __future__ import annotations

import logging

from pellucid.records import Verdict
from pellucid.rewards.math import Opinion


def math_verify_opinion(gold: str, answer: str) -> Opinion:
    """Whether math-verify finds the two equal. Raises ImportError where it is not installed."""
    from math_verify import parse, verify

    _be_quiet()
    golds = parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    answers = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    if not golds:
        return Opinion(verdict=Verdict.ERROR, detail="cannot parse the gold")
    if not answers:
        return Opinion(verdict=Verdict.WRONG, detail="cannot parse the answer")
    try:
        is_equal = verify(
            golds, answers, float_rounding=12, timeout_seconds=None, raise_on_error=True
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  sympy raises anything on odd input, the same each time
        return Opinion(verdict=Verdict.WRONG, detail=f"not comparable: {type(error).__name__}")
    return Opinion(
        verdict=Verdict.CORRECT if is_equal else Verdict.WRONG,
        detail="equal" if is_equal else "different",
    )


def can_parse(gold: str) -> bool:
    """Whether math-verify reads the gold as mathematics. For trusted data: it has no time limit."""
    from math_verify import parse

    _be_quiet()
    return any(
        not isinstance(form, str) for form in parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    )


def _be_quiet() -> None:
    """math-verify warns that its own time limit is off; the pool has one."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)
