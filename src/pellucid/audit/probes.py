"""What a model itself tells of having seen an examination. Engine protocol only.

All of it is weak evidence, and after reinforcement learning weaker still: a short GRPO run hides
what supervised training leaked (arXiv 2510.02386: AUROC from 75 % to about 50 %), and leaks of the
RL phase look like skill. A probe that finds something is a reason to look; one that finds nothing
clears no one. The scan of the training data and fresh items carry the weight.

- `complete_prompts`: given the first part of a question, does the model write the rest?
- `permute_options`: is it better with a question's options in their published order?
- `compare_twins`: is it better on published items than on twins with other numbers of the same
  magnitude? Half of the drops reported for twins vanish once magnitudes match (arXiv 2605.28700).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pellucid.errors import DataError
from pellucid.evidence.core.containment import words
from pellucid.protocols import Engine, Grader, Tokenizer
from pellucid.records import Problem, Request, SamplingParams, Verdict, sample_id
from pellucid.stats import Difference, Estimate, bootstrap_mean, paired_difference, wilson
from pellucid.tasks.templates import Template

STRENGTH = "weak after reinforcement learning: no finding clears no model"
"""Stands beside every result of a probe."""
SHOWN_SHARE = 0.6
"""Of a question's words, as in arXiv 2507.10532."""
LEAST_HIDDEN = 5
"""Words that must be left to write: fewer are guessed."""


class NotApplicableError(DataError):
    """None of the problems can be asked by this probe: says why, and what could be."""


_OPTION = re.compile(r"^([A-H])\. (.*)$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The model that is probed, and how it is asked."""

    engine: Engine
    tokenizer: Tokenizer
    params: SamplingParams
    seed: int = 0

    def answers(self, prompts: Sequence[str], names: Sequence[str]) -> list[str]:
        """One completion of each prompt. A name gives a prompt its randomness: equal ones are used
        for questions that are compared.
        """
        requests = [
            Request(
                prompt_ids=tuple(self.tokenizer.encode(prompt)),
                sample_ids=(sample_id("probe", name),),
            )
            for prompt, name in zip(prompts, names, strict=True)
        ]
        groups = self.engine.generate(requests, self.params, seed=self.seed)
        return [group[0].text for group in groups]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionProbe:
    """Of partial prompts. Example: exact.value 0.55 on a leaked set, 0.0 on a new one."""

    exact: Estimate
    """Share of questions whose hidden words came out word for word."""
    overlap: Estimate
    """Mean share of the hidden words in the longest common subsequence with what came out."""
    too_short: int
    """Questions with too few words: not asked."""
    strength: str = STRENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedProbe:
    """Of published items against changed ones."""

    published: Estimate
    """Accuracy on the items as published."""
    changed: Estimate
    """Accuracy on the changed ones."""
    advantage: Difference
    """Published minus changed, over the same items; a leak makes it positive."""
    left_out: int
    """Items that could not be compared, or whose grader failed."""
    strength: str = STRENGTH


def complete_prompts(
    subject: Subject, problems: Sequence[Problem], *, share: float = SHOWN_SHARE
) -> CompletionProbe:
    """Shows the first `share` of each question's words, without a template, and reads on.

    Raises NotApplicableError where all questions are too short.
    """
    asked: list[tuple[str, list[str], str]] = []
    for problem in problems:
        split = problem.question.split()
        cut = round(share * len(split))
        hidden = words(" ".join(split[cut:]))
        if cut and len(hidden) >= LEAST_HIDDEN:
            asked.append((" ".join(split[:cut]), hidden, problem.id))
    if not asked:
        raise NotApplicableError(
            f"no question hides {LEAST_HIDDEN} words: probe a suite with longer ones"
        )
    texts = subject.answers([shown for shown, *_ in asked], [name for *_, name in asked])
    exact, overlaps = 0, []
    for (_, hidden, _), text in zip(asked, texts, strict=True):
        written = words(text)[: len(hidden)]
        exact += written == hidden
        overlaps.append(_common(hidden, written) / len(hidden))
    return CompletionProbe(
        exact=wilson(exact, len(asked)),
        overlap=bootstrap_mean(overlaps),
        too_short=len(problems) - len(asked),
    )


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, start=1):
            above = row[place]
            row[place] = before + 1 if word == other else max(above, row[place - 1])
            before = above
    return row[-1]


