"""Sample records for who reads no token ids: a fifth of the time that parsing every line takes.

Canonical lines have their fields in one order, and samples of one item differ in a few. A line is
cut by the grammar of these few; where all between them is, byte for byte, what stood in a line that
was read and checked, so is its meaning. What opens another item is cut by the grammar of the fields
in which items of one evaluation differ. Whatever the grammar does not know is read whole, so all
ways accept the same lines and give the same records. Records with one `sampler` object are of one
item: all that `sample_fields.HEAD` names is equal in them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from json.decoder import scanstring
from typing import Any, BinaryIO, Final, NamedTuple

from pellucid.evidence.core.canonical import JsonError, parse_line
from pellucid.evidence.core.sample_fields import CHECKS, FINISHES, VERDICTS
from pellucid.evidence.core.samples import Sample, SampleChecker, SampleError, read_lines

_WORD_END: Final = 1 << 64

IS_POSSESSIVE: Final = sys.version_info >= (3, 11, 5)
"""Earlier Pythons match what is possessive around what repeats wrongly (CPython's gh-106052)."""

_ID: Final = r"[1-9][0-9]{0,8}+"
_EIGHT: Final = rf"{_ID}{f',{_ID}' * 7},"
_GRAMMAR: Final = {
    "PLAIN": r'[^"\\\x00-\x1f]*+',
    "STRING": r'[^"\\\x00-\x1f]*+(?:\\["\\/bfnrtu][^"\\\x00-\x1f]*+)*+',
    "COUNT": r"(?:0|[1-9][0-9]{0,10}+)",
    "WORD": r"(?:0|[1-9][0-9]{0,19}+)",
    "DECIMAL": r"-?(?:0|[1-9][0-9]{0,17}+)\.[0-9]{1,20}+(?:e-[0-9]{1,2}+)?",
    "DIGEST": r"[0-9a-f]{64}+",
    "OBJECT": r"\{[^{}]*+\}",
    "BOOL": r"(?:true|false)",
    "IDS": rf"{f'(?:{_EIGHT})*+' if IS_POSSESSIVE else ''}(?:(?:{_ID}|0),)*+(?:{_ID}|0)",
    "FINISH": "|".join(f for f in FINISHES if f != "error"),
    "VERDICT": "|".join(VERDICTS),
}
"""What the names below stand for. Numbers here are finite and in range, strings whole. Of token ids
eight at a time are taken first, which is faster, but only where nothing goes back over them.
"""


def _pattern(text: str) -> re.Pattern[str]:
    for name, grammar in _GRAMMAR.items():
        text = text.replace(f"<{name}>", grammar)
    return re.compile(text if IS_POSSESSIVE else greedy(text))


def greedy(pattern: str) -> str:
    """The pattern without possessive quantifiers: of this grammar it matches the same lines, and
    takes longer for others."""
    return re.sub(r"([*}])\+", r"\1", pattern)


# What differs between the samples of an item. A group that is not there stands for null.
_DETAIL: Final = r'(<STRING>)","energy_window":(?:null|"(<PLAIN>)")'
_EXTRACTED: Final = r',"extracted":(?:null|"(<STRING>)"),"finish":"(<FINISH>)"'
_NUMBERS: Final = (
    r',"k":(<COUNT>),"logprob_sum":(<DECIMAL>),"method":"(<PLAIN>)"'
    r',"model":"(<DIGEST>)","n_out":(<COUNT>)'
)
_IDENTITY: Final = r',"retried":(<BOOL>),"sample_id":(<WORD>)'
_IDS_TO_END: Final = r'(<IDS>|)\],"v":1,"verdict":"(<VERDICT>)","wall_ms":(?:null|(<DECIMAL>))\}'
_search_token_ids = re.compile(_pattern(r'"token_ids":\[(<IDS>)\]').pattern.encode()).search
_match_detail, _match_extracted, _match_numbers, _match_identity = (
    _pattern(text).match for text in (_DETAIL, _EXTRACTED, _NUMBERS, _IDENTITY)
)
_match_ids_to_end = _pattern(_IDS_TO_END).fullmatch
_OPENING: Final = (
    r'(?P<a>\{"arm":"(?P<arm><PLAIN>)","cluster":"(?P<cluster><PLAIN>)","detail":")'
    + _DETAIL
    + r'(?P<b>,"engine":(?P<engine><OBJECT>),"error":null,"eval_serial":(?P<eval_serial><COUNT>))'
    + _EXTRACTED
    + r'(?P<c>,"gold":"(?P<gold><STRING>)","grader":"(?P<grader><PLAIN>)"'
    r',"grader_sha256":"(?P<grader_sha256><DIGEST>)","item":"(?P<item><PLAIN>)"'
    r',"item_sha256":"(?P<item_sha256><DIGEST>)")'
    + _NUMBERS
    + r'(?P<d>,"n_prompt":(?P<n_prompt><COUNT>),"prompt_sha256":"(?P<prompt_sha256><DIGEST>)"'
    r',"question":"(?P<question><STRING>)","redacted":null,"response":")'
)
"""A line up to its response; `a` … `d` are what the samples of an item share."""
_match_opening = _pattern(_OPENING).match
_match_line = _pattern(
    _OPENING
    + '<STRING>"'
    + _IDENTITY
    + r'(?P<e>,"sampler":<OBJECT>,"seed":<WORD>,"suite":"<PLAIN>","supersedes":null'
    r',"template_sha256":"<DIGEST>","token_ids":\[)' + _IDS_TO_END
).fullmatch
_OF_EVALUATION: Final = ("arm", "engine", "eval_serial", "grader", "grader_sha256")
"""Parts of an opening that items of one evaluation share."""


def lean_samples(packed: BinaryIO, packed_bytes: int) -> Iterator[tuple[bytes, Sample]]:
    """`samples.samples_of` with token ids checked as text and left out (`[]`).

    Raises SampleError at the first bad line.
    """
    read = _Reader()
    for number, line in enumerate(read_lines(packed, packed_bytes), 1):
        try:
            yield line, read(line)
        except (JsonError, SampleError) as error:
            raise SampleError(f"line {number}: {error}") from None


class _Shared(NamedTuple):
    """What the samples of an item share: its text but for the fields that are read here, and a
    record."""

    before_detail: str
    before_extracted: str
    before_numbers: str
    before_response: str
    before_token_ids: str
    record: dict[str, Any]


class _Reader:
    """The records of one file's lines, one after the other."""

    def __init__(self) -> None:
        self._check = SampleChecker()
        self._shared: _Shared | None = None
        self._of_evaluation: tuple[str, ...] = ()

    def __call__(self, line: bytes) -> Sample:
        """Raises JsonError or SampleError."""
        try:
            text = line.decode()
            sample = self._read(text)
            if sample is None and self._is_next_item(text):
                sample = self._read(text)
        except ValueError:  # no UTF-8, or a string that is none: its reader below says why
            sample = None
        if sample is not None:
            return sample
        sample = self._read_whole(line)
        if parts := _match_line(line.decode()):
            self._shared = _Shared(*parts.group("a", "b", "c", "d", "e"), record=dict(sample))
            self._of_evaluation = parts.group(*_OF_EVALUATION)
        return sample

    def _is_next_item(self, text: str) -> bool:
        """Whether the line opens another item of the evaluation, which is shared from now on.
        Raises ValueError for a string that is none."""
        if self._shared is None:
            return False
        found = _match_opening(text)
        if found is None or found.group(*_OF_EVALUATION) != self._of_evaluation:
            return False
        record = self._shared.record.copy()
        record["sampler"] = record["sampler"].copy()
        for name in ("cluster", "item", "item_sha256", "prompt_sha256"):
            record[name] = found[name]
        record["gold"], record["question"] = _string(found["gold"]), _string(found["question"])
        record["n_prompt"] = int(found["n_prompt"])
        if not CHECKS["cluster"](record["cluster"]) or not CHECKS["item"](record["item"]):
            return False
        parts = found.group("a", "b", "c", "d")
        self._shared = _Shared(*parts, self._shared.before_token_ids, record)
        return True

    def _read(self, text: str) -> Sample | None:
        """None: not by this grammar, or not like the line before. Raises ValueError for a string
        that is none."""
        if self._shared is None:
            return None
        a, b, c, d, e, same = self._shared
        if not text.startswith(a):
            return None
        first = _match_detail(text, len(a))
        if first is None or not text.startswith(b, at := first.end()):
            return None
        second = _match_extracted(text, at + len(b))
        if second is None or not text.startswith(c, at := second.end()):
            return None
        third = _match_numbers(text, at + len(c))
        if third is None or not text.startswith(d, at := third.end()):
            return None
        response, at = scanstring(text, at + len(d), True)
        fourth = _match_identity(text, at)
        if fourth is None or not text.startswith(e, at := fourth.end()):
            return None
        last = _match_ids_to_end(text, at + len(e))
        if last is None:
            return None
        k, logprob, method, model, n_out = third.groups()
        retried, sample_id = fourth.groups()
        ids, verdict, wall_ms = last.groups()
        identity, num_ids = int(sample_id), int(n_out)
        if model != same["model"] or identity >= _WORD_END or num_ids != _num_ids(ids):
            return None
        sample: Any = same.copy()
        detail, sample["energy_window"] = first.groups()
        extracted, sample["finish"] = second.groups()
        sample["detail"] = _string(detail)
        sample["extracted"] = None if extracted is None else _string(extracted)
        sample["k"] = int(k)
        sample["logprob_sum"] = float(logprob)
        sample["method"] = method
        sample["n_out"] = num_ids
        sample["response"] = response
        sample["retried"] = retried == "true"
        sample["sample_id"] = identity
        sample["token_ids"] = []
        sample["verdict"] = verdict
        sample["wall_ms"] = None if wall_ms is None else float(wall_ms)
        return sample

    def _read_whole(self, line: bytes) -> Sample:
        found = _search_token_ids(line)  # inside a JSON string these quotes would be escaped
        num_ids = None if found is None else found[1].count(b",") + 1
        short = line if found is None else line[: found.start(1)] + line[found.end(1) :]
        sample: Sample = parse_line(short)
        if problem := self._check(sample, num_ids):
            raise SampleError(problem)
        if sample["token_ids"]:  # spelled in a way that only the check above knows
            sample["token_ids"] = []
        return sample


def _string(inside: str) -> str:
    """What a JSON string says, by what is inside its quotes. Raises ValueError where it is none."""
    return inside if "\\" not in inside else scanstring(inside + '"', 0, True)[0]


def _num_ids(ids: str) -> int:
    return ids.count(",") + 1 if ids else 0
