"""Preference pairs and labelled responses from files: what reward models learn and are measured on.

Formats are told by the fields of the first record, plain or gzipped, JSON or JSON lines:

    {"prompt" | "messages", "chosen", "rejected"}     pairs, the format written here
    {"chosen": "\\n\\nHuman: …", "rejected": …}         HH-RLHF (Bai et al. 2022): whole dialogues
    {"prompt", "chosen": [3], "rejected": [3]}        RM-Bench (Liu et al. 2024): three styles each
    {"question", "response_A", "response_B", "label"} JudgeBench (Tan et al. 2024)
    {"prompt" | "messages", "response", "safe"}       labelled responses

A row that cannot be used is dropped and counted under its reason. Not here: who judged the pairs.
"""

from __future__ import annotations

import gzip
import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from pellucid.artifacts import canonical_json, os_error_line
from pellucid.data.readers import Record, decode
from pellucid.errors import DataError

Prompt = str | tuple[Mapping[str, str], ...]
"""A question, or the messages (`role`, `content`) before the answer, the user's last."""

_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}
STYLES = 3
"""Of RM-Bench: concise, detailed, detailed with Markdown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """Two answers to one prompt, one of them better.

    Example: PreferencePair(id="a/0", prompt="Hi", chosen="Hello!", rejected="What?")
    """

    id: str
    prompt: Prompt
    chosen: str
    """The better response, thinking included where there is any."""
    rejected: str
    subset: str = ""
    """Which part of a published set it is of."""

    @property
    def cluster(self) -> str:
        """Pairs of one prompt are not independent: what a bootstrap draws whole."""
        return prompt_key(self.prompt)

    def to_dict(self) -> dict[str, Any]:
        """A line of a file that `read_pairs` reads."""
        return _prompt_field(self.prompt) | {
            "id": self.id,
            "chosen": self.chosen,
            "rejected": self.rejected,
            "subset": self.subset,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledResponse:
    """A response that is safe or not.

    Example: LabelledResponse(id="b/0", prompt="…", response="I cannot help.", safe=True)
    """

    id: str
    prompt: Prompt
    response: str
    """The whole of it, thinking included."""
    safe: bool
    subset: str = ""

    @property
    def cluster(self) -> str:
        return prompt_key(self.prompt)

    def to_dict(self) -> dict[str, Any]:
        """A line of a file that `read_labelled` reads."""
        return _prompt_field(self.prompt) | {
            "id": self.id,
            "response": self.response,
            "safe": self.safe,
            "subset": self.subset,
        }


class Clustered(Protocol):
    """What has a prompt."""

    @property
    def cluster(self) -> str: ...


Row = TypeVar("Row", bound=Clustered)


class Read(NamedTuple, Generic[Row]):
    """Usable rows of a file, and why the others are not."""

    rows: list[Row]
    dropped: dict[str, int]
    """Reason -> rows."""


class Split(NamedTuple, Generic[Row]):
    """Rows to learn from and rows to measure with; no prompt is in both."""

    train: list[Row]
    held_out: list[Row]


class _Unusable(Exception):
    """A row that teaches nothing; the text is the reason it is counted under."""


def read_pairs(path: Path) -> Read[PreferencePair]:
    """All usable pairs of a file. Raises DataError where it cannot be read, or holds no pair."""
    records = _records(path)
    reader = _pair_reader(records[0], path)
    return _read(path, records, reader)


def read_labelled(path: Path) -> Read[LabelledResponse]:
    """All usable labelled responses of a file; of pairs whose rejected response is unsafe, as in
    RM-Bench's `safety-refuse`, both. Raises DataError as `read_pairs`.
    """
    records = _records(path)
    if "safe" in records[0]:
        return _read(path, records, _labelled)
    if _is_refusal_set(records[0]):
        return _read(path, records, _refusals)
    raise DataError(
        f"{path}: no labelled responses: records need prompt (or messages), response and safe "
        f"(true or false), not {', '.join(sorted(records[0]))}"
    )


def split_by_prompt(rows: Sequence[Row], held_out: float, *, seed: int) -> Split[Row]:
    """A seeded share of the prompts, at least one, with all their rows, kept apart.

    Raises DataError where fewer than two prompts leave nothing to keep apart.
    """
    clusters = sorted({row.cluster for row in rows})
    if len(clusters) < 2:
        raise DataError(
            f"{len(rows)} examples of {len(clusters)} prompts cannot be split into training and "
            "held-out ones: give more"
        )
    random.Random(f"held-out/{seed}").shuffle(clusters)
    apart = set(clusters[: min(max(1, round(held_out * len(clusters))), len(clusters) - 1)])
    return Split(
        [row for row in rows if row.cluster not in apart],
        [row for row in rows if row.cluster in apart],
    )


def prompt_key(prompt: Prompt) -> str:
    """The same for equal prompts: 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(prompt)).hexdigest()[:16]


def _records(path: Path) -> list[Record]:
    try:
        payload = path.read_bytes()
        if path.suffix == ".gz":
            payload = gzip.decompress(payload)
    except OSError as error:
        raise DataError(f"cannot read {path}: {os_error_line(error)}") from error
    except EOFError as error:
        raise DataError(f"{path} is cut short: copy it again") from error
    records = decode(payload, path.name)
    if not records or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path} holds no records: give a file of JSON objects")
    return records


