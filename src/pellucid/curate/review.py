"""review.md: examples that a person reads, edits and strikes out in any text editor.

    <!-- example gsm8k/train/7#2 -->
    decision: keep

    <!-- question -->
    Janet has …
    <!-- thinking -->
    …
    <!-- summary -->
    …
    <!-- end -->

Read back strictly: whatever cannot be meant raises one line with its number. A line of an example's
own text that looks like a marker is written with a backslash before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pellucid.artifacts import atomic_write_text, sha256_json
from pellucid.curate.example import CuratedExample
from pellucid.curate.reply import Reply, has_tags
from pellucid.errors import DataError
from pellucid.tasks.templates import Template

DECISIONS = ("keep", "drop", "edit")
_PARTS = ("question", "thinking", "summary")
_MARKER = re.compile(r"<!-- (?:example (?P<id>.+)|(?P<part>question|thinking|summary|end)) -->")
_LIKE_MARKER = re.compile(r"[\\\s]*<!-- (?:examples?|question|thinking|summary|end)\b")
_OF = re.compile(r"<!-- examples (?P<digest>[0-9a-f]{64}) -->")

_HEAD = """\
# Review of {count} examples

Each example below has a line `decision: keep`. Change it to `decision: drop` to leave the example \
out, or to
`decision: edit` if you correct its thinking or summary in place. Questions and the lines \
`<!-- … -->` stay as they are.
Whatever you leave alone is kept.

"""


class Reviewed(NamedTuple):
    """What a person leaves of the examples."""

    examples: list[CuratedExample]
    num_dropped: int
    num_edited: int


def write_queue(path: Path, examples: Sequence[CuratedExample]) -> None:
    """Writes the queue; a file that is there is replaced."""
    blocks = [_HEAD.format(count=len(examples)) + f"<!-- examples {_digest(examples)} -->\n"]
    blocks += [_block(example) for example in examples]
    atomic_write_text(path, "\n".join(blocks))


def read_queue(path: Path, examples: Sequence[CuratedExample], template: Template) -> Reviewed:
    """The examples as the person left them, in their order.

    Raises DataError naming file and line: a decision that is none, text changed without `edit`, a
    changed question, an example that is missing, unknown or there twice, an empty summary, or a
    file made for other examples.
    """
    reader = _Reader(path)
    entries = reader.entries(_digest(examples))
    known = {example.id: example for example in examples}
    decided: dict[str, CuratedExample | None] = {}
    num_edited = 0
    for entry in entries:
        example = known.get(entry.id)
        if example is None:
            raise reader.error(entry.line, f"there is no example {entry.id!r}: restore its name")
        if entry.id in decided:
            raise reader.error(entry.line, f"{entry.id} is here twice: delete one of them")
        decided[entry.id] = _decide(reader, entry, example, template)
        num_edited += decided[entry.id] not in (None, example)
    if missing := [example.id for example in examples if example.id not in decided]:
        raise DataError(
            f"{path}: {missing[0]} is missing: to leave an example out, write `decision: drop`, or "
            "delete the file to have it written anew"
        )
    kept = [e for example in examples if (e := decided[example.id]) is not None]
    return Reviewed(kept, len(examples) - len(kept), num_edited)


@dataclass(slots=True)
class _Entry:
    """One example of the file."""

    id: str
    line: int
    decision: str = ""
    decision_line: int = 0
    texts: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


class _Reader:
    """Reads the file line by line, and makes errors that name a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.lines = path.read_text().replace("\r\n", "\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read ({error}): restore it, or delete it") from error

    def error(self, line: int, message: str) -> DataError:
        return DataError(f"{self.path} line {line}: {message}")

    def entries(self, digest: str) -> Iterator[_Entry]:
        """Whole entries in the order of the file."""
        found = [match for line in self.lines if (match := _OF.fullmatch(line.strip()))]
        if not found or found[0]["digest"] != digest:
            raise DataError(
                f"{self.path} was written for other examples: move it away, then run the same "
                "command for a new one"
            )
        entry: _Entry | None = None
        part, body = "", []
        for number, raw in enumerate(self.lines, start=1):
            marker = _MARKER.fullmatch(raw.strip())
            if marker is None:
                if entry is not None and not part:
                    self._read_decision(entry, raw, number)
                body.append(_unescape(raw))
                continue
            if entry is not None and part:
                entry.texts[part] = "\n".join(body)
            part, body = marker["part"] or "", []
            entry = self._step(entry, marker["id"], part, number)
            if part == "end":
                assert entry is not None, "_step has refused an end without an example"
                yield self._whole(entry, number)
                entry, part = None, ""
        if entry is not None:
            raise self.error(entry.line, f"{entry.id} has no `<!-- end -->`: restore it")

    def _step(self, entry: _Entry | None, name: str | None, part: str, number: int) -> _Entry:
        """The entry that a marker line begins or continues."""
        if name is not None:
            if entry is not None:
                raise self.error(number, f"{entry.id} has no `<!-- end -->` before this line")
            return _Entry(name, number)
        if entry is None:
            raise self.error(number, f"`<!-- {part} -->` stands outside of any example")
        if part in entry.lines:
            raise self.error(number, f"{entry.id} has `<!-- {part} -->` twice")
        entry.lines[part] = number
        return entry

    def _read_decision(self, entry: _Entry, raw: str, number: int) -> None:
        text = raw.strip()
        if not text:
            return
        key, _, value = text.partition(":")
        value = value.strip().lower()
        if key.strip().lower() != "decision" or value not in DECISIONS or entry.decision:
            raise self.error(
                number,
                f"{text[:40]!r} is no decision: write one line `decision: keep`, drop or edit",
            )
        entry.decision, entry.decision_line = value, number

    def _whole(self, entry: _Entry, number: int) -> _Entry:
        if not entry.decision:
            raise self.error(entry.line, f"{entry.id} has no line `decision: keep`, drop or edit")
        if missing := [part for part in _PARTS if part not in entry.texts]:
            raise self.error(number, f"{entry.id} has no `<!-- {missing[0]} -->`: restore it")
        return entry


