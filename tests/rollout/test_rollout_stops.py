import numpy as np
import pytest
from rollout_tiny import LetterTokenizer

from pellucid.records import SamplingParams, StopReason
from pellucid.rollout.stops import StopRule


class ByteTokenizer:
    """256 byte tokens, so that a character may be torn; 256 is special and shows no text.

    Like many decoders it strips a space from the first token.
    """

    eos_ids = (257,)
    chat_template = None

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace").removeprefix(" ")


def walk(rule: StopRule, ids: list[int]) -> tuple[int, StopReason] | None:
    """Feeds one row token by token, as the engine does: (tokens kept, reason)."""
    limit = np.array([rule.params.max_new_tokens])
    for n in range(1, len(ids) + 1):
        if len(rule.suspects(np.array([ids[n - 1]]), np.array([n]), limit)):
            reason = rule.reason(ids[:n], int(limit[0]))
            if reason is not None:
                return n, reason
    return None


@pytest.mark.parametrize(
    ("stop", "text", "kept", "cut"),
    [
        ("</answer>", "so <answer>7</answer> and more", 21, "so <answer>7</answer>"),
        ("\n\n", "one\ntwo\n\nthree", 9, "one\ntwo\n\n"),
        ("答え", "x 答え y", 8, "x 答え"),
        ("a b", "a  a b", 6, "a  a b"),
        (" ", "ab c", 3, "ab "),
    ],
)
def test_a_stop_string_is_found_at_the_byte_that_completes_it(stop, text, kept, cut) -> None:
    tokenizer = ByteTokenizer()
    rule = StopRule(tokenizer, 300, SamplingParams(stop=(stop,), max_new_tokens=100))
    ids = tokenizer.encode(text)
    assert walk(rule, ids) == (kept, StopReason.STOP_STRING)
    assert rule.text(ids[:kept], StopReason.STOP_STRING) == cut


def test_special_tokens_inside_do_not_hide_a_stop_string() -> None:
    rule = StopRule(ByteTokenizer(), 300, SamplingParams(stop=("END",), max_new_tokens=100))
    assert walk(rule, [*b"a E", 256, *b"ND", *b"b"]) == (6, StopReason.STOP_STRING)


def test_the_first_completed_of_several_stop_strings_cuts_the_text() -> None:
    tokenizer = LetterTokenizer()
    rule = StopRule(tokenizer, 35, SamplingParams(stop=("c", "b>"), max_new_tokens=9))
    ids = [1, tokenizer.texts.index("b>c")]
    assert walk(rule, ids) == (2, StopReason.STOP_STRING)
    assert rule.text(ids, StopReason.STOP_STRING) == "ab>"


def test_the_end_token_comes_first_and_the_length_last() -> None:
    rule = StopRule(ByteTokenizer(), 300, SamplingParams(stop=("z",), max_new_tokens=3))
    assert walk(rule, [65, 66, 257]) == (3, StopReason.EOS)
    assert rule.text([65, 66, 257], StopReason.EOS) == "AB"
    assert walk(rule, [65, 66, *b"z"]) == (3, StopReason.STOP_STRING)
    assert walk(rule, [65, 66, 67]) == (3, StopReason.LENGTH)
    assert walk(rule, [65, 66]) is None


def test_only_tokens_that_may_complete_a_stop_string_are_looked_at() -> None:
    rule = StopRule(ByteTokenizer(), 300, SamplingParams(stop=("</a>",), max_new_tokens=100))
    batch = np.array(list(b"xy>a<>"))
    limits = np.full(6, 100)
    assert rule.suspects(batch, np.full(6, 5), limits).tolist() == [2, 5]
    assert rule.suspects(batch, np.array([5, 100, 5, 5, 5, 5]), limits).tolist() == [1, 2, 5]
