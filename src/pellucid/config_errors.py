"""A mistake in a recipe as one line: the dotted path, the value given, the rule or nearest key."""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Section = type[BaseModel]


def one_line(error: ValidationError, root: Section, tree: Mapping[str, Any]) -> str:
    """The first mistake in full, and how many more there are.

    `tree` is what was checked against `root`.
    """
    mistakes = error.errors(include_url=False)
    # Unknown keys first: a misspelt key is often the cause of the others.
    first = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
    where = _locate(first["loc"], root, tree)
    path = ".".join(where)
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {path}{_suggestion(where, root, tree)}{more}"
    if first["type"] == "missing":
        return f"{path} is missing{more}"
    if first["type"].startswith("union_tag"):
        return _unknown_kind(path, first) + more
    if not path:  # a rule over the whole recipe names its keys itself
        return f"{_rule(first)}{more}"
    given = json.dumps(first["input"], default=str, ensure_ascii=False)
    shown = given if len(given) <= 60 else f"{given[:57]}…"
    return f"{path} = {shown}: {_rule(first)}{more}"


_WORDS = {
    "a valid integer": "an integer",
    "a valid ": "a ",
    "an object": "a table",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}
"""pydantic's words -> TOML's and plain ones."""


def _rule(mistake: Mapping[str, Any]) -> str:
    """pydantic's message in our words: what must hold."""
    message = str(mistake["msg"])
    if message.startswith("Input should be "):
        rule = message.removeprefix("Input should be ")
        for theirs, ours in _WORDS.items():
            rule = rule.replace(theirs, ours)
        return f"must be {rule}"
    if mistake["type"] == "too_short":
        return "must not be empty"
    return message.removeprefix("Value error, ")


def _unknown_kind(path: str, mistake: Mapping[str, Any]) -> str:
    """An entry whose `kind` is missing or none of those there are."""
    kinds = re.findall(r"'([a-z-]+)'", str(mistake.get("ctx", {}).get("expected_tags", "")))
    given = mistake["input"].get("kind") if isinstance(mistake["input"], dict) else None
    if given is None:
        return f"{path}.kind is missing"
    near = difflib.get_close_matches(str(given), kinds, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f'{path}.kind = "{given}": must be one of {", ".join(kinds)}{hint}'


# Where in the tree


def _locate(loc: Sequence[Any], root: Section, tree: Mapping[str, Any]) -> list[str]:
    """pydantic's place as a dotted path that `--set` understands: a stage by its name, without
    the kind that pydantic adds behind it.
    """
    parts: list[str] = []
    node: Any = tree
    for part in loc:
        if isinstance(part, int) and isinstance(node, list) and part < len(node):
            node = node[part]
            parts.append(entry_name(node) if parts == ["stages"] else str(part))
            parts[-1] = parts[-1] or str(part)
        elif isinstance(node, Mapping) and part not in node and part == node.get("kind"):
            continue
        else:
            node = node.get(part) if isinstance(node, Mapping) else None
            parts.append(str(part))
    return parts


def entry_name(entry: Any) -> str:
    """What an entry of an array of tables is called: its name, else its kind, else nothing."""
    named = [entry.get(key) for key in ("name", "kind")] if isinstance(entry, Mapping) else []
    return next((value for value in named if isinstance(value, str) and value), "")


def section_of(field: FieldInfo | None) -> Section | None:
    """The section that a field holds; None for values and arrays."""
    kind = field.annotation if field is not None else None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    sections = [part for part in _parts(kind) if part is not None]
    is_optional = type(None) in typing.get_args(kind)
    return sections[0] if is_optional and len(sections) == 1 else None


def item_section(field: FieldInfo | None, entry: Any) -> Section | None:
    """The section that describes one entry of an array of tables."""
    sections = _parts(field.annotation if field is not None else None)
    if len(sections) <= 1:
        return sections[0] if sections else None
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    return next((s for s in sections if kind in _kinds(s)), None)


def _parts(annotation: Any) -> list[Section]:
    """All sections named in an annotation: `tuple[A, ...]`, `A | None`, `tuple[A | B, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in _parts(part)]


def _kinds(section: Section) -> tuple[Any, ...]:
    field = section.model_fields.get("kind")
    return typing.get_args(field.annotation) if field is not None else ()


# The nearest key


def _suggestion(where: Sequence[str], root: Section, tree: Mapping[str, Any]) -> str:
    """`; did you mean …?` from the keys of the same section, then from the whole tree."""
    *above, key = where
    section = _section_at(above, root, tree)
    siblings = list(section.model_fields) if section is not None else []
    prefix = "".join(f"{part}." for part in above)
    near = difflib.get_close_matches(key, siblings, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {prefix}{near[0]}?"
    is_stage = len(above) >= 2 and above[0] == "stages"
    top = _section_at(above[:2], root, tree) if is_stage else root
    stem = f"{above[0]}.{above[1]}." if is_stage else ""
    leaves = {k.rpartition(".")[2]: k for k in reversed(list(_known_keys(top or root, stem)))}
    near = difflib.get_close_matches(key, leaves, n=1, cutoff=0.7)
    if near:
        return f"; did you mean {leaves[near[0]]}?"
    return f"; known there: {', '.join(siblings)}" if siblings else ""


def _section_at(path: Sequence[str], root: Section, tree: Mapping[str, Any]) -> Section | None:
    """The section at a path of `_locate`."""
    section: Section | None = root
    field: FieldInfo | None = None
    node: Any = tree
    for part in path:
        if isinstance(node, list):
            index = find_entry(node, part)
            node = node[index] if index is not None else None
            section = item_section(field, node)
            continue
        field = section.model_fields.get(part) if section is not None else None
        section = section_of(field)
        node = node.get(part) if isinstance(node, Mapping) else None
    return section


def find_entry(entries: Sequence[Any], name: str) -> int | None:
    """Index of the entry of that number or name; None: there is none."""
    if name.isdigit():
        return int(name) if int(name) < len(entries) else None
    return next((i for i, entry in enumerate(entries) if entry_name(entry) == name), None)


def _known_keys(section: Section, prefix: str = "") -> Iterator[str]:
    """Every dotted key below a section; arrays of tables without their index, stages left out."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        parts = _parts(field.annotation)
        if len(parts) == 1:
            yield from _known_keys(parts[0], f"{prefix}{name}.")
