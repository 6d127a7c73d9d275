"""Knobs of curated data: filters, selection, teacher, review, general data. No torch, no I/O.

Parts of the stages `cold-start` and `reject` (see `pellucid.config_stages`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pellucid.config import Fraction, NonNegative, PositiveInt, Section

SelectRule = Literal["shortest", "longest", "first", "random", "all"]


class FilterConfig(Section):
    """What a sample must be to be learnt from (paper, B.3.2 and B.3.3). Applied in this order;
    samples cut by their token limit and exact duplicates are dropped in any case.
    """

    correct: bool = True
    """Keep only what the grader calls correct; open problems, which have no gold, pass."""
    format: bool = True
    """Thinking closed once and an answer behind it, neither empty."""
    max_repetition: Fraction = 0.2
    """Largest share of 6-grams that occurred before. 1: off."""
    min_language_share: Fraction = 0.95
    """Least share of words of the thinking in the problem's language. 0: off."""
    max_paragraph_chars: int = Field(default=0, ge=0)
    """Longest paragraph of the thinking. 0: off."""
    allow_code_blocks: bool = True
    """False: thinking with a fenced code block is dropped."""


class RejectFilterConfig(FilterConfig):
    """Also against long paragraphs and code in the thinking (paper, B.3.3)."""

    max_paragraph_chars: int = Field(default=2000, ge=0)
    """The paper gives no number."""
    allow_code_blocks: bool = False


class TeacherConfig(Section):
    """A model behind an OpenAI-compatible endpoint that edits or judges text. Never needed."""

    base_url: str
    """Example: `http://127.0.0.1:8000/v1`."""
    model: str
    key_env: str | None = None
    """Environment variable that holds the key; the key itself never enters a recipe."""
    temperature: NonNegative = 0.0
    max_tokens: PositiveInt = 2048
    timeout_s: float = Field(default=120.0, gt=0.0)
    """For one answer, from the request to its last byte."""
    retries: int = Field(default=4, ge=0)
    """Attempts after the first, each after a longer wait."""
    concurrency: PositiveInt = 8
    """Requests under way at once."""
    on_failure: Literal["stop", "drop"] = "stop"
    """A request that failed for good: stop, to ask again on the next run, or leave its item out."""

    @field_validator("base_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")


class EditorConfig(Section):
    """A teacher that edits samples (paper, B.3.2), in the order given here: a program or a model.

    Example: `teacher = { summarise = true, endpoint = { base_url = "…/v1", model = "…" } }`
    """

    name: str | None = None
    """A teacher that is a program and needs no network: `bilingual`."""
    endpoint: TeacherConfig | None = None
    """A teacher that is a model."""
    rewrite: bool = False
    """Rewrite the thinking as natural first-person thought."""
    translate: bool = False
    """Translate thinking of which less than `filters.min_language_share` is in the question's
    language; that filter then waits for the translation.
    """
    summarise: bool = False
    """Write the summary behind the thinking (Listing 1)."""

    @model_validator(mode="after")
    def _does_something(self) -> EditorConfig:
        if (self.name is None) == (self.endpoint is None):
            raise ValueError("give either name, a program, or endpoint, a model")
        if not (self.rewrite or self.translate or self.summarise):
            raise ValueError("set rewrite, translate or summarise to true, or leave teacher out")
        return self


class GeneralDataConfig(Section):
    """Non-reasoning data learnt along with the samples (paper, B.3.3: 200k of 800k)."""

    sources: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    """Each `embedded`, `dolly-1k`, `self-instruct`, `instruction-1100`, or a file of JSON lines
    with `prompt` or `messages`, and `response`.
    """
    share: float = Field(default=0.25, gt=0.0, lt=1.0)
    """Largest share of all examples."""


class ReviewConfig(Section):
    """A person reads, edits and strikes out samples in `review.md` before they are learnt.

    `review = "wait"` is short for `{ mode = "wait" }`.
    """

    mode: Literal["none", "optional", "wait"] = "none"
    """wait: the stage stops once the file is written, and goes on when run again. optional: it
    is written and read, and nobody waited for.
    """
    limit: PositiveInt = 200
    """Samples put before a person; the others go on unread."""

    @model_validator(mode="before")
    @classmethod
    def _shortcut(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value
