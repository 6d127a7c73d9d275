"""Numbers and texts as a reader sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence

TEXT_LIMIT = 6000
"""Characters of one text on the page; what is left out is counted, and is in the run folder."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")


def percent(value: float, digits: int = 1) -> str:
    """0.1234 -> `12.3 %`."""
    return f"{100 * value:.{digits}f}\u202f%"


def interval(ci95: Sequence[float]) -> str:
    """[0.1, 0.2] -> `10.0 to 20.0`, in percent."""
    return f"{_signless(100 * ci95[0])} to {_signless(100 * ci95[1])}"


def points(value: float) -> str:
    """A difference of two shares: 0.231 -> `+23.1`, in percentage points."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def points_interval(ci95: Sequence[float]) -> str:
    """`+21.0 to +25.2`, in percentage points."""
    return f"{points(ci95[0])} to {points(ci95[1])}"


def p_value(p: float) -> str:
    """`p < 0.0001`, `p = 0.013`."""
    if p < 0.0001:
        return "p < 0.0001"
    return f"p = {p:.4f}" if p < 0.01 else f"p = {p:.2f}"


def count(number: int) -> str:
    """1319 -> `1,319`."""
    return f"{number:,}"


def duration(seconds: float) -> str:
    """`48 s`, `2 min 31 s`, `1 h 04 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def number(value: float) -> str:
    """Three digits that matter, whole numbers in full."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def visible(text: str) -> str:
    """Text of a model, made safe to look at: what would be invisible or reorder the line is shown.

    Escaping of markup is the template's business; it escapes everything.
    """
    text = _CONTROL.sub(lambda m: f"\\x{ord(m.group()):02x}", text)
    return _INVISIBLE.sub(lambda m: f"\\u{ord(m.group()):04x}", text)


def shortened(text: str) -> tuple[str, int]:
    """The visible text, cut in the middle at TEXT_LIMIT, and how many characters that left out."""
    left_out = len(text) - TEXT_LIMIT
    if left_out <= 0:
        return visible(text), 0
    head, tail = text[: TEXT_LIMIT * 2 // 3], text[-(TEXT_LIMIT // 3) :]
    return f"{visible(head)}\n\n[…]\n\n{visible(tail)}", left_out


def _signless(value: float) -> str:
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")
