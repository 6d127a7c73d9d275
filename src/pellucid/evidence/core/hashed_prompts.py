"""Training prompts as salted hashes of their n-grams, and matches counted again in them.

    line 1   {"pellucid": "hashed-prompts", "v": 1, "n": 5, "salt": …}
    then     {"source": 0, "row": 17, "grams": base64 of the sorted 8-byte hashes, "whole": hash}

A hash is BLAKE2b of the n normalised words, keyed with the salt; `whole` is that of the document's
`signs`, in hexadecimal, and older files have none. The order of the n-grams and how often one
occurs are not there. In a dossier a source is the place in the scan's list of sources.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pellucid.evidence.core.canonical import JsonError, parse_json
from pellucid.evidence.core.containment import DECIDING, EQUAL, counted, grams_of, signs, words

HASHED = "contamination/prompts.hashed.jsonl.gz"
"""Place in a dossier."""
KIND, VERSION = "hashed-prompts", 1
DIGEST_BYTES = 8
MAX_SALT_BYTES = 64


class HashedPrompt(NamedTuple):
    """A document. Example: HashedPrompt(0, 17, frozenset({b"…"}), None)"""

    source: int
    row: int
    grams: frozenset[bytes]
    whole: str | None
    """None: the file is older."""


class HashedError(ValueError):
    """What is no file of hashed prompts, or damaged."""


def gram_digests(text: str, salt: bytes) -> list[bytes]:
    """The keyed hash of each n-gram of a text, in order."""
    return [_keyed(" ".join(gram), salt).digest() for gram in grams_of(words(text), DECIDING)]


def whole_digest(text: str, salt: bytes) -> str:
    """The keyed hash of a text's `signs`: equal for equal questions, and for no others."""
    return _keyed(signs(text), salt).hexdigest()


def _keyed(text: str, salt: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(text.encode(errors="replace"), key=salt, digest_size=DIGEST_BYTES)


def parse_hashed(lines: Iterable[bytes]) -> tuple[bytes, Iterator[HashedPrompt]]:
    """(salt, documents) of a file's lines. Raises HashedError, also while documents are read."""
    rest = iter(lines)
    header = _parsed(next(rest, b"{}"))
    try:
        if (header["pellucid"], header["v"], header["n"]) != (KIND, VERSION, DECIDING):
            raise HashedError("is of another version")
        salt = bytes.fromhex(header["salt"])
    except (KeyError, TypeError, ValueError) as error:
        raise HashedError(f"holds no hashed prompts ({error!r})") from error
    if not 1 <= len(salt) <= MAX_SALT_BYTES:
        raise HashedError(f"has a salt of {len(salt)} bytes")
    return salt, map(_document, rest)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value: Any = parse_json(line)
    except JsonError as error:
        raise HashedError(f"is damaged ({error})") from error
    if type(value) is not dict:
        raise HashedError("is damaged (a line is no object)")
    return value


def _document(line: bytes) -> HashedPrompt:
    record = _parsed(line)
    try:
        source, row = record["source"], record["row"]
        raw, whole = base64.b64decode(record["grams"], validate=True), record.get("whole")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise HashedError(f"is damaged ({error!r})") from error
    if type(source) is not int or type(row) is not int or len(raw) % DIGEST_BYTES:
        raise HashedError("is damaged (a document without its place, or with half a hash)")
    if whole is not None and type(whole) is not str:
        raise HashedError("is damaged (the hash of a whole document is no text)")
    size = DIGEST_BYTES
    grams = frozenset(raw[i : i + size] for i in range(0, len(raw), size))
    return HashedPrompt(source, row, grams, whole)


Key = tuple[str, str]
"""(suite, item)"""


class Recount(NamedTuple):
    """What counting again gave."""

    problems: list[str]
    """What is recorded otherwise than it is, a line each."""
    documents: int
    matches: int
    """Matches that were counted again."""


def count_again(
    scan: Mapping[str, Any],
    questions: Mapping[Key, str],
    salt: bytes,
    documents: Iterable[HashedPrompt],
) -> Recount:
    """Counts the matches of items whose question is here, and looks for items that stand in one
    document with all of their n-grams but are recorded as clean. Twins need the text, and are left
    out, as items of fewer than five words are. Of a suite that was compared for equal questions,
    those are looked for.
    """
    wholes: defaultdict[str, set[Key]] = defaultdict(set)
    digests: dict[Key, list[bytes]] = {}
    for key, text in questions.items():
        if scan["suites"][key[0]].get("compared") == EQUAL:
            wholes[whole_digest(text, salt)].add(key)
        else:
            digests[key] = gram_digests(text, salt)
    owners: defaultdict[bytes, set[Key]] = defaultdict(set)
    for key, own in digests.items():
        for gram in own:
            owners[gram].add(key)
    wanted = _wanted(scan, digests)
    problems, number, matches = [], 0, 0
    for document in documents:
        number += 1
        near: defaultdict[Key, int] = defaultdict(int)
        for gram in document.grams & owners.keys():
            for key in owners[gram]:
                near[key] += 1
        copied = {key for key, held in near.items() if held == len(set(digests[key]))}
        copied |= wholes.get(document.whole or "", set())
        hidden = sorted(key for key in copied if _is_recorded_clean(scan, key))
        problems += [f"{key[1]} is wholly covered, recorded is no leak" for key in hidden]
        for key, match in wanted.pop((document.source, document.row), ()):
            matches += 1
            real = counted(digests[key], document.grams, DECIDING)
            claimed = [*match["grams"].get(str(DECIDING), ()), *match["words"]]
            if claimed != list(real):
                problems.append(f"{key[1]}, row {document.row}: {claimed} claimed, {list(real)}")
    missing = sum(map(len, wanted.values()))
    if missing:
        problems.append(f"{missing} matches are in documents that are not here")
    scanned = sum(source["documents"] for source in scan.get("sources", ()))
    if number != scanned and not scan.get("dropped"):
        problems.append(f"{scanned} documents were scanned, {number} are here")
    return Recount(problems, number, matches)


def _is_recorded_clean(scan: Mapping[str, Any], key: Key) -> bool:
    about = scan["suites"][key[0]]["items"].get(key[1])
    return about is not None and about["containment"] < scan["threshold"]


def _wanted(
    scan: Mapping[str, Any], digests: Mapping[Key, Sequence[bytes]]
) -> dict[tuple[int, int], list[tuple[Key, Mapping[str, Any]]]]:
    """(source, row) -> the matches in it that can be counted. HashedError where one is no match."""
    numbers: dict[Any, int] = {}
    wanted: dict[tuple[int, int], list[tuple[Key, Mapping[str, Any]]]] = {}
    try:
        for number, source in enumerate(scan.get("sources", ())):
            numbers.setdefault((source["name"], source.get("stage")), number)
            int(source["documents"])
        for (suite, item), own in digests.items():
            about = scan["suites"][suite]["items"].get(item, {"matches": ()})
            for match in about["matches"]:
                if match.get("kind") in ("full", "partial") and own:
                    place = numbers[match["source"], match.get("stage")], match["row"]
                    dict(match["grams"]), list(match["words"])
                    wanted.setdefault(place, []).append(((suite, item), match))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HashedError(f"does not go with the scan's matches ({error!r})") from error
    return wanted
