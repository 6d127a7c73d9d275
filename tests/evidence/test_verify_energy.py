"""A bill of energy that cannot be, or does not add up, is named; the meter's own is not."""

import json

import pytest
from honest_dossier import SUITE, Maker, write

from pellucid.energy import estimate
from pellucid.energy.account import account, read_windows
from pellucid.energy.factors import find_factor
from pellucid.evidence.core.check_energy import BOARD_W
from pellucid.evidence.core.verify import verify

WINDOWS, FACTORS, REPORT = (f"energy/{n}" for n in ("windows.jsonl", "factors.json", "report.json"))


def line(number, kind, name, *, seconds=40_000.0, watts=500.0, state="ended", tokens=0):
    joules = round(watts * seconds, 3)
    core_s = seconds / 2
    parts = [
        {"component": "gpu0", "source": "nvml_counter", "joules": joules,
         "low": joules * 0.95, "high": joules * 1.05},
        {"component": "cpu", "source": "estimate", "joules": 8 * core_s, "low": 3 * core_s,
         "high": 15 * core_s},
    ]  # fmt: skip
    return {
        "v": 1, "id": f"{number:04d}", "kind": kind, "name": name, "state": state,
        "started": "2026-11-22T00:00:00Z", "elapsed_s": seconds, "core_s": core_s,
        "tokens": tokens, "answers": tokens // 100, "joules": joules + 8 * core_s,
        "parts": parts, "notes": [],
    }  # fmt: skip


def rows():
    return [
        line(1, "other", "other", watts=80.0),
        line(2, "evaluation", f"before/{SUITE}", tokens=10_000),
        line(3, "stage", "zero", seconds=10.0, state="running"),
        line(3, "stage", "zero", state="running"),
        line(4, "stage", "zero"),
        line(5, "evaluation", f"after/{SUITE}", tokens=10_000),
    ]


@pytest.fixture(scope="module")
def gain():
    claims = json.loads(Maker().files()["claims.json"])["claims"]
    return 100 * float(next(c for c in claims if c["id"] == "C1")["reported"]["value"])


def lines(windows):
    return "".join(json.dumps(row) + "\n" for row in windows) + '{"torn'


def examined(tmp_path, gain, *, windows=None, change=None, **factors):
    """What is found in the honest dossier with the bill of `rows`: (code, text)."""
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "windows.jsonl"
    path.write_text(lines(rows()))
    report = account(read_windows(path), find_factor("FR"), points={SUITE: gain})
    made = {"factor": report["factor"], "pue": report["pue"]} | factors
    if change:
        change(report)
    maker = Maker()
    maker.extra = {
        WINDOWS: lines(windows or rows()).encode(),
        FACTORS: json.dumps(made).encode(),
        REPORT: json.dumps(report).encode(),
        "env/environment.json": json.dumps({"zero": {"device": "NVIDIA H200"}}).encode(),
    }
    verdict = verify(write(maker.files(), tmp_path / "d"))
    return [(f.code, f.text) for f in verdict.findings if not f.kind.is_note]


def test_the_meters_own_bill_is_computed_alike(tmp_path, gain):
    assert examined(tmp_path, gain) == []


def test_the_bounds_are_those_that_estimates_use():
    assert BOARD_W == estimate.BOARD_W


def with_part(**changes):
    made = rows()
    made[-1]["parts"][0] |= changes
    made[-1]["joules"] = sum(part["joules"] for part in made[-1]["parts"])
    return made


def with_window(**changes):
    made = rows()
    made[-1] |= changes
    return made


@pytest.mark.parametrize(
    ("windows", "text"),
    [
        (with_part(joules=-5.0, low=-6.0), "not within"),
        (with_part(low=3e7), "not within"),
        (with_part(joules=40_000 * 900.0, high=4e7), "are the most"),
        (with_part(source="guess"), "which is none"),
        (with_part(source=""), "which is none"),
        (with_window(joules=3e7), "have a source"),
        (with_window(joules=0.0, parts=[]), "nothing was used"),
        (with_window(elapsed_s=-1.0), "less than no time"),
        (with_window(state="paused"), "its state"),
        ([line(n, "stage", "zero", seconds=5.0) for n in range(3)], "15 s are metered"),
    ],
)
def test_joules_that_cannot_be_are_named(tmp_path, gain, windows, text):
    found = examined(tmp_path, gain, windows=windows)
    assert any(code == "energy-implausible" and text in said for code, said in found)


def test_numbers_out_of_range_and_no_windows_are_damage(tmp_path, gain):
    for number, forged in enumerate(([with_window(elapsed_s=10**300)[-1]], [{"id": "1"}])):
        found = examined(tmp_path / str(number), gain, windows=forged)
        assert "file-malformed" in {code for code, _ in found}
        assert "verifier-stopped" not in {code for code, _ in found}


def halve(report):
    report["total"]["kwh"]["value"] /= 2


def forget_failures(report):
    report["unfinished"]["windows"] = 0


def add_a_source(report):
    report["by_source"]["solar"] = {"value": 0.0, "low": 0.0, "high": 0.0}


def drop_a_window(report):
    del report["windows"][0]


def cheapen_points(report):
    report["per_point"][SUITE]["g_co2e"]["value"] *= 0.5


def hide_points(report):
    report["per_point"][SUITE] = None


def cheapen_answers(report):
    report["per_answer"][f"after/{SUITE}"]["joules"]["value"] *= 0.9


def leave_out_the_total(report):
    del report["total"]


def take_another_factor(report):
    report["factor"]["grams_per_kwh"] = 1


def put_no_number(report):
    report["total"]["joules"]["value"] = 10**300


@pytest.mark.parametrize(
    "change",
    [halve, forget_failures, add_a_source, drop_a_window, cheapen_points, hide_points,
     cheapen_answers, leave_out_the_total, take_another_factor, put_no_number],
)  # fmt: skip
def test_a_report_that_does_not_follow_from_its_windows_is_named(tmp_path, gain, change):
    assert {code for code, _ in examined(tmp_path, gain, change=change)} == {"energy-mismatch"}


def test_windows_that_were_taken_away_are_missed_in_the_report(tmp_path, gain):
    found = examined(tmp_path, gain, windows=rows()[1:])
    assert {code for code, _ in found} == {"energy-mismatch"}


def test_impossible_factors_are_named(tmp_path, gain):
    for number, forged in enumerate(
        ({"pue": [0.5, 1.6]}, {"pue": [1.6, 1.1]}, {"pue": [1.0]}, {"factor": {}},
         {"factor": {"grams_per_kwh": -3}})
    ):  # fmt: skip
        found = examined(tmp_path / str(number), gain, **forged)
        assert {code for code, _ in found} == {"energy-implausible"}
