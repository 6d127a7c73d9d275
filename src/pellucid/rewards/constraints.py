"""Instructions that a program can check, as in IFEval (Zhou et al. 2023, arXiv 2311.07911) and
IFBench (`ifbench`).

Gold: `[{"id": "length_constraints:number_words", "kwargs": {"relation": "at least", "num_words":
300}}, …]`, the names of IFEval's own set. The verdict is the strict one at the level of the prompt:
correct where every instruction is followed as written. What is checked is the text after the
thinking, within answer tags where there are any.

The rules are IFEval's with these exceptions. Sentences are told apart by punctuation and a list of
abbreviations instead of a trained splitter, languages by `identify`. Empty forms count for nothing
(a placeholder, bullet, title or postscript without words), nor do two of the allowed answers at
once.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.extract import split_thinking
from pellucid.rewards.identify import identify, main_script
from pellucid.rewards.ifbench import IFBENCH_KINDS, NOT_CHECKED
from pellucid.rewards.instruction import Arguments, Kind, split_sentences
from pellucid.rewards.simple import verdict_of

METHOD = "constraints"
MAX_CHARS = 100_000
"""Longer responses are wrong unread."""
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_WORD = re.compile(r"\w+")
_CASED_WORD = re.compile(r"\w[\w'’-]*")
_FIRST_WORD = re.compile(r"[^\s.,?!'\"]*")
_BULLET = re.compile(r"^[ \t]*(?:\*(?!\*)|-)[ \t]*\S", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*\*([^\n*]*)\*\*|\*([^\n*]*)\*")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]*[^\[\]\s][^\[\]\n]*\]")
_TITLE = re.compile(r"<<[^\n<>]*[^\s<>][^\n<>]*>>")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*(?:```)?", re.DOTALL | re.IGNORECASE)
_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _related(count: int, relation: str, wanted: int) -> bool:
    return count < wanted if relation == "less than" else count >= wanted


def _find(word: str, text: str) -> list[str]:
    """Occurrences whatever the case, inside longer words too."""
    return re.findall(re.escape(word), text, re.IGNORECASE)


def _sections(text: str, mark: str) -> list[str] | None:
    """Parts between the marks, an empty one at either end left out; None: one inside is empty."""
    parts = [part.strip() for part in text.split(mark)]
    if len(parts) > 1 and not parts[0]:
        parts = parts[1:]
    if len(parts) > 1 and not parts[-1]:
        parts = parts[:-1]
    return parts if all(parts) else None


def _letters(text: str, a: Arguments) -> bool:
    return _related(text.lower().count(a["letter"].lower()), a["let_relation"], a["let_frequency"])


def _paragraphs(text: str, a: Arguments) -> bool:
    parts = _sections(text, "***")
    return parts is not None and len(parts) == a["num_paragraphs"]


def _first_word(text: str, a: Arguments) -> bool:
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    if len(parts) != a["num_paragraphs"] or not 1 <= a["nth_paragraph"] <= len(parts):
        return False
    words = parts[a["nth_paragraph"] - 1].lstrip("'\"")
    found = _FIRST_WORD.match(words)
    return found is not None and found[0].lower() == a["first_word"].lower()


def _highlights(text: str, a: Arguments) -> bool:
    found = [strong or plain for strong, plain in _HIGHLIGHT.findall(text)]
    return sum(bool(part.strip()) for part in found) >= a["num_highlights"]


def _postscript(text: str, a: Arguments) -> bool:
    """The marker anywhere, in any case, blanks after its dots allowed, and words after it."""
    marker = r"\s?".join(
        re.escape(part) for part in re.findall(r"[^.]+\.?", a["postscript_marker"])
    )
    return re.search(rf"(?<!\w){marker}\W*\w", text, re.IGNORECASE) is not None


def _multiple_sections(text: str, a: Arguments) -> bool:
    found = re.findall(rf"{re.escape(a['section_spliter'])}\s?\d+", text)
    return len(found) >= a["num_sections"]


def _json(text: str, a: Arguments) -> bool:
    fenced = _FENCE.fullmatch(text)
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str, a: Arguments) -> bool:
    parts = _sections(text, "******")
    return parts is not None and len(parts) == 2 and parts[0] != parts[1]


def _quotation(text: str, a: Arguments) -> bool:
    return len(text) > 1 and text[0] == '"' == text[-1]


def _capital_words(text: str, a: Arguments) -> bool:
    count = sum(word.isupper() for word in _CASED_WORD.findall(text))
    return _related(count, a["capital_relation"], a["capital_frequency"])


def _is_english(text: str) -> bool:
    return main_script(text) == "LATIN" and identify(text) in ("en", None)


_IFEVAL_KINDS: dict[str, Kind] = {
    "keywords:existence": Kind(
        lambda t, a: all(_find(word, t) for word in a["keywords"]), {"keywords": list}
    ),
    "keywords:frequency": Kind(
        lambda t, a: _related(len(_find(a["keyword"], t)), a["relation"], a["frequency"]),
        {"keyword": str, "relation": str, "frequency": int},
    ),
    "keywords:forbidden_words": Kind(
        lambda t, a: (
            not any(
                re.search(rf"\b{re.escape(word)}\b", t, re.IGNORECASE)
                for word in a["forbidden_words"]
            )
        ),
        {"forbidden_words": list},
    ),
    "keywords:letter_frequency": Kind(
        _letters, {"letter": str, "let_relation": str, "let_frequency": int}
    ),
    "language:response_language": Kind(
        lambda t, a: identify(t) == a["language"], {"language": str}
    ),
    "length_constraints:number_sentences": Kind(
        lambda t, a: _related(len(split_sentences(t)), a["relation"], a["num_sentences"]),
        {"relation": str, "num_sentences": int},
    ),
    "length_constraints:number_paragraphs": Kind(_paragraphs, {"num_paragraphs": int}),
    "length_constraints:number_words": Kind(
        lambda t, a: _related(len(_WORD.findall(t)), a["relation"], a["num_words"]),
        {"relation": str, "num_words": int},
    ),
    "length_constraints:nth_paragraph_first_word": Kind(
        _first_word, {"num_paragraphs": int, "nth_paragraph": int, "first_word": str}
    ),
    "detectable_content:number_placeholders": Kind(
        lambda t, a: len(_PLACEHOLDER.findall(t)) >= a["num_placeholders"],
        {"num_placeholders": int},
    ),
    "detectable_content:postscript": Kind(_postscript, {"postscript_marker": str}),
    "detectable_format:number_bullet_lists": Kind(
        lambda t, a: len(_BULLET.findall(t)) == a["num_bullets"], {"num_bullets": int}
    ),
    "detectable_format:constrained_response": Kind(
        lambda t, a: sum(answer in t for answer in _ANSWERS) == 1, {}
    ),
    "detectable_format:number_highlighted_sections": Kind(_highlights, {"num_highlights": int}),
    "detectable_format:multiple_sections": Kind(
        _multiple_sections, {"section_spliter": str, "num_sections": int}
    ),
    "detectable_format:json_format": Kind(_json, {}),
    "detectable_format:title": Kind(lambda t, a: _TITLE.search(t) is not None, {}),
    "combination:two_responses": Kind(_two_responses, {}),
    "combination:repeat_prompt": Kind(
        lambda t, a: t.lower().startswith(a["prompt_to_repeat"].strip().lower()),
        {"prompt_to_repeat": str},
    ),
    "startend:end_checker": Kind(
        lambda t, a: t.strip('"').lower().endswith(a["end_phrase"].strip().lower()),
        {"end_phrase": str},
    ),
    "startend:quotation": Kind(_quotation, {}),
    "change_case:capital_word_frequency": Kind(
        _capital_words, {"capital_relation": str, "capital_frequency": int}
    ),
    "change_case:english_capital": Kind(lambda t, a: t.isupper() and _is_english(t), {}),
    "change_case:english_lowercase": Kind(lambda t, a: t.islower() and _is_english(t), {}),
    "punctuation:no_comma": Kind(lambda t, a: "," not in t, {}),
}
KINDS: dict[str, Kind] = {**_IFEVAL_KINDS, **IFBENCH_KINDS}
"""By the names of IFEval and of IFBench."""


class Constraint(NamedTuple):
    """One instruction of a gold."""

    id: str
    kwargs: Arguments


@functools.lru_cache(maxsize=10_000)
def read_constraints(gold: str) -> tuple[Constraint, ...]:
    """Raises ValueError where the gold is not of the form above."""
    try:
        read = tuple(Constraint(**entry) for entry in json.loads(gold))
    except (ValueError, TypeError) as error:
        raise ValueError('gold must be JSON [{"id": …, "kwargs": {…}}, …]') from error
    if not read:
        raise ValueError("gold has no instruction")
    for constraint in read:
        _check(constraint)
    return read


def _check(constraint: Constraint) -> None:
    if constraint.id not in KINDS:
        why = NOT_CHECKED.get(constraint.id)
        raise ValueError(
            f"{constraint.id} is not checked here: {why}"
            if why
            else f"unknown instruction {constraint.id!r}"
        )
    for name, kind in KINDS[constraint.id].arguments.items():
        value = constraint.kwargs.get(name)
        if type(value) is not kind or (kind is not int and not value):
            raise ValueError(f"{constraint.id} needs {name}, a {kind.__name__}, not {value!r}")
        if name.endswith("relation") and value not in ("at least", "less than"):
            raise ValueError(f'{name} must be "at least" or "less than", not {value!r}')


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCoverage:
    """How many of the kinds that some golds name are decided by a rule here.

    Example: KindCoverage(checked=40, named=58, missing={"format:thesis": 9, …})
    """

    checked: int
    named: int
    missing: dict[str, int]
    """Kind without a rule -> golds that name it."""


def kind_coverage(golds: Sequence[str]) -> KindCoverage | None:
    """None without golds. Raises ValueError where one is not of the form above."""
    if not golds:
        return None
    named = [{entry["id"] for entry in json.loads(gold)} for gold in golds]
    every: set[str] = set().union(*named)
    missing = sorted(every - KINDS.keys())
    counts = {kind: sum(kind in kinds for kinds in named) for kind in missing}
    return KindCoverage(checked=len(every) - len(missing), named=len(every), missing=counts)


def answer_text(response: str) -> str:
    """What instructions are about: after the thinking, within answer tags where there are any."""
    text = split_thinking(response).answer or ""
    tagged = _ANSWER.findall(text)
    return (tagged[-1] if tagged else text).strip()


def grade_constraints(problem: Problem, response: str) -> Score:
    """Correct where all instructions are followed; else the detail lists those that are not."""
    text = answer_text(response)
    if not text:
        return Score(verdict=Verdict.UNPARSABLE, method=METHOD)
    try:
        constraints = read_constraints(problem.gold)
    except ValueError as error:
        return Score(verdict=Verdict.ERROR, method=METHOD, detail=str(error))
    if len(text) > MAX_CHARS:
        detail = f"longer than {MAX_CHARS} characters"
        return Score(verdict=Verdict.WRONG, method=METHOD, detail=detail)
    broken = broken_constraints(constraints, text)
    detail = f"not followed: {', '.join(broken)}" if broken else ""
    return Score(verdict=verdict_of(not broken), extracted=text, method=METHOD, detail=detail)


def broken_constraints(constraints: Sequence[Constraint], text: str) -> list[str]:
    """Ids of the instructions that the text does not follow."""
    return [c.id for c in constraints if not KINDS[c.id].is_followed(text, c.kwargs)]
