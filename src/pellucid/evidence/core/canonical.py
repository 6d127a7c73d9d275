"""Canonical bytes of JSON values, and the reading of JSON that a stranger wrote.

One value has one byte string, so digests can be taken of it. `parse_json` refuses what would be
read in two ways (repeated keys), what is no JSON (NaN, infinity), and what is out of proportion
(numbers of thousands of digits, nesting that exhausts the stack).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, NoReturn

LEAF_PREFIX = b"\x00"
"""RFC 6962: leaves and inner nodes are hashed apart, so that none can pose as the other."""

MAX_DEPTH = 64
"""Nesting of any JSON in a dossier; ours stays under ten."""
MAX_VALUES = 4_000_000
"""Values in one JSON text, about: they take under a gigabyte."""
MAX_NUMBER_CHARS = 400
"""The longest finite double written out in full has 309 digits."""

_HEX_64 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class JsonError(ValueError):
    """Bytes that are no JSON, or JSON that is refused. The message says why, in one line."""


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces, UTF-8.

    Raises ValueError for NaN, infinity and lone surrogates, TypeError for what is not JSON.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Hexadecimal SHA-256 of the canonical JSON of `value`."""
    return sha256_bytes(canonical_json(value))


def sha256_text(text: str) -> str:
    """Hexadecimal SHA-256 of UTF-8 text. Raises ValueError for lone surrogates."""
    return sha256_bytes(text.encode())


def leaf_hash(line: bytes) -> bytes:
    """Hash [32 bytes] of one line (without its newline) as a leaf of a Merkle tree."""
    return hashlib.sha256(LEAF_PREFIX + line).digest()


def item_sha256(*, item: str, question: str, gold: str, grader: str) -> str:
    """Digest of what an item asks and expects: it changes with any of the four."""
    return sha256_json({"gold": gold, "grader": grader, "id": item, "question": question})


def items_sha256(items: dict[str, str]) -> str:
    """Digest of a whole set: item id -> `item_sha256`."""
    return sha256_json(items)


def is_sha256(value: object) -> bool:
    """Whether a value is 64 lower-case hexadecimal digits."""
    return type(value) is str and _HEX_64.fullmatch(value) is not None


def parse_json(data: bytes) -> Any:
    """The value that UTF-8 JSON stands for. Raises JsonError; never runs deep or long."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise JsonError(f"more than {MAX_VALUES} values")
    try:
        value = _DECODER.decode(data.decode())
    except RecursionError:
        raise JsonError("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8 at byte {error.start}") from None
    except JsonError:
        raise
    except ValueError as error:
        raise JsonError(str(error).splitlines()[0][:120]) from None
    _check_depth(value)
    return value


def parse_canonical(data: bytes) -> Any:
    """`parse_json` of bytes that must be canonical. Raises JsonError."""
    value = parse_json(data)
    try:
        again = canonical_json(value)
    except (ValueError, RecursionError):
        raise JsonError("has no canonical form") from None
    if again != data:
        raise JsonError("not in canonical form (sorted keys, no spaces, no needless escapes)")
    return value


def parse_line(line: bytes) -> Any:
    """As `parse_json`, faster, for records whose every field is checked afterwards: numbers are
    read as Python does (infinity for 1e999), nesting is bounded by the stack alone.
    """
    try:
        text = line.decode()
        value, end = _LINE_DECODER.scan_once(text, 0)
    except StopIteration:
        raise JsonError("no JSON, or not from the first character on") from None
    except RecursionError:
        raise JsonError("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8 at byte {error.start}") from None
    except JsonError:
        raise
    except ValueError as error:
        raise JsonError(str(error).splitlines()[0][:120]) from None
    if end != len(text):
        raise JsonError(f"more after its end at character {end}")
    return value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise JsonError(f"nested more than {MAX_DEPTH} levels deep")
        inside: list[Any] = []
        for v in level:
            if type(v) is dict:
                inside.extend(c for c in v.values() if type(c) in (dict, list))
            elif type(v) is list:
                inside.extend(c for c in v if type(c) in (dict, list))
        level = inside


def unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that stands twice is refused, as readers differ on which one counts."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise JsonError(f"key {twice[:40]!r} stands twice in one object")
    return made


def _parse_int(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise JsonError(f"a number of {len(text)} digits")
    return int(text)


def _parse_float(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARS:
        raise JsonError(f"a number of {len(text)} characters")
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"the number {text[:40]} is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=unique_pairs,
    parse_int=_parse_int,
    parse_float=_parse_float,
    parse_constant=_refuse_constant,
)
_LINE_DECODER = json.JSONDecoder(object_pairs_hook=unique_pairs, parse_constant=_refuse_constant)
