"""Language consistency: the share of target-language words in the thinking (paper, eq. 7).

Words are told apart by Unicode script, so languages of one script (English and German, say) count
as the same; telling them apart takes a language identifier, which is not used here. Not counted:
formulas (`$…$`, `\\(…\\)`, `\\[…\\]`, boxes, LaTeX commands), code, numbers, punctuation, tags,
function names such as `sin`, and single Latin letters, which are variables more often than words.
Han characters and kana count one each, since no space parts them; all else counts by word.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from pellucid.errors import ConfigError
from pellucid.rewards.extract import split_thinking

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
_IN_LATIN = "en de fr es it pt nl sv da no fi pl cs sk sl hr hu ro tr vi id ms sw et lv lt ca gl"
SCRIPTS: dict[str, frozenset[str]] = {
    **dict.fromkeys(_IN_LATIN.split(), frozenset({"latin"})),
    **dict.fromkeys(("ru", "uk", "bg", "be", "mk", "kk"), frozenset({"cyrillic"})),
    **dict.fromkeys(("ar", "fa", "ur"), frozenset({"arabic"})),
    **dict.fromkeys(("hi", "mr", "ne"), frozenset({"devanagari"})),
    "zh": frozenset({"han"}),
    "ja": frozenset({"han", "kana"}),
    "ko": frozenset({"hangul"}),
    "he": frozenset({"hebrew"}),
    "el": frozenset({"greek"}),
    "bn": frozenset({"bengali"}),
    "te": frozenset({"telugu"}),
    "ta": frozenset({"tamil"}),
    "th": frozenset({"thai"}),
}
"""Scripts in which each language (ISO 639-1) is written."""

# Spans are bounded: a response of ten thousand opened formulas must not cost quadratic time.
# Every alternative begins with a literal character, so that the scan skips from one to the next.
_NOT_PROSE = re.compile(
    r"```.{0,4000}?(?:```|\Z)"  # code block, also one that is cut off
    r"|`[^`\n]*`"
    r"|\$\$.{0,1000}?\$\$|\$[^$\n]*\$"
    r"|\\\[.{0,1000}?\\\]|\\\(.{0,1000}?\\\)"
    r"|\\begin\{(\w+\*?)\}.{0,1000}?\\end\{\1\}"
    r"|\\(?:boxed|text|mathrm|operatorname|frac|sqrt)\s*\{[^{}]*\}"
    r"|\\[A-Za-z]+"
    r"|</?\w+>",
    re.DOTALL,
)
_NUMBER = re.compile(r"\d\w*")
_ONE_EACH = ("han", "kana")
_LATIN = re.compile(f"[{_RANGES['latin']}]{{2,}}")
_OTHER = {name: re.compile(f"[{span}]+") for name, span in _RANGES.items() if name != "latin"}
_ANY_OTHER = re.compile(f"[{''.join(span for n, span in _RANGES.items() if n != 'latin')}]")
_FUNCTION_NAMES = "sin cos tan cot log ln exp sqrt max min lim mod gcd lcm"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())


def language_share(thinking: str, language: str) -> float:
    """Share of words written in the scripts of `language`, 0.0–1.0.

    Nothing written is 0.0, or leaving out the thinking would earn the reward; formulas without a
    word are 1.0, since nothing in them is in a wrong language. Raises ConfigError on an unknown
    language.
    """
    scripts = SCRIPTS.get(language)
    if scripts is None:
        raise ConfigError(
            f"no script known for language {language!r}; use one of: {' '.join(sorted(SCRIPTS))}"
        )
    if not thinking.strip():
        return 0.0
    counts = _count_words(_without_numbers(_NOT_PROSE.sub(" ", thinking)), expected=scripts)
    num_words = sum(counts.values())
    return sum(counts.get(script, 0) for script in scripts) / num_words if num_words else 1.0


def language_reward(response: str, language: str) -> float:
    """`language_share` of the thinking; of the whole response where it has no thinking tags."""
    thinking = split_thinking(response).thinking
    return language_share(response if thinking is None else thinking, language)


def _without_numbers(text: str) -> str:
    """Blanks in place of numbers and of names that hold one (x1, 2n)."""
    parts = _NUMBER.split(text)
    for i, part in enumerate(parts[:-1]):
        end = len(part)
        while end and (part[end - 1].isalnum() or part[end - 1] == "_"):
            end -= 1  # the beginning of the name
        parts[i] = part[:end]
    return " ".join(parts)


def _count_words(text: str, *, expected: Collection[str]) -> dict[str, int]:
    """Words of each script. Those expected are taken out first: mostly nothing is left for the
    others.
    """
    counts: dict[str, int] = {}
    for script in sorted(_OTHER, key=lambda name: name not in expected):
        if text.isascii() or not _ANY_OTHER.search(text):
            break
        without, runs = _OTHER[script].subn(" ", text)
        # Each run became one blank: what is missing, and the blanks, are its characters.
        counts[script] = len(text) - len(without) + runs if script in _ONE_EACH else runs
        text = without
    latin = _LATIN.findall(text)
    functions = sum(map(_FUNCTIONS.__contains__, map(str.lower, latin)))
    return counts | {"latin": len(latin) - functions}
