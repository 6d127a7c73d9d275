"""From loose values to points: checked, numbered, with a complaint that names the line."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from pellucid.errors import UserError
from pellucid.evidence.review.located import Source, check_names
from pellucid.evidence.review.records import (
    DIGEST,
    POINT_ID,
    REFEREE_NAME,
    Point,
    PointKind,
    Report,
    Severity,
)

POINT_FIELDS = ("id", "text", "claim_refs", "severity", "kind", "test", "closes_with")
REPORT_FIELDS = (
    *("referee", "points", "assessment", "conflict_of_interest", "ai_use", "key", "words_from"),
)
SIGNIFICANCE = ("landmark", "fundamental", "important", "valuable", "useful")
STRENGTH = ("exceptional", "compelling", "convincing", "solid", "incomplete", "inadequate")
"""eLife's words for its assessments."""
LONGEST_TEXT = 100_000
MOST_POINTS = 1_000


class Known(NamedTuple):
    """What points are checked against."""

    claims: Collection[str]
    check_test: Callable[[str], None]
    """Raises UserError for an expression that cannot be evaluated."""


def make_point(
    source: Source, line: int, value: Any, *, referee: str, number: int, known: Known
) -> Point:
    """A point from a JSON object, or from what the Markdown reader found."""
    if not isinstance(value, dict):
        raise source.error(line, "a point is an object with at least a text")
    check_names(source, line, value, POINT_FIELDS)
    text = value.get("text")
    if not isinstance(text, str) or not text.strip():
        raise source.error(line, "the point has no text: write what is asked")
    if len(text) > LONGEST_TEXT:
        raise source.error(line, f"the point has over {LONGEST_TEXT:,} characters: split it")
    return Point(
        id=_point_id(source, line, value.get("id"), referee, number),
        text=text.strip(),
        claim_refs=_claim_refs(source, line, value.get("claim_refs"), known.claims),
        severity=_choice(source, line, value.get("severity"), Severity, Severity.MAJOR),
        kind=_choice(source, line, value.get("kind"), PointKind, PointKind.QUESTION),
        test=_test(source, line, value.get("test"), known),
        closes_with=_digest(source, line, value.get("closes_with"), "closes_with"),
        line=line,
    )


def make_report(
    source: Source, lines: Mapping[str, int], value: Mapping[str, Any], points: list[Point]
) -> Report:
    """A report from its members but the points; `lines`: where each member begins."""
    check_names(source, lines.get("", 1), value, REPORT_FIELDS)
    if not points:
        raise source.error(lines.get("points", 1), "there is no point: nothing would be asked")
    if len(points) > MOST_POINTS:
        raise source.error(lines.get("points", 1), f"more than {MOST_POINTS:,} points: split it")
    ids = [point.id for point in points]
    for point in points:
        if ids.count(point.id) > 1:
            raise source.error(point.line, f"point {point.id} is there twice: give it another id")
    words_from = value.get("words_from")
    if words_from not in (None, "referee", "author"):
        raise source.error(lines.get("words_from", 1), "words_from is `referee` or `author`")
    return Report(
        referee=value["referee"],
        points=tuple(points),
        assessment=_assessment(source, lines.get("assessment", 1), value.get("assessment")),
        conflict_of_interest=_words(source, lines, value, "conflict_of_interest"),
        ai_use=_words(source, lines, value, "ai_use"),
        key=_digest(source, lines.get("key", 1), value.get("key"), "key"),
        words_from=words_from,
    )


def referee_name(source: Source, line: int, value: Any) -> str:
    """A name that can be part of a file name."""
    if not isinstance(value, str) or not REFEREE_NAME.fullmatch(value):
        raise source.error(
            line,
            f"{value!r} is no referee name: a letter, then letters, digits, - or _ (say it with"
            " --referee)",
        )
    return value


def _point_id(source: Source, line: int, value: Any, referee: str, number: int) -> str:
    if value is None:
        return f"{referee}.{number}"
    match = POINT_ID.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[1] != referee:
        raise source.error(line, f"{value!r} is no point of {referee}: write {referee}.{number}")
    return value


def _claim_refs(source: Source, line: int, value: Any, claims: Collection[str]) -> tuple[str, ...]:
    refs = [] if value is None else value
    if not isinstance(refs, list) or not all(isinstance(ref, str) for ref in refs):
        raise source.error(line, "claim_refs is a list of claim ids")
    for ref in refs:
        if ref not in claims:
            there = ", ".join(sorted(claims)) or "none"
            raise source.error(line, f"there is no claim {ref!r}; the dossier's claims: {there}")
    return tuple(dict.fromkeys(refs))


def _choice(source: Source, line: int, value: Any, kind: type[StrEnum], default: StrEnum) -> Any:
    if value is None:
        return default
    if value not in list(kind):
        raise source.error(line, f"{value!r} is none of {', '.join(kind)}")
    return kind(value)


def _test(source: Source, line: int, value: Any, known: Known) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise source.error(line, "test is an expression such as C3.subsets.fresh.ci95.low > 0")
    try:
        known.check_test(value)
    except UserError as error:
        raise source.error(line, f"test {value!r}: {error}") from None
    return value.strip()


def _digest(source: Source, line: int, value: Any, name: str) -> str | None:
    if value is None or (isinstance(value, str) and DIGEST.fullmatch(value)):
        return value
    raise source.error(line, f"{name} is 64 hexadecimal digits")


def _words(source: Source, lines: Mapping[str, int], value: Mapping[str, Any], name: str) -> Any:
    words = value.get(name)
    if words is not None and not isinstance(words, str):
        raise source.error(lines.get(name, 1), f"{name} is a text")
    return words


def _assessment(source: Source, line: int, value: Any) -> dict[str, str]:
    given = {} if value is None else value
    vocabulary = {"significance": SIGNIFICANCE, "strength": STRENGTH}
    if not isinstance(given, dict):
        raise source.error(line, "assessment is {significance, strength}")
    check_names(source, line, given, tuple(vocabulary))
    for name, word in given.items():
        if word not in vocabulary[name]:
            raise source.error(line, f"{name} {word!r} is none of {', '.join(vocabulary[name])}")
    return dict(given)


LIST_ITEM = re.compile(r"^ {0,3}(?:[0-9]{1,3}[.)]|[-*+])[ \t]+")


def split_items(text: str) -> list[tuple[int, str]]:
    """(line from 0, text) of the items of a list; a text without a list is one item.

    What stands before the first item introduces the list and asks for nothing.
    """
    items: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text.split("\n")):
        match = LIST_ITEM.match(line)
        if match:
            items.append((number, [line[match.end() :]]))
        elif items:
            items[-1][1].append(line.removeprefix("   "))
    if not items:
        stripped = text.strip()
        return [(_first_line(text), stripped)] if stripped else []
    return [(number, "\n".join(lines).strip()) for number, lines in items]


def _first_line(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")
