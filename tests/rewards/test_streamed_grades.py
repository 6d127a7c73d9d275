"""Grades that begin while other groups are sampled: in place, and asked again where they failed."""

from concurrent.futures import Future

import pytest

from pellucid.records import Completion, Problem, Score, StopReason, Verdict
from pellucid.rewards.streamed import StreamedGrades

PROBLEMS = [Problem(id=f"p/{i}", question="?", gold=str(i), grader="integer") for i in range(3)]


class Echo:
    """Scores say what was graded; the first time, answers named in `fails` fail the instrument."""

    def __init__(self, fails=()):
        self.fails = fails
        self.submitted = []
        self.asked_again = []

    def submit(self, problems, responses):
        self.submitted.append(list(responses))
        pending = Future()
        pending.set_result(
            [
                Score(
                    verdict=Verdict.ERROR if r in self.fails else Verdict.WRONG,
                    extracted=f"{p.id} {r}",
                )
                for p, r in zip(problems, responses, strict=True)
            ]
        )
        return pending

    def grade(self, problems, responses):
        self.asked_again += responses
        return [
            Score(verdict=Verdict.CORRECT, extracted=f"{p.id} {r}")
            for p, r in zip(problems, responses, strict=True)
        ]


def _group(index):
    return [
        Completion(
            sample_id=k, token_ids=(1,), logprobs=(0.0,), stop=StopReason.EOS, text=f"{index}{k}"
        )
        for k in range(2)
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_scores_stand_with_their_problem_however_the_groups_ended(order):
    grader = Echo(fails=("<11", "<20"))
    grades = StreamedGrades(grader, PROBLEMS, lambda text: f"<{text}")
    for number, index in enumerate(order, start=1):
        grades.begin(index, _group(index))
        assert len(grader.submitted) == number, "graded at once, not at the end"
    scores = grades.result()
    assert [s.extracted for s in scores] == [
        f"p/{index} <{index}{k}" for index in range(3) for k in range(2)
    ]
    assert grader.asked_again == ["<11", "<20"]
    assert [s.verdict for s in scores].count(Verdict.CORRECT) == 2


def test_what_grading_raises_is_raised_where_scores_are_read():
    class Broken(Echo):
        def submit(self, problems, responses):
            pending = Future()
            pending.set_exception(OSError("gone"))
            return pending

    grades = StreamedGrades(Broken(), PROBLEMS[:1], str)
    grades.begin(0, _group(0))
    with pytest.raises(OSError, match="gone"):
        grades.result()