def permute_options(
    subject: Subject, problems: Sequence[Problem], template: Template, grader: Grader
) -> PairedProbe:
    """Asks each multiple-choice question in the published order and in another one.

    The other order is seeded by the question's id and moves the right option. NotApplicableError
    where no question has options.
    """
    pairs = [(p, moved) for p in problems if (moved := permuted(p, seed=subject.seed)) is not None]
    if not pairs:
        raise NotApplicableError(
            "no question has options A., B., … on lines of their own: nothing to move"
        )
    return _compare(subject, pairs, template, grader, left_out=len(problems) - len(pairs))


def permuted(problem: Problem, *, seed: int = 0) -> Problem | None:
    """The question with its options in another order; None where it has none, or no letter as gold.

    The right option never keeps its letter.
    """
    options = _OPTION.findall(problem.question)
    letters = [letter for letter, _ in options]
    gold = problem.gold.strip()
    if len(options) < 2 or gold not in letters or len(set(letters)) < len(letters):
        return None
    rng = random.Random(f"options/{seed}/{problem.id}")
    right = letters.index(gold)
    texts = [text for _, text in options]
    place = rng.choice([i for i in range(len(texts)) if i != right])
    others = texts[:right] + texts[right + 1 :]
    rng.shuffle(others)
    moved = iter([*others[:place], texts[right], *others[place:]])
    question = _OPTION.sub(lambda option: f"{option[1]}. {next(moved)}", problem.question)
    return replace(problem, question=question, gold=letters[place])


def compare_twins(
    subject: Subject,
    pairs: Sequence[tuple[Problem, Problem]],
    template: Template,
    grader: Grader,
) -> PairedProbe:
    """Asks each published item and its twin; twins of other magnitudes are left out and counted.

    NotApplicableError where no twin is left.
    """
    matched = [(item, twin) for item, twin in pairs if same_magnitudes(item, twin)]
    if not matched:
        raise NotApplicableError("no twin has numbers of its item's magnitudes: make others")
    return _compare(subject, matched, template, grader, left_out=len(pairs) - len(matched))


def same_magnitudes(item: Problem, twin: Problem) -> bool:
    """Whether question and gold of both have as many numbers of each length, and differ at all."""
    if item.question == twin.question:
        return False
    return all(
        _magnitudes(first) == _magnitudes(second)
        for first, second in ((item.question, twin.question), (item.gold, twin.gold))
    )


def _magnitudes(text: str) -> Counter[int]:
    """Digits before the point -> how many numbers have so many."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    return Counter(len(number.split(".")[0]) for number in _NUMBER.findall(plain))


def _compare(
    subject: Subject,
    pairs: Sequence[tuple[Problem, Problem]],
    template: Template,
    grader: Grader,
    *,
    left_out: int,
) -> PairedProbe:
    asked = [problem for pair in pairs for problem in pair]
    names = [pair[0].id for pair in pairs for _ in pair]
    prompts = [template.render(p.question, subject.tokenizer, grader=p.grader) for p in asked]
    stops = tuple(dict.fromkeys((*subject.params.stop, *template.stop)))
    subject = replace(subject, params=replace(subject.params, stop=stops))
    texts = subject.answers(prompts, names)
    scores = grader.grade(asked, [template.response(text) for text in texts])
    graded = [
        (published.is_correct, changed.is_correct, pair[0].family or pair[0].id)
        for published, changed, pair in zip(scores[::2], scores[1::2], pairs, strict=True)
        if Verdict.ERROR not in (published.verdict, changed.verdict)
    ]
    if not graded:
        raise DataError("the grader failed on every pair: run `pellucid doctor`")
    published, changed, families = (list(column) for column in zip(*graded, strict=True))
    return PairedProbe(
        published=bootstrap_mean(published, families),
        changed=bootstrap_mean(changed, families),
        advantage=paired_difference(changed, published, families),
        left_out=left_out + len(pairs) - len(graded),
    )
