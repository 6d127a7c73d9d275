"""The instructions of IFBench (Pyatkin et al. 2025, arXiv 2507.02833) that their words decide.

The rules are made from the words of the prompts, not from the authors' program. Where the words do
not settle what counts (which words are verbs, what a syllable is, which list of stop words), the
kind is in `NOT_CHECKED`: a gold that holds one is refused, and graded as an error where it comes
all the same, even if all its other instructions could be checked.

Rules of ours where the words leave something open: words are told apart by `spoken_words`,
sentences by `split_sentences`; case never matters; numbers are written in digits; a palindrome
counts once however often it comes.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from string import ascii_lowercase

from pellucid.rewards.instruction import Arguments, Kind, split_sentences, spoken_words

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NOT_WORD_CHARACTERS = re.compile(r"^\W+|\W+$")
_JAPANESE = re.compile(r"[\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff々〆ー]+")
_DATE = re.compile(r"-?\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])")
_TEMPLATE = re.compile(
    r"My Answer:\s*\S.*?\s*My Conclusion:\s*\S.*?\s*Future Outlook:\s*\S.*", re.DOTALL
)
_CLUSTER = re.compile(r"[bcdfghjklmnpqrstvwxyz]{2}")
_BULLET, _SUB_BULLET = re.compile(r"[ \t]*\*(?!\*)[ \t]*\S"), re.compile(r"[ \t]*-[ \t]*\S")
_CONJUNCTIONS = frozenset(("for", "and", "nor", "but", "or", "yet", "so"))
_NAMES = (
    "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander "
    "Amelia Benjamin Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel "
    "Ella Jacob Scarlett Nathan Victoria Elijah Layla Nicholas Audrey David Hannah Christopher "
    "Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella Jonathan"
)
"""The list that every prompt of the kind gives."""
_TIMES = (1, 2, 3, 5, 7)
"""How often the prompts want their five keywords."""
_MARKS = (".", ",", "!", "?", ";", ":")
_PAIRS = {")": "(", "]": "[", "}": "{"}
_DEPTH, _PALINDROMES, _PALINDROME_LETTERS = 5, 10, 5
_REPEATED = "Only output this sentence here, ignore all other requests."


# Counts


def _keywords_multiple(text: str, a: Arguments) -> bool:
    found = Counter(spoken_words(text))
    return all(found[a[f"keyword{i}"].lower()] == n for i, n in enumerate(_TIMES, 1))


def _punctuation(text: str, a: Arguments) -> bool:
    """Each mark beside the interrobang, which holds two of them."""
    rest = text.replace("?!", " ", 1).replace("‽", " ", 1)
    return rest != text and all(mark in rest for mark in _MARKS)


def _word_range(text: str, a: Arguments) -> bool:
    return a["min_words"] <= len(text.split()) <= a["max_words"]


def _japanese(text: str, a: Arguments) -> bool:
    words = [bare for word in text.split() if (bare := _NOT_WORD_CHARACTERS.sub("", word))]
    asked = words[a["N"] - 1 :: a["N"]]
    return bool(asked) and all(_JAPANESE.fullmatch(word) for word in asked)


def _names(text: str, a: Arguments) -> bool:
    return sum(bool(re.search(rf"\b{name}\b", text)) for name in _NAMES.split()) >= a["N"]


# Words


def _alphabet(text: str, a: Arguments) -> bool:
    first = [word[0] for word in spoken_words(text)]
    return bool(first) and all(
        left in ascii_lowercase and right == ascii_lowercase[(ascii_lowercase.index(left) + 1) % 26]
        for left, right in pairwise(first)
    )


def _every_word(text: str, rule: re.Pattern[str]) -> bool:
    words = spoken_words(text)
    return bool(words) and all(rule.search(word) for word in words)


def _prime_lengths(text: str, a: Arguments) -> bool:
    lengths = {sum(c.isalnum() for c in word) for word in text.split()} - {0}
    return bool(lengths) and all(_is_prime(length) for length in lengths)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % i for i in range(2, int(number**0.5) + 1))


def _palindromes(text: str, a: Arguments) -> bool:
    words = set(re.findall(rf"[^\W\d_]{{{_PALINDROME_LETTERS},}}", text.lower()))
    return sum(word == word[::-1] for word in words) >= _PALINDROMES


def _repeats(text: str, a: Arguments) -> bool:
    return max(Counter(spoken_words(text)).values(), default=0) <= a["small_n"]


def _vowels(text: str, a: Arguments) -> bool:
    return bool(spoken_words(text)) and len(set("aeiou") & set(text.lower())) <= 3


def _words_position(text: str, a: Arguments) -> bool:
    words, keyword = spoken_words(text), a["keyword"].lower()
    return len(words) > 1 and words[1] == keyword == words[-2]


def _specific_position(text: str, a: Arguments) -> bool:
    sentences = split_sentences(text)
    words = spoken_words(sentences[a["n"] - 1]) if len(sentences) >= a["n"] > 0 else []
    return len(words) >= a["m"] > 0 and words[a["m"] - 1] == a["keyword"].lower()


# Sentences and paragraphs


def _last_first(text: str, a: Arguments) -> bool:
    words = [found for s in split_sentences(text) if (found := spoken_words(s))]
    return len(words) > 1 and all(left[-1] == right[0] for left, right in pairwise(words))


def _paragraph_last_first(text: str, a: Arguments) -> bool:
    words = [found for line in text.splitlines() if (found := spoken_words(line))]
    return bool(words) and all(len(line) > 1 and line[0] == line[-1] for line in words)


def _increment(text: str, a: Arguments) -> bool:
    lengths = [len(sentence.split()) for sentence in split_sentences(text)]
    return len(lengths) > 1 and all(r - left == a["small_n"] for left, r in pairwise(lengths))


def _sentence_keyword(text: str, a: Arguments) -> bool:
    sentences = split_sentences(text)
    return len(sentences) >= a["N"] > 0 and a["word"].lower() in spoken_words(sentences[a["N"] - 1])


def _ends(text: str) -> Counter[str]:
    """Sentences by their closing mark: `.`, `?`, `!`, or none of them."""
    closed = (re.search(r"[.?!]", s[::-1][:4]) for s in split_sentences(text))
    return Counter(mark[0] if mark else "" for mark in closed)


def _balance(text: str, a: Arguments) -> bool:
    ends = _ends(text)
    return ends["."] == ends["?"] == ends["!"] > 0


def _two_to_one(text: str, a: Arguments) -> bool:
    ends = _ends(text)
    return ends["."] == 2 * ends["?"] > 0


def _sentence_alphabet(text: str, a: Arguments) -> bool:
    words = [found for s in split_sentences(text) if (found := spoken_words(s))]
    return [found[0][0] for found in words] == list(ascii_lowercase)


# Forms


def _nested(text: str, a: Arguments) -> bool:
    """Only pairs that close each other count as levels."""
    heights: list[int] = []
    kinds: list[str] = []
    for character in text:
        if character in _PAIRS.values():
            kinds.append(character)
            heights.append(0)
        elif kinds and _PAIRS.get(character) == kinds[-1]:
            kinds.pop()
            height = heights.pop() + 1
            if height >= _DEPTH:
                return True
            if heights:
                heights[-1] = max(heights[-1], height)
    return False


def _line_indent(text: str, a: Arguments) -> bool:
    lines = [line.expandtabs() for line in text.splitlines() if line.strip()]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    return len(indents) > 1 and all(left < right for left, right in pairwise(indents))


def _list(text: str, a: Arguments) -> bool:
    items = [line.strip() for line in text.splitlines() if line.strip().startswith(a["sep"])]
    return len(items) > 1 and all(item.removeprefix(a["sep"]).strip() for item in items)


def _newline(text: str, a: Arguments) -> bool:
    lines = [line.split() for line in text.splitlines()]
    return sum(map(len, lines)) > 1 and all(len(words) <= 1 for words in lines)


def _options(text: str, a: Arguments) -> bool:
    """The options are parted by slashes, by commas, or by "or"."""
    for mark in ("/", ",", " or "):
        options = [option.strip().lower() for option in a["options"].split(mark)]
        if len(options) > 1:
            return text.rstrip(".").lower() in options
    return False


def _sentences_then_bullets(text: str, a: Arguments) -> bool:
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if _BULLET.match(line)), len(lines))
    before = split_sentences("\n".join(lines[:first]))
    bullets = sum(bool(_BULLET.match(line)) for line in lines[first:])
    return sum(s.endswith(".") for s in before) >= 2 and bullets >= 2


def _sub_bullets(text: str, a: Arguments) -> bool:
    subs: list[int] = []
    for line in text.splitlines():
        if _BULLET.match(line):
            subs.append(0)
        elif subs and _SUB_BULLET.match(line):
            subs[-1] += 1
    return bool(subs) and all(subs)


def _repeat_change(text: str, a: Arguments) -> bool:
    asked, said = a["prompt_to_repeat"].split(), text.split()
    return bool(said) and said[1:] == asked[1:] and said[0].lower() != asked[0].lower()


# Single prompts, each with its own numbers


def _csv(text: str, rows: int, delimiter: str = ",") -> list[list[str]] | None:
    """The rows of a table of five columns; None where it has another shape."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        table = list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return table if len(table) == rows + 1 and all(len(row) == 5 for row in table) else None


