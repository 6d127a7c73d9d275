"""Answers without tags, told apart: a model that no reward asks for tags thinks in the open.

    To determine how much … 13 - 4 = 9 …         thinking: all before the conclusion

    Therefore, she makes \\boxed{18} dollars.     summary: the paragraph with the final box

Nothing is written anew; not a word is lost but the space between the two parts.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pellucid.curate.candidate import Candidate
from pellucid.curate.reply import Reply, has_tags, write_reply
from pellucid.rewards.extract import last_box_start
from pellucid.rewards.language import language_share
from pellucid.tasks.templates import Template

_GAP = re.compile(r"\n[ \t]*\n\s*")
_LEADS_ON = (":", "\uff1a", "\\[", "$$")
"""Ends of a paragraph that the next one finishes. U+FF1A is the colon of Chinese text."""


class ToldApart(NamedTuple):
    """Candidates in their order, some rewritten."""

    candidates: list[Candidate]
    rewritten: frozenset[str]
    """Ids of those whose response is no longer the sampled text."""


def split_untagged(response: str) -> Reply | None:
    """Thinking and summary of a response without tags; None where it has some, where no box says
    which paragraph concludes, or where nothing stands before that.
    """
    text = response.strip()
    box = None if has_tags(text) else last_box_start(text)
    if box is None:
        return None
    starts = [0, *(gap.end() for gap in _GAP.finditer(text))]
    index = bisect_right(starts, box) - 1
    while index and text[: starts[index]].rstrip().endswith(_LEADS_ON):
        index -= 1
    reply = Reply(text[: starts[index]].strip(), text[starts[index] :].strip())
    return reply if reply.thinking else None


def tell_apart(candidates: Sequence[Candidate], source: Template) -> ToldApart:
    """Candidates whose untagged responses stand in the form that the template asked for."""
    made, rewritten = [], set()
    for candidate in candidates:
        reply = split_untagged(candidate.response)
        if reply is not None:
            share = language_share(reply.thinking, candidate.problem.language)
            response = write_reply(reply, source)
            candidate = replace(candidate, response=response, language_share=share)
            rewritten.add(candidate.id)
        made.append(candidate)
    return ToldApart(made, frozenset(rewritten))
