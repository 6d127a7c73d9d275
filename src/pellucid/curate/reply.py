"""An answer in its two parts, thinking and summary, and the forms in which a template writes them.

tagged   <think> … </think> <answer> 18 </answer>       the R1-Zero templates
chat     <think>\\n…\\n</think>\\n\\nEach … is \\boxed{18}.    all others, from the cold start on
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pellucid.rewards.extract import THINK_CLOSE, THINK_OPEN, last_box, split_thinking
from pellucid.tasks.templates import FREE_FORM, Template

_ANSWER_CLOSE = "</answer>"
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")


class Reply(NamedTuple):
    """What the assistant says.

    Example: Reply("20 - 2 is 18.", "She makes \\\\boxed{18} dollars.")
    """

    thinking: str
    """Without tags and surrounding space; empty where it did not think."""
    summary: str
    """What a reader is shown. It holds the final answer."""


def read_reply(response: str) -> Reply | None:
    """The parts of a response in either form; None where the thinking is open or no summary is.

    Of the tagged form the summary is what the last answer tags hold, or all behind the thinking
    where there are none.
    """
    parts = split_thinking(response)
    if parts.answer is None:
        return None
    tagged = _ANSWER.findall(parts.answer)
    summary = (tagged[-1] if tagged else parts.answer).strip()
    return Reply((parts.thinking or "").strip(), summary) if summary else None


def write_reply(reply: Reply, template: Template) -> str:
    """The response, as graders see it, in the form that a template asks for.

    A reply without thinking keeps an empty pair of tags only where the template opens them.
    """
    if is_tagged(template):
        # The prompt of these templates ends in "Assistant:", without a space.
        start = "" if template.prefill else " "
        body = f" {reply.thinking} {THINK_CLOSE} <answer> {reply.summary} </answer>"
        return f"{start}{THINK_OPEN}{body}"
    if not reply.thinking and not template.prefill:
        return reply.summary
    return f"{THINK_OPEN}\n{reply.thinking}\n{THINK_CLOSE}\n\n{reply.summary}"


def convert(response: str, source: Template, target: Template, *, grader: str) -> str | None:
    """A response under one template as another one writes it; None where its parts are not there.

    Where both ask for the same form, not a character changes. A bare answer that leaves its tags
    is put where its grader looks for it then: a line into a box, a program into a code block.
    """
    if is_tagged(source) == is_tagged(target) and response.startswith(target.prefill):
        return response
    reply = read_reply(response)
    if reply is None:
        return None
    if is_tagged(source) and not is_tagged(target):
        reply = reply._replace(summary=_findable(reply.summary, grader))
    return write_reply(reply, target)


def is_tagged(template: Template) -> bool:
    """Whether answers stand in answer tags under it."""
    return _ANSWER_CLOSE in template.stop


def has_tags(text: str) -> bool:
    """Whether a text holds tags that would break the form of a response."""
    return _TAG.search(text) is not None


def _findable(summary: str, grader: str) -> str:
    """A summary in which the grader finds the answer without tags."""
    if "```" in summary or last_box(summary) is not None:
        return summary
    if grader == "code":
        return f"```python\n{summary}\n```"
    if grader in FREE_FORM:
        return summary
    return summary if "\n" in summary else f"\\boxed{{{summary}}}"
