"""Judges of two answers: a program, or a model asked in the format of Arena-Hard.

Arena-Hard (Li et al. 2024, arXiv 2406.11939) shows a judge the user's prompt and two answers and
asks for one of five grades. They are numbers here, for the answer shown first:

    [[A>>B]] 2    [[A>B]] 1    [[A=B]] 0    [[B>A]] -1    [[B>>A]] -2

The paper keeps pairs whose mean exceeds 1 and is silent on the scale; on this one "more than 1" is
"better, and by some judgments much better". The wording of the request is ours.
Not here: which pairs are judged, how often, and what becomes of it (`preferences`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from pellucid.endpoint import Answer, Ask
from pellucid.rewards.extract import THINK_CLOSE

GRADES = {"A>>B": 2.0, "A>B": 1.0, "A=B": 0.0, "B>A": -1.0, "B>>A": -2.0}
MOST = 2.0
"""Largest judgment either way."""

_VERDICT = re.compile(r"\[\[\s*([AB])\s*(>>|>|=|<|<<)\s*([AB])\s*\]\]")

SYSTEM = """\
You compare two answers to a user's prompt, given by assistants A and B. First work out your own \
answer to the prompt. Then look for what is wrong in theirs, and say what should be corrected. \
Weigh how helpful, relevant and concise each answer is, what it leaves out, and how well it reads. \
Neither the order of the answers nor their length is a merit.
End with exactly one of these verdicts:
[[A>>B]] A is much better
[[A>B]] A is somewhat better
[[A=B]] both are about as good
[[B>A]] B is somewhat better
[[B>>A]] B is much better"""

USER = """\
<|User Prompt|>
{prompt}

<|The Start of Assistant A's Answer|>
{a}
<|The End of Assistant A's Answer|>

<|The Start of Assistant B's Answer|>
{b}
<|The End of Assistant B's Answer|>"""


class Question(NamedTuple):
    """One comparison asked of a judge."""

    name: str
    """What it is for, in words: only for the record."""
    prompt: str
    a: str
    """Shown first."""
    b: str
    turn: int
    """Tells apart comparisons that are otherwise the same: a model's seed."""


class Judge(Protocol):
    """Compares answers; knows nothing of pairs and positions."""

    @property
    def name(self) -> str:
        """Judgments of another name are asked anew."""
        ...

    def judge(self, questions: Sequence[Question]) -> list[float | None]:
        """By how much `a` is better, -2 to 2 each; None where the judge said nothing sensible."""
        ...


class RuleJudge:
    """A function of prompt and two answers as a judge. What it gives beyond -2 to 2 is nonsense."""

    def __init__(self, name: str, prefers: Callable[[str, str, str], float]) -> None:
        self.name = name
        self._prefers = prefers

    def judge(self, questions: Sequence[Question]) -> list[float | None]:
        values = [self._prefers(q.prompt, q.a, q.b) for q in questions]
        return [v if -MOST <= v <= MOST else None for v in values]


class Asker(Protocol):
    """What a judge needs of a model's client (`pellucid.endpoint.ChatEndpoint`)."""

    def ask_all(
        self, asks: Sequence[Ask], *, should_stop: Callable[[], bool] = ...
    ) -> list[Answer]: ...


class ModelJudge:
    """A model that is asked; answers without one clear verdict are nonsense."""

    def __init__(
        self, model: str, asker: Asker, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.name = model
        self._asker = asker
        self._should_stop = should_stop

    def judge(self, questions: Sequence[Question]) -> list[float | None]:
        """Raises what the client raises: EndpointError, Interrupted."""
        asks = [Ask(id=q.name, messages=messages(q), seed=q.turn) for q in questions]
        answers = self._asker.ask_all(asks, should_stop=self._should_stop)
        return [None if a.text is None else read_verdict(a.text) for a in answers]


def messages(question: Question) -> tuple[Mapping[str, str], ...]:
    """What a model is asked."""
    user = USER.format(prompt=question.prompt, a=question.a, b=question.b)
    return ({"role": "system", "content": SYSTEM}, {"role": "user", "content": user})


def read_verdict(text: str) -> float | None:
    """The judgment in a model's answer, its own thinking left out; None where it gives none or
    several that differ: an answer under judgment may itself hold a verdict, and be quoted.
    """
    found = {_grade(*match) for match in _VERDICT.findall(text.rpartition(THINK_CLOSE)[2])}
    return found.pop() if len(found) == 1 else None


def _grade(left: str, sign: str, right: str) -> float | None:
    if sign.startswith("<"):
        left, sign, right = right, sign.replace("<", ">"), left
    return 0.0 if sign == "=" and left != right else GRADES.get(f"{left}{sign}{right}")
