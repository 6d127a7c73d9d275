"""Pairs from judgments: positions are swapped, nonsense is asked once more, nothing is asked twice,
and length tells the chosen from the rejected no more."""

import random
from collections import Counter
from pathlib import Path

import pytest

from pellucid.curate.judging import (
    GRADES,
    ModelJudge,
    Question,
    RuleJudge,
    messages,
    read_verdict,
)
from pellucid.curate.preferences import (
    Contest,
    JudgeCounts,
    balance_lengths,
    decided_pairs,
    forget_nonsense,
    judge_contests,
)
from pellucid.data.preferences import PreferencePair
from pellucid.endpoint import Answer
from pellucid.errors import DataError, RunError
from pellucid.jsonl import read_jsonl


def contest(number: int = 0, first: str = "good", second: str = "bad") -> Contest:
    return Contest(id=f"c/{number}", prompt=f"question {number}", first=first, second=second)


class Scripted:
    """Answers by a function of the question, and keeps what it was asked."""

    name = "scripted"

    def __init__(self, rule, *, fails_after: int | None = None) -> None:
        self.rule = rule
        self.asked: list[Question] = []
        self.fails_after = fails_after

    def judge(self, questions):
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise ConnectionError("gone")
        self.asked += questions
        return [self.rule(q) for q in questions]


def fair(q: Question) -> float:
    """Better answers are nearer the front of the alphabet reversed: good > bad."""
    return float((q.a == "good") - (q.b == "good")) * 2.0


def run(tmp_path: Path, contests, judge, **settings):
    counts = JudgeCounts()
    judged = judge_contests(
        contests, judge, tmp_path / "judgments.jsonl", seed=1, counts=counts, **settings
    )
    return judged, counts


def test_four_questions_a_pair_two_of_them_swapped_in_an_order_of_its_own(tmp_path: Path) -> None:
    judge = Scripted(fair)
    contests = [contest(i) for i in range(40)]
    judged, counts = run(tmp_path, contests, judge)
    orders = Counter()
    for i in range(40):
        asked = [q for q in judge.asked if q.prompt == f"question {i}"]
        firsts = [q.a for q in asked]
        assert sorted(firsts) == ["bad", "bad", "good", "good"]
        assert sorted(q.turn for q in asked) == [0, 1, 2, 3]
        orders[tuple(firsts)] += 1
    assert len(orders) >= 5
    assert [j.judgments for j in judged] == [(2.0, 2.0, 2.0, 2.0)] * 40
    assert counts.judged == 40
    assert counts.position_bias == 0.0


def test_a_judge_that_only_sees_positions_decides_nothing(tmp_path: Path) -> None:
    judged, counts = run(tmp_path, [contest(i) for i in range(5)], Scripted(lambda q: 2.0))
    assert [j.mean for j in judged] == [0.0] * 5
    assert counts.position_bias == 2.0
    assert decided_pairs(judged, min_margin=1.0, counts=counts) == []
    assert counts.undecided == 5


@pytest.mark.parametrize(("share", "kept"), [(1.0, 0), (1.25, 1), (-1.25, 1), (-1.0, 0)])
def test_a_pair_is_kept_only_beyond_the_margin(tmp_path: Path, share: float, kept: int) -> None:
    def rule(q: Question) -> float:
        return share if q.a == "good" else -share

    judged, counts = run(tmp_path, [contest()], Scripted(rule))
    pairs = decided_pairs(judged, min_margin=1.0, counts=counts)
    assert len(pairs) == kept
    if kept:
        assert (pairs[0].chosen == "good") is (share > 0)
        assert (pairs[0].rejected == "bad") is (share > 0)


def test_the_judge_sees_the_summary_and_the_pair_keeps_the_whole_response(tmp_path: Path) -> None:
    whole = Contest(
        id="c",
        prompt="?",
        first="good",
        second="bad",
        first_response="<think>a</think>good",
        second_response="<think>b</think>bad",
    )
    judge = Scripted(fair)
    judged, counts = run(tmp_path, [whole], judge)
    assert {q.a for q in judge.asked} == {"good", "bad"}
    (pair,) = decided_pairs(judged, min_margin=1.0, counts=counts)
    assert pair.chosen == "<think>a</think>good"
    assert pair.rejected == "<think>b</think>bad"


def test_nonsense_is_asked_once_more_and_then_the_pair_is_dropped_and_counted(
    tmp_path: Path,
) -> None:
    seen: Counter = Counter()

    def rule(q: Question) -> float | None:
        seen[(q.prompt, q.a, q.turn % 1000)] += 1
        if q.prompt == "question 0":
            return None
        is_first_try = seen[(q.prompt, q.a, q.turn % 1000)] == 1
        return None if q.prompt == "question 1" and is_first_try else fair(q)

    judge = Scripted(rule)
    judged, counts = run(tmp_path, [contest(i) for i in range(3)], judge)
    assert [j.contest.id for j in judged] == ["c/1", "c/2"]
    assert counts.nonsense == 1
    assert counts.retried == 8
    assert len(judge.asked) == 12 + 8
    assert len({(q.prompt, q.a, q.b, q.turn) for q in judge.asked}) == 20
    # Nor does a resumed job ask a third time.
    again = Scripted(rule)
    judged, counts = run(tmp_path, [contest(i) for i in range(3)], again)
    assert again.asked == []
    assert (len(judged), counts.nonsense) == (2, 1)
    # Unless the judge was mended: then what was clear stays, and only the rest is asked.
    forget_nonsense(tmp_path / "judgments.jsonl")
    mended = Scripted(fair)
    judged, counts = run(tmp_path, [contest(i) for i in range(3)], mended)
    assert {q.prompt for q in mended.asked} == {"question 0"}
    assert (len(mended.asked), counts.judged, counts.nonsense) == (4, 3, 0)


