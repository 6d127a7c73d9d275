"""Finds the answer in a response: pure text work, the same for training and for evaluation.

A response is what the model was shown to have begun plus what it wrote: where a template prefills
`<think>`, the caller passes prefill + completion, or an unfinished thought would pass for an
answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)


class Parts(NamedTuple):
    """A response cut at the end of its thinking."""

    thinking: str | None
    """Text between the tags, None where there are none."""
    answer: str | None
    """Text after the thinking; None where the thinking never ends."""


def split_thinking(response: str) -> Parts:
    """Cut at the last `</think>`. A `<think>` that is never closed leaves no answer."""
    head, close, tail = response.rpartition(THINK_CLOSE)
    if not close:
        before, opened, after = response.partition(THINK_OPEN)
        return Parts(after, None) if opened else Parts(None, before)
    thinking = head.partition(THINK_OPEN)[2] if THINK_OPEN in head else head
    return Parts(thinking, None if THINK_OPEN in tail else tail)


def extract_answer(response: str) -> str | None:
    """The one answer that counts; None where there is none, or only inside the thinking.

    The last balanced `\\boxed{…}` after the thinking wins, else the last `<answer>…</answer>`. Two
    boxes are never joined, and an answer without box or tags is none.
    """
    text = split_thinking(response).answer
    if text is None:
        return None
    found = last_box(text)
    if found is None:
        tagged = _ANSWER.findall(text)
        found = tagged[-1] if tagged else ""
    return found.strip() or None


def last_box(text: str) -> str | None:
    """Content of the last outermost balanced box, inner boxes unwrapped; None without one."""
    found, at = None, 0
    while match := _BOX.search(text, at):
        end = closing_brace(text, match.end())
        if end is None:
            at = match.end()
            continue
        found, at = text[match.end() : end], end + 1
    return None if found is None else _unwrap(found)


def closing_brace(text: str, start: int) -> int | None:
    """Index of the brace closing the one opened just before `start`; escaped braces not counted."""
    depth, at = 1, start
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 2
            continue
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return None


def _unwrap(text: str) -> str:
    while match := _BOX.search(text):
        end = closing_brace(text, match.end())
        if end is None:
            return text
        text = text[: match.start()] + text[match.end() : end] + text[end + 1 :]
    return text
