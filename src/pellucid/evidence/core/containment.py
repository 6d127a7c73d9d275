r"""How much of one evaluation item stands in one training document. Standard library alone.

The normalisation, in this order:

1. figures in Asymptote, from `[asy]` to `[/asy]`, are left out;
2. Unicode NFKC, then case folding; decimal digits of all scripts become 0-9;
3. a word is a run of letters, or a run of digits: `2x` and `2 x` are the same two words, and
   punctuation, white space and LaTeX's braces, dollars and spacing disappear. Scripts without
   spaces (Han, kana, Thai, Lao, Khmer, Burmese) give a word a character;
4. of LaTeX's commands those that only set type (`\left`, `\text`, …) disappear, and `\dfrac` is
   `\frac`.

In the number-masked form every run of digit words is one `#`: a templated twin with other numbers
has the same words then.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

LENGTHS = (5, 8, 13)
"""Words of the n-grams whose shares are reported."""
DECIDING = 5
"""Longer n-grams do not survive an edit of every eighth word."""
NUMBER = "#"

EQUAL = "equal questions"
"""How a scan says that it looked for equal questions alone (`signs`), as it does for generated
ones: those of one template share most words and are not the same."""

_FIGURE = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
_OTHER = re.compile(r"[^\x00-\x7f]+")
_WORD = re.compile(r"\\?[a-z\x80-\U0010ffff]+|[0-9]+")

_SIGN = re.compile(r"[^\W\d_]+|\d+|(?<=\d)(?:[.:](?=\d)|!)|!(?==)|[^\s\w.,;:?!\"'«»“”‘’]|_")
"""A word, a number, or any sign but the marks of sentences (`5!` and `!=` are none)."""

_TYPESETTING = """
left right big bigl bigr bigg biggl biggr displaystyle textstyle limits nolimits quad qquad
text textbf textit textrm mathrm mathbf mathit mathbb mathcal mathsf operatorname mbox hbox
rm bf it boldsymbol boxed phantom hspace vspace lt gt
"""
TYPESETTING = frozenset(_TYPESETTING.split())
"""Commands that only set type, or that stand for punctuation."""
SAME_COMMAND = {
    "dfrac": "frac",
    "tfrac": "frac",
    "dbinom": "binom",
    "tbinom": "binom",
    "leq": "le",
    "geq": "ge",
    "neq": "ne",
}
"""Commands with two names."""
_UNSPACED = (
    range(0x0E00, 0x0F00),
    range(0x1000, 0x10A0),
    range(0x1780, 0x1800),
    range(0x2E80, 0xA000),
    range(0xF900, 0xFB00),
    range(0x20000, 0x40000),
)
"""Code points of scripts that put no spaces between words."""


class _Letters(dict[int, str]):
    """What becomes of a character outside ASCII, kept once it was asked for."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        digit = unicodedata.decimal(character, None)
        if digit is not None:
            kept = str(digit)
        elif unicodedata.category(character)[0] not in "LMN":
            kept = " "
        elif any(code in script for script in _UNSPACED):
            kept = f" {character} "
        else:
            kept = character
        self[code] = kept
        return kept


_LETTERS = _Letters()


def fold(text: str) -> str:
    """Steps 1 and 2, and of step 3 what concerns characters outside ASCII."""
    if "[asy]" in text:
        text = _FIGURE.sub(" ", text)
    if text.isascii():
        return text.lower()
    # Nothing is composed over the end of a line, and most lines of most texts are ASCII.
    lines = text.split("\n")
    others = [place for place, line in enumerate(lines) if not line.isascii()]
    found = unicodedata.normalize("NFKC", "\n".join([lines[place] for place in others])).casefold()
    found = _OTHER.sub(lambda run: run.group().translate(_LETTERS), found)
    lines = [line.lower() for line in lines]
    for place, line in zip(others, found.split("\n"), strict=True):
        lines[place] = line
    return "\n".join(lines)


def words(text: str, *, masked: bool = False) -> list[str]:
    """The normalised words of a text; `masked`: in the number-masked form."""
    found: list[str] = []
    for word in _WORD.findall(fold(text)):
        if word[0] == "\\":
            command = SAME_COMMAND.get(word[1:], word[1:])
            if command not in TYPESETTING:
                found.append(command)
        elif not (masked and word[0].isdigit()):
            found.append(word)
        elif not found or found[-1] != NUMBER:
            found.append(NUMBER)
    return found


def signs(text: str) -> str:
    """A text without what no problem depends on: case, white space and the marks of sentences.

    Operators and brackets stay: `7 - 3` and `7 + 3` are the same two words, and not the same
    question.
    """
    return " ".join(_SIGN.findall(unicodedata.normalize("NFKC", text).casefold()))


class Containment(NamedTuple):
    """How much of an item stands in a document. Example: Containment(31, 38, 42, 45)."""

    found: int
    """Distinct n-grams of the item that the document has as well."""
    total: int
    """Distinct n-grams of the item."""
    covered: int
    """Words of the item that lie in an n-gram found."""
    length: int
    """Words of the item."""

    @property
    def share(self) -> float:
        """Of the item's n-grams; 0 where it has none."""
        return self.found / self.total if self.total else 0.0

    @property
    def coverage(self) -> float:
        """Of the item's words; 0 where it has none."""
        return self.covered / self.length if self.length else 0.0


def containment(item: Sequence[str], document: Sequence[str], n: int) -> Containment:
    """Compares the words of an item with those of a document. ValueError for n < 1.

    An item of fewer than n words is one n-gram as long as it is.
    """
    if n < 1:
        raise ValueError(f"n-grams of {n} words")
    size = min(n, len(item))
    if size == 0:
        return Containment(0, 0, 0, 0)
    grams = grams_of(item, size)
    there = set(grams_of(document, size)).intersection(grams)
    return counted(grams, there, size)


def grams_of(sequence: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams of a sequence of words, in order."""
    return [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]


def counted(grams: Sequence[Hashable], there: Collection[Hashable], n: int) -> Containment:
    """Of an item's n-grams, in order, those that are `there` in a document."""
    found = {gram for gram in grams if gram in there}
    covered, end = 0, 0
    for start, gram in enumerate(grams):
        if gram in found:
            covered += start + n - max(start, end)
            end = start + n
    return Containment(len(found), len(set(grams)), covered, len(grams) + n - 1 if grams else 0)


def check_match(match: Mapping[str, Any], item: str, document: str) -> str | None:
    """What is wrong with a match of scan.json, given both texts; None where it is right.

    Counted again: the n-grams of each length that are listed, and the words under the deciding
    ones. A match of the kind `twin` is of texts with masked numbers.
    """
    masked = match["kind"] == "twin"
    of_item, of_document = words(item, masked=masked), words(document, masked=masked)
    for length, claimed in match["grams"].items():
        real = containment(of_item, of_document, int(length))
        if list(claimed) != [real.found, real.total]:
            return (
                f"{claimed[0]} of {claimed[1]} n-grams of {length} words are claimed, "
                f"{real.found} of {real.total} counted"
            )
    real = containment(of_item, of_document, DECIDING)
    if list(match["words"]) != [real.covered, real.length]:
        return (
            f"{match['words'][0]} of {match['words'][1]} words are claimed, "
            f"{real.covered} of {real.length} counted"
        )
    return None
