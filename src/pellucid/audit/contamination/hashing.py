"""The words of many documents as 64-bit hashes, without a Python object a word.

The rules are those of `pellucid.evidence.core.containment`, on UTF-8 bytes: a table tells letters,
digits and the rest apart, and where the class changes a word begins or ends. A word is hashed eight
bytes at a time, the few long ones by BLAKE2b. Equal words have equal hashes, so nothing is missed;
pairs that count are counted again under another key, in which other words collide.

Legend: B bytes · W words · D documents · K lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pellucid.evidence.core.containment import SAME_COMMAND, TYPESETTING, fold

Hashes = NDArray[np.uint64]

BATCH_BYTES = 1 << 20
"""Text hashed at once: of less, the calls cost more than the work, and more leaves the caches."""

_LETTER, _DIGIT = 1, 2
_BACKSLASH = 0x5C
_NEWLINE = 0x0A


def _classes() -> bytes:
    table = bytearray([0] * 0x80 + [_LETTER] * 0x80)
    for byte in range(0x80):
        if chr(byte).isalpha():
            table[byte] = _LETTER
        elif chr(byte).isdigit():
            table[byte] = _DIGIT
    return bytes(table)


_CLASS = _classes()
_BYTES = 8
"""Of a word that are hashed at once."""
_LONG = 64
"""Bytes of a word from which on it is hashed by itself."""
_FIRST = np.array([(1 << (8 * count)) - 1 for count in range(_BYTES)] + [-1]).astype(np.uint64)
"""[9] Mask of the first so many bytes of eight."""
_GRAM_BASE = 0xD1342543DE82EF95
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_HALF = np.uint64(32)
_LOWEST = np.uint64(1)
_NOT_LOWEST = ~_LOWEST


class Words(NamedTuple):
    """The words of several documents, one after the other."""

    hashes: Hashes
    """[W]"""
    first: NDArray[np.int64]
    """[D + 1]: where the words of each document begin; behind the last, W."""
    lines: NDArray[np.int64]
    """[K]: where the words of each line begin; lines without words share theirs with the next."""


class WordHasher:
    """Hashes words. Those that collide under one `key` do not under another."""

    def __init__(self, key: int = 2) -> None:
        self._key = np.random.PCG64(key).random_raw(2) | _LOWEST
        commands = self._plain(sorted(TYPESETTING))
        self._dropped = np.sort(commands)
        names = sorted(SAME_COMMAND)
        order = np.argsort(self._plain(names))
        self._renamed = self._plain(names)[order]
        self._new_names = self._plain([SAME_COMMAND[name] for name in names])[order]

    def _plain(self, words: Sequence[str]) -> Hashes:
        return self._split(" ".join(words).encode())[0]

    def hash(self, texts: Sequence[str]) -> Words:
        """The words of each text. An empty text has none."""
        encoded = [fold_bytes(text) for text in texts]
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        data = b"\n".join(encoded)
        hashes, starts, is_command = self._split(data)
        if is_command.any():
            hashes, kept = self._commands(hashes, np.flatnonzero(is_command))
            hashes, starts = hashes[kept], starts[kept]
        ends = np.cumsum(lengths + 1)
        breaks = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _NEWLINE)
        first, lines = np.searchsorted(starts, ends), np.searchsorted(starts, breaks)
        return Words(hashes, *(np.concatenate([[0], begin]) for begin in (first, lines)))

    def _split(self, data: bytes) -> tuple[Hashes, NDArray[np.int64], NDArray[np.bool_]]:
        """Hash, first byte, and "a backslash stands before it", of each word."""
        # Eights behind the last word's first byte, and no byte left over.
        padded = b" " + data.lower() + b" " * (3 * _BYTES - 1 - len(data) % _BYTES)
        kinds = np.frombuffer(padded.translate(_CLASS), dtype=np.uint8)
        edges = np.flatnonzero(kinds[1:] != kinds[:-1])
        kinds_at = kinds.take(edges + 1)
        begin = np.flatnonzero(kinds_at)
        # Behind a word stands the next edge, whatever comes there.
        starts = edges.take(begin)
        hashes = self._hashed(padded, starts + 1, edges.take(begin + 1) - starts)
        kinds_at = kinds_at.take(begin)
        # The lowest bit tells digits from letters.
        hashes &= _NOT_LOWEST
        hashes |= kinds_at >> 1
        # A digit's word is no command: \\2 breaks a table's row.
        before = np.frombuffer(padded, dtype=np.uint8).take(starts)
        return hashes, starts, (before == _BACKSLASH) & (kinds_at == _LETTER)

    def _hashed(self, data: bytes, starts: NDArray, lengths: NDArray) -> Hashes:
        """The hash of each word, by its first byte and its length."""
        eights = np.frombuffer(data, dtype="<u8")
        hashes = _eight_from(eights, starts)
        hashes &= _FIRST.take(lengths, mode="clip")
        hashes = mixed((hashes + self._key[0]) * self._key[1])
        left = np.flatnonzero((lengths > _BYTES) & (lengths <= _LONG))
        for done in range(_BYTES, _LONG, _BYTES):
            next_bytes = _eight_from(eights, starts.take(left) + done)
            next_bytes &= _FIRST.take(lengths.take(left) - done, mode="clip")
            hashes[left] = mixed((hashes.take(left) + next_bytes) * self._key[1])
            left = left[lengths.take(left) > done + _BYTES]
            if not len(left):
                break
        salt = self._key.tobytes()
        for word in np.flatnonzero(lengths > _LONG).tolist():
            whole = data[starts[word] : starts[word] + lengths[word]]
            digest = blake2b(whole, digest_size=8, key=salt).digest()
            hashes[word] = int.from_bytes(digest, "little")
        return hashes

    def _commands(
        self, hashes: Hashes, where: NDArray[np.int64]
    ) -> tuple[Hashes, NDArray[np.int64]]:
        commands = hashes[where]
        place = np.minimum(np.searchsorted(self._renamed, commands), len(self._renamed) - 1)
        is_renamed = self._renamed[place] == commands
        hashes[where[is_renamed]] = self._new_names[place[is_renamed]]
        place = np.minimum(np.searchsorted(self._dropped, commands), len(self._dropped) - 1)
        dropped = where[self._dropped[place] == commands]
        kept = np.ones(len(hashes), dtype=bool)
        kept[dropped] = False
        return hashes, np.flatnonzero(kept)


def _eight_from(eights: Hashes, starts: NDArray) -> Hashes:
    """The eight bytes from each place on, of bytes that are given eight together."""
    place, shift = starts >> 3, ((starts & 7) << 3).astype(np.uint64)
    low = eights.take(place) >> shift
    high = eights.take(place + 1) << _LOWEST
    return low | (high << (np.uint64(63) - shift))


def fold_bytes(text: str) -> bytes:
    """`fold` as UTF-8. Capital letters of ASCII may stay."""
    if text.isascii() and "[asy]" not in text:
        return text.encode()
    return fold(text).encode(errors="replace")


def mixed(hashes: Hashes) -> Hashes:
    """Spreads every bit over the upper half."""
    return (hashes ^ (hashes >> _HALF)) * _MIX


def is_number(hashes: Hashes) -> NDArray[np.bool_]:
    """Of words' hashes, those of digits."""
    return (hashes & _LOWEST).astype(bool)


