"""The README's table is made from stored results, and is what they say."""

import json
import subprocess
import sys
from pathlib import Path

import benchmark_table as table
import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef"


def document(date: str, *jobs: dict, **more: object) -> dict:
    return {
        "date": date, "is_rehearsal": False, "code": {"commit": COMMIT, "is_changed": False},
        "machine": {"device": "NVIDIA H200"}, "jobs": list(jobs),
    } | more  # fmt: skip


def record(job: str, who: str, **more: object) -> dict:
    defaults = {"repeats": [{}] * 5, "median_s": 5.0, "tokens_per_s": 100.0, "settings": {}}
    return {"job": job, "who": who, "status": "ok"} | defaults | more


@pytest.fixture
def rows(tmp_path):
    def render(*documents: dict) -> list[list[str]]:
        for number, content in enumerate(documents):
            (tmp_path / f"gpu-{number}.json").write_text(json.dumps(content))
        lines = table.table(table.load(tmp_path)).splitlines()
        return [[c.strip() for c in r.strip("|").split("|")] for r in lines[2:] if r[:1] == "|"]

    return render


def test_a_row_compares_with_the_best_of_the_peer_on_the_same_sequences(rows) -> None:
    name = "rollout-0.5b-64x16-128+512"
    mine = record(name, "pellucid", tokens_per_s=243_304.0, share_of_floor=0.331,
                  peak_reserved_bytes=20 * 2**30)  # fmt: skip
    best = record(name, "vllm-best", tokens_per_s=30_413.0)
    as_rl = record(name, "vllm-rl", tokens_per_s=24_852.0)
    assert rows(document("2026-01-01", best, as_rl), document("2026-01-02", mine)) == [[
        "rollout 0.5B, 64 × 16, 128 + 512", "vLLM 30,413 tok/s (24,852)", "**243,304 tok/s**",
        "8.0 ×", "33%", "20 GiB", "`0123456`",
    ]]  # fmt: skip


def test_a_peers_figure_of_the_same_run_goes_before_a_stored_one(rows) -> None:
    name = "rollout-7b-32x16-128+512"
    stored = record("rollout-7b-512x1-128+512", "vllm-best", tokens_per_s=900.0)
    same = record(name, "vllm-best", tokens_per_s=50.0)
    got = rows(
        document("2026-01-01", stored),
        document("2026-01-02", record(name, "pellucid"), same),
        document("2026-01-03", record(name, "vllm-best", tokens_per_s=800.0)),
    )
    assert got[0][1:4] == ["vLLM 50 tok/s", "**100 tok/s**", "2.0 ×"]


def test_the_newest_measurement_counts_also_where_it_failed(rows) -> None:
    name = "step-0.5b"
    failed = {"job": name, "who": "pellucid", "status": "failed", "error": "boom"}
    skipped = {"job": name, "who": "pellucid", "status": "not started", "error": "late"}
    got = rows(
        document("2026-01-02", failed),
        document("2026-01-01", record(name, "pellucid")),
        document("2026-01-03", skipped),
    )
    assert [row[2] for row in got] == ["failed"]


def test_for_steps_and_gaps_lower_is_better(rows) -> None:
    peer = record("step-0.5b", "trl", median_s=41.5, peak_allocated_bytes=114 * 2**30,
                  details={"mean_gap": 0.0101})  # fmt: skip
    step = record("step-0.5b", "pellucid", peak_reserved_bytes=55 * 2**30)
    gap = record("gap-0.5b", "pellucid", details={
        "normal": {"mean_gap": 0.00202}, "exact": {"mean_gap": 0.0},
        "exact_time_ratio": {"seconds": 2.25},
    })  # fmt: skip
    got = rows(document("2026-01-01", peer, step, gap))
    assert got[0][1:4] == ["TRL + vLLM 41.5 s", "**5.0 s**", "8.3 ×"]
    assert got[0][5] == "55 GiB (peer 114)"
    value = "**0** (`exact = false`: 0.00202, 2.25 times as fast)"
    assert got[1][1:4] == ["TRL + vLLM 0.0101", value, "–"]


def test_training_shows_its_utilisation(rows) -> None:
    mine = record(
        "train-7b", "pellucid", share_of_floor=0.6, settings={"has_optimizer": False},
        details={"mfu": 0.57, "fed_tokens_per_s": 10_300.0},
    )  # fmt: skip
    got = rows(document("2026-01-01", mine))
    assert got[0][2:5] == ["**10,300 tok/s** (without optimiser)", "–", "57%"]


def test_a_rehearsal_is_never_shown(rows) -> None:
    mine = record("step-0.5b", "pellucid")
    assert rows(document("2026-01-01", mine, is_rehearsal=True)) == []


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    text = f"before\n{table.START}\nold\n{table.END}\nafter\n"
    new = f"before\n{table.START}\nnew\n{table.END}\nafter\n"
    assert table.replace_between_markers(text, "new") == new
    assert table.replace_between_markers(new, "new") == new


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "benchmark_table.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_check_tells_a_stale_page_from_a_current_one(tmp_path) -> None:
    (tmp_path / "docs").mkdir()
    pages = [tmp_path / name for name in table.PAGES]
    for page in pages:
        page.write_text(f"{table.START}\n{table.END}\n")
    content = document(
        "2026-01-01", record("step-0.5b", "pellucid"), record("mixed-0.5b-nopdl", "pellucid")
    )
    (tmp_path / "gpu-1.json").write_text(json.dumps(content))
    places = ("--results", tmp_path, "--root", tmp_path)
    stale = run_script(*places, "--check")
    assert stale.returncode == 1
    assert "stale" in stale.stderr
    assert run_script(*places).returncode == 0
    assert all("whole GRPO step" in page.read_text() for page in pages)
    assert ["early launch" in page.read_text() for page in pages] == [False, True]
    assert run_script(*places, "--check").returncode == 0
    pages[0].write_text("no place\n")
    assert "add them" in run_script(*places, "--check").stderr


def test_the_pages_show_the_stored_results() -> None:
    assert run_script("--check").stderr == ""
