import random
import threading
from collections import Counter
from concurrent.futures import Future

import pytest

from pellucid.errors import ConfigError
from pellucid.records import Problem, Score, Verdict
from pellucid.rewards import GRADERS, GraderPool
from pellucid.rewards import vectors as labelled
from pellucid.rewards.opinions import Questions, _Question
from pellucid.rewards.vectors import load_vectors, self_test

MOODY = "fake_judges:moody"


def problem(gold: str, grader: str = "math") -> Problem:
    return Problem(id="p", question="?", gold=gold, grader=grader)


def undecided(word: str) -> str:
    """A response that only the second grader can judge."""
    return f"\\boxed{{\\{word}(x)}}"


def gold_for(word: str) -> str:
    return f"\\{word}(x)"[::-1]


def make_pool(**options) -> GraderPool:
    return GraderPool(**{"judge": MOODY, "timeout_s": 1.0, "num_workers": 2, **options})


@pytest.fixture(scope="module")
def pool():
    with make_pool() as pool:
        yield pool


def test_neighbours_of_hanging_and_dying_items_keep_their_own_scores(pool):
    words = ["a", "b", "sleepy", "c", "deadly", "d", "broken", "e", "f"]
    problems = [problem(gold_for(w) if i % 2 else "x") for i, w in enumerate(words)]
    scores = pool.grade(problems, [undecided(w) for w in words])
    found = [score.verdict.value for score in scores]
    assert found == [
        *("wrong", "correct", "timeout", "correct", "error"),
        *("correct", "error", "correct", "wrong"),
    ]
    assert [score.extracted for score in scores] == [f"\\{w}(x)" for w in words]
    assert "no such instrument" in scores[6].detail
    assert "died twice" in scores[4].detail


def test_an_item_that_computes_without_end_is_a_timeout(pool):
    (score,) = pool.grade([problem("x")], [undecided("busy")])
    assert score.verdict is Verdict.TIMEOUT
    assert "no answer in" in score.detail


def test_a_costly_item_is_settled_at_once_and_a_starved_one_gets_twice_the_time():
    settled = []
    questions = Questions(timeout_s=4.0, on_settled=lambda pair, opinion: settled.append(pair))
    asked = [_Question(("a", "b")), _Question(("c", "d"))]
    for question in asked:
        questions.add(question)
    questions.queue.clear()
    questions.note_failure(0, is_hung=True, cpu_s=3.9)
    questions.note_failure(1, is_hung=True, cpu_s=0.1)
    assert list(questions.queue) == [1]
    assert questions.limit_s(1) == 8.0
    questions.note_failure(1, is_hung=True, cpu_s=0.1)
    assert [q.future.result().detail for q in asked] == ["no answer in 4 s", "no answer in 8 s"]
    assert settled == [("a", "b"), ("c", "d")]


def test_lack_of_memory_is_the_answers_fault():
    with make_pool(memory_mib=2048) as pool:
        (score,) = pool.grade([problem("x")], [undecided("greedy")])
    assert score.verdict is Verdict.TIMEOUT
    assert "memory" in score.detail


@pytest.mark.parametrize("judge", ["dies_once", "slow_once"])
def test_an_item_gets_a_second_try_on_a_fresh_worker(tmp_path, judge):
    with make_pool(judge=f"fake_judges:{judge}") as pool:
        (score,) = pool.grade([problem(str(tmp_path / "seen"))], [undecided("a")])
    assert score.verdict is Verdict.CORRECT


def test_a_missing_second_grader_is_an_error_and_not_a_wrong_answer():
    with make_pool(judge="no_such_package:judge") as pool:
        scores = pool.grade([problem("x"), problem("7")], [undecided("a"), r"\boxed{7}"])
    assert [s.verdict for s in scores] == [Verdict.ERROR, Verdict.CORRECT]
    assert "no_such_package" in scores[0].detail


def test_errors_are_asked_again_and_opinions_are_not(tmp_path):
    with make_pool() as pool:
        pool.grade([problem("x")], [undecided("a")])
        assert list(pool._desk._cache) == [("x", r"\a(x)")]
        pool.grade([problem("x")], [undecided("broken")])
        assert list(pool._desk._cache) == [("x", r"\a(x)")]


def test_no_process_starts_while_strict_graders_decide():
    with make_pool() as pool:
        pool.grade([problem("1/2"), problem("5", "integer")], [r"\boxed{0.5}", r"\boxed{6}"])
        assert pool.num_running == 0


def test_without_math_verify_an_undecided_answer_is_wrong():
    with make_pool(math_verify=False) as pool:
        (score,) = pool.grade([problem(gold_for("a"))], [undecided("a")])
        assert pool.num_running == 0
    assert (score.verdict, score.method) == (Verdict.WRONG, "strict")


