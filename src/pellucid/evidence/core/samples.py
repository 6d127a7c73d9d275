"""The dossier's sample record: one canonical JSON line per generation, a leaf of a Merkle tree.

Errors and truncations are records, not absences. A withheld text leaves `null` in its field and its
digest under `redacted`, with the hash of the whole record before it was withheld.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypedDict

from pellucid.evidence.core.canonical import (
    JsonError,
    canonical_json,
    is_sha256,
    leaf_hash,
    parse_line,
    sha256_json,
)

SAMPLE_VERSION = 1
MAX_LINE_BYTES = 4 << 20
"""A line holds a response and its token ids: 100,000 tokens take under 2 MB."""
MAX_TOTAL_BYTES = 64 << 30
"""Of one file, unpacked."""
MAX_RATIO = 250
"""Unpacked bytes per packed byte, beyond the first `FREE_BYTES`: more is a bomb."""
FREE_BYTES = 64 << 20
_CHUNK = 1 << 18

VERDICTS = ("correct", "wrong", "unparsable", "timeout", "error", "ungraded")
FINISHES = ("eos", "stop_string", "length", "error")
WITHHELD_FIELDS = ("question", "gold", "response", "token_ids", "extracted", "detail")
"""What may be withheld, always the first four and `extracted` together."""


class Sampler(TypedDict):
    """How tokens were drawn."""

    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    stop: list[str]
    rng: str
    """`philox(key=seed, counter=(sample_id, position))`"""


class EngineInfo(TypedDict):
    """What drew them."""

    name: str
    version: str
    dtype: str
    batch_invariant: bool
    tensor_parallel: int


class Redaction(TypedDict):
    """What was withheld from a record."""

    leaf: str
    """`leaf_hash` (hexadecimal) of the whole record: with the text, anyone can rebuild and check
    it."""
    fields: dict[str, str]
    """Withheld field -> SHA-256 of its canonical JSON."""


class Sample(TypedDict):
    """All keys are always there. Example: {"arm": "after", "cluster": "gsm8k/test/0", …, "v": 1}"""

    v: int
    eval_serial: int
    """Number of the attempt, 1, 2, …: `serial` in the payload of its `evaluation_started`."""
    suite: str
    arm: str
    item: str
    """Id of the problem."""
    item_sha256: str
    """`canonical.item_sha256` of id, question, gold and grader."""
    cluster: str
    """Family of the problem: variants of each other share it."""
    model: str
    """Root digest of the weights that answered (`weights/manifest.json`: `root`)."""
    template_sha256: str
    prompt_sha256: str
    """Of the prompt's token ids: canonical JSON array."""
    k: int
    """0 … samples per problem - 1."""
    seed: int
    sample_id: int
    """Counter of the sampler's randomness."""
    sampler: Sampler
    engine: EngineInfo
    question: str | None
    gold: str | None
    grader: str
    """Name of the grader, as in `pellucid.rewards.GRADERS`."""
    grader_sha256: str
    """Digest of the graders' sources: `grade.grader_sha256()`."""
    response: str | None
    """The text that was graded."""
    token_ids: list[int] | None
    """As sampled, end of sequence included."""
    finish: str
    """One of `FINISHES`."""
    n_prompt: int
    n_out: int
    logprob_sum: float
    verdict: str
    """One of `VERDICTS`."""
    extracted: str | None
    method: str
    """Which path decided: `strict`, `math-verify`, …"""
    detail: str
    retried: bool
    wall_ms: float | None
    energy_window: str | None
    """Id of a line of energy/windows.jsonl."""
    error: str | None
    """What failed where `finish` is `error`."""
    supersedes: str | None
    """Leaf hash of a record that this one replaces."""
    redacted: Redaction | None


class SampleError(ValueError):
    """A line that is no sample record, or a file that is out of proportion: says why."""


def sample_line(sample: Sample) -> bytes:
    """The canonical line, without newline. Raises SampleError on a field of the wrong type."""
    if problem := sample_problem(sample):
        raise SampleError(problem)
    return canonical_json(sample)


