"""The README's table is made from stored results, and is what they say."""

import json
import subprocess
import sys
from pathlib import Path

import benchmark_aims as aims
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


def test_of_a_peers_figures_the_fastest_counts_whenever_it_was_measured(rows) -> None:
    name = "rollout-7b-32x16-128+512"
    stored = record("rollout-7b-512x1-128+512", "vllm-best", tokens_per_s=900.0)
    same = record(name, "vllm-best", tokens_per_s=50.0)
    got = rows(
        document("2026-01-01", stored),
        document("2026-01-02", record(name, "pellucid"), same),
        document("2026-01-03", record(name, "vllm-best", tokens_per_s=800.0)),
    )
    assert got[0][1:4] == ["vLLM 900 tok/s", "**100 tok/s**", "0.1 ×"]


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


def test_a_rollout_beside_training_shows_what_that_brought_and_in_which_way(rows) -> None:
    def shown(is_same: bool) -> list[str]:
        details = {"gain": 1.234, "way": "high", "is_same": is_same}
        return rows(document("2026-01-01", record("overlap-0.5b", "pellucid", details=details)))[0]

    assert shown(True)[:4] == [
        "rollout 0.5B beside training, 4 × 16, 128 + 512", "–",
        "**100 tok/s** (1.23 × one after the other, high)", "–",
    ]  # fmt: skip
    assert shown(False)[2].endswith("high, other bits than alone)")


def test_training_shows_its_utilisation(rows) -> None:
    mine = record(
        "train-7b", "pellucid", share_of_floor=0.6, settings={"has_optimizer": False},
        details={"mfu": 0.57, "fed_tokens_per_s": 10_300.0},
    )  # fmt: skip
    got = rows(document("2026-01-01", mine))
    assert got[0][2:5] == ["**10,300 tok/s** (without optimiser)", "–", "57%"]


def test_compiled_blocks_stand_beside_those_fused_by_hand(rows) -> None:
    ways = {"fused": {"fed_tokens_per_s": 12_000.0}}
    mine = record(
        "compiled-0.5b", "pellucid",
        details={"mfu": 0.4, "fed_tokens_per_s": 10_800.0, "gain": 0.9, "ways": ways},
    )  # fmt: skip
    got = rows(document("2026-01-01", mine))
    assert got[0][0] == "training 0.5B, blocks by torch.compile, 16 × 16, 128 + 512"
    value = "**10,800 tok/s** (0.90 × the kernels fused by hand: 12,000)"
    assert got[0][2:5] == [value, "–", "40%"]


def test_every_listed_job_has_a_row_with_words_of_its_own(rows) -> None:
    failed = [{"job": name, "who": "pellucid", "status": "failed"} for name in table.JOBS]
    assert len({row[0] for row in rows(document("2026-01-01", *failed))}) == len(table.JOBS)


def test_a_rehearsal_is_never_shown(rows) -> None:
    mine = record("step-0.5b", "pellucid")
    assert rows(document("2026-01-01", mine, is_rehearsal=True)) == []


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    start, end = table.lines_of("b")
    text = f"before\n<!-- a -->\n<!-- /a -->\n{start}\nold\n{end}\nafter\n"
    new = f"before\n<!-- a -->\n<!-- /a -->\n{start}\nnew\n{end}\nafter\n"
    assert table.replace_between_markers(text, "new", "b") == new
    assert table.replace_between_markers(new, "new", "b") == new


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "benchmark_table.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_check_tells_a_stale_page_from_a_current_one(tmp_path) -> None:
    (tmp_path / "docs").mkdir()
    pages = [tmp_path / name for name in table.PAGES]
    for page, markers in zip(pages, table.PAGES.values(), strict=True):
        page.write_text("".join("\n".join(table.lines_of(m)) + "\n" for m in markers))
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


@pytest.fixture
def aim_rows(tmp_path):
    def render(*documents: dict) -> dict[str, list[str]]:
        for number, content in enumerate(documents):
            (tmp_path / f"gpu-{number}.json").write_text(json.dumps(content))
        lines = table.aims_table(table.load(tmp_path)).splitlines()[2:]
        cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
        return {row[0]: row[1:] for row in cells}

    return render


def test_every_aim_has_a_row_and_what_was_not_measured_says_so(aim_rows) -> None:
    rows = aim_rows(document("2026-01-01"))
    assert len(rows) == len(aims.AIMS)
    assert {tuple(row[1:]) for row in rows.values()} == {("not measured", "–", "**no**")}


