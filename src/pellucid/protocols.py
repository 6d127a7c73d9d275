"""The seams: what one layer asks of another, so that either side can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pellucid.records import Completion, Problem, Request, SamplingParams, Score

ProgressFn = Callable[[int, int], None]
"""Called with (samples finished, samples asked for) as work goes on."""
GroupFn = Callable[[int, list[Completion]], None]
"""Called with the index of a request and its completions as soon as all of them have ended: once a
request, in any order, on the thread that generates.
"""


class Engine(Protocol):
    """Prompts in, completions out. The in-process engine samples from the weights being trained."""

    def generate(
        self,
        requests: Sequence[Request],
        params: SamplingParams,
        *,
        seed: int,
        progress: ProgressFn | None = None,
        on_group: GroupFn | None = None,
    ) -> list[list[Completion]]:
        """Completions in the order of `requests`, and of the `sample_ids` within each.

        `on_group` has been called for every request with samples when this returns; what it
        raises ends the call.
        """
        ...


class Tokenizer(Protocol):
    """Text to token ids and back (see `pellucid.model.tokenizer`)."""

    eos_ids: tuple[int, ...]
    """Every token that ends a turn."""
    chat_template: str | None

    def encode(self, text: str) -> list[int]:
        """Token ids, none added; special tokens written in the text are recognised."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        ...

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """`decode` of each row, faster."""
        ...

    def chat(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Messages (`role`, `content`) rendered with `chat_template`, which must be set."""
        ...


class Grader(Protocol):
    """Grades many responses at once; the i-th score belongs to the i-th response."""

    def grade(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]: ...


class PendingGrades(Protocol):
    """Grades on their way. A `concurrent.futures.Future` is one."""

    def result(self) -> list[Score]:
        """Waits for the scores, in the order of the responses."""
        ...


class StreamGrader(Grader, Protocol):
    """A grader that works while its caller goes on."""

    def submit(self, problems: Sequence[Problem], responses: Sequence[str]) -> PendingGrades:
        """Starts grading; the same scores as from `grade`, whatever was submitted before. May wait
        where too much is under way.
        """
        ...


class ResponseScorer(Protocol):
    """A model that rates responses: the reward terms `helpful` and `safety`."""

    def score(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[float]:
        """A finite number each, higher is better; `responses[i]` answers `problems[i]`."""
        ...
