"""Right programs pass, wrong ones do not, and a broken instrument is neither."""

import os
import signal

import pytest

from pellucid.sandbox import Job, Outcome, Sandbox, SandboxError, isolation, judge, take_apart
from pellucid.sandbox.inside import wire
from pellucid.sandbox.inside.deadline import Deadline


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -7, 2**80, 1.5, float("inf"), "a\ud800", b"\x00", 1j, [], (1, [2]),
        {1, 2}, frozenset([("a", 1)]), {"a": (1,), 2: None}, range(3),
    ],
    ids=repr,
)  # fmt: skip
def test_plain_values_survive_the_wire(value):
    data = wire.encode(value)
    back = wire.decode(data)
    assert back == value
    assert type(back) is type(value)
    assert wire.count(data) == wire.count(wire.encode(back))


@pytest.mark.parametrize(
    "data", [{"o": "Yes"}, {"t": 3}, {"zz": 1}, {"a": 1, "b": 2}, {"i": "xyz"}, {"s": [[1]]}, 0.5]
)
def test_what_the_encoder_never_writes_is_no_value(data):
    with pytest.raises(wire.OpaqueError):
        wire.decode(data)


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(x): return x + 1", ["assert f(1) == 2", "assert f(-1) == 0"]),
        ("def f(x): return {x: (x, 1.5)}", ["assert f(1) == {1: (1, 1.5)}"]),
        ("def f(x): return map(str, x)", ["assert list(f([1, 2])) == ['1', '2']"]),
        ("import math\ndef f(x): return math.sqrt(x)", ["assert math.isclose(f(2), 2 ** 0.5)"]),
        (
            "from collections import Counter\ndef f(x): return Counter(x)",
            ["assert f('aab') == {'a': 2, 'b': 1}"],
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
            "def f(x): return P(x).x",
            ["assert f(3) == 3"],
        ),
        ("class S:\n    def size(self): return 0", ["s = S()", "assert s.size() == 0"]),
        ("import asyncio\nasync def g(): return 5\ndef f(): return asyncio.run(g())",
         ["assert f() == 5"]),
    ],
)  # fmt: skip
def test_right_programs_pass(sandbox, program, tests):
    judgement = judge(sandbox, program, take_apart(tuple(tests)))
    assert judgement.outcome is Outcome.PASSED, judgement


@pytest.mark.parametrize(
    ("program", "test", "detail"),
    [
        ("def f(x): return x", "assert f(1) == 2", "assert f(1) == 2: other value"),
        ("def f(x): return [x]", "assert f(1) == (1,)", "other value"),
        ("def f(x): return 1 / 0", "assert f(1) == 2", "f(1): ZeroDivisionError"),
        ("def f(x) return", "assert f(1) == 2", "the program: SyntaxError"),
        ("def g(x): return 1", "assert f(1) == 2", "NameError"),
        ("def f(x): return object()", "assert f(1) == 2", "type object, which is no plain"),
        ("def f(x): return object()", "assert not f(1)", "no plain data"),
        ("def f(x): return [2, 1]", "assert f(1) == sorted([2, 1])", "does not hold"),
        ("def f(x): return {1: 1, 2: 2}", "assert sorted(f(1)) == [1]", "does not hold"),
        ("class S: pass", "s = S()\nassert s.size() == 0", "AttributeError"),
    ],
)
def test_wrong_programs_fail_with_a_reason(sandbox, program, test, detail):
    judgement = judge(sandbox, program, take_apart((test,)))
    assert judgement.outcome is Outcome.WRONG
    assert detail in judgement.detail


def test_tests_run_beside_the_program_are_said_to_be_weaker(sandbox):
    judgement = judge(sandbox, "def f(x): return x", take_apart(("x = 2\nassert f(x) == 2",)))
    assert judgement.outcome is Outcome.PASSED
    assert judgement.detail == "1 of 1 tests ran in the program's own process"


