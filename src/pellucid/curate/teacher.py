"""A teacher edits thinking and summary; what it spoils is dropped and counted.

    examples ── rewrite ── translate ── summarise ── text filters ── graded again ──► edited
                     each: Editor.edit, then: is it sound?

The final answer stays the sampled one: an answer that stood in the thinking must still stand there,
and a new summary must give the same and be right. Left out: who edits (`editors`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from pellucid.config_curate import EditorConfig, FilterConfig
from pellucid.curate.candidate import Candidate, DropReason
from pellucid.curate.editors import Editor, Operation
from pellucid.curate.example import CuratedExample
from pellucid.curate.filters import TEXT_FILTERS, FilterCounts, reasons_against
from pellucid.curate.reply import Reply, has_tags
from pellucid.endpoint import Answer
from pellucid.protocols import Grader
from pellucid.records import Score, StopReason, Verdict
from pellucid.rewards.extract import THINK_CLOSE, extract_answer
from pellucid.rewards.language import language_share
from pellucid.rewards.repetition import repetition_share
from pellucid.rewards.retry import grade_with_retry
from pellucid.rewards.table import OPEN
from pellucid.tasks.templates import Template


class Graded(NamedTuple):
    """Examples whose text was changed, graded anew."""

    right: list[CuratedExample]
    num_wrong: int


def edit_all(
    examples: Sequence[CuratedExample],
    editor: Editor,
    config: EditorConfig,
    filters: FilterConfig,
    template: Template,
    grader: Grader,
    counts: FilterCounts,
) -> list[CuratedExample]:
    """The examples as the teacher leaves them, in their order; what it spoils goes into `counts`.

    Raises what the editor raises: EndpointError with all answers so far on disk.
    """
    kept = list(examples)
    for operation in Operation:
        if getattr(config, operation):
            kept = _apply(operation, kept, editor, filters, template, counts)
    kept = _refilter(kept, filters, counts)
    if not filters.correct:
        return kept
    given = {example.id: example for example in examples}
    changed = [example for example in kept if example is not given[example.id]]
    right, num_wrong = regrade(changed, grader)
    counts.drop(DropReason.TEACHER_CHANGED, num_wrong)
    spoilt = {e.id for e in changed} - {e.id for e in right}
    return [example for example in kept if example.id not in spoilt]


def regrade(examples: Sequence[CuratedExample], grader: Grader) -> Graded:
    """Those whose response is right, or cannot be graded at all, as for open problems."""
    problems = [example.problem for example in examples]
    scores, _ = grade_with_retry(grader, problems, [e.response for e in examples])
    right = [
        example
        for example, score in zip(examples, scores, strict=True)
        if score.verdict in (Verdict.CORRECT, Verdict.UNGRADED)
    ]
    return Graded(right, len(examples) - len(right))


def _apply(
    operation: Operation,
    examples: Sequence[CuratedExample],
    editor: Editor,
    filters: FilterConfig,
    template: Template,
    counts: FilterCounts,
) -> list[CuratedExample]:
    """One operation on those that need it."""
    wanted = [example for example in examples if _needs(operation, example, filters)]
    answers = editor.edit(operation, wanted)
    edited: dict[str, CuratedExample | DropReason] = {
        example.id: _edited(operation, example, answer, filters, template)
        for example, answer in zip(wanted, answers, strict=True)
    }
    kept = []
    for example in examples:
        outcome = edited.get(example.id, example)
        if isinstance(outcome, DropReason):
            counts.drop(outcome)
        else:
            kept.append(outcome)
    return kept


def _needs(operation: Operation, example: CuratedExample, filters: FilterConfig) -> bool:
    if operation is Operation.SUMMARISE:
        return example.grader != OPEN  # there the answer itself is the prose
    if operation is Operation.TRANSLATE:
        share = language_share(example.thinking, example.language)
        return bool(example.thinking) and share < filters.min_language_share
    return bool(example.thinking)


def _edited(
    operation: Operation,
    example: CuratedExample,
    answer: Answer,
    filters: FilterConfig,
    template: Template,
) -> CuratedExample | DropReason:
    """The example with the teacher's text in its place, or why it cannot stand there."""
    if answer.text is None:
        return DropReason.TEACHER_FAILED
    # A teacher that reasons shows its own thinking first.
    text = answer.text.rpartition(THINK_CLOSE)[2].strip()
    if not text:
        return DropReason.TEACHER_EMPTY
    if answer.is_cut or has_tags(text) or repetition_share(text) > filters.max_repetition:
        return DropReason.TEACHER_NONSENSE
    final = extract_answer(example.response)
    if operation is Operation.SUMMARISE:
        edited = example.with_reply(Reply(example.thinking, text), template)
        is_same = example.grader == "code" or extract_answer(edited.response) is not None
        return edited if is_same else DropReason.TEACHER_CHANGED
    if final is not None and _says(example.thinking, final) and not _says(text, final):
        return DropReason.TEACHER_CHANGED
    return example.with_reply(Reply(text, example.summary), template)


def _says(text: str, answer: str) -> bool:
    """Whether an answer stands in a text, not as a part of a longer number or word."""
    pattern = rf"(?<!\w)(?<!\d[.,]){re.escape(answer)}(?!\w)(?![.,]\d)"
    return re.search(pattern, text) is not None


def _refilter(
    examples: Sequence[CuratedExample], filters: FilterConfig, counts: FilterCounts
) -> list[CuratedExample]:
    """The filters of text once more: a teacher may mend what they drop, and may break it."""
    kept = []
    for example in examples:
        reasons = reasons_against(_as_candidate(example), filters, TEXT_FILTERS)
        if reasons:
            counts.drop(reasons[0])
        else:
            kept.append(example)
    return kept


def _as_candidate(example: CuratedExample) -> Candidate:
    """What the filters of text look at."""
    return Candidate(
        problem=example.problem,
        index=0,
        token_ids=(),
        stop=StopReason.EOS,
        response=example.response,
        score=Score(verdict=Verdict.UNGRADED),
        language_share=language_share(example.thinking, example.language),
    )
