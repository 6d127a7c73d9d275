import random
from pathlib import Path

import numpy as np
import pytest
from rollout_tiny import LetterTokenizer

import pellucid
from pellucid.model.tokenizer import TextTokenizer
from pellucid.records import SamplingParams, StopReason
from pellucid.rollout.stop_table import START, StopTable, automaton, lift
from pellucid.rollout.stops import StopRule

ASSETS = Path(pellucid.__file__).parent / "assets" / "tiny-base"


class Bytes:
    """Tokens of several bytes; characters may be torn; b"" is a special token."""

    eos_ids = (0,)
    chat_template = None

    def __init__(self, texts: list[bytes]) -> None:
        self.texts = texts

    def token_bytes(self) -> list[bytes]:
        return self.texts

    def encode(self, text: str) -> list[int]:
        return [self.texts.index(bytes([byte])) for byte in text.encode()]

    def decode(self, ids) -> str:
        return b"".join(self.texts[i] for i in ids).decode(errors="replace")


@pytest.fixture(scope="module")
def embedded() -> TextTokenizer:
    return TextTokenizer.from_folder(ASSETS)


def stop_by_rule(rule: StopRule, ids: list[int]) -> int | None:
    """Tokens up to the first stop string, as the plain path decides."""
    limit = len(ids) + 1
    for n in range(1, len(ids) + 1):
        newest, lengths = np.array([ids[n - 1]]), np.array([n])
        is_suspect = len(rule.suspects(newest, lengths, np.array([limit])))
        if is_suspect and rule.reason(ids[:n], limit) is StopReason.STOP_STRING:
            return n
    return None


def stop_by_table(table: StopTable, ids: list[int]) -> int | None:
    state = START
    for n, token in enumerate(ids, start=1):
        state = table.next_state[state, token]
        if state == table.matched:
            return n
    return None


@pytest.mark.parametrize(
    "stops",
    [("</answer>",), ("\n\n",), ("a",), (" t", "he", "the "), ("ababc", "bab", "cc"), ("é€", "😀")],
)
def test_the_table_stops_where_the_plain_path_stops(embedded, stops):
    table = StopTable.build(embedded, embedded.vocab_size, stops)
    rule = StopRule(embedded, embedded.vocab_size, SamplingParams(stop=stops))
    rng = random.Random(0)
    ordinary = [i for i in range(embedded.vocab_size) if i not in embedded.eos_ids]
    # Pieces of the stop strings often, in tokens of their own and as the tokenizer has them.
    texts = embedded.token_bytes()
    pieces = [i for i in ordinary if any(is_part(texts[i], stop.encode()) for stop in stops)]
    found = 0
    for _ in range(300):
        ids = [rng.choice(pieces if rng.random() < 0.8 else ordinary) for _ in range(20)]
        if rng.random() < 0.5:
            at = rng.randrange(20)
            ids[at:at] = embedded.encode(rng.choice(stops))
        expected = stop_by_rule(rule, ids)
        assert stop_by_table(table, ids) == expected
        found += expected is not None
    assert found > 100


def is_part(text: bytes, stop: bytes) -> bool:
    return bool(text) and (text in stop or stop in text)


def test_random_tokens_over_few_letters_stop_where_their_text_does():
    rng = random.Random(1)
    texts = [b"", b"a", b"b", b"ab", b"aba", b"bbab", "é".encode(), "é".encode()[:1], b"\xa9a"]
    tokenizer = Bytes(texts)
    for _ in range(300):
        stops = tuple({"".join(rng.choices("abé", k=rng.randint(1, 5))) for _ in range(3)})
        table = StopTable.build(tokenizer, len(texts) + 2, stops)
        ids = rng.choices(range(len(texts)), k=12)
        shown = (tokenizer.decode(ids[:n]) for n in range(1, 13))
        expected = [n for n, text in enumerate(shown, 1) if any(stop in text for stop in stops)]
        assert stop_by_table(table, ids) == (expected[0] if expected else None)


def test_a_stop_string_inside_one_token_and_over_special_tokens_is_found():
    tokenizer = Bytes([b"", b"x<en", b"d>y", b"a<end>b"])
    table = StopTable.build(tokenizer, 4, ("<end>",))
    assert stop_by_table(table, [1, 3]) == 2
    assert stop_by_table(table, [1, 0, 0, 2, 1]) == 4
    assert stop_by_table(table, [1, 1, 2]) == 3
    assert stop_by_table(table, [2, 1]) is None


def test_a_match_is_never_left_and_ids_without_a_token_change_nothing():
    table = StopTable.build(Bytes([b"", b"a", b"b"]), 7, ("ab", "b"))
    assert table.next_state.dtype == np.int16
    assert table.next_state.tolist() == [
        [0, 1, 2, 0, 0, 0, 0],
        [1, 1, 2, 1, 1, 1, 1],
        [2, 2, 2, 2, 2, 2, 2],
    ]


def test_a_model_may_have_fewer_rows_than_the_tokenizer_tokens():
    table = StopTable.build(Bytes([b"", b"a", b"b"]), 2, ("a",))
    assert table.next_state.tolist() == [[0, 1], [1, 1]]


def test_tokenizers_whose_text_is_not_their_bytes_have_no_table(embedded):
    assert StopTable.build(LetterTokenizer(), 35, ("a",)) is None
    assert StopTable.build(embedded, 800, ("\ufffd",)) is None
    assert StopTable.build(embedded, 800, ("x" * 2**15,)) is None


def test_the_automaton_over_bytes_finds_what_find_finds():
    rng = random.Random(2)
    for _ in range(200):
        patterns = [bytes(rng.choices(b"ab", k=rng.randint(1, 5))) for _ in range(3)]
        table = automaton(patterns)
        text = bytes(rng.choices(b"abc", k=30))
        state, end = 0, None
        for n, byte in enumerate(text, 1):
            state = table[state, byte]
            if state == len(table) - 1:
                end = n
                break
        ends = [text.find(p) + len(p) for p in patterns if p in text]
        assert end == min(ends, default=None)


def test_a_lifted_state_is_that_after_the_bytes_of_the_token():
    table = automaton([b"abab", b"bb"])
    texts = [b"", b"a", b"abab", b"ba", b"bab", b"cabb"]
    lifted = lift(table, texts, 8)
    for state in range(len(table)):
        for token, text in enumerate([*texts, b"", b""]):
            expected = state
            for byte in text:
                expected = table[expected, byte]
            assert lifted[state, token] == expected


def test_text_is_the_bytes_of_its_tokens(embedded):
    texts = embedded.token_bytes()
    assert len(texts) == embedded.vocab_size
    assert texts[embedded.eos_ids[0]] == b""
    rng = random.Random(3)
    for _ in range(500):
        ids = [rng.randrange(len(texts) + 3) for _ in range(rng.randrange(15))]
        shown = b"".join(texts[i] for i in ids if i < len(texts))
        assert shown.decode(errors="replace") == embedded.decode(ids)
