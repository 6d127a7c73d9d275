"""The fast language rule gives what the plain one gives, on texts made to tell them apart."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_language import plain_share

from pellucid.rewards.language import SCRIPTS, language_share

PIECES = (
    "the", "apple", "sin", "Log", "x", "x1", "2n", "a_b", "_", "_2", "é", "Größe", "İz", "²", "x²",
    "привет", "да", "我们", "相加", "かな", "カ", "안녕", "한", "ab我", "да2", "2да", "αβ", "שלום",
    "ที่นี่", "ั", "নমস্কার", "नमस्ते", "తెలుగు", "தமிழ்", "مرحبا", "٣", "३", "12", "3.5", "1,000",
    "$", "$$", "`", "```", "\\[", "\\]", "\\(", "\\)", "\\", "{", "}", "\\frac", "\\text{ab}", "\n",
    "\\begin{align}", "\\end{align}", "\\alpha", "<b>", "</x2>", "<", ">", "<think>", " ", "  ",
    ".", "-", "\u0307", "\u200d", "ſ", "K",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from(sorted(SCRIPTS)))
@example("\\alpha2x the", "en")
@example("x$a$2 the", "en")
@example("абвअа да", "hi")
@example("かな我かな", "zh")
@example("İstanbul İz", "tr")
def test_the_fast_rule_is_the_plain_one(text, language):
    assert language_share(text, language) == plain_share(text, language)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.sampled_from(sorted(SCRIPTS)))
def test_the_fast_rule_is_the_plain_one_on_any_text(text, language):
    assert language_share(text, language) == plain_share(text, language)


def test_words_of_every_script_are_counted_once_each():
    text = "one да 我们 かな 안녕 مرحبا שלום αβ नमस्ते নমস্কার తెలుగు தமிழ் ที่นี่"
    shares = {language: language_share(text, language) for language in SCRIPTS}
    assert shares["zh"] == 2 / 15  # two characters of two words in each of zh and ja
    assert shares["ja"] == 4 / 15
    assert {round(15 * shares[k]) for k in SCRIPTS.keys() - {"zh", "ja"}} == {1}
