"""Which of a problem's good samples are learnt. The rules are functions of the samples alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pellucid.config_curate import SelectRule
from pellucid.curate.candidate import Candidate

_Choose = Callable[[list[Candidate], int], list[Candidate]]


def _shortest(group: list[Candidate], seed: int) -> list[Candidate]:
    return sorted(group, key=lambda c: (len(c.token_ids), c.index))


def _longest(group: list[Candidate], seed: int) -> list[Candidate]:
    return sorted(group, key=lambda c: (-len(c.token_ids), c.index))


def _first(group: list[Candidate], seed: int) -> list[Candidate]:
    return sorted(group, key=lambda c: c.index)


def _random(group: list[Candidate], seed: int) -> list[Candidate]:
    order = _first(group, seed)
    random.Random(f"select/{seed}/{group[0].problem.id}").shuffle(order)
    return order


_RULES: dict[str, _Choose] = {
    "shortest": _shortest,
    "longest": _longest,
    "first": _first,
    "random": _random,
    "all": _first,
}


def select(
    candidates: Sequence[Candidate], rule: SelectRule, *, keep: int, seed: int
) -> list[Candidate]:
    """At most `keep` candidates a problem (all of them under `all`), problems in their order.

    Length is counted in tokens; of equals the earlier sample comes first.
    """
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.problem.id, []).append(candidate)
    limit = None if rule == "all" else keep
    return [c for group in groups.values() for c in _RULES[rule](group, seed)[:limit]]
