"""Child processes: what they leave is taken in, and none is dropped or left behind."""

import sys
from argparse import Namespace

import pytest
import run
from children import records_of, result_of
from peer_jobs import peer_records

WRITES = "import json, sys; open(sys.argv[-1], 'w').write(json.dumps({'median_s': 1.5}))"
FAILS = "import sys; sys.exit('error: no kernel for this device')"


def test_a_result_file_becomes_a_record() -> None:
    got = result_of([sys.executable, "-c", WRITES], timeout_s=60)
    assert (got["status"], got["median_s"]) == ("ok", 1.5)
    assert got["wall_s"] > 0


def test_a_failing_child_is_recorded_with_its_last_line() -> None:
    got = result_of([sys.executable, "-c", FAILS], timeout_s=60)
    assert (got["status"], got["error"]) == ("failed", "error: no kernel for this device")


def test_a_child_that_writes_and_then_fails_has_failed() -> None:
    got = result_of([sys.executable, "-c", f"{WRITES}; sys.exit(3)"], timeout_s=60)
    assert got["status"] == "failed"


def test_a_child_that_hangs_is_ended() -> None:
    got = result_of([sys.executable, "-c", "import time; time.sleep(600)"], timeout_s=0.5)
    assert (got["status"], got["error"]) == ("failed", "ended after 0 s")


def test_records_come_before_the_failure_and_other_output_is_ignored() -> None:
    source = """
import json, sys
print("loading weights")
print(json.dumps({"record": True, "job": "a"}), flush=True)
sys.exit("error: out of memory")
"""
    got = list(records_of([sys.executable, "-c", source], timeout_s=60))
    assert got[0] == {"status": "ok", "record": True, "job": "a"}
    assert (got[1]["status"], got[1]["error"]) == ("failed", "error: out of memory")
    assert len(got) == 2


@pytest.fixture
def arguments() -> Namespace:
    return Namespace(
        shape="tiny", peer_settings="best,rl", trl_micro=None, peer_repeats=1, peer_path=None,
        peer_timeout=60.0, budget=float("inf"), no_project=False, peers=False,
    )  # fmt: skip


def test_every_job_that_a_peer_did_not_do_has_its_error(arguments, monkeypatch) -> None:
    def one_record(command, **_):
        yield {
            "status": "ok", "record": True, "job": "rollout-0.5b-2x2-8+4", "who": "vllm-best",
            "median_s": 2.0,
        }  # fmt: skip
        yield {"status": "failed", "error": "boom", "log_tail": []}

    monkeypatch.setattr("peer_jobs.records_of", one_record)
    names = ("rollout-0.5b-2x2-8+4", "mixed-0.5b", "mixed-0.5b-nopdl", "gap-0.5b")
    records = list(peer_records([run.parse(name) for name in names], arguments, lambda: False))
    assert records[0]["share_of_floor"] == records[0]["floor_s"] / 2.0 > 0
    got = [(r["job"], r["who"], r["status"], r.get("error")) for r in records]
    assert got == [
        ("rollout-0.5b-2x2-8+4", "vllm-best", "ok", None),
        ("rollout-0.5b-2x2-8+4", "vllm-rl", "failed", "boom"),
        ("mixed-0.5b", "vllm-best", "failed", "boom"),
    ]


def test_after_the_budget_jobs_are_named_and_not_started(arguments, monkeypatch) -> None:
    started = []

    def record(name, *_):
        started.append(name)
        return {"status": "ok"}

    monkeypatch.setattr(run, "project_record", record)
    arguments.budget, arguments.peers = 0.0, True
    jobs = [run.parse("step-0.5b")]
    got = list(run.records(jobs, arguments, start=-1.0))
    assert started == []
    assert [(r["job"], r["who"], r["status"]) for r in got] == [
        ("step-0.5b", "pellucid", "not started"),
        ("step-0.5b", "trl", "not started"),
    ]


def test_the_file_is_complete_after_every_job(tmp_path, capsys) -> None:
    import json

    report = run.Report(tmp_path / "gpu.json", {"jobs": []})
    ok = {"job": "step-0.5b", "who": "trl", "status": "ok", "median_s": 2.0, "tokens_per_s": 9.0}
    failed = {"job": "gap-0.5b", "who": "pellucid", "status": "failed", "error": "boom"}
    for number, record in enumerate((ok, failed), start=1):
        report.add(record)
        assert len(json.loads(report.path.read_text())["jobs"]) == number
    assert "FAILED: boom" in capsys.readouterr().out


def test_a_line_names_its_job_and_all_memory() -> None:
    record = {"job": "step-0.5b", "who": "pellucid", "status": "ok", "median_s": 6.3,
              "tokens_per_s": 9.0, "peak_allocated_bytes": 54 * 2**30,
              "peak_reserved_bytes": 56 * 2**30}  # fmt: skip
    line = run.line_of(record)
    assert line.startswith("step-0.5b")
    assert "54.0 GiB in use 56.0 GiB reserved" in line


def test_a_job_is_told_of_its_lever_and_of_torchs_memory(arguments, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(run, "result_of", lambda command, **more: told.append(more) or {})
    arguments.device, arguments.repeats, arguments.job_seconds = "cpu", 1, 1.0
    arguments.tokens_per_pack, arguments.timeout = None, 1.0
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PELLUCID_PDL", raising=False)
    for name in ("mixed-0.5b", "mixed-0.5b-nopdl"):
        run.project_record(name, arguments, run.parse(name))
    plain, early = (more["environment"] for more in told)
    assert plain["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "PELLUCID_PDL" not in plain
    assert early["PELLUCID_PDL"] == "0"


def test_the_memory_of_a_planned_step_is_asked_of_the_driver(arguments, monkeypatch) -> None:
    class Used:
        peak_bytes = 7 * 2**30

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(run.machine, "UsedMemory", Used)
    monkeypatch.setattr(run, "result_of", lambda command, **more: {"status": "ok"})
    arguments.device, arguments.repeats, arguments.job_seconds = "cpu", 1, 1.0
    arguments.tokens_per_pack, arguments.timeout = None, 1.0
    got = [
        run.project_record(name, arguments, run.parse(name)) for name in ("planned-7b", "step-0.5b")
    ]
    assert got == [{"status": "ok", "used_memory_bytes": 7 * 2**30}, {"status": "ok"}]
