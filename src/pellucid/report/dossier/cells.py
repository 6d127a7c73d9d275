"""Numbers on the page of a dossier. None is printed that does not say where it comes from.

A claim's number is asked for by the claim's id, and links to it; any other number is a fact of a
file, and links to that file with its digest. What is neither is refused: `refuse_bare` stands at
the end of every expression of the template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from markupsafe import Markup

from pellucid.evidence.core.claims import SHARE_KINDS, TWO_ARM_KINDS

VIEWS = ("all", "clean", "post_cutoff", "fresh")
VIEW_NAMES = {
    "all": "all items",
    "clean": "clean items",
    "post_cutoff": "newer than the model",
    "fresh": "made afresh",
}
_NUMBER = re.compile(r"[\s+\-−±~<>≤≥=p]*\d[\d.,\s\u202f]*(?:e[+-]?\d+)?\s*(?:%|points)?\s*", re.I)


class BareNumberError(TypeError):
    """A template that prints a number without a claim or a file: a mistake of ours."""


class Shown(NamedTuple):
    """How a kind of claim is printed."""

    shift: int
    """Digits that the point moves to the right."""
    unit: str
    is_signed: bool


def refuse_bare(value: Any) -> Any:
    """What the template may print: text and marked-up cells, but no number by itself.

    Raises BareNumberError for numbers, and for text that is nothing but one.
    """
    if isinstance(value, Markup) or not isinstance(value, int | float | Decimal | str):
        return value
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        raise BareNumberError(f"{value!r} has no claim: use number(), interval() or fact()")
    return value


def shown_as(claim: Mapping[str, Any]) -> Shown:
    """Shares in percent, their differences in points, the rest as it is."""
    is_share = claim["metric"]["fn"] != "ratio"
    if claim["kind"] in SHARE_KINDS:
        return Shown(2, "\u202f%", False)
    if claim["kind"] in TWO_ARM_KINDS:
        return Shown(2, " points", True) if is_share else Shown(0, "", True)
    return Shown(0, "×" if len(claim["arms"]) == 2 else "", False)


def decimal_text(printed: str, shift: int, *, is_signed: bool = False) -> str:
    """`0.0840` -> `+8.40`: exactly the printed digits, none more and none less."""
    value = Decimal(printed).scaleb(shift)
    text = f"{value:+f}" if is_signed and value else f"{value:f}"
    return text.replace("-", "−")


def side(claim: Mapping[str, Any], printed: Mapping[str, Any] | None) -> int:
    """Which side of "no difference" a result lies on; 0 where there is none, or no result."""
    if printed is None:
        return 0
    value = Decimal(printed["value"])
    if claim["kind"] == "non_inferiority":
        value += Decimal(repr(claim["metric"]["margin"]))
    elif claim["kind"] == "ratio" and len(claim["arms"]) == 2:
        value -= 1
    elif claim["kind"] != "paired_difference":
        return 0
    return (value > 0) - (value < 0)


class Cells:
    """The functions that the template prints numbers with."""

    def __init__(self, claims: Mapping[str, Mapping[str, Any]], files: Mapping[str, str]) -> None:
        """`files`: path -> anchor of the row that shows its digest."""
        self._claims, self._files = claims, files

    def printed(self, claim: str, view: str = "all") -> Mapping[str, Any] | None:
        """A view's printed numbers; None where it is empty. BareNumberError for no claim."""
        one = self._claim(claim)
        return one["reported"] if view == "all" else one["views"].get(view)

    def number(self, claim: str, field: str = "value", view: str = "all") -> Markup:
        """One number of a claim, linked to it."""
        printed = self.printed(claim, view)
        if printed is None or printed[field] is None:
            return Markup('<span class="none">none</span>')
        text = self._text(claim, field, printed[field])
        return self._link(claim, text)

    def interval(self, claim: str, view: str = "all") -> Markup:
        """`+3.10 to +12.40`, linked to the claim."""
        printed = self.printed(claim, view)
        if printed is None:
            return Markup("")
        low, high = (self._text(claim, name, printed[name], unit=False) for name in ("low", "high"))
        return self._link(claim, f"{low} to {high}")

    def reverses(self, claim: str, view: str) -> bool:
        """Whether a view lies on the other side of "no difference" than all items together."""
        one = self._claim(claim)
        return side(one, self.printed(claim, view)) * side(one, one["reported"]) < 0

    def fact(self, path: str, text: str) -> Markup:
        """A number that a file of the dossier holds, linked to the file's digest."""
        if path not in self._files:
            raise BareNumberError(f"{text!r} is of {path}, which the manifest does not list")
        link = Markup('<a class="n" href="#{}" title="{}">{}</a>')
        return link.format(self._files[path], path, text)

    def _claim(self, claim: str) -> Mapping[str, Any]:
        if not isinstance(claim, str) or claim not in self._claims:
            raise BareNumberError(f"{claim!r} is no claim of this dossier")
        return self._claims[claim]

    def _text(self, claim: str, field: str, value: str | int, *, unit: bool = True) -> str:
        if isinstance(value, int):
            return f"{value:,}"
        if field in ("p", "p_adj"):
            return (
                value
                if Decimal(value)
                else f"< {Decimal(1).scaleb(Decimal(value).as_tuple().exponent)}"
            )
        shown = shown_as(self._claim(claim))
        text = decimal_text(value, shown.shift, is_signed=shown.is_signed)
        return text + shown.unit if unit else text

    def _link(self, claim: str, text: str) -> Markup:
        link = Markup('<a class="n" href="#claim-{}" aria-label="{}, claim {}">{}</a>')
        return link.format(claim, text, claim, text)