def test_an_aim_is_met_missed_or_met_without_exactness(aim_rows) -> None:
    got = aim_rows(document(
        "2026-01-01",
        record("rollout-0.5b-64x16-128+512", "pellucid", tokens_per_s=264_000.0),
        record("rollout-0.5b-4x16-128+256", "pellucid", tokens_per_s=45_000.0),
        record("rollout-0.5b-4x16-128+256-near", "pellucid", tokens_per_s=52_000.0),
        record("rollout-7b-64x1-128+256", "pellucid", tokens_per_s=13_000.0),
        record("rollout-7b-64x1-128+256-near", "pellucid", tokens_per_s=13_600.0),
    ))  # fmt: skip
    assert got["rollout 0.5B, 64 × 16, 128 + 512"] == [
        "≥ 240,000 tok/s", "264,000 tok/s", "110%", "yes",
    ]  # fmt: skip
    assert got["rollout 0.5B, 4 × 16, 128 + 256"] == [
        "≥ 60,000 tok/s", "45,000 tok/s (`exact = false`: 52,000 tok/s)", "75%", "**no**",
    ]  # fmt: skip
    assert got["rollout 7B, 64 × 1, 128 + 256"][3] == "with `exact = false`"


def test_aims_of_ratios_memory_and_gaps(aim_rows) -> None:
    got = aim_rows(document(
        "2026-01-01",
        record("mixed-0.5b", "pellucid", tokens_per_s=90.0),
        record("mixed-0.5b", "vllm-best", tokens_per_s=30.0),
        record("step-0.5b", "pellucid", median_s=7.5, peak_reserved_bytes=56 * 2**30),
        record("step-1.5b", "pellucid", median_s=15.0),
        record("step-1.5b", "trl", median_s=64.0),
        record("train-7b", "pellucid", settings={"has_optimizer": False}, details={"mfu": 0.66}),
        record("gap-0.5b", "pellucid", details={
            "normal": {"mean_gap": 0.0062}, "exact": {"mean_gap": 0.0},
            "exact_time_ratio": {"seconds": 1.1},
        }),
    ))  # fmt: skip
    reached = {name: row[1:] for name, row in got.items() if row[1] != "not measured"}
    step = "whole GRPO step 0.5B, 64 × 16, 128 + 512"
    gap = "mean log-prob gap rollout / trainer 0.5B"
    assert reached == {
        "rollout 0.5B, 64 × 16, mixed lengths up to 2,048": ["3.0 × vLLM", "60%", "**no**"],
        step: ["7.5 s", "93%", "**no**"],
        f"{step}: memory": ["56 GiB", "107%", "yes"],
        "whole GRPO step 1.5B, 64 × 16, 128 + 512": ["0.234 of TRL + vLLM", "107%", "yes"],
        "training 7B, packed, 4 × 16, 128 + 512": ["66.0 % MFU", "120%", "without optimiser"],
        f"{gap}: `exact = false`": ["0.0062", "32%", "**no**"],
        f"{gap}: exact": ["0", "–", "yes"],
        f"{gap}: what `exact` costs": ["1.10 × the time", "227%", "yes"],
    }


def test_planned_memory_stands_beside_what_was_measured(tmp_path) -> None:
    step = record(
        "planned-0.5b", "pellucid", peak_allocated_bytes=1, used_memory_bytes=40 * 2**30,
        details={"planned": {"peak": 42 * 2**30, "step_s": 6.61}},
    )  # fmt: skip
    (tmp_path / "gpu-1.json").write_text(json.dumps(document("2026-01-01", step)))
    measured = table.load(tmp_path)
    assert table.plan_table(measured).splitlines()[2:] == [
        "| the same as `pellucid run` has it 0.5B, 64 × 16, 128 + 512 "
        "| 42.0 GiB | 40.0 GiB | +5.0% |"
    ]
    assert table.plan_table([]) == "Not measured yet."
    [cells] = [line.split(" | ") for line in table.table(measured).splitlines() if "42" in line]
    assert cells[2:6] == ["**5.0 s** (planned: 42 GiB, 6.6 s)", "–", "–", "40 GiB"]


def test_the_legend_says_how_often_peers_were_measured(tmp_path) -> None:
    name = "rollout-0.5b-64x16-128+512"
    stored = document("2026-01-01", record(name, "vllm-rl", repeats=[]), source="by hand")
    mine, best = record(name, "pellucid"), record(name, "vllm-best", repeats=[{}] * 2)
    for number, content in enumerate((stored, document("2026-01-02", mine, best))):
        (tmp_path / f"gpu-{number}.json").write_text(json.dumps(content))
    legend = table.table(table.load(tmp_path)).splitlines()[-1]
    assert "median of 5 repeats" in legend
    assert "median of 2 repeats; of 2026-01-01 single repeats were not kept" in legend


def test_clocks_are_shown_where_they_were_sampled(tmp_path) -> None:
    sampled = {"sm_mhz": 1440.0, "watts": 698.0, "power_limited": 1.0}
    warm = record("step-0.5b", "pellucid", repeats=[{}, sampled, sampled | {"power_limited": 0.5}])
    cold = record("train-0.5b", "pellucid")
    (tmp_path / "gpu-0.json").write_text(json.dumps(document("2026-01-01", warm, cold)))
    assert table.power_table(table.load(tmp_path)).splitlines()[2:] == [
        "| whole GRPO step 0.5B, 64 × 16, 128 + 512 | 1,440 MHz | 698 W | 75% of the time |"
    ]
