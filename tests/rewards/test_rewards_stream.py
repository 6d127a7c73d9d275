"""Grading that goes on beside the rollout: every score on its own response, in whatever order."""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

from pellucid.errors import ConfigError
from pellucid.records import Problem, Verdict
from pellucid.rewards import GraderPool
from pellucid.rewards.opinions import OpinionDesk

MOODY = "fake_judges:moody"
WANDERING = "fake_judges:wandering"


def make_pool(**options):
    return GraderPool(**{"judge": MOODY, "timeout_s": 2.0, "num_workers": 2, **options})


def ask(word, *, is_right, grader="math"):
    """A problem and a response that only the second grader can judge, right or wrong."""
    answer = f"\\{word}(x)"
    gold = answer[::-1] if is_right else "no"
    problem = Problem(id=word, question="?", gold=gold, grader=grader)
    return problem, f"\\boxed{{{answer}}}"


def group(number, size=4):
    """Problems and responses of a group; which are right is as good as random."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    draw = random.Random(number)
    words = [f"w{letters[number]}{letters[k]}" for k in range(size)]
    pairs = [ask(word, is_right=draw.random() < 0.5) for word in words]
    return [p for p, _ in pairs], [r for _, r in pairs]


@pytest.mark.parametrize("seed", range(3))
def test_groups_in_random_order_judged_in_random_order_keep_their_own_scores(seed):
    groups = [group(n) for n in range(8)]
    order = list(range(len(groups)))
    draw = random.Random(seed)
    draw.shuffle(order)
    pending = {}
    with make_pool(judge=WANDERING, num_workers=3) as pool:
        for number in order:
            pending[number] = pool.submit(*groups[number])
            time.sleep(draw.random() * 0.02)
        found = {n: pending[n].result() for n in draw.sample(order, len(order))}
    for number, (problems, responses) in enumerate(groups):
        answers = [r.removeprefix("\\boxed{").removesuffix("}") for r in responses]
        assert [s.extracted for s in found[number]] == answers
        assert [s.is_correct for s in found[number]] == [
            p.gold == a[::-1] for p, a in zip(problems, answers, strict=True)
        ]
    verdicts = {s.is_correct for scores in found.values() for s in scores}
    assert verdicts == {True, False}


def test_what_is_submitted_gets_the_scores_that_it_gets_when_graded_at_once():
    groups = [group(n) for n in range(5)]
    groups += [
        ([Problem(id="i", question="?", gold="5", grader="integer")] * 2, ["5", "\\boxed{5}"])
    ]
    with make_pool() as pool:
        pending = [pool.submit(*g) for g in groups]
        streamed = [p.result() for p in pending]
    with make_pool() as pool:
        flat = pool.grade([p for g in groups for p in g[0]], [r for g in groups for r in g[1]])
    assert [s for scores in streamed for s in scores] == flat


def test_workers_that_are_killed_midway_cost_nobody_a_score():
    groups = [group(n) for n in range(6)]
    with make_pool(judge=WANDERING) as pool:
        pending = [pool.submit(*g) for g in groups]
        pending[0].result()
        for worker in list(pool._desk._workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        found = [p.result() for p in pending]
    for (problems, responses), scores in zip(groups, found, strict=True):
        expected = [
            f"\\boxed{{{p.gold[::-1]}}}" == r for p, r in zip(problems, responses, strict=True)
        ]
        assert [s.is_correct for s in scores] == expected


def test_a_pool_that_dies_midway_gives_errors_and_no_wrong_scores(tmp_path):
    gone = tmp_path / "gone"
    with make_pool(judge="fake_judges:mortal", num_workers=1) as pool:
        first, second = (
            pool.submit([Problem(id="p", question="?", gold=str(gone), grader="math")], [answer])
            for answer in (r"\boxed{\a(x)}", r"\boxed{\b(x)}")
        )
        assert first.result()[0].verdict is Verdict.CORRECT
        assert second.result()[0].verdict is Verdict.ERROR


def test_a_hanging_answer_does_not_hold_up_the_groups_behind_it():
    with make_pool(timeout_s=60.0) as pool:
        hanging = pool.submit(*[[x] for x in ask("sleepy", is_right=True)])
        others = [pool.submit(*group(n)) for n in range(3)]
        assert all(s.verdict is not Verdict.ERROR for p in others for s in p.result())
        assert not hanging._parts.result()[0].opinion.done()


def test_closing_gives_up_what_is_open_and_the_pool_can_be_used_again():
    pool = make_pool(timeout_s=60.0)
    pending = pool.submit(*[[x] for x in ask("sleepy", is_right=True)])
    pending._parts.result()
    pool.close()
    (score,) = pending.result()
    assert (score.verdict, pool.num_running) == (Verdict.ERROR, 0)
    assert "closed" in score.detail
    (again,) = pool.grade(*[[x] for x in ask("b", is_right=True)])
    assert again.is_correct
    pool.close()


def test_the_queue_is_bounded_and_drains():
    with make_pool(timeout_s=60.0, max_waiting=3) as pool:
        pool.submit(*[[x] for x in ask("sleepy", is_right=True)])
        entered = threading.Event()

        def submit_more():
            pool.submit(*group(0, size=2)).result()
            entered.set()
            pool.submit(*group(1, size=3))  # with the one that hangs it is one too many

        thread = threading.Thread(target=submit_more, daemon=True)
        thread.start()
        assert entered.wait(30.0)
        thread.join(0.2)
        assert thread.is_alive()
        pool.close()  # what hangs is given up, and there is room
        thread.join(30.0)
        assert not thread.is_alive()


def test_a_group_larger_than_the_queue_waits_for_an_empty_one_and_is_taken():
    with make_pool(max_waiting=2) as pool:
        assert len(pool.submit(*group(2, size=5)).result()) == 5
        assert len(pool.submit(*group(3, size=5)).result()) == 5


def test_an_unknown_grader_is_named_where_its_scores_are_read_and_frees_its_room():
    with make_pool(max_waiting=1) as pool:
        for _ in range(2):
            pending = pool.submit(*[[x] for x in ask("a", is_right=True, grader="maths")])
            with pytest.raises(ConfigError, match="did you mean 'math'"):
                pending.result()


def test_equal_questions_under_way_are_asked_once(tmp_path):
    desk = OpinionDesk("fake_judges:counts", num_workers=3, timeout_s=30.0, memory_mib=4096)
    counter = tmp_path / "asked"
    futures = [desk.ask((str(counter), "a")) for _ in range(5)]
    futures += [desk.ask((str(counter), "b"))]
    opinions = [f.result() for f in futures]
    opinions.append(desk.ask((str(counter), "a")).result())
    desk.close()
    assert {o.verdict for o in opinions} == {Verdict.CORRECT}
    assert sorted(counter.read_text()) == ["a", "b"]


def test_many_threads_may_ask_at_once():
    desk = OpinionDesk(MOODY, num_workers=2, timeout_s=30.0, memory_mib=4096)
    wrong = []

    def ask_many(number):
        for k in range(20):
            answer = f"{number}/{k}"
            gold = answer[::-1] if (number + k) % 2 else "no"
            if (
                desk.ask((gold, answer)).result().verdict.value
                == ["wrong", "correct"][(number + k) % 2]
            ):
                continue
            wrong.append(answer)

    threads = [threading.Thread(target=ask_many, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    desk.close()
    assert wrong == []
