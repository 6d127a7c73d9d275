"""What differs between two dossiers, and which of it can move a score.

Evaluations are paired by suite and arm, else by what answered; claims by what they compute of
paired evaluations, else by their id. So versions of one dossier can be compared, and dossiers of
two parties who call the same things by other names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pellucid.evidence.core.facets import Facets, Fact, Facts

DIFF_VERSION = 1
"""Of what is compared and how it is written: a dossier may hold a diff, which a later verifier has
to come to again, byte for byte. Raise it with every change of either."""
MAX_NAMES = 100
"""Items named in one row."""
MAX_ROWS = 2_000

RECORDED = frozenset({
    "title", "text", "limits", "level", "source", "licence", "recipe", "chosen checkpoint",
    "vectors", "attempts allowed", "training runs", "samples withheld", "root of the records",
    "other models", "audits",
})  # fmt: skip
"""What is told and moves no score by itself: where it has an effect, another row shows that."""

BY_ITEM = frozenset({
    "prompts", "families", "graders", "answers that are right", "first public", "fresh", "clean",
})  # fmt: skip
"""Maps of items that are compared where both have the item: which items there are, `items` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One difference. Example: Row(place="evals/gsm8k/after", what="seed", a="1", b="2", …)"""

    place: str
    """In the first dossier; where it has none, in the second."""
    other: str | None
    """Place in the second, where that is called otherwise."""
    what: str
    a: str | None
    b: str | None
    """None: it is not there."""
    names: tuple[str, ...] = ()
    """Of the items, packages or files that differ, the first `MAX_NAMES`."""
    moves_score: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "other": self.other,
            "what": self.what,
            "a": self.a,
            "b": self.b,
            "names": list(self.names),
            "moves_score": self.moves_score,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """All differences of two dossiers, in a fixed order."""

    rows: tuple[Row, ...]
    num_more: int
    """Rows that were left out, behind `MAX_ROWS`."""
    more_move: bool
    """Whether one of those moves a score."""

    @property
    def moves_score(self) -> bool:
        return self.more_move or any(row.moves_score for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {
            "v": DIFF_VERSION,
            "moves_score": self.moves_score,
            "rows": [row.to_dict() for row in self.rows],
            "more_rows": self.num_more,
        }


def diff_facets(a: Facets, b: Facets) -> Diff:
    """What is in `a` and how it is in `b`."""
    pairs = _pair_evaluations(a, b)
    rows: list[Row] = []
    num_more, more_move = 0, False
    for row in _all_rows(a, b, pairs):
        if len(rows) < MAX_ROWS:
            rows.append(row)
        else:
            num_more, more_move = num_more + 1, more_move or row.moves_score
    return Diff(rows=tuple(rows), num_more=num_more, more_move=more_move)


def _all_rows(a: Facets, b: Facets, pairs: dict[str, str]) -> Iterator[Row]:
    claims = _pair_claims(a, b, pairs)
    own, other = _with_arms(a, pairs), _with_arms(b, {})
    yield from _compare(own, other, claims, "claims/", "claim", _claim_in_brief)
    yield from _compare(a.evaluations, b.evaluations, pairs, "", "evaluation", _asked_in_brief)
    shared = {place: place for place in a.rest if place in b.rest}
    yield from _compare(a.rest, b.rest, shared, "", "all of it", lambda facts: "there")


# Pairs


def _pair_evaluations(a: Facets, b: Facets) -> dict[str, str]:
    """Folder in `a` -> folder in `b`, one to one: the surest pairs first."""

    def suite(folder: str, _: Facts) -> object:
        return folder.split("/")[1]

    def model(folder: str, facts: Facts) -> object:
        return (suite(folder, facts), facts.get("weights"))

    def name(folder: str, _: Facts) -> object:
        return folder

    def prompted(folder: str, facts: Facts) -> object:
        return (*model(folder, facts), facts.get("prompt template"))  # type: ignore[misc]

    def both(folder: str, facts: Facts) -> object:
        return (folder, facts.get("weights"))

    return _pair(a.evaluations, b.evaluations, (both, prompted, name, model))


def same_programs(a: Facets, b: Facets) -> dict[str, str]:
    """Claims of `a` and `b` that compute the same of paired evaluations."""
    return _same_programs(a, b, _pair_evaluations(a, b))


def _same_programs(a: Facets, b: Facets, pairs: dict[str, str]) -> dict[str, str]:
    def program(facts: Facts, arms: dict[str, str], called: dict[str, str]) -> object:
        folders = tuple(sorted((arm, called.get(f, f"?{f}")) for arm, f in arms.items()))
        return (facts["kind"], facts["metric"], facts["unit"], facts["cluster"], folders)

    same = {folder: folder for folder in b.evaluations}
    return _pair_by(
        {n: program(f, a.arms[n], pairs) for n, f in a.claims.items()},
        {n: program(f, b.arms[n], same) for n, f in b.claims.items()},
    )


def _pair_claims(a: Facets, b: Facets, pairs: dict[str, str]) -> dict[str, str]:
    """Claim of `a` -> claim of `b`: by what they compute, else by their id."""
    first = _same_programs(a, b, pairs)
    taken = set(first.values())
    return first | _pair_by(
        {n: (n, f["kind"]) for n, f in a.claims.items() if n not in first},
        {n: (n, f["kind"]) for n, f in b.claims.items() if n not in taken},
    )


def _with_arms(facets: Facets, called: dict[str, str]) -> dict[str, Facts]:
    """Claims with what they are of, by the names of the second dossier."""
    arms = {
        n: sorted((a, called.get(f, f)) for a, f in facets.arms[n].items()) for n in facets.arms
    }
    return {
        name: {**facts, "arms": ", ".join(f"{arm}: {folder}" for arm, folder in arms[name])}
        for name, facts in facets.claims.items()
    }


def _pair(
    a: dict[str, Facts], b: dict[str, Facts], keys: Iterable[Callable[[str, Facts], object]]
) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for key in keys:
        taken = set(pairs.values())
        pairs |= _pair_by(
            {n: key(n, f) for n, f in a.items() if n not in pairs},
            {n: key(n, f) for n, f in b.items() if n not in taken},
        )
    return pairs


def _pair_by(a: dict[str, Any], b: dict[str, Any]) -> dict[str, str]:
    """Names whose keys are equal, each name once, in alphabetical order."""
    waiting: dict[Any, list[str]] = {}
    for name in sorted(b, reverse=True):
        waiting.setdefault(b[name], []).append(name)
    return {n: waiting[a[n]].pop() for n in sorted(a) if waiting.get(a[n])}


# Rows


def _compare(
    a: dict[str, Facts],
    b: dict[str, Facts],
    pairs: dict[str, str],
    prefix: str,
    noun: str,
    brief: Callable[[Facts], str],
) -> Iterator[Row]:
    for name in a:
        place, other = f"{prefix}{name}", pairs.get(name)
        if other is None:
            yield Row(place=place, other=None, what=noun, a=brief(a[name]), b=None,
                      moves_score=True)  # fmt: skip
        else:
            called = None if other == name else f"{prefix}{other}"
            yield from _rows(place, called, a[name], b[other])
    taken = set(pairs.values())
    for name in [name for name in b if name not in taken]:
        yield Row(place=f"{prefix}{name}", other=None, what=noun, a=None, b=brief(b[name]),
                  moves_score=True)  # fmt: skip


def _rows(place: str, other: str | None, a: Facts, b: Facts) -> Iterator[Row]:
    for what in [*a, *(name for name in b if name not in a)]:
        one, two = a.get(what), b.get(what)
        if what in BY_ITEM and isinstance(one, dict) and isinstance(two, dict):
            one, two = _shared(one, two), _shared(two, one)
        if one != two:
            texts, names = _shown(one, two)
            yield Row(place=place, other=other, what=what, a=texts[0], b=texts[1], names=names,
                      moves_score=what not in RECORDED)  # fmt: skip


def _shared(own: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in own.items() if name in other}


def _shown(a: Fact | None, b: Fact | None) -> tuple[tuple[str | None, str | None], tuple[str, ...]]:
    """A text each; of maps how many entries, how many of them differ, and which."""
    if not (isinstance(a, dict) or isinstance(b, dict)):
        return (a, b), ()
    one, two = a if isinstance(a, dict) else {}, b if isinstance(b, dict) else {}
    removed = [name for name in one if name not in two]
    added = [name for name in two if name not in one]
    changed = [name for name in one if name in two and one[name] != two[name]]
    names = tuple(sorted([*changed, *removed, *added])[:MAX_NAMES])
    if len(names) == 1:
        return (one.get(names[0]), two.get(names[0])), names
    gone = f", {len(removed)} of them gone" if removed else ""
    new = f", {len(added)} of them new" if added else ""
    other = f", {len(changed)} of them changed" if changed else ""
    texts = (
        None if a is None else f"{len(one)}{gone}",
        None if b is None else f"{len(two)}{new}{other}",
    )
    return texts, names


def _claim_in_brief(facts: Facts) -> str:
    return f"{facts['text']}: {facts['value']}"


def _asked_in_brief(facts: Facts) -> str:
    return f"{facts['samples']} samples of weights {str(facts.get('weights'))[:12]}…"
