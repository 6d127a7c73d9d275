"""JSON read with the lines on which its parts begin, so that a complaint can name one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.errors import ReviewError

LARGEST_BYTES = 8_000_000
"""A letter is text; what is larger is something else."""

_SPACE = re.compile(r"[ \t\r\n]*")


class Located(NamedTuple):
    """A parsed value and the line it begins on, from 1."""

    value: Any
    line: int


class Source(NamedTuple):
    """A file being read: its text and its name in complaints."""

    name: str
    text: str

    def error(self, line: int, complaint: str) -> ReviewError:
        """`letter.md line 7: …`"""
        return ReviewError(f"{self.name} line {line}: {complaint}")

    def line_at(self, offset: int) -> int:
        """Line of a character, from 1."""
        return self.text.count("\n", 0, offset) + 1


def read_source(path: Path) -> Source:
    """A referee's file as text. Raises ReviewError for what is no readable UTF-8 text."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ReviewError(f"{path} has over {LARGEST_BYTES:,} bytes: name the letter itself")
        return Source(path.name, path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ReviewError(f"{path} cannot be read ({error.strerror}): name a file") from None
    except UnicodeDecodeError as error:
        raise ReviewError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as such"
        ) from None


def parse_json(source: Source) -> Any:
    """The whole file. Raises ReviewError with file, line and column."""
    try:
        return json.loads(source.text)
    except JSONDecodeError as error:
        raise source.error(error.lineno, f"not JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 5,000 brackets
        reason = str(error).partition(";")[0]
        raise source.error(1, f"this cannot be a report ({reason})") from None


def located_members(source: Source, offset: int = 0) -> dict[str, tuple[Located, int]]:
    """Members of the object that begins at `offset`: name -> (value and line, offset of value).

    The text must have been parsed whole before (`parse_json`): here it is only walked again.
    """
    decoder, text, members = JSONDecoder(), source.text, {}
    at = _skip(text, _skip(text, offset) + 1)
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        begin = at
        value, at = decoder.raw_decode(text, at)
        members[name] = (Located(value, source.line_at(begin)), begin)
        at = _after(text, at)
    return members


def located_items(source: Source, offset: int) -> list[tuple[Located, int]]:
    """Items of the array that begins at `offset`, with the offset of each."""
    decoder, text, items = JSONDecoder(), source.text, []
    at = _skip(text, offset + 1)
    while text[at] != "]":
        begin = at
        value, at = decoder.raw_decode(text, at)
        items.append((Located(value, source.line_at(begin)), begin))
        at = _after(text, at)
    return items


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


def _after(text: str, at: int) -> int:
    """Past white space and one comma."""
    at = _skip(text, at)
    return _skip(text, at + 1) if text[at] == "," else at


def check_names(
    source: Source, line: int, given: Mapping[str, Any], allowed: tuple[str, ...]
) -> None:
    """Refuse members that nobody would read."""
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise source.error(line, f"{unknown[0]!r} is unknown; there are {', '.join(allowed)}")
