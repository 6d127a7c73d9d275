"""Packed samples: half the bytes, and the very same lines when they are unpacked.

    {"packed":1,"start":"<think>"}                  first line; `start` opens every rebuilt response
    [{field: value, …}, [[id, text], …]]            one for each sample

A sample holds the fields that differ from the sample before it. Its token ids are characters, one
for each token in the order of first appearance; a token that is new is listed behind the fields
with its id and its bytes (as characters below 256). Where the response is missing, it is `start`
and the bytes of the tokens as UTF-8. Lines that begin with `{` are samples that were not packed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.evidence.core.canonical import JsonError, canonical_json, parse_line

START = b'{"packed":'
MAX_TOKENS = 1 << 20
"""Different ones in one file."""
MAX_TOKEN_BYTES = 1 << 10


class PackError(ValueError):
    """A line that cannot be unpacked: says why."""


class Unpacker:
    """Rebuilds the lines of one file, in their order."""

    def __init__(self, header: bytes, max_line_bytes: int) -> None:
        """Raises PackError for another header than the one above."""
        first = _parsed(header)
        is_known = type(first) is dict and first.keys() == {"packed", "start"}
        if not is_known or first["packed"] != 1 or type(first["start"]) is not str:
            raise PackError("packed in a way that is not known: use a newer verifier")
        self.texts: dict[int, bytes] = {}
        """Token id -> bytes, of all tokens so far."""
        self._start: str = first["start"]
        self._max_bytes = max_line_bytes
        self._last: dict[str, Any] = {}
        self._id_of: dict[str, int] = {}
        self._text_of: dict[str, bytes] = {}

    def line(self, packed: bytes) -> bytes:
        """The canonical line of the next sample. Raises PackError."""
        value = _parsed(packed)
        if type(value) is dict:
            self._last = value
            return packed
        if type(value) is not list or [type(part) for part in value] != [dict, list]:
            raise PackError("neither a sample nor a packed one")
        fields, new = value
        for pair in new:
            self._add(pair)
        sample = {**self._last, **fields, **self._rebuilt(fields)}
        try:
            line = canonical_json(sample)
        except ValueError as error:
            raise PackError(str(error)) from None
        if len(line) > self._max_bytes:
            raise PackError(f"a line of more than {self._max_bytes} bytes")
        self._last = sample
        return line

    def _add(self, pair: Any) -> None:
        if type(pair) is not list or [type(part) for part in pair] != [int, str]:
            raise PackError("a new token that is none")
        token, text = pair
        if len(self._id_of) == MAX_TOKENS or len(text) > MAX_TOKEN_BYTES or token in self.texts:
            raise PackError("a new token twice, or too many, or too long")
        try:
            self.texts[token] = text.encode("latin-1")
        except UnicodeEncodeError:
            raise PackError("a new token whose text is no bytes") from None
        sign = _sign(len(self._id_of))
        self._id_of[sign], self._text_of[sign] = token, self.texts[token]

    def _rebuilt(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        signs = fields.get("token_ids")
        if type(signs) is not str:
            if "response" not in fields or "token_ids" not in fields:
                raise PackError("neither its text nor its tokens")
            return {}
        try:
            rebuilt: dict[str, Any] = {"token_ids": [self._id_of[sign] for sign in signs]}
        except KeyError:
            raise PackError("a token that was not announced") from None
        if "response" not in fields:
            texts = [self._text_of[sign] for sign in signs]
            if sum(map(len, texts)) > self._max_bytes:
                raise PackError(f"a response of more than {self._max_bytes} bytes")
            rebuilt["response"] = self._start + b"".join(texts).decode(errors="replace")
        return rebuilt


class Packer:
    """Packs the samples of one file, in their order."""

    def __init__(self, texts: Mapping[int, bytes]) -> None:
        """`texts`: token id -> its bytes, b"" for special tokens. Responses that are not made of
        these are kept as they are.
        """
        self._texts = texts
        self._start: str | None = None
        self._last: Mapping[str, Any] = {}
        self._sign_of: dict[int, str] = {}

    def lines(self, line: bytes, sample: Mapping[str, Any]) -> list[bytes]:
        """What to write for a sample and its line; before the first one the header too."""
        ids = sample["token_ids"]
        text = None if ids is None else self._text(ids)
        first = []
        if self._start is None:
            self._start = _start(sample["response"], text)
            first = [canonical_json({"packed": 1, "start": self._start})]
        if canonical_json(sample) != line:
            self._last = sample
            return [*first, line]
        always = ("token_ids", "response")
        fields = {
            name: value
            for name, value in sample.items()
            if name not in always and (name not in self._last or _differ(value, self._last[name]))
        }
        new: list[list[Any]] = []
        fields["token_ids"] = ids
        if ids is not None:
            fields["token_ids"] = "".join([self._sign(token, new) for token in ids])
        if text is None or sample["response"] != self._start + text:
            fields["response"] = sample["response"]
        self._last = sample
        return [*first, canonical_json([fields, new])]

    def _text(self, ids: list[int]) -> str:
        return b"".join([self._texts.get(token, b"") for token in ids]).decode(errors="replace")

    def _sign(self, token: int, new: list[list[Any]]) -> str:
        sign = self._sign_of.get(token)
        if sign is None:
            sign = self._sign_of[token] = _sign(len(self._sign_of))
            new.append([token, self._texts.get(token, b"").decode("latin-1")])
        return sign


def _start(response: str | None, text: str | None) -> str:
    """What the prompt template wrote before the model's own text."""
    if response and text and response.endswith(text):
        return response.removesuffix(text)
    return ""


def _differ(first: Any, second: Any) -> bool:
    """1, 1.0 and true are equal, 0.0 and -0.0 too, but not alike."""
    if type(first) is not type(second) or type(first) in (str, int):
        return type(first) is not type(second) or first != second
    return repr(first) != repr(second)


def _sign(number: int) -> str:
    """The character of the n-th token: short in UTF-8, and none that JSON writes in another way."""
    if number < 57:
        return chr(0x23 + number)  # behind the quotation mark, up to the backslash
    if number < 91:
        return chr(0x5D + number - 57)
    place = 0xA0 + number - 91
    return chr(place if place < 0xD800 else place + 0x800)


def _parsed(line: bytes) -> Any:
    try:
        return parse_line(line)
    except JsonError as error:
        raise PackError(str(error)) from None