def test_a_setup_that_fails_by_itself_is_the_instruments_fault(sandbox):
    plan = take_apart(("assert f(1) == 1",), "import no_such_module")
    assert judge(sandbox, "def f(x): return x", plan).outcome is Outcome.ERROR


def test_a_program_that_computes_on_a_busy_machine_has_the_cpu_time_it_was_promised(sandbox):
    # A share of the processor, as others leave it: past the 1 s that a program may take.
    work = "import time\nend = time.monotonic() + 1.4\nwhile time.monotonic() < end:\n"
    work += "    start = time.process_time()\n"
    work += "    while time.process_time() - start < 0.02: pass\n    time.sleep(0.05)\n"
    run = sandbox.run(Job(code=work, calls=("1",)))
    assert (run.outcome, run.values) == (Outcome.PASSED, (1,))
    assert run.wall_s > 1.3


def test_a_program_that_sleeps_has_no_more_than_the_time_limit(sandbox):
    run = sandbox.run(Job(code="import time\ntime.sleep(1.6)"))
    assert run.outcome is Outcome.TIMEOUT
    assert run.detail == "not done in 1 s"


def test_more_time_is_what_is_missing_of_the_cpu_time_up_to_the_patience():
    deadline = Deadline(100.0, 2.0, 3.0)
    assert deadline.at == 102.0
    assert deadline.extend(102.0, 0.5)
    assert deadline.at == 103.5
    assert deadline.extend(103.5, 1.0)
    assert deadline.at == 104.5
    assert deadline.extend(104.5, 1.4)
    assert deadline.extend(105.1, 1.9)
    assert deadline.at == pytest.approx(105.2)
    assert not deadline.extend(105.2, 2.0)  # it has had its time
    late = Deadline(100.0, 2.0, 3.0)
    assert late.extend(105.9, 1.0)
    assert late.at == 106.0
    assert not late.extend(106.0, 1.05)  # nobody waits longer than that
    asleep = Deadline(100.0, 2.0, 3.0)
    assert asleep.extend(102.0, 0.5)
    assert not asleep.extend(103.5, 0.51)


def test_a_jail_that_dies_is_replaced(sandbox):
    sandbox.run(Job(code=""))
    os.kill(sandbox._idle[0].pid, signal.SIGKILL)
    assert sandbox.run(Job(code="x = 1", calls=("x",))).values == (1,)


def test_runs_come_back_in_order(jailed):
    with Sandbox(num_jails=2) as sandbox:
        runs = sandbox.run_all([Job(code=f"x = {i}", calls=("x",)) for i in range(20)])
    assert [run.values for run in runs] == [(i,) for i in range(20)]


def test_an_instrument_that_fails_twice_is_an_error_never_wrong(monkeypatch):
    monkeypatch.setattr("pellucid.sandbox.jail.unsafe_command", lambda: ["/bin/false"])
    with Sandbox(num_jails=1, unsafe=True) as sandbox:
        run = sandbox.run(Job(code=""))
    assert run.outcome is Outcome.ERROR
    assert "sandbox failed" in run.detail


def test_without_bubblewrap_it_refuses_in_one_line_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    isolation.why_missing.cache_clear()
    with pytest.raises(SandboxError, match="apt-get install bubblewrap") as caught:
        Sandbox()
    isolation.why_missing.cache_clear()
    assert "\n" not in str(caught.value)
    with Sandbox(unsafe=True, num_jails=1) as sandbox:
        assert sandbox.run(Job(code="x = 1", calls=("x",))).values == (1,)


def test_a_user_whose_fork_limit_does_not_hold_is_refused(jailed, monkeypatch):
    probe = "left = ['start any number of processes']"
    monkeypatch.setattr(isolation, "_PROBE", probe)
    isolation.why_missing.cache_clear()
    with pytest.raises(SandboxError, match="still can start any number"):
        Sandbox()
    isolation.why_missing.cache_clear()
