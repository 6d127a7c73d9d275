"""Every attempt at an evaluation has its serial and its end, whatever happens to it."""

import pytest

from pellucid.evaluate.records import EvalResult, Origin
from pellucid.evaluate.suites import Suite
from pellucid.ledger import EventKind, Ledger
from pellucid.pipeline.attempts import KILLED, attempt, close_lost, suite_facts
from pellucid.pipeline.diary import Diary
from pellucid.records import Problem, SamplingParams
from pellucid.runlog import Progress
from pellucid.stats import Estimate

SUITE = Suite(
    key="toy",
    label="toy",
    problems=(Problem(id="toy/test/0", question="1 + 1?", gold="2", grader="math"),),
    template="plain",
    params=SamplingParams(),
    k=2,
    pass_at=(),
    baseline_only=False,
)


@pytest.fixture
def diary(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    yield Diary(ledger=ledger, progress=Progress(is_silent=True))
    ledger.close()


def events(diary):
    named = [(str(e.kind).removeprefix("evaluation_"), e.payload) for e in diary.ledger.events]
    return [(kind, payload["serial"], payload.get("reason")) for kind, payload in named]


def facts(arm="after"):
    return suite_facts(SUITE, arm, seed=1, weights="9f", grading={})


def result(serial, root):
    raw = {
        **dict.fromkeys(("arm", "suite", "template"), "x"),
        **dict.fromkeys(("k", "seed", "retried", "prompt_tokens", "completion_tokens"), 0),
        **dict.fromkeys(("truncated_frac", "unparsable_frac", "length_mean"), 0.0),
        **dict.fromkeys(("generate_s", "grade_s"), 0.0),
    }

    estimate = Estimate(0.5, 0.0, 1.0, 1)
    return EvalResult(
        **raw, sampler={}, problems=(), pass_at_1=estimate, pass_at_1_bounds=(0.0, 1.0),
        pass_at_1_parsable=None, pass_at={}, cons=estimate, verdicts={"correct": 2},
        origin=Origin(eval_serial=serial), samples_root=root,
    )  # fmt: skip


def fail(diary):
    with attempt(diary, facts()) as running:
        running.counting(None)(1, 2)
        raise ValueError("oh\nno")


def test_attempts_are_numbered_and_ended(diary):
    with attempt(diary, facts()) as running:
        running.ended = {"samples": 2, "merkle_root": "ab"}
    with pytest.raises(ValueError, match="oh"):
        fail(diary)
    assert running.serial == 1
    assert events(diary) == [
        ("started", 1, None),
        ("ended", 1, None),
        ("started", 2, None),
        ("aborted", 2, "oh"),
    ]
    started, ended, _, aborted = (e.payload for e in diary.ledger.events)
    assert (started["samples"], started["weights"], started["k"]) == (2, "9f", 2)
    assert (ended["merkle_root"], aborted["samples"]) == ("ab", 1)


def test_what_a_killed_process_left_open_is_closed_as_what_it_was(diary):
    for _ in range(2):
        diary.note(EventKind.EVALUATION_STARTED, serial=len(diary.ledger.events) + 1, **facts())
    diary.note(EventKind.EVALUATION_STARTED, serial=3, **facts("before"))
    close_lost(diary, "after", SUITE, result(2, "cd"))
    assert events(diary)[3:] == [("aborted", 1, KILLED), ("ended", 2, None)]
    assert diary.ledger.events[-1].payload["merkle_root"] == "cd"
    close_lost(diary, "after", SUITE, None)
    assert len(diary.ledger.events) == 5


def test_a_kept_result_without_a_root_does_not_end_an_attempt(diary):
    diary.note(EventKind.EVALUATION_STARTED, serial=1, **facts())
    close_lost(diary, "after", SUITE, result(1, ""))
    assert events(diary)[-1] == ("aborted", 1, KILLED)