def _decide(
    reader: _Reader, entry: _Entry, example: CuratedExample, template: Template
) -> CuratedExample | None:
    """The example after the decision; None where it is dropped."""
    if entry.decision == "drop":
        return None
    if _plain(entry.texts["question"]) != _plain(example.problem.question):
        raise reader.error(
            entry.lines["question"], f"the question of {entry.id} was changed: restore it, or drop"
        )
    own = {"thinking": example.thinking, "summary": example.summary}
    changed = {part for part in own if _plain(entry.texts[part]) != _plain(own[part])}
    if not changed:
        return example
    if entry.decision != "edit":
        raise reader.error(
            entry.decision_line,
            f"the text of {entry.id} was changed: write `decision: edit`, or restore it",
        )
    reply = Reply(**{p: entry.texts[p].strip() if p in changed else own[p] for p in own})
    if not reply.summary:
        raise reader.error(entry.lines["summary"], f"the summary of {entry.id} is empty")
    for part in changed:
        if has_tags(getattr(reply, part)):
            raise reader.error(
                entry.lines[part], f"the {part} of {entry.id} holds tags: leave them out"
            )
    return example.with_reply(reply, template)


def _block(example: CuratedExample) -> str:
    texts = (example.problem.question, example.thinking, example.summary)
    parts = [
        f"<!-- {part} -->\n{_escape(text)}\n" for part, text in zip(_PARTS, texts, strict=True)
    ]
    return f"<!-- example {example.id} -->\ndecision: keep\n\n{''.join(parts)}<!-- end -->\n"


def _escape(text: str) -> str:
    return "\n".join("\\" + line if _LIKE_MARKER.match(line) else line for line in text.split("\n"))


def _unescape(line: str) -> str:
    return line[1:] if line.startswith("\\") and _LIKE_MARKER.match(line) else line


def _plain(text: str) -> str:
    """What editors must not be blamed for: space at line ends and around the text."""
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def _digest(examples: Sequence[CuratedExample]) -> str:
    return sha256_json([[e.id, e.thinking, e.summary] for e in examples])
