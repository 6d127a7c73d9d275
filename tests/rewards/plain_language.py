"""The language rule as one scan a rule: slow, and what the fast one must equal."""

from __future__ import annotations

import re

from pellucid.rewards.language import SCRIPTS

_RANGES = {
    "latin": r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "cyrillic": r"\u0400-\u052f",
    "han": r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "kana": r"\u3041-\u30ff",
    "hangul": r"\u1100-\u11ff\uac00-\ud7af",
    "arabic": r"\u0620-\u065f\u066e-\u06d3\u0750-\u077f",
    "hebrew": r"\u05d0-\u05ea",
    "greek": r"\u0386-\u03ce",
    "devanagari": r"\u0900-\u0963\u0970-\u097f",
    "bengali": r"\u0980-\u09e5\u09f0-\u09ff",
    "telugu": r"\u0c00-\u0c65",
    "tamil": r"\u0b80-\u0be5",
    "thai": r"\u0e01-\u0e4e",
}
_ONE_EACH = ("han", "kana")
_WORD = re.compile(
    "|".join(
        f"(?P<{name}>[{span}]{'' if name in _ONE_EACH else '+'})" for name, span in _RANGES.items()
    )
)
_NOT_PROSE = re.compile(
    r"```.{0,4000}?(?:```|\Z)"  # code block, also one that is cut off
    r"|`[^`\n]*`"
    r"|\$\$.{0,1000}?\$\$|\$[^$\n]*\$"
    r"|\\\[.{0,1000}?\\\]|\\\(.{0,1000}?\\\)"
    r"|\\begin\{(\w+\*?)\}.{0,1000}?\\end\{\1\}"
    r"|\\(?:boxed|text|mathrm|operatorname|frac|sqrt)\s*\{[^{}]*\}"
    r"|\\[A-Za-z]+"
    r"|</?\w+>"
    r"|\w*\d\w*",  # numbers, and names that hold one: x1, 2n
    re.DOTALL,
)
_FUNCTION_NAMES = "sin cos tan cot log ln exp sqrt max min lim mod gcd lcm"
_FUNCTIONS = set(_FUNCTION_NAMES.split())


def plain_share(thinking: str, language: str) -> float:
    """`pellucid.rewards.language.language_share`, every alternative tried at every character."""
    if not thinking.strip():
        return 0.0
    num_words = num_target = 0
    for match in _WORD.finditer(_NOT_PROSE.sub(" ", thinking)):
        script, word = match.lastgroup, match[0]
        if script == "latin" and (len(word) == 1 or word.lower() in _FUNCTIONS):
            continue
        num_words += 1
        num_target += script in SCRIPTS[language]
    return num_target / num_words if num_words else 1.0
