"""A referee's file -> reports: our JSON, Markdown, or OpenReview notes saved as JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pellucid.evidence.review.located import (
    Source,
    located_items,
    located_members,
    parse_json,
    read_source,
)
from pellucid.evidence.review.points import (
    Known,
    make_point,
    make_report,
    referee_name,
    split_items,
)
from pellucid.evidence.review.records import Point, Report

_FRONT_FIELDS = ("referee", "significance", "strength", "conflict_of_interest", "ai_use", "key")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_HEADING = re.compile(r"^#{1,6}[ \t]+(.*?)[ \t]*#*$")
_HEADING_PART = re.compile(r"[·|;]")
_LINE_FIELD = re.compile(r"^(Test|Claims|Closes-with):[ \t]*(.*?)[ \t]*$")

_ASKING = ("weaknesses", "questions", "review", "comment", "main_review", "requested_changes")
"""Content of an OpenReview note that asks for something; summaries and strengths do not."""


def read_letter(path: Path, known: Known, *, referee: str | None = None) -> list[Report]:
    """The reports in a referee's file. `referee`: the name, where the file does not say it.

    Raises ReviewError, one line with file and line, for what is no report.
    """
    source = read_source(path)
    if source.text.lstrip().startswith(("{", "[")):
        return _read_json(source, known, referee)
    return [_read_markdown(source, known, referee)]


def _read_json(source: Source, known: Known, referee: str | None) -> list[Report]:
    value = parse_json(source)
    if isinstance(value, list):
        return _openreview(source, value, known)
    if "notes" in value:
        if not isinstance(value["notes"], list):
            raise source.error(1, "notes is a list of OpenReview notes")
        return _openreview(source, value["notes"], known)
    members = located_members(source)
    lines = {name: located.line for name, (located, _) in members.items()} | {"": 1}
    name = referee_name(source, lines.get("referee", 1), referee or value.get("referee"))
    if not isinstance(value.get("points"), list):
        raise source.error(lines.get("points", 1), "points is a list: one object for each point")
    items = located_items(source, members["points"][1])
    points = [
        make_point(source, item.line, item.value, referee=name, number=number, known=known)
        for number, (item, _) in enumerate(items, start=1)
    ]
    return [make_report(source, lines, value | {"referee": name}, points)]


# Markdown: a front matter of `name: value` lines, then a heading (or a list item) for each point


def _read_markdown(source: Source, known: Known, referee: str | None) -> Report:
    front, lines, body_at = _front_matter(source)
    name = referee_name(source, lines.get("referee", 1), referee or front.get("referee"))
    sections = _sections(source.text.split("\n")[body_at:], body_at)
    points: list[Point] = []
    for line, heading, text in sections:
        value = _heading_values(heading) | _line_values(text)
        points.append(
            make_point(source, line, value, referee=name, number=len(points) + 1, known=known)
        )
    words = {k: front[k] for k in ("significance", "strength") if k in front}
    plain = {k: front[k] for k in ("conflict_of_interest", "ai_use", "key") if k in front}
    assessed = lines | {"assessment": min((lines[k] for k in words), default=1)}
    return make_report(source, assessed, plain | {"referee": name, "assessment": words}, points)


def _front_matter(source: Source) -> tuple[dict[str, str], dict[str, int], int]:
    """(values, their lines, lines to skip) of `---` … `---` at the beginning."""
    rows = source.text.split("\n")
    if rows[0].strip() != "---":
        return {}, {}, 0
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, row in enumerate(rows[1:], start=2):
        if row.strip() == "---":
            return values, lines, number
        name, colon, value = row.partition(":")
        if row.strip() and (not colon or name.strip() not in _FRONT_FIELDS):
            there = ", ".join(_FRONT_FIELDS)
            raise source.error(number, f"{row.strip()!r} is no `name: value` of {there}")
        if row.strip():
            values[name.strip()], lines[name.strip()] = value.strip(), number
    raise source.error(1, "the front matter has no closing ---")


def _sections(rows: list[str], offset: int) -> list[tuple[int, str, str]]:
    """(line, heading, text) of each point. Headings without text are titles; without any heading
    the items of the list are the points."""
    found: list[tuple[int, str, list[str]]] = []
    fenced = False
    for number, row in enumerate(rows, start=offset + 1):
        fenced ^= bool(_FENCE.match(row))
        heading = None if fenced else _HEADING.match(row)
        if heading:
            found.append((number, heading[1], []))
        elif found:
            found[-1][2].append(row)
    if not found:
        items = split_items("\n".join(rows))
        return [(offset + 1 + line, "", text) for line, text in items]
    texts = [(line, heading, "\n".join(text).strip()) for line, heading, text in found]
    return [section for section in texts if section[2]]


def _heading_values(heading: str) -> dict[str, Any]:
    """`R2.4 · major · request_experiment · C3, C4`; a heading without dots is not read."""
    parts = [part.strip() for part in _HEADING_PART.split(heading)]
    values: dict[str, Any] = {}
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*\.[0-9]+", parts[0]):
        values["id"] = parts[0]
    if len(parts) > 1:
        for name, part in zip(("severity", "kind"), parts[1:3], strict=False):
            values[name] = part
    if len(parts) > 3:
        values["claim_refs"] = _listed(parts[3])
    return values


def _line_values(text: str) -> dict[str, Any]:
    """`Test: …`, `Claims: C3, C4` and `Closes-with: …` on lines of their own; the rest is text."""
    values: dict[str, Any] = {}
    kept = []
    for row in text.split("\n"):
        match = _LINE_FIELD.match(row)
        if match is None:
            kept.append(row)
        elif match[1] == "Claims":
            values["claim_refs"] = _listed(match[2])
        else:
            values["test" if match[1] == "Test" else "closes_with"] = match[2]
    return values | {"text": "\n".join(kept)}


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


# OpenReview


def _openreview(source: Source, notes: list[Any], known: Known) -> list[Report]:
    """Reviews among notes of OpenReview's API (1 and 2), in the order of the file."""
    if not all(isinstance(note, dict) and isinstance(note.get("content"), dict) for note in notes):
        raise source.error(1, "not a list of OpenReview notes: each has a content")
    lines = _note_lines(source)
    reports: list[Report] = []
    for note, line in zip(notes, lines, strict=True):
        texts = [_content(note, name) for name in _ASKING]
        items = [item for text in texts if text for _, item in split_items(text)]
        if not items or not _is_review(note):
            continue
        name = referee_name(source, line, _signature(note) or f"R{len(reports) + 1}")
        points = [
            make_point(source, line, {"text": item}, referee=name, number=i, known=known)
            for i, item in enumerate(items, start=1)
        ]
        reports.append(make_report(source, {"": line}, {"referee": name}, points))
    if not reports:
        raise source.error(1, "no review among the notes: none has weaknesses, questions or review")
    return reports


def _note_lines(source: Source) -> list[int]:
    at = len(source.text) - len(source.text.lstrip())
    if source.text[at] == "{":
        at = located_members(source)["notes"][1]
    return [item.line for item, _ in located_items(source, at)]


def _is_review(note: dict[str, Any]) -> bool:
    """Answers of authors and decisions of chairs are notes too; a note that does not say is one."""
    invitations = note.get("invitations") or [note.get("invitation") or "Review"]
    return any("review" in str(i).rpartition("/-/")[2].lower() for i in invitations)


def _content(note: dict[str, Any], name: str) -> str | None:
    """API 2 wraps a value, API 1 does not."""
    value = note["content"].get(name)
    value = value.get("value") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _signature(note: dict[str, Any]) -> str | None:
    """`…/Reviewer_AbCd` -> `Reviewer_AbCd`"""
    signatures = note.get("signatures")
    if not isinstance(signatures, list) or not signatures:
        return None
    return str(signatures[0]).rpartition("/")[2]
