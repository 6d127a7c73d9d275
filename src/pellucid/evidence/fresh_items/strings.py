"""Strings of letters changed step by step: level n has n changes and 4 + 2 n letters."""

from __future__ import annotations

from collections.abc import Callable

from pellucid.evidence.draw import Draw
from pellucid.evidence.fresh_items.item import Item

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def draw_item(draw: Draw, level: int) -> Item:
    """A string and `level` changes, no two in a row of the same kind."""
    text = "".join(draw.choice(_LETTERS) for _ in range(4 + 2 * level))
    sentences = [f'Take the string "{text}".']
    last: Callable | None = None
    for number in range(level):
        change = draw.choice([c for c in _CHANGES if c is not last])
        sentence, text = change(draw, text)
        sentences.append(("First" if number == 0 else "Then") + f" {sentence}.")
        last = change
    sentences.append("Write the resulting string, without quotes or spaces.")
    return Item(question=" ".join(sentences), gold=text, grader="exact")


def _reverse(draw: Draw, text: str) -> tuple[str, str]:
    return "reverse it", text[::-1]


def _rotate(draw: Draw, text: str) -> tuple[str, str]:
    count = draw.randint(1, len(text) // 2)
    return (
        f"move the first {count} {_plural('letter', count)} to the end",
        text[count:] + text[:count],
    )


def _swap(draw: Draw, text: str) -> tuple[str, str]:
    return "swap the first and the last letter", text[-1] + text[1:-1] + text[0]


def _replace(draw: Draw, text: str) -> tuple[str, str]:
    old = draw.choice(text)
    new = draw.choice([letter for letter in _LETTERS if letter != old])
    return f"replace every {old} with {new}", text.replace(old, new)


def _double(draw: Draw, text: str) -> tuple[str, str]:
    place = draw.randint(1, len(text))
    return f"write letter number {place} twice", text[:place] + text[place - 1 :]


def _remove(draw: Draw, text: str) -> tuple[str, str]:
    place = draw.randint(1, len(text))
    return f"remove letter number {place}", text[: place - 1] + text[place:]


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"


_CHANGES = (_reverse, _rotate, _swap, _replace, _double, _remove)
