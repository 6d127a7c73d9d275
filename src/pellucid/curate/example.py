"""What the curated set holds: examples.jsonl, written whole, read by fine-tuning and by students.

{"id": "gsm8k/train/7#2", "kind": "reasoning", "prompt": "Janet has …", "thinking": "…",
 "summary": "…", "response": "<think>\\n…", "template": "r1-chat", "token_ids": null, …}
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from pellucid.artifacts import atomic_write_bytes, canonical_json
from pellucid.curate.candidate import Candidate
from pellucid.curate.reply import Reply, convert, read_reply, write_reply
from pellucid.errors import DataError
from pellucid.records import Problem, ProblemKind
from pellucid.tasks.templates import Template

GENERAL = "general"
"""Kind of the examples that were not sampled. Of sampled ones it is the problem's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CuratedExample:
    """One answer to learn, as text and, where it was sampled in this very form, as tokens."""

    id: str
    """`problem#sample`, or `source/row` of general data."""
    kind: str
    """`reasoning`, `helpful`, `safety` or `general`."""
    prompt: str | tuple[Mapping[str, str], ...]
    """The question, or messages (`role`, `content`)."""
    thinking: str
    """Empty where there is none."""
    summary: str
    response: str
    """As graders see it under `template`, its prefill included."""
    template: str
    """Name of the prompt template that the response is learnt behind."""
    token_ids: tuple[int, ...] | None = None
    """As sampled; None where the text was changed or never sampled."""
    language: str = "en"
    gold: str = ""
    """Of sampled ones, as the fields below: what another answer to them is graded by."""
    grader: str = "open"
    family: str = ""
    problem_id: str = ""

    @property
    def problem(self) -> Problem:
        """The problem that was sampled; of general data, one that nothing grades."""
        is_general = self.kind == GENERAL
        return Problem(
            id=self.problem_id or self.id,
            question=self.prompt if isinstance(self.prompt, str) else self.prompt[-1]["content"],
            gold=self.gold,
            grader=self.grader,
            family=self.family,
            language=self.language,
            kind="helpful" if is_general else cast("ProblemKind", self.kind),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON that `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CuratedExample:
        """Reads what `to_dict` wrote. Raises TypeError or KeyError for anything else."""
        ids, prompt = record["token_ids"], record["prompt"]
        return cls(
            **{
                **record,
                "token_ids": None if ids is None else tuple(ids),
                "prompt": prompt if isinstance(prompt, str) else tuple(prompt),
            }
        )

    def with_reply(self, reply: Reply, template: Template) -> CuratedExample:
        """The same question answered by other words; itself where they are the same."""
        if reply == (self.thinking, self.summary):
            return self
        return replace(
            self,
            thinking=reply.thinking,
            summary=reply.summary,
            response=write_reply(reply, template),
            token_ids=None,
        )


class Made(NamedTuple):
    """Examples of candidates, and those that could not be put into the target's form."""

    examples: list[CuratedExample]
    changed: list[Candidate]
    """Their response was rewritten: grade again what stands in `examples` under their id."""
    num_formless: int


def make_examples(
    candidates: Sequence[Candidate],
    source: Template,
    target: Template,
    *,
    rewritten: Collection[str] = (),
) -> Made:
    """Sampled answers in the form of the template that is taught.

    Tokens are kept as sampled where the response is the same, character for character;
    `rewritten`: ids of candidates whose response is not the sampled text any more.
    """
    examples: list[CuratedExample] = []
    changed: list[Candidate] = []
    for candidate in candidates:
        response = convert(candidate.response, source, target, grader=candidate.problem.grader)
        reply = None if response is None else read_reply(response)
        if response is None or reply is None:
            continue
        is_sampled = candidate.id not in rewritten and source.prefill == target.prefill
        is_same = is_sampled and response == candidate.response
        if not is_same:
            changed.append(candidate)
        problem = candidate.problem
        examples.append(
            CuratedExample(
                id=candidate.id,
                kind=problem.kind,
                prompt=problem.question,
                thinking=reply.thinking,
                summary=reply.summary,
                response=response,
                template=target.name,
                token_ids=candidate.token_ids if is_same else None,
                language=problem.language,
                gold=problem.gold,
                grader=problem.grader,
                family=problem.family,
                problem_id=problem.id,
            )
        )
    return Made(examples, changed, len(candidates) - len(examples))


def write_examples(path: Path, examples: Iterable[CuratedExample]) -> str:
    """Writes the set whole or not at all; returns its SHA-256."""
    return atomic_write_bytes(path, b"".join(canonical_json(e.to_dict()) + b"\n" for e in examples))


def read_examples(path: Path) -> list[CuratedExample]:
    """Reads examples.jsonl. Raises DataError naming file and line."""
    examples = []
    try:
        lines = [line for line in path.read_text().split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): run its stage again") from error
    for number, line in enumerate(lines, start=1):
        try:
            examples.append(CuratedExample.from_dict(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} line {number} is no example ({error}): run its stage again"
            ) from error
    if not examples:
        raise DataError(f"{path} holds no example: run its stage again")
    return examples
