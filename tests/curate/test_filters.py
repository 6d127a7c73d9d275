"""What is kept of a stage's samples, and how what is dropped is counted."""

import pytest

from pellucid.config_curate import FilterConfig, RejectFilterConfig
from pellucid.curate.candidate import Candidate, DropReason, make_candidate
from pellucid.curate.filters import FILTERS, apply_filters, longest_paragraph, reasons_against
from pellucid.curate.select import select
from pellucid.errors import DataError
from pellucid.records import Completion, Problem, Score, StopReason, Verdict

GOOD = "<think> two and two make four </think> <answer> 4 </answer>"


def candidate(
    response: str = GOOD,
    *,
    row: int = 0,
    index: int = 0,
    verdict: Verdict = Verdict.CORRECT,
    stop: StopReason = StopReason.STOP_STRING,
    tokens: int = 3,
    language: str = "en",
) -> Candidate:
    problem = Problem(
        id=f"t/train/{row}", question=f"2 + {row}?", gold="4", grader="integer", language=language
    )
    completion = Completion(
        sample_id=1, token_ids=(7,) * tokens, logprobs=(0.0,) * tokens, stop=stop, text=response
    )
    return make_candidate(problem, index, completion, response, Score(verdict=verdict))


STRICT = RejectFilterConfig(max_paragraph_chars=60)
BAD = {
    DropReason.FINISHED: candidate(stop=StopReason.LENGTH),
    DropReason.CORRECT: candidate(verdict=Verdict.WRONG),
    DropReason.FORMAT: candidate(GOOD + " </think>"),
    DropReason.REPETITION: candidate(
        "<think> " + "so it is that we go on\n\n" * 20 + "</think> <answer> 4 </answer>"
    ),
    DropReason.LANGUAGE: candidate("<think> two plus 二加二是四 </think> <answer> 4 </answer>"),
    DropReason.PARAGRAPHS: candidate(
        "<think> " + " ".join(f"word{chr(97 + i)}" for i in range(26)) + "</think> <answer> 4"
    ),
    DropReason.CODE: candidate(
        "<think> let me see\n```\n2 + 2\n```\n</think> <answer> 4 </answer>"
    ),
}


@pytest.mark.parametrize("reason", list(FILTERS))
def test_each_filter_drops_its_own_kind_and_nothing_else(reason: DropReason) -> None:
    assert reasons_against(candidate(), STRICT) == []
    assert reasons_against(BAD[reason], STRICT) == [reason]


def test_filters_that_are_off_let_everything_pass() -> None:
    off = FilterConfig(correct=False, format=False, max_repetition=1.0, min_language_share=0.0)
    for reason, bad in BAD.items():
        expected = [reason] if reason is DropReason.FINISHED else []
        assert reasons_against(bad, off) == expected


def test_open_problems_pass_and_failed_graders_vouch_for_nothing() -> None:
    assert reasons_against(candidate(verdict=Verdict.UNGRADED), STRICT) == []
    assert reasons_against(candidate(verdict=Verdict.ERROR), STRICT) == [DropReason.CORRECT]


def test_counts_tell_first_reasons_from_all_failures() -> None:
    mixed = "<think> 二加二 </think> <answer> 5 </answer>"
    kept, counts = apply_filters(
        [
            candidate(index=0),
            candidate(mixed, index=1, verdict=Verdict.WRONG),
            candidate(mixed, index=2),
            candidate(index=3),
            candidate(row=1),
        ],
        STRICT,
    )
    assert [c.id for c in kept] == ["t/train/0#0", "t/train/1#0"]
    report = counts.to_dict()
    assert (report["candidates"], report["kept"]) == (5, 2)
    dropped = {name: n for name, n in report["dropped"].items() if n}
    assert dropped == {"correct": 1, "language": 1, "duplicate": 1}
    failing = {name: n for name, n in report["failing"].items() if n}
    assert failing == {"correct": 1, "language": 2, "duplicate": 2}
    assert report["verdicts"] == {"correct": 4, "wrong": 1}


def test_a_finished_twin_of_a_cut_off_sample_is_kept() -> None:
    kept, counts = apply_filters([candidate(stop=StopReason.LENGTH), candidate(index=1)], STRICT)
    assert [c.index for c in kept] == [1]
    assert counts.dropped["finished"] == 1


def test_a_filter_that_waits_for_the_teacher_only_counts() -> None:
    bad = BAD[DropReason.LANGUAGE]
    kept, counts = apply_filters([bad], STRICT, waiting=[DropReason.LANGUAGE])
    assert kept == [bad]
    assert (counts.dropped["language"], counts.failing["language"]) == (0, 1)


def test_an_empty_set_names_the_filter_that_dropped_most_and_the_remedy() -> None:
    wrong = candidate(verdict=Verdict.WRONG)
    _, counts = apply_filters([wrong, BAD[DropReason.CODE], BAD[DropReason.CODE]], STRICT)
    with pytest.raises(DataError, match=r"of 3 samples for cold-start none .* 'code' \(2\): set"):
        counts.check_not_empty("cold-start")
    _, counts = apply_filters([candidate()], STRICT)
    counts.check_not_empty("cold-start")
    counts.drop(DropReason.REVIEW)
    with pytest.raises(DataError, match="'review'"):
        counts.check_not_empty("cold-start")
    _, counts = apply_filters([], STRICT)
    with pytest.raises(DataError, match="raise problems or samples"):
        counts.check_not_empty("cold-start")


def test_a_paragraph_ends_at_an_empty_line() -> None:
    assert longest_paragraph("abc\nde\n \nfgh\n\n") == len("abc\nde")


def test_candidates_survive_the_disk() -> None:
    whole = candidate(verdict=Verdict.UNGRADED, language="zh")
    assert Candidate.from_dict(whole.to_dict()) == whole
    assert whole.language_share == 0.0


GROUP = [candidate(index=i, tokens=n) for i, n in enumerate((5, 2, 9, 2))]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("shortest", [1, 3]), ("longest", [2, 0]), ("first", [0, 1]), ("all", [0, 1, 2, 3])],
)
def test_selection_rules(rule: str, expected: list[int]) -> None:
    chosen = select([*GROUP, candidate(row=1)], rule, keep=2, seed=0)
    assert [c.index for c in chosen[:-1]] == expected
    assert chosen[-1].problem.id == "t/train/1"


def test_random_selection_is_a_function_of_seed_and_problem() -> None:
    def draw(group: list[Candidate], seed: int) -> list[int]:
        return [c.index for c in select(group, "random", keep=2, seed=seed)]

    assert draw(GROUP, 3) == draw(GROUP[::-1], 3)
    assert len({tuple(draw(GROUP, seed)) for seed in range(20)}) > 3
