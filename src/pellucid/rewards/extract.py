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
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
"""A box opens, an escaped character (whose brace does not count), or a brace."""
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
    boxes = _closed_boxes(text)
    if not boxes:
        return None
    outer = boxes[-1]  # what closes last is inside no other closed box
    inner = [box for box in boxes[:-1] if box.start > outer.start]
    kept, at = [], outer.start
    for cut in sorted([(b.command, b.start) for b in inner] + [(b.end, b.end + 1) for b in inner]):
        kept.append(text[at : cut[0]])
        at = cut[1]
    return "".join(kept) + text[at : outer.end]


def last_box_start(text: str) -> int | None:
    """Where the box of `last_box` begins, its command included; None without one."""
    boxes = _closed_boxes(text)
    return boxes[-1].command if boxes else None


class _Box(NamedTuple):
    """Positions in the text: `command` of the backslash, `start` and `end` of the content."""

    command: int
    start: int
    end: int


def _closed_boxes(text: str) -> list[_Box]:
    """All balanced boxes in the order of their ends. One pass, however many are left open."""
    boxes, stack = [], []
    for match in _BRACES.finditer(text):
        token = match[0]
        if token[-1] == "{" and token != r"\{":
            stack.append(match)
        elif token == "}" and stack:
            opener = stack.pop()
            if len(opener[0]) > 1:
                boxes.append(_Box(opener.start(), opener.end(), match.start()))
    return boxes
