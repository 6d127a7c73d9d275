"""The page of a dossier: numbers tied to claims, foreign text harmless, right in a real browser."""

import base64
import json
import re

import pytest
from chromium import BINARY, CONTRAST, browser
from markupsafe import Markup
from small_dossier import HOSTILE, build_dossier, edit_claims, seal, write_json

from pellucid.cli import run_command
from pellucid.errors import RunError
from pellucid.evidence.review.rounds import answer_point, close_point, import_points, start_round
from pellucid.report.dossier.cells import (
    BareNumberError,
    Cells,
    decimal_text,
    refuse_bare,
    side,
)
from pellucid.report.dossier.page import marks, write_dossier_page

LONG = "a_stage_whose_name_has_no_place_to_break_" * 3


def bill(value):
    """A bill of so many kWh."""
    parts = {"value": 1.0, "low": 0.9, "high": 1.25}
    scales = {"joules": 3.6e6, "kwh": 1.0, "g_co2e": 500.0}
    return {
        name: {p: value * x * scale for p, x in parts.items()} for name, scale in scales.items()
    }


def energy(**changes):
    """A report of energy, with keys too long for a phone."""
    return {
        "total": bill(0.06) | {"elapsed_s": 485.6},
        "by_source": {name: bill(0.03)["joules"] for name in ("nvml_counter", LONG)},
        "by_kind": {LONG: bill(0.06) | {"windows": 3}},
        "by_stage": {LONG: bill(0.04)},
        "unfinished": bill(0.0) | {"windows": 0},
        "per_answer": {
            f"after/{LONG}": bill(4.1125e-7) | {"answers": 9},
            "before/toy": bill(1.22e-6) | {"answers": 9},
        },
        "per_point": {"toy": bill(0.00295), "lost": None},
        "answer_tokens": 400,
        "factor": {"grams_per_kwh": 481, "region": "world", "year": 2023, "source": LONG},
        "pue": [1.1, 1.6],
        "limits": [f"see {LONG}"],
        "notes": [HOSTILE],
        "v": 1,
    } | changes


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A dossier with everything on its page, a claim that turns on fresh items, and a review."""
    folder = build_dossier(tmp_path_factory.mktemp("page") / "d", title=f"A toy {HOSTILE}")
    lines = [
        {"step": step, "name": "rollout", "values": {"reward_mean": step / 9, "accuracy": 0.1}}
        for step in range(1, 9)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "train").mkdir()
    (folder / "train/metrics.jsonl").write_text(text)
    write_json(folder / "energy/report.json", energy())
    seal(folder)
    start_round(folder)
    letter = folder.parent / "letter.md"
    letter.write_text(f"## R1.1 · major · question · C2\nWhy {HOSTILE}?\n## R1.2\n42\n")
    (taken,) = import_points(folder, letter, referee="R1")
    answer_point(folder, "R1.1", f"So: {HOSTILE}")
    close_point(folder, "R1.1", token=taken.token)

    def turn(document):
        claim = document["claims"][1]
        claim["views"]["fresh"] |= {"value": "-0.1250", "low": "-0.3000", "high": "0.0500"}
        shares = {**document["claims"][0], "id": "C3", "kind": "rate", "is_capability": False}
        shares["metric"] = {"fn": "rate", "of": "truncated", "among": "samples"}
        document["claims"].append(shares)

    edit_claims(folder, turn)
    return folder


@pytest.fixture(scope="module")
def page(full):
    return write_dossier_page(full, with_verdict=True)


def test_the_page_is_one_small_file_that_loads_nothing(page):
    text = page.read_text()
    assert len(text.encode()) < 5_000_000
    assert "<script" not in text
    assert "@import" not in text
    assert not re.search(
        r"""\b(?:src|srcset|data|action)\s*=""", re.sub(r"<pre.*?</pre>", "", text)
    )
    assert set(re.findall(r'href="([^#"][^"]*)"', text)) <= {"http://www.w3.org/1999/xlink"}


def test_every_number_of_a_claim_links_to_it(page):
    text = page.read_text()
    assert (
        '<a class="n" href="#claim-C2" aria-label="+50.00 points, claim C2">+50.00 points</a>'
        in text
    )
    for target in set(re.findall(r'href="#([^"]+)"', text)):
        assert f'id="{target}"' in text
    body = re.sub(r"<(svg|pre|code|style|head|blockquote).*?</\1>", "", text, flags=re.S)
    body = re.sub(r'<a class="n".*?</a>', "", body, flags=re.S)
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", body, flags=re.S)
    loose = [re.sub(r"<[^>]+>", " ", cell).strip() for cell in cells]
    assert [c for c in loose if re.fullmatch(r"[+−]?\d[\d.,]*\D{0,8}", c)] == []


def test_a_claim_that_turns_is_red_and_said_in_words(page):
    text = page.read_text()
    assert "A claim changes its sign." in text
    assert text.count("sign changes") == 1
    views = text[text.index('id="views"') :]
    cell = re.search(r'<td class="turned">.*?</td>', views, flags=re.S)[0]
    assert "−12.50 points" in cell
    assert "−30.00 to +5.00" in cell
    assert 'circle class="turned"' in text


def test_without_a_turn_there_is_no_alarm(tmp_path):
    text = write_dossier_page(build_dossier(tmp_path / "d")).read_text()
    assert "sign changes" not in text
    assert "changes its sign" not in text
    assert "Energy was not measured." in text
    assert "Nobody has reviewed this dossier yet." in text


def test_all_parts_are_there(page):
    text = page.read_text()
    for expected in ("Learning curves", "planted: half copy", "97.0", "nvml_counter", "1.1 to 1.6"):
        assert expected in text
    assert "closed by R1&#39;s own word" in text
    assert ">R1.1 · major · question · C2 · closed<" in text.replace("\n", "")
    assert "wrong before, correct after: toy/test/" in text
    assert re.search(r'id="length".*C3 C1 on toy', text, flags=re.S)


def test_energy_is_a_short_table_whose_numbers_lead_to_their_file(page):
    text = page.read_text()
    section = text[text.index('<section id="cost"') : text.index('<section id="samples"')]
    linked = re.findall(
        r'<a class="n" href="(#file-\d+)" title="energy/report.json">(.*?)</a>', section
    )
    assert len({target for target, _ in linked}) == 1
    shown = [value.replace("\u202f", " ") for _, value in linked]
    assert shown[:4] == ["0.0600 kWh", "0.0540 to 0.0750", "30.0 g", "27.0 to 37.5"]
    assert {"400", "0.00295 kWh", "0.411 mWh", "0.370 to 0.514", "1.22 mWh", "0.206 mg"} <= set(
        shown
    )
    assert {"50.0 %, 108,000 J", "481 g CO2e per kWh, world, 2023", "1.1 to 1.6"} <= set(shown)
    assert "counter of the GPU (nvml_counter)" in section
    assert "nothing gained" in section
    assert "failed or interrupted" not in section
    assert section.count("<tr>") < 20


@pytest.mark.parametrize(
    ("report", "complaint"),
    [
        ([], "is not in its form (it lacks limits)"),
        (energy(total={"kwh": 3}), "is not in its form (kwh is 3 and should be an object)"),
        (energy(by_kind={"a": bill(1e300)}), "holds a number out of range"),
        (energy(pue=["1"]), "is not in its form (pue[0] is '1' and should be float)"),
    ],
)
def test_a_damaged_report_of_energy_is_one_line(tmp_path, report, complaint):
    dossier = build_dossier(tmp_path / "d")
    write_json(dossier / "energy/report.json", report)
    seal(dossier)
    with pytest.raises(RunError, match=re.escape(f"energy/report.json {complaint}")):
        write_dossier_page(dossier)


def test_foreign_text_is_harmless(page):
    text = page.read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert "\u202e" not in text
    assert "\\u202e" in text


@pytest.mark.parametrize(
    "bare", [3, 0.5, "12.3", "+8.40 points", "71.3\u202f%", "1,319", "p < 0.01"]
)
def test_a_bare_number_is_refused(bare):
    with pytest.raises(BareNumberError, match="has no claim"):
        refuse_bare(bare)


def test_text_and_cells_are_not_numbers():
    for value in ("v2", "C3 of toy", "2026-11-22T09:00:00Z", Markup("<a>3</a>"), None, "toy/1"):
        assert refuse_bare(value) is value


def test_a_number_needs_a_claim_or_a_file_that_is_there(full):
    claims = {c["id"]: c for c in json.loads((full / "claims.json").read_text())["claims"]}
    cells = Cells(claims, {"energy/report.json": "file-3"})
    with pytest.raises(BareNumberError, match="'C9' is no claim"):
        cells.number("C9")
    with pytest.raises(BareNumberError, match=r"0\.5 is no claim"):
        cells.number(0.5)
    with pytest.raises(BareNumberError, match="which the manifest does not list"):
        cells.fact("energy/other.json", "7 J")
    assert 'href="#file-3"' in cells.fact("energy/report.json", "7 J")


def test_printed_digits_are_kept_exactly():
    assert decimal_text("0.0840", 2) == "8.40"
    assert decimal_text("-0.5", 2, is_signed=True) == "−50"
    assert decimal_text("0.0000", 2, is_signed=True) == "0.00"
    assert decimal_text("1.10", 0) == "1.10"


def test_sides_of_no_difference():
    def claim(kind, *arms, **metric):
        return {"kind": kind, "arms": dict.fromkeys(arms), "metric": metric}

    assert side(claim("paired_difference", "a", "b"), {"value": "-0.1"}) == -1
    assert side(claim("ratio", "a", "b"), {"value": "0.9"}) == -1
    assert side(claim("ratio", "a"), {"value": "0.9"}) == 0
    assert side(claim("non_inferiority", "a", "b", margin=0.02), {"value": "-0.01"}) == 1
    assert side(claim("pass_at_1", "a"), {"value": "0.9"}) == 0
    assert side(claim("paired_difference", "a", "b"), None) == 0


def test_marks_lie_on_one_axis(full):
    claim = json.loads((full / "claims.json").read_text())["claims"][1]
    drawn = {mark.name: mark for mark in marks(claim)}
    assert min(m.low for m in drawn.values()) == 0.0
    assert max(m.high for m in drawn.values()) == pytest.approx(100.0)
    assert [name for name, m in drawn.items() if m.is_reversed] == ["fresh"]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda d: (d / "claims.json").write_text("{"), "claims.json is damaged"),
        (lambda d: (d / "claims.json").write_text("{}"), "claims.json is not in its form"),
        (lambda d: (d / "SEAL.dsse.json").write_text("{}"), "SEAL.dsse.json is no seal"),
        (lambda d: (d / "MANIFEST.jsonl").write_text("7\n"), "MANIFEST.jsonl line 1 lists no file"),
        (
            lambda d: (d / "evals/toy/after/samples.jsonl.gz").write_bytes(b"x"),
            "evals/toy/after/samples.jsonl.gz cannot be read",
        ),
        (
            lambda d: edit_claims(d, lambda c: c["claims"][1]["arms"].update(b="../../x")),
            "claims.json names '../../x' as an evaluation",
        ),
    ],
)
def test_damage_is_one_line(tmp_path, spoil, complaint):
    dossier = build_dossier(tmp_path / "d")
    spoil(dossier)
    with pytest.raises(RunError, match=re.escape(complaint)) as caught:
        write_dossier_page(dossier)
    assert "\n" not in str(caught.value)


def test_the_page_can_show_what_the_verifier_found(tmp_path):
    dossier = build_dossier(tmp_path / "d")
    assert "verifier's table" not in write_dossier_page(dossier).read_text()
    edit_claims(dossier, lambda d: d["claims"][0]["reported"].update(value="0.9999"))
    text = write_dossier_page(dossier, with_verdict=True).read_text()
    row = re.search(r'id="verdict".*?<tr><td>C1</td>(.*?)</tr>', text, flags=re.S)[1]
    assert '<td class="turned">FAILS</td>' in row
    assert '<td class="none">not done</td>' in row
    assert "<code>claim-mismatch</code> C1" in text


def test_report_tells_a_dossier_from_a_run(tmp_path, capsys):
    dossier = build_dossier(tmp_path / "d")
    assert run_command(["report", str(dossier), "--out", str(tmp_path / "p.html")]) == 0
    assert "A toy" in (tmp_path / "p.html").read_text()
    assert run_command(["report", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err


# In a real browser

needs_chromium = pytest.mark.skipif(
    BINARY is None, reason="no Chromium here: apt-get install chromium"
)


@needs_chromium
def test_a_browser_finds_nothing_wrong(page, tmp_path):
    with browser(tmp_path / "profile") as chrome:
        chrome.call(
            "Emulation.setDeviceMetricsOverride",
            width=360,
            height=740,
            deviceScaleFactor=2,
            mobile=True,
        )
        chrome.open(page.as_uri())
        chrome.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert chrome.run("document.documentElement.scrollWidth") <= 360
        cost = "document.querySelector('#cost .scroll')"
        assert chrome.run(f"{cost}.scrollWidth - {cost}.clientWidth") == 0
        found = chrome.run(CONTRAST)
        assert found["seen"] > 100
        assert found["bad"] == []
        small = "[...document.querySelectorAll('summary')].filter(e => e.offsetHeight < 24).length"
        assert chrome.run(small) == 0
        pdf = base64.b64decode(chrome.call("Page.printToPDF")["data"])
        assert pdf.startswith(b"%PDF")
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 2
        assert chrome.messages == []


@needs_chromium
def test_the_keyboard_reaches_everything(page, tmp_path):
    with browser(tmp_path / "profile") as chrome:
        chrome.open(page.as_uri())
        focusable = chrome.run(
            "document.querySelectorAll('a[href], summary, [tabindex]').length"
            " - document.querySelectorAll('details:not([open]) :is(a[href], [tabindex])').length"
        )
        reached, outlined = 0, 0
        chrome.run("window.seen = new Set()")
        for _ in range(focusable):
            chrome.press("Tab", 9)
            reached = chrome.run("seen.add(document.activeElement).size")
            outlined += chrome.run(
                "getComputedStyle(document.activeElement).outlineStyle != 'none'"
            )
            if chrome.run("seen.size == 1 && document.activeElement.className") == "skip":
                assert chrome.run("document.activeElement.getBoundingClientRect().left >= 0")
        assert reached == focusable > 30
        assert outlined == focusable
        chrome.run("document.querySelector('summary').focus()")
        chrome.press("Enter", 13)
        assert chrome.run("document.querySelector('details').open") is True
        assert chrome.messages == []


@needs_chromium
def test_the_browser_check_can_fail(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<p style='color:#999'>pale</p><div style='width:900px'>wide</div>"
        "<script>console.error('no')</script><img src='http://127.0.0.1:9/x'>"
    )
    with browser(tmp_path / "profile") as chrome:
        chrome.call(
            "Emulation.setDeviceMetricsOverride",
            width=360,
            height=740,
            deviceScaleFactor=1,
            mobile=False,
        )
        chrome.open(bad.as_uri())
        assert chrome.run("document.documentElement.scrollWidth") > 360
        assert [text for text, _ in chrome.run(CONTRAST)["bad"]] == ["pale"]
        assert "['no']" in chrome.messages
        assert any("127.0.0.1:9" in message for message in chrome.messages)
