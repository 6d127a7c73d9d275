"""Sample records for who reads no token ids: a third of the time that parsing every line takes.

Canonical lines have their fields in one order, and samples of one item differ in a few. A line is
cut by the grammar of these few; where all between them is, byte for byte, what stood in a line that
was read whole and checked, so is its meaning. Whatever the grammar does not know is read whole, so
both ways accept the same lines and give the same records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from json.decoder import scanstring
from typing import Any, BinaryIO, Final

from pellucid.evidence.core.canonical import JsonError, parse_line
from pellucid.evidence.core.sample_fields import FINISHES, VERDICTS
from pellucid.evidence.core.samples import Sample, SampleChecker, SampleError, read_lines

_TOKEN_IDS = re.compile(rb'"token_ids":\[([0-9][0-9,]*)\]')
_LEADING_ZERO = re.compile(rb"(?:^|,)0[0-9]")
_DIGITS: Final = b"0123456789"
_WORD_END: Final = 1 << 64
SHORT = 100
"""Bytes of a string that is remembered."""

_GRAMMAR: Final = {
    "PLAIN": r'"[^"\\\x00-\x1f]*+"',
    "STRING": r'"[^"\\\x00-\x1f]*+(?:\\["\\/bfnrtu][^"\\\x00-\x1f]*+)*+"',
    "COUNT": r"(?:0|[1-9][0-9]{0,10}+)",
    "WORD": r"(?:0|[1-9][0-9]{0,19}+)",
    "DECIMAL": r"-?(?:0|[1-9][0-9]{0,17}+)\.[0-9]{1,20}+(?:e-[0-9]{1,2}+)?",
    "DIGEST": r'"[0-9a-f]{64}+"',
    "OBJECT": r"\{[^{}]*+\}",
    "BOOL": r"(?:true|false)",
    "FINISH": "|".join(f for f in FINISHES if f != "error"),
    "VERDICT": "|".join(VERDICTS),
}
"""What the names below stand for. Numbers and strings here are all finite and whole."""


def _pattern(text: str) -> re.Pattern[bytes]:
    for name, grammar in _GRAMMAR.items():
        text = text.replace(f"<{name}>", grammar)
    return re.compile(text.encode())


_UP_TO_RESPONSE = _pattern(
    r'(\{"arm":<PLAIN>,"cluster":<PLAIN>,"detail":)(<STRING>)'
    r',"energy_window":(null|<PLAIN>)(,"engine":<OBJECT>,"error":null,"eval_serial":<COUNT>)'
    r',"extracted":(null|<STRING>),"finish":"(<FINISH>)"'
    r'(,"gold":<STRING>,"grader":<PLAIN>,"grader_sha256":<DIGEST>,"item":<PLAIN>'
    r',"item_sha256":<DIGEST>),"k":(<COUNT>),"logprob_sum":(<DECIMAL>),"method":(<PLAIN>)'
    r'(,"model":<DIGEST>),"n_out":(<COUNT>)'
    r'(,"n_prompt":<COUNT>,"prompt_sha256":<DIGEST>,"question":<STRING>,"redacted":null)'
    r',"response":(?=")'
)
_AFTER_RESPONSE = _pattern(
    r',"retried":(<BOOL>),"sample_id":(<WORD>)'
    r'(,"sampler":<OBJECT>,"seed":<WORD>,"suite":<PLAIN>,"supersedes":null'
    r',"template_sha256":<DIGEST>),"token_ids":\['
)
_AFTER_TOKEN_IDS = _pattern(r'\](,"v":1),"verdict":"(<VERDICT>)","wall_ms":(null|<DECIMAL>)\}')


def lean_samples(packed: BinaryIO, packed_bytes: int) -> Iterator[tuple[bytes, Sample]]:
    """`samples.samples_of` with token ids checked as text, but for their size, and left out (`[]`).

    Raises SampleError at the first bad line.
    """
    read = _Reader()
    for number, line in enumerate(read_lines(packed, packed_bytes), 1):
        try:
            yield line, read(line)
        except (JsonError, SampleError) as error:
            raise SampleError(f"line {number}: {error}") from None


class _Reader:
    """The records of one file's lines, one after the other."""

    def __init__(self) -> None:
        self._check = SampleChecker()
        self._shared: tuple[bytes, ...] = ()
        """Bytes of the last line that was read whole, but for the fields that are read here."""
        self._head: dict[str, Any] = {}
        """Its record, in which every field that is read here is replaced."""

    def __call__(self, line: bytes) -> Sample:
        """Raises JsonError or SampleError."""
        try:
            sample = self._read(line)
        except ValueError:  # a string that is none: its reader below says why
            sample = None
        return self._read_whole(line) if sample is None else sample

    def _read(self, line: bytes) -> Sample | None:
        """None: not by this grammar. Raises ValueError for a string that is none."""
        start = _UP_TO_RESPONSE.match(line)
        if start is None:
            return None
        # A string's own quotes are escaped: this one ends it, or it is no string.
        response_end = line.find(b'","retried":', start.end()) + 1
        middle = _AFTER_RESPONSE.match(line, response_end)
        if middle is None:
            return None
        ids_end = line.find(b"]", middle.end())
        end = _AFTER_TOKEN_IDS.fullmatch(line, ids_end) if ids_end > 0 else None
        if end is None:
            return None
        a, detail, window, b, extracted, finish, c, k, logprob, method, d, n_out, e = start.groups()
        retried, sample_id, f = middle.groups()
        g, verdict, wall_ms = end.groups()
        identity, num_ids = int(sample_id), int(n_out)
        if identity >= _WORD_END or not _are_ids(line[middle.end() : ids_end], num_ids):
            return None
        shared = (a, b, c, d, e, f, g)
        if shared != self._shared:
            self._head, self._shared = dict(self._read_whole(line)), shared
        sample: Any = self._head.copy()
        sample["detail"] = _text(detail)
        sample["energy_window"] = None if window == b"null" else _text(window)
        sample["extracted"] = None if extracted == b"null" else _text(extracted)
        sample["finish"] = finish.decode()
        sample["k"] = int(k)
        sample["logprob_sum"] = float(logprob)
        sample["method"] = _text(method)
        sample["n_out"] = num_ids
        sample["response"] = _string(line[start.end() : response_end])
        sample["retried"] = retried == b"true"
        sample["sample_id"] = identity
        sample["token_ids"] = []
        sample["verdict"] = verdict.decode()
        sample["wall_ms"] = None if wall_ms == b"null" else float(wall_ms)
        return sample

    def _read_whole(self, line: bytes) -> Sample:
        found = _TOKEN_IDS.search(line)  # inside a JSON string these quotes would be escaped
        if found is not None and not _are_whole_numbers(found[1]):
            raise SampleError("token_ids holds something that is no token id")
        short = line if found is None else line[: found.start(1)] + line[found.end(1) :]
        sample: Sample = parse_line(short)
        left_out = None if found is None else found[1].count(b",") + 1
        if problem := self._check(sample, left_out):
            raise SampleError(problem)
        return sample


def _text(string: bytes) -> str:
    """What a short string says; most are as those before."""
    return _remembered(string) if len(string) < SHORT else _string(string)


@lru_cache(maxsize=256)
def _remembered(string: bytes) -> str:
    return _string(string)


def _string(string: bytes) -> str:
    """What a JSON string says. Raises ValueError where it is none, or more than one."""
    text = string.decode()
    value, end = scanstring(text, 1, True)
    if end != len(text):
        raise ValueError("a string that ends before its end")
    return value


def _are_ids(text: bytes, count: int) -> bool:
    """Whether digits and commas are so many JSON numbers."""
    if not text:
        return count == 0
    commas = text.translate(None, _DIGITS)
    return commas == b"," * (count - 1) and _are_whole_numbers(text)


def _are_whole_numbers(text: bytes) -> bool:
    """Whether digits and commas are JSON numbers (of any size); a regular expression takes longer
    than to parse them."""
    if text.startswith(b",") or b",," in text or text.endswith(b","):
        return False
    return not (text.startswith(b"0") or b",0" in text) or _LEADING_ZERO.search(text) is None
