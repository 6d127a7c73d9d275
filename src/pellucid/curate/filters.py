"""Filters by name, in a fixed order, and how many candidates each of them drops.

A filter says why one candidate must not be learnt. They all read every candidate, so that their
counts do not hide each other: `dropped` counts first reasons, `failing` all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pellucid.config_curate import FilterConfig
from pellucid.curate.candidate import Candidate, DropReason
from pellucid.errors import DataError
from pellucid.records import StopReason, Verdict
from pellucid.rewards.format import format_reward
from pellucid.rewards.repetition import repetition_share

_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_FENCE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)

PassesFn = Callable[[Candidate, FilterConfig], bool]


def _is_finished(candidate: Candidate, config: FilterConfig) -> bool:
    return candidate.stop is not StopReason.LENGTH


def _is_correct(candidate: Candidate, config: FilterConfig) -> bool:
    """An open problem has no wrong answers; a grader that failed vouches for nothing."""
    verdict = candidate.score.verdict
    return not config.correct or verdict in (Verdict.CORRECT, Verdict.UNGRADED)


def _has_format(candidate: Candidate, config: FilterConfig) -> bool:
    return not config.format or format_reward(candidate.response) == 1.0


def _is_fresh(candidate: Candidate, config: FilterConfig) -> bool:
    return repetition_share(candidate.response) <= config.max_repetition


def _is_one_language(candidate: Candidate, config: FilterConfig) -> bool:
    return candidate.language_share >= config.min_language_share


def _has_short_paragraphs(candidate: Candidate, config: FilterConfig) -> bool:
    limit = config.max_paragraph_chars
    return not limit or longest_paragraph(candidate.thinking) <= limit


def _has_no_code(candidate: Candidate, config: FilterConfig) -> bool:
    return config.allow_code_blocks or _FENCE.search(candidate.thinking) is None


FILTERS: dict[DropReason, PassesFn] = {
    DropReason.FINISHED: _is_finished,
    DropReason.CORRECT: _is_correct,
    DropReason.FORMAT: _has_format,
    DropReason.REPETITION: _is_fresh,
    DropReason.LANGUAGE: _is_one_language,
    DropReason.PARAGRAPHS: _has_short_paragraphs,
    DropReason.CODE: _has_no_code,
}
"""What each looks at alone; duplicates are found among what is left of all others."""

TEXT_FILTERS = (
    DropReason.FORMAT,
    DropReason.REPETITION,
    DropReason.LANGUAGE,
    DropReason.PARAGRAPHS,
    DropReason.CODE,
)
"""Those that a teacher's edits must pass again."""

_REMEDIES: dict[DropReason, str] = {
    DropReason.FINISHED: "raise max_new_tokens",
    DropReason.CORRECT: "train the sampler longer, choose easier tasks, or raise samples",
    DropReason.FORMAT: "set split_untagged to true, or sample_template to the sampler's own",
    DropReason.REPETITION: "raise filters.max_repetition, or lower temperature",
    DropReason.LANGUAGE: "lower filters.min_language_share, or let a teacher translate",
    DropReason.PARAGRAPHS: "raise filters.max_paragraph_chars",
    DropReason.CODE: "set filters.allow_code_blocks to true",
    DropReason.DUPLICATE: "raise temperature or problems",
    DropReason.TEACHER_FAILED: "look at teacher.jsonl, then run the same command",
    DropReason.TEACHER_EMPTY: "choose another teacher.model, or raise teacher.max_tokens",
    DropReason.TEACHER_NONSENSE: "choose another teacher.model, or raise teacher.max_tokens",
    DropReason.TEACHER_CHANGED: "choose another teacher.model, or leave the teacher out",
    DropReason.REWRITTEN: "set template to that of the sampler",
    DropReason.REVIEW: "keep some in review.md, then run the same command",
}


def longest_paragraph(text: str) -> int:
    """Characters of the longest stretch without an empty line."""
    return max(len(part.strip()) for part in _PARAGRAPH.split(text))


@dataclass(slots=True, kw_only=True)
class FilterCounts:
    """How many candidates there were, and where they went. Becomes filters.json.

    Example: of 10 samples 4 wrong, 2 of which also mixed languages: dropped {"correct": 4},
    failing {"correct": 4, "language": 2}.
    """

    candidates: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> candidates dropped for it, each counted once, for the first reason."""
    failing: dict[str, int] = field(default_factory=dict)
    """Filter -> candidates that fail it, those included that another dropped before."""
    verdicts: dict[str, int] = field(default_factory=dict)
    """Grader's verdict -> candidates."""

    @property
    def kept(self) -> int:
        """Candidates that nothing has dropped."""
        return self.candidates - sum(self.dropped.values())

    def drop(self, reason: DropReason, count: int = 1) -> None:
        """Count candidates that left later on: at selection, teacher or review."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def check_not_empty(self, what: str) -> None:
        """Raises DataError, naming what dropped most and the remedy, where nothing is kept."""
        if self.kept:
            return
        if not self.candidates:
            raise DataError(f"nothing was sampled for {what}: raise problems or samples")
        reason = DropReason(max(self.dropped, key=lambda name: self.dropped[name]))
        raise DataError(
            f"of {self.candidates} samples for {what} none is left to learn from; most fell to "
            f"'{reason}' ({self.dropped[reason]}): {_REMEDIES[reason]} (counts: filters.json)"
        )

    def to_dict(self) -> dict[str, object]:
        """JSON of all counts."""
        return {
            "candidates": self.candidates,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "failing": dict(self.failing),
            "verdicts": dict(self.verdicts),
        }


class Filtered(NamedTuple):
    """What the filters leave."""

    kept: list[Candidate]
    counts: FilterCounts


def reasons_against(
    candidate: Candidate, config: FilterConfig, only: Sequence[DropReason] = tuple(FILTERS)
) -> list[DropReason]:
    """Every filter of `only` that the candidate fails, in order."""
    return [reason for reason in only if not FILTERS[reason](candidate, config)]


def apply_filters(
    candidates: Sequence[Candidate],
    config: FilterConfig,
    *,
    waiting: Sequence[DropReason] = (),
) -> Filtered:
    """Candidates that pass all filters, in their order, duplicates left out; and the counts.

    `waiting`: filters that are only counted here, because a teacher may still mend what fails them.
    """
    counts = FilterCounts(candidates=len(candidates), failing=dict.fromkeys(map(str, FILTERS), 0))
    counts.dropped = dict.fromkeys(map(str, [*FILTERS, DropReason.DUPLICATE]), 0)
    counts.failing[DropReason.DUPLICATE] = 0
    kept: list[Candidate] = []
    seen: set[tuple[str, str]] = set()
    kept_before: set[tuple[str, str]] = set()
    for candidate in candidates:
        verdict = str(candidate.score.verdict)
        counts.verdicts[verdict] = counts.verdicts.get(verdict, 0) + 1
        reasons = reasons_against(candidate, config)
        key = (candidate.problem.question, candidate.response)
        for reason in [*reasons, *([DropReason.DUPLICATE] if key in seen else [])]:
            counts.failing[reason] += 1
        seen.add(key)
        against = [reason for reason in reasons if reason not in waiting]
        if against:
            counts.drop(against[0])
        elif key in kept_before:
            counts.drop(DropReason.DUPLICATE)
        else:
            kept_before.add(key)
            kept.append(candidate)
    return Filtered(kept, counts)
