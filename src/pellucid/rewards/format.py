"""Format rewards: is the reasoning inside `<think>…</think>`, and does an answer follow?

Paper (Methods, rule-based rewards): the format reward asks for thinking enclosed in the tags.
Where a template prefills `<think>`, the caller passes prefill + completion.
"""

from __future__ import annotations

import re

from pellucid.rewards.extract import THINK_CLOSE, THINK_OPEN

_TAGS = ("<answer>", "</answer>")
_STRICT_TAIL = re.compile(r"\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_HAS_WORD = re.compile(r"\w")


def format_reward(response: str) -> float:
    """1.0 where one non-empty `<think>…</think>` and then a non-empty answer come, else 0.0."""
    return float(_answer_part(response) is not None)


def format_strict_reward(response: str) -> float:
    """1.0 where the answer, besides, is one non-empty `<answer>…</answer>` and nothing follows."""
    tail = _answer_part(response)
    if tail is None or any(tail.count(tag) != 1 for tag in _TAGS):
        return 0.0
    match = _STRICT_TAIL.fullmatch(tail)
    return float(match is not None and _HAS_WORD.search(match[1]) is not None)


def _answer_part(response: str) -> str | None:
    """What follows the thinking, or None where the shape is broken or a part is empty."""
    text = response.lstrip()
    if not text.startswith(THINK_OPEN):
        return None
    if text.count(THINK_OPEN) != 1 or text.count(THINK_CLOSE) != 1:
        return None
    thinking, _, tail = text[len(THINK_OPEN) :].partition(THINK_CLOSE)
    if any(tag in thinking for tag in _TAGS):
        return None
    return tail if _HAS_WORD.search(thinking) and _HAS_WORD.search(tail) else None
