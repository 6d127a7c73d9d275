"""Reward terms by name, their weighted sum, and the rules for completions that were cut off.

A term maps one graded response to a number. `TERMS` says to which kinds of problems each applies:
where one does not, it is left out of the rollout and of its statistics, and never counts as 0.
Rule terms are functions; model terms come from a `ResponseScorer`. An instrument failure is no
number: `settle` masks it.

Paper, eqs. 4 and 7 to 10: accuracy + format for reasoning, model + format for general prompts, and
language for all.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pellucid.config import RewardConfig
from pellucid.errors import ConfigError, NumericsError
from pellucid.protocols import ResponseScorer
from pellucid.records import Problem, ProblemKind, Score, Verdict
from pellucid.rewards.format import format_reward, format_strict_reward
from pellucid.rewards.language import language_reward
from pellucid.rewards.repetition import repetition_share

TermFn = Callable[[Problem, str, Score, int], float]
"""(problem, response, score, sample id) -> value before weighting."""


def _accuracy(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    return float(score.is_correct)


def _format(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    return format_reward(response)


def _format_strict(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    return format_strict_reward(response)


def _language(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    return language_reward(response, problem.language)


def _repetition(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    return repetition_share(response)


def _random(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    """A fair coin per sample, blind to the answer: the negative control of learning."""
    key = f"random-reward/{sample_id}".encode()
    return float(hashlib.blake2b(key, digest_size=1).digest()[0] & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A row of the table. Example: Term(kinds=frozenset({"safety"}))"""

    rule: TermFn | None = None
    """None: a `ResponseScorer` of the term's name gives the value."""
    reads_score: bool = False
    """The rule looks at the grader's score, and so has to wait for it."""
    kinds: frozenset[ProblemKind] = frozenset({"reasoning", "helpful", "safety"})
    """Kinds of problems that it applies to."""


TERMS: dict[str, Term] = {
    "accuracy": Term(rule=_accuracy, kinds=frozenset({"reasoning"}), reads_score=True),
    "helpful": Term(kinds=frozenset({"helpful"})),
    "safety": Term(kinds=frozenset({"safety"})),
    "format": Term(rule=_format),
    "format_strict": Term(rule=_format_strict),
    "language": Term(rule=_language),
    "repetition": Term(rule=_repetition),
    "random": Term(rule=_random),
}


_NO_SCORE = Score(verdict=Verdict.UNGRADED)
"""What a rule gets that does not read the score."""


class Outcome(NamedTuple):
    """What training uses of one rollout."""

    reward: float
    """0.0 where `masked`."""
    masked: bool


def check_terms(names: Iterable[str], scorers: Collection[str] = ()) -> None:
    """Raises ConfigError for the first name that is no term, with the nearest one that is, and for
    the first model term that none of the `scorers` gives.
    """
    for name in names:
        if name not in TERMS:
            near = difflib.get_close_matches(name, TERMS, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"unknown reward term {name!r}; did you mean {near!r}? Terms: {', '.join(TERMS)}"
            )
        if TERMS[name].rule is None and name not in scorers:
            raise ConfigError(
                f"the reward term {name!r} needs a reward model and there is none: train one in "
                f"an earlier stage, or take {name!r} out of reward.terms"
            )


