"""What kinds of checkable instructions are made of, and how their rules cut a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|No|Fig|Inc|Ltd|[A-Z])\.$"
)
_STOPS = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+")
_WORD = re.compile(r"\w+")
_SPOKEN_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")

Arguments = Mapping[str, Any]


class Kind(NamedTuple):
    """A kind of instruction."""

    is_followed: Callable[[str, Arguments], bool]
    arguments: Mapping[str, type]
    """What an instruction of this kind has to give."""


def split_sentences(text: str) -> list[str]:
    """Sentences by their ends; what follows the last end counts where it has a word."""
    sentences, start = [], 0
    for stop in _STOPS.finditer(text):
        sentence = text[start : stop.end()]
        if stop[0] == "." and _ABBREVIATION.search(sentence[-12:]):
            continue
        sentences.append(sentence.strip())
        start = stop.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if _WORD.search(sentence)]


def spoken_words(text: str) -> list[str]:
    """Words of letters, in lower case; one with hyphens or apostrophes is one word."""
    return _SPOKEN_WORD.findall(text.lower())
