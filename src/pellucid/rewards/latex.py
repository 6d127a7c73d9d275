"""Takes the typography out of an answer: delimiters, spacing, font commands, thousands separators."""

from __future__ import annotations

import re

_DROP = re.compile(
    r"\\(?:left|right|big|Big|bigg|Bigg|bigl|bigr|displaystyle|textstyle|limits|,(?!\d{3})|!|;|:| )(?![a-zA-Z])"
    r"|\\(?:left|right)(?=[a-zA-Z\\])"
)
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname\*?|rm|bf)"
    r"\s*\{([^{}]*)\}"
)
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:(?:\{,\}|,\\!|\\,|,)\d{3})+(?!\d)")
_CHARS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "﹣": "-", "－": "-",
        "×": r"*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "∕": "/", "／": "/",
        "，": ",", "。": ".", "：": ":", "；": ";", "（": "(", "）": ")", "＝": "=", "％": "%",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": None, "～": "~",
    }
)  # fmt: skip


def tidy(text: str) -> str:
    """The answer without typography: what a reader would copy down by hand."""
    text = text.translate(_CHARS).replace(r"\$", "").replace("$", "")
    text = _THOUSANDS.sub(lambda m: re.sub(r"\D", "", m[0]), text)
    text = _DROP.sub("", text.replace("~", " "))
    while (bare := _WRAPPER.sub(r" \1 ", text)) != text:
        text = bare
    return text.strip()