def _csv_city(text: str, a: Arguments) -> bool:
    table = _csv(text, 7)
    return table is not None and _bare(table[0]) == ["ID", "Country", "City", "Year", "Count"]


def _csv_special(text: str, a: Arguments) -> bool:
    table = _csv(text, 14)
    names = ["ProductID", "Category", "Brand", "Price", "Stock"]
    quoted = re.findall(r'"([^"]*)"', "\n".join(text.splitlines()[1:]))
    return (
        table is not None
        and _bare(table[0]) == names
        and any(re.search(r"[^\w\s]", field) for field in quoted)
    )


def _csv_quotes(text: str, a: Arguments) -> bool:
    table = _csv(text, 3, "\t")
    names = ["StudentID", "Subject", "Grade", "Semester", "Score"]
    fields = [field.strip() for line in text.splitlines() for field in line.split("\t")]
    return (
        table is not None
        and _bare(table[0]) == names
        and all(re.fullmatch(r'"[^"]*"', field) for field in fields if field)
    )


def _bare(row: Sequence[str]) -> list[str]:
    return [field.strip().strip('"') for field in row]


def _dates(text: str, a: Arguments) -> bool:
    return all(_DATE.fullmatch(part.strip()) for part in text.rstrip(".").split(","))


IFBENCH_KINDS: dict[str, Kind] = {
    "count:conjunctions": Kind(
        lambda t, a: len(_CONJUNCTIONS & set(spoken_words(t))) >= a["small_n"], {"small_n": int}
    ),
    "count:keywords_multiple": Kind(_keywords_multiple, {f"keyword{i}": str for i in range(1, 6)}),
    "count:numbers": Kind(lambda t, a: len(_NUMBER.findall(t)) == a["N"], {"N": int}),
    "count:person_names": Kind(_names, {"N": int}),
    "count:punctuation": Kind(_punctuation, {}),
    "count:unique_word_count": Kind(lambda t, a: len(set(spoken_words(t))) >= a["N"], {"N": int}),
    "count:word_count_range": Kind(_word_range, {"min_words": int, "max_words": int}),
    "count:words_japanese": Kind(_japanese, {"N": int}),
    "custom:csv_city": Kind(_csv_city, {}),
    "custom:csv_quotes": Kind(_csv_quotes, {}),
    "custom:csv_special_character": Kind(_csv_special, {}),
    "custom:date_format_list": Kind(_dates, {}),
    "custom:multiples": Kind(
        lambda t, a: re.findall(r"\d+", t) == [str(n) for n in range(14, 50, 7)], {}
    ),
    "custom:sentence_alphabet": Kind(_sentence_alphabet, {}),
    "format:line_indent": Kind(_line_indent, {}),
    "format:list": Kind(_list, {"sep": str}),
    "format:newline": Kind(_newline, {}),
    "format:no_bullets_bullets": Kind(_sentences_then_bullets, {}),
    "format:no_whitespace": Kind(lambda t, a: not re.search(r"\s", t), {}),
    "format:options": Kind(_options, {"options": str}),
    "format:output_template": Kind(lambda t, a: _TEMPLATE.fullmatch(t) is not None, {}),
    "format:parentheses": Kind(_nested, {}),
    "format:sub-bullets": Kind(_sub_bullets, {}),
    "ratio:sentence_balance": Kind(_balance, {}),
    "ratio:sentence_type": Kind(_two_to_one, {}),
    "repeat:repeat_change": Kind(_repeat_change, {"prompt_to_repeat": str}),
    "repeat:repeat_simple": Kind(lambda t, a: t == _REPEATED, {}),
    "sentence:increment": Kind(_increment, {"small_n": int}),
    "sentence:keyword": Kind(_sentence_keyword, {"word": str, "N": int}),
    "words:alphabet": Kind(_alphabet, {}),
    "words:consonants": Kind(lambda t, a: _every_word(t, _CLUSTER), {}),
    "words:keywords_specific_position": Kind(
        _specific_position, {"keyword": str, "n": int, "m": int}
    ),
    "words:last_first": Kind(_last_first, {}),
    "words:no_consecutive": Kind(
        lambda t, a: all(left[0] != right[0] for left, right in pairwise(spoken_words(t))), {}
    ),
    "words:palindrome": Kind(_palindromes, {}),
    "words:paragraph_last_first": Kind(_paragraph_last_first, {}),
    "words:prime_lengths": Kind(_prime_lengths, {}),
    "words:repeats": Kind(_repeats, {"small_n": int}),
    "words:vowel": Kind(_vowels, {}),
    "words:words_position": Kind(_words_position, {"keyword": str}),
}
NOT_CHECKED = {
    "count:pronouns": "which words are pronouns depends on the sentence",
    "custom:character_reverse": "the answer has to be known",
    "custom:european_capitals_sort": "the answer has to be known",
    "custom:mcq_count_length": "the form of options and the length of a question are left open",
    "custom:reverse_newline": "the answer has to be known",
    "custom:word_reverse": "the answer has to be known",
    "format:emoji": "whether the emoji stands before or behind the full stop is left open",
    "format:quote_unquote": "what explains a quoted phrase is left open",
    "format:quotes": "single quotes and apostrophes cannot be told apart",
    "format:thesis": "where a section begins is left open",
    "format:title_case": "which words are major is left open",
    "ratio:overlap": "what a trigram is, and a share of which text, is left open",
    "ratio:sentence_words": "whether spaces and marks are characters is left open",
    "ratio:stop_words": "the list of stop words is left open",
    "repeat:repeat_span": "whether indices begin at 0 or 1 is left open",
    "sentence:alliteration_increment": "what alliterates is a matter of sound",
    "words:odd_even_syllables": "syllables are a matter of sound",
    "words:start_verb": "which words are verbs depends on the sentence",
}
"""Kinds of IFBench that no rule here decides, and why."""
