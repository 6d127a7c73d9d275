"""Takes typography and units out of an answer, leaving what a reader would copy by hand."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

_CHARS = str.maketrans(
    {
        **dict.fromkeys("−–—﹣－", "-"),
        **dict.fromkeys("×·⋅∗", "*"),
        **dict.fromkeys("÷∕／", "/"),
        **dict.fromkeys("\u00a0\u2009\u202f~～", " "),
        "，": ",", "：": ":", "；": ";", "（": "(", "）": ")", "＝": "=", "％": "%",
        "\u200b": None, "$": None, "°": r"^\circ ", "∞": r"\infty ", "π": r"\pi ", "√": r"\sqrt ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∈": r"\in ", "±": r"\pm ",
        "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    }
)  # fmt: skip
_SPACING = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|[bB]igg?[lr]?|quad|qquad)(?![a-zA-Z])"
    r"|(?<!\\)\\[],!;:>()[\s]"
)
_WRAPPER = re.compile(
    r"\\(?:underline|text(?:bf|it|rm|tt|sf|normal)?|math(?:rm|bf|it|sf)|mbox|hbox|operatorname\*?)"
    r"\s*\{([^{}]*)\}"
)
_MARKED_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!\s*|\{,\})(?=\d{3})")
_PLAIN_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?: \d{3})+(?![\d ])")
_PLAIN_MIXED = re.compile(r"(?<![\w.}/^*+] )(?<![\w./^*+}])(\d+) (\d+/\d+)(?![\d/])")
_REPEATING = re.compile(r"(\d{0,50})\.(\d{0,50})\\(?:overline|bar|dot)\s*\{?(\d{1,50})\}?")
_MAX_NESTING = 8
"""Font commands inside font commands that are taken away."""
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_SCALE = re.compile(rf"(?<![\d.])(\d+(?:\.\d+)?)\s*({'|'.join(_SCALES)})\b", re.IGNORECASE)
_HAS_BRACKETS = re.compile(r"[(\[]|\\\{|\\begin")
_PREFIX = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:(?:final|correct)\s+)?"
    r"(?:answer|result|value|solution|total)\s*(?:is|are|:|=)+\s*:?\s*",
    re.IGNORECASE,
)


def tidy(text: str, *, join_thousands: bool = True) -> str:
    """The answer without delimiters, font and spacing commands, currency and thousands separators.

    A plain comma separates thousands only outside brackets: `(1,234)` is a pair, `1,234` a number.
    """
    text = _MARKED_THOUSANDS.sub("", text.replace(r"\$", "").translate(_CHARS))
    if "\\" in text:
        text = _SPACING.sub(" ", text)
        for _ in range(_MAX_NESTING):
            text, num_found = _WRAPPER.subn(r" \1 ", text)
            if not num_found:
                break
    text = _REPEATING.sub(_repeating_fraction, text.strip().strip("*`"))
    if join_thousands and not _HAS_BRACKETS.search(text):
        text = _PLAIN_THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
        text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    text = _PLAIN_MIXED.sub(r"(\1+\2)", text)
    if _SCALE.search(text):
        text = _SCALE.sub(lambda match: f"({match[1]}*{_SCALES[match[2].lower()]})", text)
    return " ".join(text.split())


def _repeating_fraction(match: re.Match[str]) -> str:
    whole, start, period = match.groups()
    shown = 10 ** len(start)
    value = Fraction(int(whole + start or 0), shown)
    value += Fraction(int(period), shown * (10 ** len(period) - 1))
    return f"({value.numerator}/{value.denominator})"


class Measured(NamedTuple):
    """An answer taken apart from its unit."""

    body: str
    unit: str
    """Canonical name of a known unit with its power, say `cm^2`; empty for none and for others."""


_UNITS = {
    "mm": ("millimeter", "millimetre"),
    "cm": ("centimeter", "centimetre"),
    "m": ("meter", "metre"),
    "km": ("kilometer", "kilometre"),
    "in": ("inch", "inches"),
    "ft": ("foot", "feet"),
    "yd": ("yard",),
    "mi": ("mile",),
    "mg": ("milligram",),
    "g": ("gram",),
    "kg": ("kilogram",),
    "oz": ("ounce",),
    "lb": ("lbs", "pound"),
    "ml": ("milliliter", "millilitre", "mL"),
    "l": ("liter", "litre", "L"),
    "s": ("sec", "secs", "second"),
    "min": ("mins", "minute"),
    "h": ("hr", "hrs", "hour"),
    "day": (),
    "week": (),
    "month": (),
    "year": (),
    "mph": ("miles per hour",),
    "cent": (),
    "dollar": ("usd", "USD"),
    "rad": ("radian",),
    "unit": (),
}
_KNOWN = {
    form: name
    for name, others in _UNITS.items()
    for word in (name, *others)
    for form in (word, word + "s")
}
_NO_UNIT = frozenset(
    (
        *("and", "or", "not", "is", "are", "was", "to", "of", "the", "than", "if", "when", "where"),
        *("with", "for", "let", "mod", "pi", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc"),
        *("log", "ln", "exp", "inf", "infinity", "infty", "oo", "no", "all", "real", "even", "odd"),
        *("dozen", "hundred", "thousand", "million", "billion", "trillion", "half", "third"),
        *("quarter", "none", "zero", "one", "two", "three", "four", "five", "six", "seven"),
        *("eight", "nine", "ten"),
    )
)
"""Words that change the number or are none: an answer with them is read as a whole."""
_DEGREE = re.compile(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?(?:\s*[CF]\b)?|\\degree|\bdegrees?\b")
_ANGLE_FUNCTION = re.compile(r"sin|cos|tan|cot|sec|csc")
_TAIL = re.compile(
    r"(?P<body>.*?[\d)}\]a-zA-Z!%])(?P<gap>\s+|(?=[A-Za-z]{2}))(?<![\\A-Za-z])"
    r"(?P<words>[A-Za-z]+\.?(?:[ /-]+[A-Za-z]+\.?){0,3})"
    r"(?:\s*\^\s*\{?\s*(?P<power>[23])\s*\}?)?",
    re.DOTALL,
)
_TAIL_CHARS = 80
"""A unit is looked for in so many last characters."""
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}


def split_unit(text: str, *, variables: str = "") -> Measured:
    """Cut a unit off a tidied answer, and the marks of degrees wherever they stand.

    A word is no unit where it is a number word, a connective or a function, or where it is so short
    that it may be `variables` of the gold.
    """
    if not _ANGLE_FUNCTION.search(text):  # the sine of 30 degrees is not that of 30
        text = _DEGREE.sub(" ", text).strip()
    text = text.rstrip(" .")
    head, text = text[:-_TAIL_CHARS], text[-_TAIL_CHARS:]
    match = _TAIL.fullmatch(text)
    if match is None:
        return Measured(head + text, "")
    words = [word.rstrip(".") for word in re.split(r"[ /-]+", match["words"])]
    if any(word.lower() in _NO_UNIT for word in words):
        return Measured(head + text, "")
    power = match["power"]
    if words[0].lower() in _POWERS and len(words) > 1:
        power = _POWERS[words.pop(0).lower()]
    phrase = " ".join(words)
    name = _KNOWN.get(phrase) or (_KNOWN.get(phrase.lower()) if len(phrase) > 1 else None)
    if any(len(word) < 3 for word in words):
        is_known = all(word in _KNOWN for word in words)
        if not is_known or not match["gap"] or set(phrase) & set(variables):
            return Measured(head + text, "")
    return Measured(
        (head + match["body"]).strip(), f"{name}^{power}" if name and power else name or ""
    )


def strip_prefix(text: str) -> str:
    """Without `The answer is` in front, and without the decimal after `\\approx`."""
    match = _PREFIX.match(text)
    text = text[match.end() :] if match else text
    exact, _, approximate = text.partition(r"\approx")
    return (exact or approximate).strip()
