"""Documents of a corpus and items of a suite, from files as they are published or problems at hand.

A document is all text of a record: every string in it, in the order of the file. An item is the
question alone, from the first of `QUESTION_FIELDS` that a record has. Rows are counted from 0 in
the order of the file: a line of JSON lines, an element of a JSON array, a member of an archive, a
row of a table; a text file is one document.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from pellucid.audit.contamination.records import Item
from pellucid.data.load import load_problems
from pellucid.data.readers import decode
from pellucid.data.registry import DATASETS
from pellucid.errors import DataError
from pellucid.records import Problem
from pellucid.tasks import PROCEDURAL

QUESTION_FIELDS = ("question", "problem", "prompt", "instruction", "input", "goal", "text")
"""Where published files keep the question."""
ANSWER_FIELDS = ("answer", "solution", "output", "target", "gold")
"""Where they keep the answer."""
TEXT_ENDINGS = ("txt", "md", "tex")
FILE_ENDINGS = ("jsonl", "json", "csv", "tsv", "tar", "zip", "parquet", *TEXT_ENDINGS)
_PACKED = ("gz", "zst")
_BUFFER_BYTES = 1 << 20
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file of documents."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def documents(self) -> Iterator[tuple[int, str]]:
        """(row, text). Raises DataError naming the file where it cannot be read."""
        for row, record in records(self.path):
            yield row, all_text(record)


@dataclass(frozen=True, slots=True)
class ProblemSource:
    """Problems in memory. A row is the place in the list."""

    name: str
    problems: Sequence[Problem]

    def documents(self) -> Iterator[tuple[int, str]]:
        """(row, question): the gold is a word or two, and stands everywhere."""
        for row, problem in enumerate(self.problems):
            yield row, problem.question


@dataclass(frozen=True, slots=True)
class TextSource:
    """Texts in memory."""

    name: str
    texts: Sequence[str]

    def documents(self) -> Iterator[tuple[int, str]]:
        """(row, text)"""
        yield from enumerate(self.texts)


def sources_of(names: Sequence[str]) -> list[FileSource]:
    """A source for each file; a folder stands for all files in it whose kind is known.

    Raises DataError where there is none.
    """
    found: list[FileSource] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            files = [p for p in sorted(path.rglob("*")) if p.is_file() and is_known(p)]
            if not files:
                raise DataError(f"{path} holds no file of a known kind ({', '.join(FILE_ENDINGS)})")
            found += [FileSource(file) for file in files]
        else:
            found.append(FileSource(_known_file(name)))
    return found


def items_of(name: str, *, split: str = "test", data_dir: Path | None = None) -> list[Item]:
    """Items of a suite: a file, or a data set that has been fetched, or a procedural task.

    `NAME/SPLIT` names another split than `test`. Raises DataError where nothing of that name is
    there, or a record has no question.
    """
    if not Path(name).exists():
        base, _, of = name.partition("/")
        if base in DATASETS or base in PROCEDURAL:
            problems = load_problems(base, of or split, data_dir=data_dir)
            return problem_items(f"{base}/{of or split}", problems)
    path = _known_file(name)
    return [
        Item(suite=name, row=row, text=_question(record, path, row))
        for row, record in records(path)
    ]


def problem_items(suite: str, problems: Sequence[Problem]) -> list[Item]:
    """Items of problems. The row is that of the id `name/split/row` where it has one."""
    return [
        Item(
            suite=suite,
            row=_row_of(problem.id, place),
            text=problem.question,
            answer=problem.gold,
            name=problem.id,
        )
        for place, problem in enumerate(problems)
    ]


def _row_of(problem_id: str, place: int) -> int:
    last = problem_id.rpartition("/")[2]
    return int(last) if last.isdigit() else place


def is_known(path: Path) -> bool:
    """Whether the name ends as that of a file that can be read."""
    return _ending(path)[0] in FILE_ENDINGS


def _known_file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise DataError(f"there is no file or data set {name}: `pellucid data list` shows the sets")
    if not is_known(path):
        raise DataError(f"{name} is of no known kind: known are {', '.join(FILE_ENDINGS)}")
    return path


def _ending(path: Path) -> tuple[str, str]:
    """(kind, packing or empty): `a.jsonl.gz` is ("jsonl", "gz")."""
    parts = path.name.lower().split(".")
    packed = parts.pop() if parts[-1] in _PACKED else ""
    return parts[-1], packed


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """(row, record) of a file. JSON lines are streamed. Raises DataError where it is damaged."""
    kind, _ = _ending(path)
    try:
        with _unpacked(path) as stream:
            if kind == "jsonl":
                for row, line in enumerate(stream):
                    if line.strip():
                        yield row, _parsed(str(line, "utf-8").strip(" \t\r\n"))
            elif kind in TEXT_ENDINGS:
                yield 0, stream.read().decode(errors="replace")
            elif kind == "csv":
                text = io.TextIOWrapper(stream, newline="", errors="replace")
                yield from enumerate(csv.DictReader(text))
            else:
                yield from enumerate(_opened(stream.read(), path, kind))
    except (OSError, EOFError, ValueError, csv.Error, zstandard.ZstdError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read ({reason}): mend it, or leave it out") from error


def _parsed(line: str) -> Any:
    value, end = _DECODER.raw_decode(line)
    if end != len(line):
        raise ValueError(f"text behind the record at character {end}")
    return value


@contextmanager
def _unpacked(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, any packing taken off."""
    with ExitStack() as opened:
        stream: Any = opened.enter_context(path.open("rb"))
        packed = _ending(path)[1]
        if packed == "gz":
            stream = opened.enter_context(gzip.GzipFile(fileobj=stream))
        elif packed == "zst":
            unpacker = zstandard.ZstdDecompressor()
            stream = opened.enter_context(unpacker.stream_reader(stream, read_across_frames=True))
        yield opened.enter_context(io.BufferedReader(stream, _BUFFER_BYTES))


def _opened(payload: bytes, path: Path, kind: str) -> Sequence[Any]:
    if kind == "json":
        value = json.loads(payload)
        return value if isinstance(value, list) else [value]
    return decode(payload, f"{path}.{kind}")


def all_text(record: Any) -> str:
    """Every string of a record, one after the other, on lines of their own."""
    if isinstance(record, str):
        return record
    found: list[str] = []
    if type(record) is dict:
        for value in record.values():
            if type(value) is not str:
                _collect(value, found)
            elif value:
                found.append(value)
    else:
        _collect(record, found)
    return "\n".join(found)


def _collect(value: Any, into: list[str]) -> None:
    if isinstance(value, str):
        if value:
            into.append(value)
    elif isinstance(value, dict):
        for inner in value.values():
            _collect(inner, into)
    elif isinstance(value, list | tuple):
        for inner in value:
            _collect(inner, into)


def _question(record: Any, path: Path, row: int) -> str:
    if isinstance(record, str):
        return record
    if isinstance(record, Mapping):
        for field in QUESTION_FIELDS:
            if record.get(field):
                return all_text(record[field])
    raise DataError(
        f"{path} row {row} has no question; call the field one of {', '.join(QUESTION_FIELDS)}"
    )


def _answer(record: Any) -> str:
    if not isinstance(record, Mapping):
        return ""
    return next((all_text(record[f]) for f in ANSWER_FIELDS if record.get(f)), "")
