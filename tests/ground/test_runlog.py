"""Metrics on disk and what a person sees of them."""

import io
import json

import pytest

from pellucid.runlog import MetricsLog, MetricsRecord, Progress, console_line, read_metrics


class _Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def _progress(stream, **more):
    clock = _Clock()
    return Progress(stream=stream, clock=clock, **more), clock


def test_a_metric_that_is_not_finite_is_missing_and_never_zero(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    values = {"kl": float("nan"), "loss": 1, "ratio": float("inf"), "none": None}
    log.write(MetricsRecord(step=2, name="train", values=values))
    log.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    expected = {"kl": None, "loss": 1.0, "none": None, "ratio": None}
    assert line == {"step": 2, "name": "train", "values": expected}
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == [
        MetricsRecord(step=2, name="train", values=expected)
    ]


def test_a_resumed_log_forgets_the_steps_that_come_again(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.write(MetricsRecord(step=step, name="rollout", values={"reward_mean": step / 10}))
    log.close()
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.truncate_after(1)
    log.close()
    assert [r.step for r in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_a_steps_line_shows_the_allow_list_only_and_only_this_step(tmp_path):
    stream = io.StringIO()
    progress, _ = _progress(stream)
    log = MetricsLog(tmp_path / "metrics.jsonl", progress)
    log.write(MetricsRecord(step=1, name="rollout", values={"reward_mean": 0.41234, "odd": 7.0}))
    log.end_step(1, 60)
    log.write(MetricsRecord(step=2, name="train", values={"entropy": 1.5}))
    log.end_step(2, 60)
    assert stream.getvalue() == "step 1/60  reward_mean 0.4123\nstep 2/60  entropy 1.5\n"
    assert console_line(3, 60, {}) == "step 3/60"


def test_work_under_two_seconds_is_silent():
    stream = io.StringIO()
    progress, clock = _progress(stream)
    with progress.task("sampling", 10) as tick:
        clock.now += 1.9
        tick(10, 10)
    assert stream.getvalue() == ""


def test_without_a_terminal_a_plain_line_comes_every_few_seconds():
    stream = io.StringIO()
    progress, clock = _progress(stream)
    with progress.task("sampling", 100, "samples") as tick:
        for done in range(1, 13):
            clock.now += 1
            tick(done, 100)
        tick.note = "reward 0.5"
    assert stream.getvalue().splitlines() == [
        "sampling: 2/100 samples, 1/s, 1:38 left",
        "sampling: 7/100 samples, 1/s, 1:33 left",
        "sampling: 12/100 samples, 1/s, 1:28 left",
        "sampling: 12/100 samples in 0:12",
    ]


def test_a_resumed_tasks_rate_leaves_out_what_was_done_before():
    stream = io.StringIO()
    progress, clock = _progress(stream)
    with progress.task("training", 100, "steps") as tick:
        tick(50)
        clock.now += 10
        tick(55)
    assert "55/100 steps, 2 s each, 1:30 left" in stream.getvalue()


def test_json_mode_says_nothing_at_all():
    stream = io.StringIO()
    progress, clock = _progress(stream, is_silent=True)
    progress.say("hello")
    with progress.task("sampling", 10) as tick:
        clock.now += 60
        tick.advance(3)
    assert stream.getvalue() == ""


def test_on_a_terminal_nested_work_shows_bars_and_lines_stay_above_them():
    stream = _Terminal()
    progress, clock = _progress(stream)
    with progress.task("training", 4, "steps") as outer:
        with progress.task("rollout", 8, "samples") as inner:
            clock.now += 3
            inner(4)
            outer(1)
        progress.say("[step 1] kept")
    text = stream.getvalue()
    assert "4/8 samples, 1.33/s, 0:03 left" in text
    assert "1/4 steps" in text
    assert "[step 1] kept" in text


def _fail_after_three_seconds(progress, clock):
    with progress.task("rollout", 8) as tick:
        clock.now += 3
        tick(4)
        raise ZeroDivisionError


def test_an_error_inside_a_task_ends_its_bar_and_goes_on():
    stream = _Terminal()
    progress, clock = _progress(stream)
    with pytest.raises(ZeroDivisionError):
        _fail_after_three_seconds(progress, clock)
    assert "rollout: 4/8 items in 0:03" in stream.getvalue()
