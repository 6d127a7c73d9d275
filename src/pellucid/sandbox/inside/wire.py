"""Plain values as JSON and back, so that no object of the judged program ever meets the judge.

Runs inside the jail (encoding) and outside (decoding). A value of any other type becomes
`{"o": type name}`, which equals nothing.
"""

from __future__ import annotations

import collections
import decimal
import fractions
from typing import Any

MAX_ITEMS = 100_000
"""Items taken from an iterator, which may have no end."""
_SAFE = 2**53
_ITERATORS = (type(iter([])), map, filter, zip, enumerate, reversed, type(x for x in ()))
_VIEWS = (type({}.keys()), type({}.values()), type({}.items()))


class OpaqueError(ValueError):
    """The value is no plain data."""


def encode(value: Any) -> Any:
    """JSON-able form. RecursionError where it is nested too deep."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value) if -_SAFE < value < _SAFE else {"i": hex(value)}
    if isinstance(value, float):
        return {"f": repr(float(value))}
    for kind, tag in _CONTAINERS:
        if isinstance(value, kind):
            items = [encode(item) for item in value]
            return items if tag == "l" else {tag: items}
    if isinstance(value, dict):
        return {"d": [[encode(k), encode(v)] for k, v in value.items()]}
    return _encode_rare(value)


def _encode_rare(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {"b": value.hex()}
    if isinstance(value, complex):
        return {"c": [repr(value.real), repr(value.imag)]}
    if isinstance(value, decimal.Decimal):
        return {"D": str(value)}
    if isinstance(value, fractions.Fraction):
        return {"F": [hex(value.numerator), hex(value.denominator)]}
    if isinstance(value, range):
        return {"r": [hex(value.start), hex(value.stop), hex(value.step)]}
    if isinstance(value, _ITERATORS + _VIEWS):
        items = []
        for item in value:
            if len(items) >= MAX_ITEMS:
                return {"o": "endless iterator"}
            items.append(encode(item))
        return {"n": items}
    return {"o": type(value).__name__}


_CONTAINERS = (
    (list, "l"),
    (tuple, "t"),
    (set, "s"),
    (frozenset, "z"),
    (collections.deque, "q"),
)


def decode(data: Any) -> Any:
    """The value. OpaqueError for `o` and for what `encode` never writes."""
    if isinstance(data, list):
        return [decode(item) for item in data]
    if not isinstance(data, dict):
        if isinstance(data, float):
            raise OpaqueError("float without its tag")
        return data
    if len(data) != 1:
        raise OpaqueError("not one tag")
    tag, body = next(iter(data.items()))
    if tag not in _DECODERS:
        raise OpaqueError(f"a value of type {str(body)[:80]}")
    try:
        return _DECODERS[tag](body)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise OpaqueError(f"malformed value: {str(error)[:80]}") from error


def count(data: Any) -> int:
    """Nodes of an encoded value. Equal plain values have equal counts."""
    if isinstance(data, list):
        return 1 + sum(map(count, data))
    if isinstance(data, dict) and len(data) == 1:
        tag, body = next(iter(data.items()))
        if tag in "tszqnd" and isinstance(body, list):
            pairs = tag == "d"
            return 1 + sum(count(item) - pairs for item in body)
    return 1


def _hex(text: str) -> int:
    return int(text, 16)


_DECODERS = {
    "i": _hex,
    "f": float,
    "b": bytes.fromhex,
    "c": lambda body: complex(float(body[0]), float(body[1])),
    "D": decimal.Decimal,
    "F": lambda body: fractions.Fraction(_hex(body[0]), _hex(body[1])),
    "r": lambda body: range(*map(_hex, body)),
    "t": lambda body: tuple(map(decode, body)),
    "s": lambda body: set(map(decode, body)),
    "z": lambda body: frozenset(map(decode, body)),
    "q": lambda body: collections.deque(map(decode, body)),
    "n": lambda body: iter([decode(item) for item in body]),
    "d": lambda body: {decode(key): decode(value) for key, value in body},
}