def mask_numbers(words: Words) -> Words:
    """The number-masked form: each run of digit words, within a document, is one word."""
    is_digit = is_number(words.hashes)
    kept = np.ones(len(words.hashes), dtype=bool)
    kept[1:] = ~(is_digit[1:] & is_digit[:-1])
    inner = words.first[:-1]
    kept[inner[inner < len(kept)]] = True
    hashes = np.where(is_digit, _LOWEST, words.hashes)[kept]
    before = np.concatenate([[0], np.cumsum(kept)])
    return Words(hashes, before[words.first], before[words.lines])


class GramHashes:
    """Hashes of n-grams of several lengths. Example: GramHashes(words.hashes).of(5)

    Built by doubling, so 13 words cost five multiplications instead of twelve; what lengths have
    in common is computed once.
    """

    def __init__(self, hashes: Hashes) -> None:
        self._powers: dict[int, Hashes] = {1: hashes}

    def of(self, n: int) -> Hashes:
        """Hash of the n words from each position on [W - n + 1]; empty where there are fewer."""
        if len(self._powers[1]) < n:
            return self._powers[1][:0]
        width = 1
        while width * 2 <= n:
            if width * 2 not in self._powers:
                half = self._powers[width]
                self._powers[width * 2] = _joined(half, width, half, width)
            width *= 2
        whole, length = self._powers[width], width
        while length < n:
            width = max(w for w in self._powers if w <= n - length)
            whole, length = _joined(whole, length, self._powers[width], width), length + width
        return mixed(whole)


def gram_hashes(hashes: Hashes, n: int) -> Hashes:
    """`GramHashes` of one length."""
    return GramHashes(hashes).of(n)


def _joined(left: Hashes, left_width: int, right: Hashes, right_width: int) -> Hashes:
    """Grams of both widths together: left · base^right_width + right."""
    behind = right[left_width:]
    factor = np.uint64(pow(_GRAM_BASE, right_width, 1 << 64))
    together = left[: len(behind)] * factor
    together += behind
    return together