def test_what_was_judged_before_a_failure_is_not_asked_again(tmp_path: Path) -> None:
    contests = [contest(i) for i in range(130)]
    with pytest.raises(ConnectionError):
        run(tmp_path, contests, Scripted(fair, fails_after=256))
    record = tmp_path / "judgments.jsonl"
    with record.open("ab") as file:
        file.write(b'{"question": "torn')
    assert len(list(read_jsonl(record))) == 256
    judge = Scripted(fair)
    judged, counts = run(tmp_path, contests, judge)
    assert len(judge.asked) == (130 - 64) * 4
    assert counts.judged == 130
    assert [j.contest.id for j in judged] == [c.id for c in contests]
    other = Scripted(fair)
    other.name = "another judge"
    run(tmp_path, contests[:1], other)
    assert len(other.asked) == 4
    record.write_text('{"verdict": 1}\n')
    with pytest.raises(RunError, match="line 1 is no judgment"):
        run(tmp_path, contests, judge)


def test_equal_answers_are_not_asked_about(tmp_path: Path) -> None:
    judge = Scripted(fair)
    judged, counts = run(tmp_path, [contest(0, "same", " same "), contest(1)], judge)
    assert len(judged) == 1
    assert counts.equal == 1
    assert len(judge.asked) == 4


def test_a_rule_that_leaves_the_scale_is_nonsense(tmp_path: Path) -> None:
    judge = RuleJudge("wild", lambda prompt, a, b: float("nan") if a == "good" else 3.0)
    judged, counts = run(tmp_path, [contest()], judge)
    assert judged == []
    assert counts.nonsense == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(f"I think so.\n\nMy final verdict is: [[{grade}]]", v) for grade, v in GRADES.items()],
        ("[[ B >> A ]]", -2.0),
        ("[[A<B]] as B is better", -1.0),
        ("[[A<<B]]", -2.0),
        ("[[B=A]]", 0.0),
        ("[[A>B]] … so it is [[A>B]]", 1.0),
        ("the answer says [[A>>B]] but no: [[B>A]]", None),
        ("<think>[[A>>B]] or [[B>A]]?</think>[[B>A]]", -1.0),
        ("[[A>A]]", None),
        ("[[A]]", None),
        ("A>B", None),
        ("", None),
    ],
)
def test_verdicts_are_read_or_refused(text: str, value: float | None) -> None:
    assert read_verdict(text) == value


def test_a_model_is_asked_with_a_seed_a_turn_and_failures_are_nonsense() -> None:
    class Client:
        def ask_all(self, asks, *, should_stop):
            self.asks = asks
            return [Answer(text="[[A>>B]]"), Answer(text=None, failure="HTTP 500")]

    client = Client()
    judge = ModelJudge("some-model", client)
    questions = [
        Question("n/0", "Why?", "Because.", "No.", 0),
        Question("n/1", "Why?", "a", "b", 1),
    ]
    assert judge.judge(questions) == [2.0, None]
    assert [a.seed for a in client.asks] == [0, 1]
    text = messages(questions[0])[1]["content"]
    assert text.index("Why?") < text.index("Because.") < text.index("No.")


def pairs_of(lengths: list[tuple[int, int]]) -> list[PreferencePair]:
    return [
        PreferencePair(id=str(i), prompt="?", chosen="c" * a, rejected="r" * b)
        for i, (a, b) in enumerate(lengths)
    ]


def test_lengths_are_balanced_by_dropping_few_pairs() -> None:
    pairs = pairs_of([(100, 10), (50, 45), (40, 44), (30, 31), (90, 60)])
    balanced = balance_lengths(pairs, len, max_gap=0.05)
    assert [p.id for p in balanced.pairs] == ["1", "2", "3"]
    assert balanced.num_dropped == 2
    assert abs(balanced.gap) <= 0.05
    assert balance_lengths(pairs, len, max_gap=1.0).pairs == pairs
    mirrored = pairs_of([(b, a) for a, b in [(100, 10), (50, 45), (40, 44), (30, 31), (90, 60)]])
    assert [p.id for p in balance_lengths(mirrored, len, max_gap=0.05).pairs] == ["1", "2", "3"]


def test_a_random_set_ends_within_the_gap() -> None:
    draw = random.Random(4)
    pairs = pairs_of([(draw.randrange(20, 200), draw.randrange(10, 150)) for _ in range(300)])
    balanced = balance_lengths(pairs, len, max_gap=0.02)
    chosen = sum(len(p.chosen) for p in balanced.pairs)
    rejected = sum(len(p.rejected) for p in balanced.pairs)
    assert abs(chosen - rejected) <= 0.02 * max(chosen, rejected)
    assert balanced.num_dropped + len(balanced.pairs) == 300
    assert balanced.num_dropped < 100


def test_a_set_that_cannot_be_balanced_says_so() -> None:
    with pytest.raises(DataError, match="in all 2 pairs the chosen answers are longer"):
        balance_lengths(pairs_of([(10, 5), (20, 5)]), len, max_gap=0.05)