def redact_sample(sample: Sample, fields: tuple[str, ...] = WITHHELD_FIELDS) -> Sample:
    """The record with these fields withheld, their digests and its own leaf kept."""
    if sample["redacted"] is not None:
        return sample
    kept: Any = dict(sample)
    digests = {name: sha256_json(kept[name]) for name in fields if kept[name] is not None}
    kept |= {name: "" if name == "detail" else None for name in digests}
    kept["redacted"] = {"leaf": leaf_hash(sample_line(sample)).hex(), "fields": digests}
    return kept


def read_lines(packed: BinaryIO, packed_bytes: int) -> Iterator[bytes]:
    """Lines (without newlines) of gzip data, streamed. Raises SampleError on damage and bombs.

    `packed_bytes`: how many there are.
    """
    limit = min(MAX_TOTAL_BYTES, FREE_BYTES + MAX_RATIO * packed_bytes)
    total, rest = 0, b""
    try:
        with gzip.open(packed, "rb") as file:
            while chunk := file.read(_CHUNK):
                total += len(chunk)
                if total > limit:
                    _fail(f"unpacks to more than {limit} bytes from {packed_bytes}")
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                if len(rest) > MAX_LINE_BYTES:
                    _fail(f"a line of more than {MAX_LINE_BYTES} bytes")
                yield from lines
    except (OSError, EOFError, zlib.error) as error:
        raise SampleError(f"damaged gzip: {error}") from None
    if rest:
        _fail("the last line has no end")


def read_samples(path: Path) -> Iterator[tuple[bytes, Sample]]:
    """(line, record) of every sample of a .jsonl.gz file. Raises SampleError at the first bad one.

    Lines are checked by type, not for canonical form: their bytes are what is hashed.
    """
    with path.open("rb") as file:
        yield from samples_of(file, path.stat().st_size)


def samples_of(packed: BinaryIO, packed_bytes: int) -> Iterator[tuple[bytes, Sample]]:
    """`read_samples` of an open file."""
    check = SampleChecker()
    for number, line in enumerate(read_lines(packed, packed_bytes), 1):
        try:
            sample = parse_line(line)
        except JsonError as error:
            raise SampleError(f"line {number}: {error}") from None
        if problem := check(sample):
            raise SampleError(f"line {number}: {problem}")
        yield line, sample


def sample_problem(sample: Any) -> str | None:
    """What is wrong with a record, or None."""
    return SampleChecker()(sample)


class SampleChecker:
    """Typed check of every field; remembers the sampler and engine it has already seen."""

    def __init__(self) -> None:
        self._sampler: Any = None
        self._engine: Any = None

    def __call__(self, sample: Any) -> str | None:
        """What is wrong with a record, or None."""
        if type(sample) is not dict:
            return "not an object"
        if sample.keys() != _CHECKS.keys():
            missing = sorted(_CHECKS.keys() - sample.keys())
            extra = sorted(sample.keys() - _CHECKS.keys())
            return f"lacks {missing[0]}" if missing else f"has a foreign field {extra[0][:40]!r}"
        for name, is_right in _CHECKS.items():
            if not is_right(sample[name]):
                return f"{name} is {_shown(sample[name])}"
        if sample["sampler"] != self._sampler:
            if problem := _object_problem("sampler", sample["sampler"], _SAMPLER):
                return problem
            self._sampler = sample["sampler"]
        if sample["engine"] != self._engine:
            if problem := _object_problem("engine", sample["engine"], _ENGINE):
                return problem
            self._engine = sample["engine"]
        return _consistency_problem(sample)


def _consistency_problem(sample: Any) -> str | None:
    redacted, ids = sample["redacted"], sample["token_ids"]
    if redacted is None:
        empty = [
            name for name in ("question", "gold", "response", "token_ids") if sample[name] is None
        ]
        if empty:
            return f"{empty[0]} is missing but not declared withheld"
    elif problem := _redaction_problem(sample, redacted):
        return problem
    if ids is not None:
        if len(ids) != sample["n_out"]:
            return f"n_out is {sample['n_out']} but there are {len(ids)} token ids"
        if ids and not (set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) < 1 << 31):
            return "token_ids holds something that is no token id"
    if (sample["finish"] == "error") != (sample["error"] is not None):
        return "finish and error disagree"
    return None


