"""Samples to read, chosen without looking: the smallest sample ids, which are hashes of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.report.words import number, shortened, visible

NUM_STEPS = 5
NUM_PROBLEMS = 4
"""Problems shown as every model of a pipeline answered them."""
CHANGES = (("wrong", "correct", 2), ("correct", "wrong", 1), ("wrong", "wrong", 1))
"""(right before?, right after?, how many problems to show)."""
_NO_ID = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One response to read."""

    title: str
    verdict: str
    problem: str
    question: str
    gold: str
    extracted: str | None
    prompt: str | None
    """The whole prompt, where it was kept."""
    response: str
    left_out: int
    """Characters of the response that are not shown."""
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One problem before and after training."""

    title: str
    before: Reading
    after: Reading


def spread_steps(steps: Sequence[int]) -> list[int]:
    """First, last and up to three steps between."""
    ordered = sorted(set(steps))
    if len(ordered) <= NUM_STEPS:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(last * i / (NUM_STEPS - 1))] for i in range(NUM_STEPS)]


def choose_rollouts(
    rollouts: Iterable[Mapping[str, Any]], steps: Sequence[int]
) -> list[tuple[int, list[Reading]]]:
    """For each step a correct and an incorrect rollout, where there is one."""
    chosen: dict[tuple[int, bool], Mapping[str, Any]] = {}
    wanted = set(steps)
    for rollout in rollouts:
        if rollout["step"] not in wanted or rollout["verdict"] == "error":
            continue
        slot = (rollout["step"], rollout["verdict"] == "correct")
        if rollout["sample_id"] < chosen.get(slot, {}).get("sample_id", _NO_ID):
            chosen[slot] = rollout
    return [
        (step, [_rollout(chosen[step, ok]) for ok in (True, False) if (step, ok) in chosen])
        for step in steps
        if (step, True) in chosen or (step, False) in chosen
    ]


def choose_pairs(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]
) -> list[Pair]:
    """The first sample of a few problems in both arms: learned, lost, and still wrong."""
    firsts = {s["problem_id"]: s for s in before if _is_first(s)}
    kinds: dict[tuple[str, str], list[tuple[Any, Any]]] = {}
    for sample in after:
        if _is_first(sample) and sample["problem_id"] in firsts:
            earlier = firsts[sample["problem_id"]]
            kinds.setdefault((_side(earlier), _side(sample)), []).append((earlier, sample))
    pairs = []
    for was, now, how_many in CHANGES:
        found = sorted(kinds.get((was, now), []), key=lambda pair: pair[1]["sample_id"])
        pairs += [
            Pair(
                title=f"{was} before, {now} after" if was != now else f"{was} before and after",
                before=_sample(earlier, "before"),
                after=_sample(later, "after"),
            )
            for earlier, later in found[:how_many]
        ]
    return pairs


def choose_readings(samples: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[list[Reading]]:
    """The first sample of a few problems by every model (name -> its samples) that has them."""
    firsts = {
        name: {s["problem_id"]: s for s in rows if s["k_index"] == 0}
        for name, rows in samples.items()
    }
    shared = set.intersection(*(set(found) for found in firsts.values())) if firsts else set()
    anyone = next(iter(firsts.values()), {})
    chosen = sorted(shared, key=lambda problem: anyone[problem]["sample_id"])[:NUM_PROBLEMS]
    return [[_sample(found[p], name) for name, found in firsts.items()] for p in chosen]


def _is_first(sample: Mapping[str, Any]) -> bool:
    return sample["k_index"] == 0 and sample["verdict"] != "error"


def _side(sample: Mapping[str, Any]) -> str:
    return "correct" if sample["verdict"] == "correct" else "wrong"


def _rollout(rollout: Mapping[str, Any]) -> Reading:
    terms = ", ".join(f"{name} {number(value)}" for name, value in rollout["terms"].items())
    return _reading(
        rollout,
        title="correct" if rollout["verdict"] == "correct" else rollout["verdict"],
        problem=rollout["problem"],
        prompt=visible(rollout["prompt"]),
        num_tokens=len(rollout["token_ids"]),
        more=(
            f"reward {number(rollout['reward'])}" + (f" ({terms})" if terms else ""),
            f"advantage {number(rollout['advantage'])}",
        ),
    )


def _sample(sample: Mapping[str, Any], title: str) -> Reading:
    return _reading(
        sample,
        title=title,
        problem=sample["problem_id"],
        prompt=None,
        num_tokens=sample["n_completion"],
        more=(f"log-probability {number(sample['logprob_sum'])}",),
    )


def _reading(
    record: Mapping[str, Any],
    *,
    title: str,
    problem: str,
    prompt: str | None,
    num_tokens: int,
    more: tuple[str, ...],
) -> Reading:
    response, left_out = shortened(record["response"])
    return Reading(
        title=title,
        verdict=record["verdict"],
        problem=visible(problem),
        question=visible(record["question"]),
        gold=visible(record["gold"]),
        extracted=None if record["extracted"] is None else visible(record["extracted"]),
        prompt=prompt,
        response=response,
        left_out=left_out,
        facts=(f"{num_tokens} tokens, ended by {record['stop'].replace('_', ' ')}", *more),
    )