def test_closing_ends_the_workers_and_the_pool_can_be_used_again():
    pool = make_pool()
    pool.grade([problem("x")], [undecided("a")])
    processes = [worker._process for worker in pool._desk._workers]
    pool.close()
    assert processes
    assert all(process.returncode is not None for process in processes)
    pool.grade([problem("y")], [undecided("a")])
    assert pool.num_running == 1
    pool.close()


def test_a_worker_that_died_while_idle_is_replaced():
    with make_pool(num_workers=1) as pool:
        pool.grade([problem("x")], [undecided("a")])
        pool._desk._workers[0]._process.kill()
        pool._desk._workers[0]._process.wait()
        (score,) = pool.grade([problem(gold_for("b"))], [undecided("b")])
    assert score.verdict is Verdict.CORRECT


def test_a_late_reply_never_reaches_a_question_asked_after_an_interrupt(monkeypatch):
    with make_pool(num_workers=1) as pool:
        pool.grade([problem("x")], [undecided("a")])
        with monkeypatch.context() as patch:

            def interrupted(future, timeout=None):
                raise KeyboardInterrupt

            patch.setattr(Future, "result", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.grade([problem(gold_for("b"))], [undecided("b")])
        (score,) = pool.grade([problem("x")], [undecided("c")])
    assert score.verdict is Verdict.WRONG


def test_a_defect_of_the_pool_is_raised_where_its_scores_are_read(monkeypatch):
    with make_pool(num_workers=1) as pool:

        def broken():
            raise ZeroDivisionError("a defect")

        with monkeypatch.context() as patch:
            patch.setattr(pool._desk, "_fill", broken)
            pending = pool.submit([problem("x")], [undecided("a")])
            with pytest.raises(ZeroDivisionError, match="a defect"):
                pending.result()
        (score,) = pool.grade([problem(gold_for("b"))], [undecided("b")])
    assert score.verdict is Verdict.CORRECT


def test_it_grades_off_the_main_thread(pool):
    results = []
    thread = threading.Thread(
        target=lambda: results.extend(pool.grade([problem(gold_for("t"))], [undecided("t")]))
    )
    thread.start()
    thread.join()
    assert results[0].verdict is Verdict.CORRECT


def test_an_unknown_grader_is_named_with_the_nearest(pool):
    with pytest.raises(ConfigError, match=r"'maths'; did you mean 'math'"):
        pool.grade([problem("1", "maths")], [r"\boxed{1}"])


def test_math_verify_and_the_strict_graders_get_every_labelled_vector_right_in_any_order():
    vectors = [v for v in load_vectors() if v.grader not in ("code", "reasoning-gym")]
    order = list(range(len(vectors)))
    random.Random(3).shuffle(order)
    with GraderPool(num_workers=1, timeout_s=30.0) as pool:
        result = self_test(pool)
        assert result.misses == ()
        scores = pool.grade([v.problem() for v in vectors], [v.response for v in vectors])
        shuffled = pool.grade(
            [vectors[i].problem() for i in order], [vectors[i].response for i in order]
        )
    assert shuffled == [scores[i] for i in order]
    assert {s.method for s in scores} >= {"strict", "math-verify", "integer", "countdown"}
    assert result.num_vectors >= len(vectors)
    assert result.num_vectors + sum(result.not_run.values()) == len(load_vectors())
    assert result.num_errors == 0
    assert result.false_positives.value == 0.0 < result.false_positives.high < 0.06


def test_vectors_whose_instrument_is_missing_are_not_run_and_not_passed(monkeypatch):
    missing = {"code": "no jail here", "reasoning-gym": "no such package"}
    monkeypatch.setattr(labelled, "why_missing", lambda: missing["code"])
    monkeypatch.setattr(labelled, "why_unusable", lambda gold: missing["reasoning-gym"])
    asked = []

    class Right:
        def grade(self, problems, responses):
            asked.extend(p.grader for p in problems)
            by_place = {(v.gold, v.response): v.verdict for v in load_vectors()}
            pairs = zip(problems, responses, strict=True)
            return [Score(verdict=by_place[p.gold, r]) for p, r in pairs]

    result = self_test(Right())
    left_out = Counter(missing.get(v.grader) for v in load_vectors())
    assert not set(asked) & set(missing)
    assert result.num_vectors == len(asked) == left_out.pop(None)
    assert result.not_run == left_out
    assert min(left_out.values()) >= 15
    assert result.misses == ()


def test_every_kind_has_five_vectors_and_every_grader_right_and_wrong_ones():
    vectors = load_vectors()
    assert min(Counter(v.kind for v in vectors).values()) >= 5
    verdicts = {(v.grader, v.verdict) for v in vectors}
    for grader in set(GRADERS) - {"open", "smalltalk"}:
        assert {(grader, Verdict.CORRECT), (grader, Verdict.WRONG)} <= verdicts, grader
    assert len({(v.grader, v.gold, v.response) for v in vectors}) == len(vectors)
