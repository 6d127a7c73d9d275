"""A sampled answer that may be learnt, and why it was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pellucid.records import Completion, Problem, Score, StopReason, Verdict
from pellucid.rewards.extract import split_thinking
from pellucid.rewards.language import language_share


class DropReason(StrEnum):
    """Why a candidate is not among the examples. Filters come first, in their order."""

    FINISHED = "finished"
    """Cut off by its token limit: it would teach to break off."""
    CORRECT = "correct"
    """The grader says it is wrong, or said nothing."""
    FORMAT = "format"
    """Thinking not closed exactly once, or thinking or answer empty."""
    REPETITION = "repetition"
    LANGUAGE = "language"
    """Words of the thinking in another language than the problem's."""
    PARAGRAPHS = "paragraphs"
    """A paragraph of the thinking is too long to read."""
    CODE = "code"
    """A fenced code block in the thinking."""
    DUPLICATE = "duplicate"
    """The same answer to the same question came before."""
    SELECTION = "selection"
    """Good, but others of its problem were chosen."""
    TEACHER_FAILED = "teacher-failed"
    """The teacher gave no answer to one of its requests."""
    TEACHER_EMPTY = "teacher-empty"
    TEACHER_NONSENSE = "teacher-nonsense"
    """The teacher's text is cut off, holds tags, or repeats itself."""
    TEACHER_CHANGED = "teacher-changed"
    """After the teacher's edits the final answer is another, or no longer right."""
    REWRITTEN = "rewritten"
    """No longer right once put into the form that the model is taught."""
    REVIEW = "review"
    """A person struck it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One graded sample of a problem.

    Example: Candidate(problem=…, index=0, token_ids=(5, 8, 0), response="<think>…", …).id is
    "chain/train/7#0"
    """

    problem: Problem
    index: int
    """Which of the problem's samples it is, from 0."""
    token_ids: tuple[int, ...]
    """As sampled."""
    stop: StopReason
    response: str
    """As graders see it: the template's prefill and the sampled text."""
    score: Score
    language_share: float
    """Share of words of the thinking in the problem's language, 0.0-1.0."""

    @property
    def id(self) -> str:
        """Unique within a stage."""
        return f"{self.problem.id}#{self.index}"

    @property
    def thinking(self) -> str:
        """Between the tags; empty where there are none."""
        return split_thinking(self.response).thinking or ""

    def to_dict(self) -> dict[str, Any]:
        """JSON that `from_dict` reads."""
        return {
            "problem": asdict(self.problem),
            "index": self.index,
            "token_ids": list(self.token_ids),
            "stop": str(self.stop),
            "response": self.response,
            "score": asdict(self.score) | {"verdict": str(self.score.verdict)},
            "language_share": self.language_share,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Candidate:
        """Reads what `to_dict` wrote."""
        score = dict(record["score"])
        return cls(
            problem=Problem(**record["problem"]),
            index=record["index"],
            token_ids=tuple(record["token_ids"]),
            stop=StopReason(record["stop"]),
            response=record["response"],
            score=Score(**score | {"verdict": Verdict(score["verdict"])}),
            language_share=record["language_share"],
        )


def make_candidate(
    problem: Problem, index: int, completion: Completion, response: str, score: Score
) -> Candidate:
    """The candidate of a graded completion. Raises ConfigError on a language without a script."""
    thinking = split_thinking(response).thinking
    return Candidate(
        problem=problem,
        index=index,
        token_ids=completion.token_ids,
        stop=completion.stop,
        response=response,
        score=score,
        language_share=language_share(thinking or "", problem.language),
    )
