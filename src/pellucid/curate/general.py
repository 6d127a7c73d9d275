"""Non-reasoning data: prompts with an answer that people wrote, learnt along with the samples.

    {"prompt": "Name three rivers.", "response": "…"}            or "messages", and "thinking"

Sources: files of JSON lines, three public sets by name, and the templated small talk of the
embedded model. Every row is checked; the first bad one is named by file and line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.artifacts import sha256_bytes
from pellucid.curate.example import GENERAL, CuratedExample
from pellucid.curate.reply import Reply, has_tags, write_reply
from pellucid.data.store import default_data_dir
from pellucid.errors import DataError
from pellucid.rewards.language import SCRIPTS
from pellucid.tasks import smalltalk
from pellucid.tasks.templates import Template

EMBEDDED = "embedded"
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralRow:
    """One prompt with its answer.

    Example: GeneralRow(id="dolly-1k/3", prompt="What is …?", response="It is …")
    """

    id: str
    """`source/row`, the row counted from 0."""
    prompt: str | tuple[Mapping[str, str], ...]
    """A question, or messages of which the last is the user's."""
    response: str
    thinking: str = ""
    language: str = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSet:
    """A published set: its file in the data folder, what it must hold, how it is read."""

    file: str
    """Below the data folder; with or without .gz."""
    original_sha256: str
    """Of the published file, any .gz around it removed."""
    rows: Callable[[bytes], Iterator[tuple[str, str]]]
    """(prompt, response) of each row."""


def read_dolly(payload: bytes) -> Iterator[tuple[str, str]]:
    """CSV: instruction, context, response, category."""
    for row in csv.DictReader(io.StringIO(payload.decode(), newline="")):
        yield _with_input(row["instruction"], row["context"]), row["response"]


def read_self_instruct(payload: bytes) -> Iterator[tuple[str, str]]:
    """JSON lines: instruction and instances (input, output), of which the first is taken."""
    for line in payload.decode().split("\n"):
        if line:
            row = json.loads(line)
            first = row["instances"][0]
            yield _with_input(row["instruction"], first["input"]), first["output"]


def read_instruction(payload: bytes) -> Iterator[tuple[str, str]]:
    """A JSON list: instruction, input, output."""
    for row in json.loads(payload):
        yield _with_input(row["instruction"], row["input"]), row["output"]


PUBLIC: dict[str, PublicSet] = {
    "dolly-1k": PublicSet(
        file="dolly-1k/databricks_dolly_1k.csv",
        original_sha256="587b3bbc755f416786afae82378271228b065ed7a49fdff5e1994051e736cc8f",
        rows=read_dolly,
    ),
    "self-instruct": PublicSet(
        file="self-instruct/seed_tasks.jsonl",
        original_sha256="7779004fa198fdf27cf70a159363879d8a26c53329e11b436af17b3941875f48",
        rows=read_self_instruct,
    ),
    "instruction-1100": PublicSet(
        file="instruction-1100/instruction-data.json",
        original_sha256="7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
        rows=read_instruction,
    ),
}
"""Databricks Dolly (CC BY-SA 3.0), the seed tasks of Self-Instruct (Apache-2.0) and the instruction
set of `rasbt/LLMs-from-scratch` (Apache-2.0)."""


def load_general(
    sources: Sequence[str], count: int, *, seed: int, data_dir: Path | str | None = None
) -> list[GeneralRow]:
    """At most `count` rows of all sources together, drawn by the seed.

    Raises DataError for a source that is missing, altered, or holds a row that is none.
    """
    rows = [row for source in sources for row in read_source(source, data_dir)]
    order = random.Random(f"general/{seed}").sample(range(len(rows)), min(count, len(rows)))
    return [rows[i] for i in sorted(order)]


def read_source(source: str, data_dir: Path | str | None = None) -> list[GeneralRow]:
    """All rows of one source."""
    if source == EMBEDDED:
        return list(_embedded())
    if source in PUBLIC:
        return _read_public(source, Path(data_dir) if data_dir else default_data_dir())
    return read_file(Path(source))


def read_file(path: Path) -> list[GeneralRow]:
    """Rows of a file of JSON lines. Raises DataError naming file and line."""
    if not path.is_file():
        raise DataError(
            f"general data {str(path)!r} is no file and none of {EMBEDDED}, {', '.join(PUBLIC)}: "
            "correct general.sources"
        )
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            record = json.loads(line)
        except ValueError:
            raise DataError(f"{where} is no JSON: correct or remove it") from None
        rows.append(_checked(record, f"{path.stem}/{number - 1}", where))
    if not rows:
        raise DataError(f"{path} holds no row: give lines of prompt and response")
    return rows