class RewardTable:
    """The terms of a recipe, their weights, and from which step on each counts.

    Example: RewardTable(RewardConfig(terms={"accuracy": 1.0, "helpful": 0.5}), steps=100,
    scorers={"helpful": model})
    """

    def __init__(
        self,
        config: RewardConfig,
        *,
        steps: int,
        scorers: Mapping[str, ResponseScorer] | None = None,
    ) -> None:
        """`steps`: of the whole stage. Raises ConfigError as `check_terms` does."""
        self._weights = config.terms
        self._starts = config.starts
        self._steps = steps
        self._scorers = scorers or {}
        check_terms(self._weights, self._scorers)

    def names(self, step: int) -> tuple[str, ...]:
        """Terms that count at `step` (from 1): those whose share of the steps has been done."""
        done = step - 1
        return tuple(n for n in self._weights if done >= self._starts.get(n, 0.0) * self._steps)

    def check_kinds(self, kinds: Iterable[ProblemKind]) -> None:
        """Raises ConfigError for a kind of problems to which no term ever applies."""
        for kind in sorted(set(kinds)):
            if not any(kind in TERMS[name].kinds for name in self._weights):
                raise ConfigError(
                    f"no reward term applies to problems of kind {kind!r}: give one of "
                    f"{', '.join(n for n in TERMS if kind in TERMS[n].kinds)} a weight in "
                    "reward.terms, or leave those problems out"
                )

    def text_terms(
        self,
        step: int,
        problems: Sequence[Problem],
        responses: Sequence[str],
        sample_ids: Sequence[int],
    ) -> list[dict[str, float]]:
        """Those of `terms` that need neither score nor model: they can be had while the engine
        still samples other groups.
        """
        return [
            {
                name: term.rule(problem, response, _NO_SCORE, sample_id)
                for name in self.names(step)
                if (term := TERMS[name]).rule is not None
                and not term.reads_score
                and problem.kind in term.kinds
            }
            for problem, response, sample_id in zip(problems, responses, sample_ids, strict=True)
        ]

    def terms(
        self,
        step: int,
        problems: Sequence[Problem],
        responses: Sequence[str],
        scores: Sequence[Score],
        sample_ids: Sequence[int],
        known: Sequence[Mapping[str, float]] | None = None,
    ) -> list[dict[str, float]]:
        """Values before weighting, of each response those that apply and count. `known`: what
        `text_terms` gave of them.

        Raises NumericsError where a reward model gives what is no number.
        """
        if known is None:
            known = self.text_terms(step, problems, responses, sample_ids)
        found: list[dict[str, float]] = [{} for _ in responses]
        for name in self.names(step):
            term = TERMS[name]
            places = [i for i, problem in enumerate(problems) if problem.kind in term.kinds]
            if term.rule is None:
                values = self._ask(
                    name, [problems[i] for i in places], [responses[i] for i in places]
                )
            elif term.reads_score:
                values = [
                    term.rule(problems[i], responses[i], scores[i], sample_ids[i]) for i in places
                ]
            else:
                values = [known[i][name] for i in places]
            for i, value in zip(places, values, strict=True):
                found[i][name] = value
        return found

    def reward(self, terms: Mapping[str, float]) -> float:
        """Weighted sum of the terms of one response."""
        return weighted(terms, {name: self._weights[name] for name in terms})

    def _ask(
        self, name: str, problems: Sequence[Problem], responses: Sequence[str]
    ) -> Sequence[float]:
        """One call for all responses of a step, none where nobody is to be rated."""
        values = self._scorers[name].score(problems, responses) if problems else []
        for problem, value in zip(problems, values, strict=True):
            if not math.isfinite(value):
                raise NumericsError(f"the reward model {name!r} gave {value} for {problem.id}")
        return values


def weighted(terms: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Weighted sum. Raises KeyError where a weighted term is missing: it never counts as 0."""
    return sum(weight * terms[name] for name, weight in weights.items())


def overlong_penalty(num_tokens: int, *, max_tokens: int, buffer: int) -> float:
    """Soft overlong punishment in [-1, 0] (DAPO, eq. 13), linear over the last `buffer` tokens."""
    start = max_tokens - buffer
    if buffer == 0 or num_tokens <= start:
        return 0.0
    return max(-1.0, (start - num_tokens) / buffer)


def settle(
    reward: float,
    score: Score,
    *,
    is_truncated: bool,
    rule: Literal["grade", "mask", "zero"] = "grade",
    num_tokens: int = 0,
    max_tokens: int = 0,
    overlong_buffer: int = 0,
) -> Outcome:
    """The scalar to train on: errors masked, truncation rule and soft penalty applied."""
    if score.verdict is Verdict.ERROR or (is_truncated and rule == "mask"):
        return Outcome(0.0, True)
    if is_truncated and rule == "zero":
        reward = 0.0
    return Outcome(
        reward + overlong_penalty(num_tokens, max_tokens=max_tokens, buffer=overlong_buffer), False
    )
