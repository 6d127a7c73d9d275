"""Who edits: a model behind an endpoint, or a program that knows a task.

Each takes examples and one operation and gives an answer each, raw; `teacher` judges the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pellucid.config_curate import EditorConfig
from pellucid.curate import prompts
from pellucid.curate.example import CuratedExample
from pellucid.endpoint import Answer, Ask, ChatEndpoint
from pellucid.errors import ConfigError
from pellucid.rewards.extract import extract_answer
from pellucid.runlog import Progress
from pellucid.tasks import bilingual
from pellucid.tasks.lookup import lookup


class Operation(StrEnum):
    """What a teacher does to an example, in the order of a stage."""

    REWRITE = "rewrite"
    TRANSLATE = "translate"
    SUMMARISE = "summarise"


class Editor(Protocol):
    """Answers one operation on many examples; the i-th answer belongs to the i-th example."""

    def edit(self, operation: Operation, examples: Sequence[CuratedExample]) -> list[Answer]: ...


class ModelEditor:
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(
        self,
        endpoint: ChatEndpoint,
        *,
        progress: Progress,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.endpoint = endpoint
        self.progress = progress
        self.should_stop = should_stop

    def edit(self, operation: Operation, examples: Sequence[CuratedExample]) -> list[Answer]:
        """Raises EndpointError and Interrupted as `ChatEndpoint.ask_all` does."""
        asks = [
            Ask(
                id=f"{example.id} {operation}",
                messages=({"role": "user", "content": prompt_of(operation, example)},),
            )
            for example in examples
        ]
        with self.progress.task(f"teacher: {operation}", len(asks), "answers") as tick:
            return self.endpoint.ask_all(asks, progress=tick, should_stop=self.should_stop)


def prompt_of(operation: Operation, example: CuratedExample) -> str:
    """What the model is asked."""
    question, thinking = example.problem.question, example.thinking
    if operation is Operation.REWRITE:
        return prompts.REWRITE.format(question=question, thinking=thinking)
    if operation is Operation.TRANSLATE:
        return prompts.TRANSLATE.format(question=question, thinking=thinking)
    is_code = example.grader == "code"
    return prompts.SUMMARISE.format(
        question=question,
        thinking=thinking,
        answer=example.summary if is_code else extract_answer(example.response) or example.summary,
        code=prompts.CODE if is_code else "",
    )


class BilingualEditor:
    """Translates and summarises the answers of `pellucid.tasks.bilingual` by its own phrases."""

    def edit(self, operation: Operation, examples: Sequence[CuratedExample]) -> list[Answer]:
        """Raises ConfigError for what it cannot do, and for examples of another task."""
        return [Answer(text=self._edit(operation, example)) for example in examples]

    def _edit(self, operation: Operation, example: CuratedExample) -> str:
        if not example.id.startswith("bilingual/"):
            raise ConfigError(
                f"the teacher 'bilingual' knows its own task alone, not {example.id}: give tasks "
                "of bilingual, or teacher.endpoint"
            )
        if operation is Operation.TRANSLATE:
            return bilingual.translate(example.thinking, example.language)
        if operation is Operation.SUMMARISE:
            answer = extract_answer(example.response) or example.summary
            return bilingual.summarise(example.problem, answer)
        raise ConfigError("the teacher 'bilingual' cannot rewrite: set teacher.rewrite to false")


PROGRAMS: dict[str, Callable[[], Editor]] = {"bilingual": BilingualEditor}


@contextmanager
def open_editor(
    config: EditorConfig,
    record: Path,
    *,
    progress: Progress,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Editor]:
    """The teacher that a recipe names; a model's answers are kept in `record`.

    Raises ConfigError on an unknown name, or where the key's variable is not set.
    """
    if config.endpoint is None:
        yield lookup(PROGRAMS, config.name or "", "teacher", ConfigError)()
        return
    with ChatEndpoint(config.endpoint, record) as endpoint:
        yield ModelEditor(endpoint, progress=progress, should_stop=should_stop)