def to_example(row: GeneralRow, template: Template) -> CuratedExample:
    """The row as the template writes it. Messages need a chat template (DataError)."""
    prompt = row.prompt
    if template.is_chat and isinstance(prompt, str):
        # Bare, without the template's request for a boxed answer.
        prompt = ({"role": "user", "content": prompt},)
    if not template.is_chat and not isinstance(prompt, str):
        if len(prompt) > 1:
            raise DataError(
                f"{row.id} is a conversation, which template {template.name!r} cannot hold: choose "
                "a chat template, or remove it"
            )
        prompt = prompt[0]["content"]
    reply = Reply(row.thinking.strip(), row.response.strip())
    return CuratedExample(
        id=row.id,
        kind=GENERAL,
        prompt=prompt,
        thinking=reply.thinking,
        summary=reply.summary,
        response=write_reply(reply, template),
        template=template.name,
        language=row.language,
    )


def most_general(num_sampled: int, share: float) -> int:
    """How many general rows make at most `share` of all examples. 3 samples at 0.25: 1."""
    return int(num_sampled * share / (1.0 - share) + 1e-9)


def _checked(record: Any, name: str, where: str) -> GeneralRow:
    """The row of a record, or DataError that names the field."""

    def refuse(reason: str) -> DataError:
        return DataError(f"{where}: {reason}")

    if not isinstance(record, dict):
        raise refuse("must be an object with prompt or messages, and response")
    known = {"prompt", "messages", "response", "thinking", "language"}
    if unknown := sorted(record.keys() - known):
        raise refuse(f"unknown field {unknown[0]!r}: use {', '.join(sorted(known))}")
    if ("prompt" in record) == ("messages" in record):
        raise refuse("needs either prompt or messages")
    texts = {"response": None, "thinking": "", "language": "en"}
    texts |= {"prompt": None} if "prompt" in record else {}
    values = {field: record.get(field, default) for field, default in texts.items()}
    for field, value in values.items():
        if not isinstance(value, str):
            raise refuse(f"{field} must be text" if field in record else f"{field} is missing")
        if field != "thinking" and not value.strip():
            raise refuse(f"{field} is empty")
    if has_tags(values["response"] + values["thinking"]):
        raise refuse("response and thinking must not hold <think> or <answer> tags")
    if values["language"] not in SCRIPTS:
        raise refuse(f"no script known for language {values['language']!r}")
    prompt = values.get("prompt") or _messages(record["messages"], where)
    return GeneralRow(
        id=name,
        prompt=prompt,
        response=values["response"],
        thinking=values["thinking"],
        language=values["language"],
    )


def _messages(value: Any, where: str) -> tuple[Mapping[str, str], ...]:
    is_list = isinstance(value, list) and value
    if not is_list or not all(
        isinstance(m, dict)
        and m.keys() == {"role", "content"}
        and m["role"] in _ROLES
        and isinstance(m["content"], str)
        for m in value
    ):
        raise DataError(
            f"{where}: messages must be a list of objects with content and role, one of "
            f"{', '.join(_ROLES)}"
        )
    if value[-1]["role"] != "user":
        raise DataError(f"{where}: the last message must be the user's; its answer is response")
    return tuple(value)


def _read_public(name: str, data_dir: Path) -> list[GeneralRow]:
    source = PUBLIC[name]
    plain, packed = data_dir / source.file, data_dir / f"{source.file}.gz"
    try:
        payload = plain.read_bytes() if plain.is_file() else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(
            f"general data {name!r} is not at {packed} ({error}): put the published file there"
        ) from error
    got = sha256_bytes(payload)
    if got != source.original_sha256:
        raise DataError(
            f"{plain} was altered: expected sha256 {source.original_sha256}, got {got}: put the "
            "published file there"
        )
    # A few published answers are empty, or hold tags: nothing to learn from.
    return [
        GeneralRow(id=f"{name}/{row}", prompt=prompt, response=response)
        for row, (prompt, response) in enumerate(source.rows(payload))
        if prompt.strip() and response.strip() and not has_tags(response)
    ]


def _with_input(instruction: str, given: str) -> str:
    return f"{instruction.strip()}\n\n{given.strip()}" if given.strip() else instruction.strip()


def _embedded() -> Iterator[GeneralRow]:
    """A good answer to every training prompt of the small talk, refusals among them."""
    rng = random.Random("general/embedded")
    asks = [ask for harmful in (False, True) for ask in smalltalk.prompts("train", harmful=harmful)]
    for number, ask in enumerate(asks):
        reply = smalltalk.reply(ask, "good", rng)
        yield GeneralRow(
            id=f"{EMBEDDED}/{number}",
            prompt=ask.prompt,
            response=reply.answer,
            thinking=reply.thinking,
            language=ask.language,
        )