def _redaction_problem(sample: Any, redacted: Any) -> str | None:
    if type(redacted) is not dict or redacted.keys() != {"leaf", "fields"}:
        return "redacted is no redaction"
    fields = redacted["fields"]
    if not is_sha256(redacted["leaf"]) or type(fields) is not dict or not fields:
        return "redacted is no redaction"
    for name, digest in fields.items():
        if name not in WITHHELD_FIELDS or not is_sha256(digest):
            return f"redacted names {_shown(name)}"
        if sample[name]:
            return f"{name} is said to be withheld but is there"
    return None


# Types, by field


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_name(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= 500 and value.isprintable()


def _is_text_or_none(value: object) -> bool:
    return value is None or type(value) is str


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


def _is_word(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_number_or_none(value: object) -> bool:
    return value is None or _is_number(value)


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_list_or_none(value: object) -> bool:
    return value is None or type(value) is list


def _is_object(value: object) -> bool:
    return type(value) is dict


def _is_object_or_none(value: object) -> bool:
    return value is None or type(value) is dict


def _is_sha256_or_none(value: object) -> bool:
    return value is None or is_sha256(value)


def _is_stop_list(value: object) -> bool:
    return type(value) is list and all(type(s) is str for s in value)


_Check = Callable[[object], bool]

_CHECKS: dict[str, _Check] = {
    "v": lambda v: v == SAMPLE_VERSION and type(v) is int,
    "eval_serial": _is_count,
    "suite": _is_name,
    "arm": _is_name,
    "item": _is_name,
    "item_sha256": is_sha256,
    "cluster": _is_name,
    "model": is_sha256,
    "template_sha256": is_sha256,
    "prompt_sha256": is_sha256,
    "k": _is_count,
    "seed": _is_word,
    "sample_id": _is_word,
    "sampler": _is_object,
    "engine": _is_object,
    "question": _is_text_or_none,
    "gold": _is_text_or_none,
    "grader": _is_name,
    "grader_sha256": is_sha256,
    "response": _is_text_or_none,
    "token_ids": _is_list_or_none,
    "finish": lambda v: type(v) is str and v in FINISHES,
    "n_prompt": _is_count,
    "n_out": _is_count,
    "logprob_sum": _is_number,
    "verdict": lambda v: type(v) is str and v in VERDICTS,
    "extracted": _is_text_or_none,
    "method": _is_text,
    "detail": _is_text,
    "retried": _is_bool,
    "wall_ms": _is_number_or_none,
    "energy_window": _is_text_or_none,
    "error": _is_text_or_none,
    "supersedes": _is_sha256_or_none,
    "redacted": _is_object_or_none,
}

_SAMPLER: dict[str, _Check] = {
    "temperature": _is_number,
    "top_p": _is_number,
    "top_k": _is_count,
    "max_new_tokens": _is_count,
    "stop": _is_stop_list,
    "rng": _is_text,
}

_ENGINE: dict[str, _Check] = {
    "name": _is_text,
    "version": _is_text,
    "dtype": _is_text,
    "batch_invariant": _is_bool,
    "tensor_parallel": _is_count,
}


def _object_problem(name: str, value: dict[str, Any], checks: dict[str, _Check]) -> str | None:
    if value.keys() != checks.keys():
        return f"{name} has other fields than {', '.join(checks)}"
    wrong = next((key for key, is_right in checks.items() if not is_right(value[key])), None)
    return f"{name}.{wrong} is {_shown(value[wrong])}" if wrong else None


def _shown(value: object) -> str:
    return ascii(value)[:60]


def _fail(why: str) -> NoReturn:
    raise SampleError(why)
