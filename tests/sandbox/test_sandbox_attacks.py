"""Programs that cheat or do harm: none passes, none is taken for a fault of the instrument."""

import signal
import socket
from pathlib import Path

import pytest
from attacks import ATTACKS, LIBC, MUST_FAIL

from pellucid.sandbox import Job, Outcome, Sandbox, judge, take_apart

PLAN = take_apart(("assert f(1) == 42", "assert f(1001) == 1042"))
REFUSALS = {
    "PermissionError", "FileNotFoundError", "ProcessLookupError", "OSError", "KeyError",
    "ModuleNotFoundError", "ValueError", "NotADirectoryError",
}  # fmt: skip
"""What a wall raises; a NameError would be a mistake in the attack."""
HONEST = "def f(x): return x + 41"


@pytest.fixture
def canary(tmp_path, monkeypatch):
    path = tmp_path / "canary"
    path.write_text("untouched")
    monkeypatch.setenv("PELLUCID_CANARY", "secret")
    hits = []
    before = signal.signal(signal.SIGTERM, lambda *_: hits.append("signal"))
    yield path
    signal.signal(signal.SIGTERM, before)
    assert path.read_text() == "untouched"
    assert list(tmp_path.iterdir()) == [path]
    assert hits == []


@pytest.mark.parametrize(
    ("program", "outcomes"), [a[1:] for a in ATTACKS], ids=[a[0] for a in ATTACKS]
)
def test_an_attack_gets_its_typed_outcome_and_the_next_program_its_own(
    sandbox, canary, program, outcomes
):
    judgement = judge(sandbox, program, PLAN)
    assert judgement.outcome in outcomes, judgement
    assert judge(sandbox, HONEST, PLAN).outcome is Outcome.PASSED


@pytest.mark.parametrize("act", [a[1] for a in MUST_FAIL], ids=[a[0] for a in MUST_FAIL])
def test_what_is_forbidden_fails(sandbox, canary, act):
    with socket.create_server(("127.0.0.1", 0)) as server:
        act = act.replace("CANARY'", f"{canary}'").replace("TESTFILE", __file__)
        act = act.replace("PORT", str(server.getsockname()[1]))
        judgement = judge(sandbox, f"{LIBC}\n{act}\n{HONEST}", PLAN)
    assert judgement.outcome is Outcome.WRONG, judgement
    kind = judgement.detail.removeprefix("the program: ").partition(":")[0]
    assert kind in REFUSALS, judgement
    assert judge(sandbox, HONEST, PLAN).outcome is Outcome.PASSED


def test_a_program_finds_nothing_of_the_one_before(sandbox):
    leave = "open('/tmp/note', 'w').write('x')\nimport math\nmath.pi = 3"
    look = "import os, math"
    sandbox.run(Job(code=leave))
    run = sandbox.run(Job(code=look, calls=("os.listdir('/tmp')", "math.pi > 3.1", "os.getpid()")))
    assert run.values == ([], True, 1)


def test_a_program_has_no_rights(sandbox):
    code = LIBC + "import os, ctypes\ncaps = (ctypes.c_uint * 6)()\n"
    code += "head = (ctypes.c_uint * 2)(0x20080522, 0)\nctypes.CDLL(None).capget(head, caps)"
    calls = ("list(caps)", "sorted(os.environ)", "os.getuid() != 0")
    run = sandbox.run(Job(code=code, calls=calls))
    assert run.values[0] == [0] * 6
    assert set(run.values[1]) <= {"HOME", "LANG", "LC_CTYPE", "PATH", "PYTHONHASHSEED", "PWD"}
    assert run.values[2] is True


def test_no_process_stays_behind_when_the_sandbox_closes(jailed):
    with Sandbox(num_jails=1) as own:
        own.run(Job(code="import os, time\nif os.fork() == 0: time.sleep(600)"))
        (jail,) = own._idle
        pid = jail.pid
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_the_attacks_are_real_without_isolation_they_succeed(canary):
    program = f"open({str(canary)!r}).read()\nimport socket; socket.socket().close()\n{HONEST}"
    with Sandbox(num_jails=1, unsafe=True) as bare:
        assert judge(bare, program, PLAN).outcome is Outcome.PASSED
