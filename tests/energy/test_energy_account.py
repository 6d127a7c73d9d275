"""The bill: sums with bounds, PUE, dated factors, units that readers know."""

import json

import pytest

from pellucid.energy.account import account, lines, read_windows, write_account
from pellucid.energy.factors import TABLE, find_factor, own_factor
from pellucid.errors import ConfigError, RunError


def _line(number, kind, name, state, joules, *, source="nvml_counter", tokens=0, **more):
    part = {"component": "gpu0", "source": source, "joules": joules}
    part |= {"low": joules * 0.9, "high": joules * 1.2}
    return {
        "v": 1, "id": f"{number:04d}", "kind": kind, "name": name, "state": state,
        "started": "2026-11-22T00:00:00Z", "elapsed_s": 10.0, "core_s": 1.0, "tokens": tokens,
        "answers": tokens // 100, "joules": joules, "parts": [part], "notes": [],
    } | more  # fmt: skip


@pytest.fixture
def windows(tmp_path):
    path = tmp_path / "windows.jsonl"
    rows = [
        _line(1, "stage", "zero", "running", 1e6),
        _line(1, "stage", "zero", "running", 3.6e6),
        _line(2, "evaluation", "after/chain", "ended", 7.2e5, tokens=40_000),
        _line(3, "stage", "zero", "ended", 7.2e6, source="estimate", notes=["gpu0: reset"]),
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"torn')
    return read_windows(path)


def test_the_last_line_of_a_window_counts_and_interrupted_ones_are_counted(windows):
    report = account(windows, find_factor("FR"), pue=(1.0, 1.0))
    assert report["total"]["joules"]["value"] == pytest.approx(3.6e6 + 7.2e5 + 7.2e6)
    assert report["total"]["kwh"]["value"] == pytest.approx(3.2)
    assert report["total"]["g_co2e"]["value"] == pytest.approx(3.2 * 56)
    assert report["unfinished"]["windows"] == 1
    assert report["unfinished"]["kwh"]["value"] == pytest.approx(1.0)
    assert report["by_source"]["estimate"]["value"] == 7.2e6
    assert report["by_kind"]["stage"]["windows"] == 2
    assert report["notes"] == ["0003 zero: gpu0: reset"]


def test_bounds_of_joules_and_pue_multiply(windows):
    total = account(windows, find_factor("world"), pue=(1.1, 1.6))["total"]
    assert total["g_co2e"]["low"] == pytest.approx(3.2 * 0.9 * 1.1 * 481)
    assert total["g_co2e"]["high"] == pytest.approx(3.2 * 1.2 * 1.6 * 481)
    assert total["g_co2e"]["value"] == pytest.approx(3.2 * 1.35 * 481)


def test_a_point_costs_the_whole_run_and_an_answer_its_tokens(windows):
    points = {"chain": 16.0, "gsm8k": -1.0}
    report = account(windows, find_factor("DE"), pue=(1.0, 1.0), points=points)
    assert report["per_point"]["chain"]["kwh"]["value"] == pytest.approx(0.2)
    assert report["per_point"]["gsm8k"] is None
    assert report["per_answer"]["after/chain"]["joules"]["value"] == pytest.approx(7200)
    text = "\n".join(lines(report))
    assert "per point gained on chain: 76.2 g CO2e" in text
    assert "per point gained on gsm8k: nothing gained" in text
    assert "381 g/kWh, DE (2023)" in text
    assert "1 failed or interrupted: 1 kWh" in text


def test_the_report_is_written_beside_the_windows(windows, tmp_path):
    write_account(tmp_path, account(windows, find_factor("no")))
    factors = json.loads((tmp_path / "factors.json").read_text())
    assert factors["factor"]["grams_per_kwh"] == 30
    assert factors["factor"]["year"] == 2023
    assert "retrieved" in factors["factor"]["source"]
    assert json.loads((tmp_path / "report.json").read_text())["v"] == 1


def test_every_factor_is_dated_and_plausible():
    table = json.loads(TABLE.read_text())
    assert table["year"] >= 2023
    assert table["url"].startswith("https://")
    assert all(0 < grams < 1000 for grams in table["regions"].values())


def test_a_users_own_factor_needs_a_source():
    assert own_factor(12, source="supplier's certificate 2026").grams_per_kwh == 12
    with pytest.raises(ConfigError, match="say where it is from"):
        own_factor(12, source=" ")
    for impossible in (-1, 5000, float("nan")):
        with pytest.raises(ConfigError, match="no factor"):
            own_factor(impossible, source="x")


def test_user_mistakes_are_named(windows, tmp_path):
    with pytest.raises(ConfigError, match="no factor for region 'Atlantis'"):
        find_factor("Atlantis")
    with pytest.raises(ConfigError, match="impossible"):
        account(windows, find_factor("FR"), pue=(0.9, 1.2))
    with pytest.raises(RunError, match="was not metered"):
        read_windows(tmp_path / "none.jsonl")
