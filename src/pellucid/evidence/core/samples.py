"""The dossier's sample record: one canonical JSON line per generation, a leaf of a Merkle tree.

Errors and truncations are records, not absences. A withheld text leaves `null` in its field and its
digest under `redacted`, with the hash of the whole record before it was withheld.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypedDict

from pellucid.evidence.core import sample_fields
from pellucid.evidence.core.canonical import (
    JsonError,
    canonical_json,
    is_sha256,
    leaf_hash,
    parse_line,
    sha256_json,
)
from pellucid.evidence.core.packed import START as PACKED_START
from pellucid.evidence.core.packed import PackError, Unpacker
from pellucid.evidence.core.sample_fields import (
    CHECKS,
    ENGINE,
    FINISHES,
    HEAD,
    RANGED,
    SAMPLER,
    TAIL,
    VERDICTS,
    Check,
)

SAMPLE_VERSION = sample_fields.SAMPLE_VERSION
MAX_LINE_BYTES = 4 << 20
"""A line holds a response and its token ids: 100,000 tokens take under 2 MB."""
MAX_TOTAL_BYTES = 64 << 30
"""Of one file, unpacked."""
MAX_RATIO = 250
"""Unpacked bytes per packed byte, beyond the first `FREE_BYTES`: more is a bomb."""
FREE_BYTES = 64 << 20
_CHUNK = 1 << 18
_GZIP = 31
"""What zlib calls gzip data with their header and checksum."""
_INT = {int}
MAX_KINDS = 64
"""Combinations of types that are remembered."""
_head_of = itemgetter(*HEAD)
_tail_of = itemgetter(*TAIL)

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
    """Lines (without newlines) of gzip data, streamed; those of packed samples (`core.packed`) are
    unpacked. Raises SampleError on damage and bombs.

    `packed_bytes`: how many there are.
    """
    lines = gzip_lines(packed, packed_bytes)
    first = next(lines, None)
    if first is None:
        return
    if first.startswith(PACKED_START):
        yield from _unpacked(first, lines, packed_bytes)
    else:
        yield first
        yield from lines


def _unpacked(header: bytes, lines: Iterator[bytes], packed_bytes: int) -> Iterator[bytes]:
    limit = min(MAX_TOTAL_BYTES, FREE_BYTES + MAX_RATIO * packed_bytes)
    total = 0
    try:
        unpacker = Unpacker(header, MAX_LINE_BYTES)
        for packed in lines:
            line = unpacker.line(packed)
            total += len(line)
            if total > limit:
                _fail(f"unpacks to more than {limit} bytes from {packed_bytes}")
            yield line
    except PackError as error:
        raise SampleError(f"packed samples: {error}") from None


def gzip_lines(packed: BinaryIO, packed_bytes: int) -> Iterator[bytes]:
    """`read_lines` as they lie in the file."""
    limit = min(MAX_TOTAL_BYTES, FREE_BYTES + MAX_RATIO * packed_bytes)
    total, rest = 0, b""
    try:
        for chunk in _unzipped(packed):
            total += len(chunk)
            if total > limit:
                _fail(f"unpacks to more than {limit} bytes from {packed_bytes}")
            lines = chunk.split(b"\n")
            lines[0] = rest + lines[0]
            rest = lines.pop()
            if len(rest) > MAX_LINE_BYTES:
                _fail(f"a line of more than {MAX_LINE_BYTES} bytes")
            yield from lines
    except (OSError, EOFError, zlib.error) as error:
        raise SampleError(f"damaged gzip: {error}") from None
    if rest:
        _fail("the last line has no end")


def _unzipped(packed: BinaryIO) -> Iterator[bytes]:
    """Unpacked gzip members, at most `_CHUNK` bytes at a time. Raises zlib.error, EOFError."""
    member, has_data = zlib.decompressobj(_GZIP), False
    while data := packed.read(_CHUNK // 4):
        has_data = True
        while data:
            if member.eof:
                data = data.lstrip(b"\0")  # they may fill the space up to the next member
                if not data:
                    break
                member = zlib.decompressobj(_GZIP)
            yield member.decompress(data, _CHUNK)
            data = member.unused_data or member.unconsumed_tail
    if has_data and not member.eof:
        raise EOFError("it ends within a member")


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
    """Typed check of every field. What neighbouring records share is checked once."""

    def __init__(self) -> None:
        self._head: tuple[Any, ...] = ()
        self._types: set[tuple[type, ...]] = set()

    def __call__(self, sample: Any, left_out: int | None = None) -> str | None:
        """What is wrong with a record, or None. `left_out`: token ids checked before."""
        if type(sample) is not dict:
            return "not an object"
        if sample.keys() != CHECKS.keys():
            return _keys_problem(sample)
        head = _head_of(sample)
        head = (*head, *map(type, head))  # 1, 1.0 and true are equal, but not alike
        if head != self._head:
            if problem := _fields_problem(sample, HEAD) or _nested_problem(sample):
                return problem
            self._head = head
        types = tuple(map(type, _tail_of(sample)))
        if types not in self._types:
            if problem := _fields_problem(sample, TAIL):
                return problem
            if len(self._types) < MAX_KINDS:
                self._types.add(types)
        return _values_problem(sample) or _consistency_problem(sample, left_out)


def _keys_problem(sample: dict[str, Any]) -> str:
    missing = sorted(CHECKS.keys() - sample.keys())
    extra = sorted(sample.keys() - CHECKS.keys())
    return f"lacks {missing[0]}" if missing else f"has a foreign field {extra[0][:40]!r}"


def _fields_problem(sample: Any, names: tuple[str, ...]) -> str | None:
    wrong = next((name for name in names if not CHECKS[name](sample[name])), None)
    return f"{wrong} is {_shown(sample[wrong])}" if wrong is not None else None


def _nested_problem(sample: Any) -> str | None:
    return _object_problem("sampler", sample["sampler"], SAMPLER) or _object_problem(
        "engine", sample["engine"], ENGINE
    )


def _values_problem(sample: Any) -> str | None:
    """The part of `TAIL`'s checks that the types do not settle."""
    for name in RANGED:
        if not 0 <= sample[name] < RANGED[name]:
            return f"{name} is {_shown(sample[name])}"
    if sample["verdict"] not in VERDICTS or sample["finish"] not in FINISHES:
        return f"verdict or finish is {_shown((sample['verdict'], sample['finish']))}"
    if not math.isfinite(sample["logprob_sum"]) or not math.isfinite(sample["wall_ms"] or 0):
        return "logprob_sum or wall_ms is not finite"
    if sample["supersedes"] is not None and not is_sha256(sample["supersedes"]):
        return f"supersedes is {_shown(sample['supersedes'])}"
    return None


def _consistency_problem(sample: Any, left_out: int | None) -> str | None:
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
        num_ids = len(ids) if left_out is None else left_out
        if num_ids != sample["n_out"] or (ids and left_out is not None):
            return f"n_out is {sample['n_out']} but there are {num_ids} token ids"
        if ids and not (set(map(type, ids)) == _INT and min(ids) >= 0 and max(ids) < 1 << 31):
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


def _object_problem(name: str, value: dict[str, Any], checks: dict[str, Check]) -> str | None:
    if value.keys() != checks.keys():
        return f"{name} has other fields than {', '.join(checks)}"
    wrong = next((key for key, is_right in checks.items() if not is_right(value[key])), None)
    return f"{name}.{wrong} is {_shown(value[wrong])}" if wrong else None


def _shown(value: object) -> str:
    return ascii(value)[:60]


def _fail(why: str) -> NoReturn:
    raise SampleError(why)