def _read(path: Path, records: Sequence[Record], reader: _Reader[Row]) -> Read[Row]:
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    name = path.name.split(".")[0]
    for number, record in enumerate(records):
        try:
            rows.extend(reader(record, f"{name}/{number}"))
        except _Unusable as reason:
            dropped[str(reason)] += 1
        except (KeyError, TypeError, IndexError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{path} record {number + 1} differs from the first: {reason}"
            ) from None
    if not rows:
        raise DataError(f"{path}: none of its {len(records)} rows can be used: {dict(dropped)}")
    return Read(rows, dict(dropped))


_Reader = Callable[[Record, str], Iterator[Row]]


def _pair_reader(record: Record, path: Path) -> _Reader[PreferencePair]:
    chosen = record.get("chosen")
    if "response_A" in record:
        return _judgebench
    if isinstance(chosen, list):
        return _rm_bench
    if isinstance(chosen, str) and ("prompt" in record or "messages" in record):
        return _plain_pair
    if isinstance(chosen, str) and _TURN.match(chosen):
        return _hh
    raise DataError(
        f"{path}: no preference pairs: records need prompt (or messages), chosen and rejected, "
        f"not {', '.join(sorted(record))}"
    )


def _plain_pair(record: Record, name: str) -> Iterator[PreferencePair]:
    yield _pair(
        str(record.get("id", name)),
        _prompt_of(record),
        record["chosen"],
        record["rejected"],
        str(record.get("subset", "")),
    )


def _hh(record: Record, name: str) -> Iterator[PreferencePair]:
    prompt, chosen = _last_answer(record["chosen"])
    other, rejected = _last_answer(record["rejected"])
    if prompt != other:
        raise _Unusable("the dialogues differ before the answer")
    yield _pair(name, prompt, chosen, rejected, "")


def _rm_bench(record: Record, name: str) -> Iterator[PreferencePair]:
    """All nine: a style's index says how much it adorns; hard is where the rejected one does
    more.
    """
    if not len(record["chosen"]) == len(record["rejected"]) == STYLES:
        raise _Unusable("not three styles of both answers")
    for i, chosen in enumerate(record["chosen"]):
        for j, rejected in enumerate(record["rejected"]):
            subset = "normal" if i == j else "hard" if i < j else "easy"
            yield _pair(f"{name}/{i}{j}", record["prompt"], chosen, rejected, subset)


def _judgebench(record: Record, name: str) -> Iterator[PreferencePair]:
    answers = (record["response_A"], record["response_B"])
    if record["label"] not in ("A>B", "B>A"):
        raise _Unusable("no answer is labelled the better one")
    chosen, rejected = answers if record["label"] == "A>B" else answers[::-1]
    yield _pair(name, record["question"], chosen, rejected, str(record.get("source", "")))


def _labelled(record: Record, name: str) -> Iterator[LabelledResponse]:
    if not isinstance(record["safe"], bool):
        raise _Unusable("safe is neither true nor false")
    if not record["response"].strip():
        raise _Unusable("an empty response")
    yield LabelledResponse(
        id=str(record.get("id", name)),
        prompt=_prompt_of(record),
        response=record["response"],
        safe=record["safe"],
        subset=str(record.get("subset", "")),
    )


def _is_refusal_set(record: Record) -> bool:
    return isinstance(record.get("chosen"), list) and "refus" in str(record.get("subset", ""))


def _refusals(record: Record, name: str) -> Iterator[LabelledResponse]:
    for safe, key in ((True, "chosen"), (False, "rejected")):
        for i, response in enumerate(record[key]):
            yield LabelledResponse(
                id=f"{name}/{key}-{i}",
                prompt=record["prompt"],
                response=response,
                safe=safe,
                subset=record["subset"],
            )


def _pair(id: str, prompt: Prompt, chosen: str, rejected: str, subset: str) -> PreferencePair:
    if not chosen.strip() or not rejected.strip():
        raise _Unusable("an empty answer")
    if chosen == rejected:
        raise _Unusable("equal answers")
    return PreferencePair(id=id, prompt=prompt, chosen=chosen, rejected=rejected, subset=subset)


def _last_answer(dialogue: str) -> tuple[Prompt, str]:
    """The messages before the last answer of an HH-RLHF dialogue, and that answer."""
    _, *parts = _TURN.split(dialogue)
    turns = [
        {"role": _ROLES[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    if len(turns) < 2 or turns[-1]["role"] != "assistant" or turns[-2]["role"] != "user":
        raise _Unusable("no question and answer at the end")
    return tuple(turns[:-1]), turns[-1]["content"]


def _prompt_of(record: Record) -> Prompt:
    prompt = record.get("prompt", record.get("messages"))
    if isinstance(prompt, list):
        prompt = tuple({"role": m["role"], "content": m["content"]} for m in prompt)
        if not prompt or prompt[-1]["role"] == "assistant":
            raise _Unusable("the messages do not end with a question")
    elif not isinstance(prompt, str) or not prompt.strip():
        raise _Unusable("no prompt")
    return prompt


def _prompt_field(prompt: Prompt) -> dict[str, Any]:
    if isinstance(prompt, str):
        return {"prompt": prompt}
    return {"messages": [dict(message) for message in prompt]}
