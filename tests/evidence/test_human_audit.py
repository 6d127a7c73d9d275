"""The commands of a human audit: draw, label, import; and what they refuse."""

import json

import pytest
from chromium import BINARY, CONTRAST, browser
from finished_run import write_recipe
from honest_dossier import ITEMS, SUITE, K, Maker, write

from pellucid.cli import run_command
from pellucid.errors import RunError
from pellucid.evidence.core.samples import redact_sample
from pellucid.evidence.core.verify import verify
from pellucid.evidence.human_audit.second import second_opinions
from pellucid.evidence.human_audit.sheet import read_sheet
from pellucid.evidence.seal import make_key
from pellucid.records import Verdict
from pellucid.rewards.math import Opinion
from pellucid.runlog import Progress

SILENT = Progress(is_silent=True)


def refuse_25(gold, answer):
    """A second grader, for the workers."""
    if answer == "27":
        raise ValueError("away")
    is_right = answer == gold and answer != "25"
    return Opinion(verdict=Verdict.CORRECT if is_right else Verdict.WRONG)


@pytest.fixture
def dossier(tmp_path):
    return write(Maker().files(), tmp_path / "dossier")


def rows_of(sheet):
    return [json.loads(line) for line in sheet.read_text().splitlines()]


def label(sheet, change=lambda rows: rows):
    """Everybody is right, as far as this person goes."""
    head, *rows = rows_of(sheet)
    rows = change([{**row, "label": "correct"} for row in rows])
    sheet.write_text("".join(json.dumps(line) + "\n" for line in (head, *rows)))


def test_the_commands_draw_take_labels_and_seal(dossier, tmp_path, capsys):
    make_key(tmp_path / "ada")
    draw = ["dossier", "audit", "draw", str(dossier), "--n", "12", "--no-second"]
    assert run_command(draw) == 0
    sheet = tmp_path / "dossier-audit.jsonl"
    assert len(rows_of(sheet)) == 13
    assert sheet.with_suffix(".html").is_file()
    label(sheet)
    take = ["dossier", "audit", "import", str(dossier), str(sheet), "--by", "Ada"]
    assert run_command([*take, "--key", str(tmp_path / "ada")]) == 0
    assert "12 labels, 0 unsure" in capsys.readouterr().out
    make_key(tmp_path / "author")
    assert run_command(["dossier", "seal", str(dossier), "--key", str(tmp_path / "author")]) == 0
    verdict = verify(dossier)
    codes = {f.code for f in verdict.findings}
    assert "audited" in codes
    assert not codes & {"audit-seed", "audit-unsigned", "audit-draw", "audit-mismatch"}


def test_the_second_grader_is_asked_once_about_every_pair(dossier):
    samples = [s for arm in Maker().samples.values() for s in arm]
    samples[0] = redact_sample(samples[0])
    pairs = {(s["gold"], s["extracted"]) for s in samples if s["extracted"] is not None}
    # "module:function", looked up by the worker where tests lie beside it
    found = second_opinions(samples, judge=f"{__name__}:refuse_25", progress=SILENT)
    assert found["pairs"] == len(pairs)
    assert len(found["differ"]) == 1  # 25 is the right answer to one problem alone
    withheld = samples[0]["redacted"]["fields"].get("extracted") is not None
    assert len(found["failed"]) == sum(pair[1] == "27" for pair in pairs) + withheld


def test_a_second_grader_that_cannot_run_is_named_with_the_remedy():
    samples = Maker().samples["after"]
    with pytest.raises(RunError, match="--no-second"):
        second_opinions(samples, judge="no_such_module:judge", progress=SILENT)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--n", "0"], "draw 1 to"),
        (["--suite", "other"], "no claim rests on a suite other"),
        (["--out", "{dossier}/sheet"], "another --out"),
    ],
)
def test_a_draw_that_makes_no_sense_is_refused(arguments, complaint, dossier, capsys):
    arguments = [text.format(dossier=dossier) for text in arguments]
    command = ["dossier", "audit", "draw", str(dossier), "--no-second", *arguments]
    assert run_command(command) == 2
    assert complaint in capsys.readouterr().err


def test_withheld_texts_cannot_be_labelled(tmp_path, capsys):
    maker = Maker()
    maker.recorded = {"after": "0" * 64}
    maker.samples["after"] = [redact_sample(s) for s in maker.samples["after"]]
    folder = write(maker.files(), tmp_path / "d")
    command = ["dossier", "audit", "draw", str(folder), "--no-second", "--n", str(3 * ITEMS * K)]
    assert run_command(command) == 2
    assert "is withheld: draw from the version" in capsys.readouterr().err
    assert not (folder / "audits").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows[1:], "1 of 12 samples have no label"),
        (lambda rows: [{**rows[0], "label": ""}, *rows[1:]], "1 of 12 samples have no label"),
        (lambda rows: [{**rows[0], "label": "right"}, *rows[1:]], "'right' is not correct, wrong"),
        (lambda rows: [*rows, {**rows[0], "leaf": "0" * 64}], "was not drawn"),
        (lambda rows: [*rows, rows[0]], "has a label already"),
        (lambda rows: [*rows, ["x"]], "is no JSON object"),
        (lambda rows: [*rows, {"label": "wrong"}], "lacks leaf or label"),
    ],
)
def test_a_sheet_that_does_not_fit_its_draw_is_refused(change, complaint, dossier, capsys):
    assert run_command(["dossier", "audit", "draw", str(dossier), "--n", "12", "--no-second"]) == 0
    sheet = dossier.with_name("dossier-audit.jsonl")
    label(sheet, change)
    capsys.readouterr()
    command = ["dossier", "audit", "import", str(dossier), str(sheet), "--by", "Ada"]
    assert run_command(command) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not list((dossier / "audits/graders").glob("labels-*"))


def test_labels_are_not_replaced_and_names_are_names(dossier, capsys):
    assert run_command(["dossier", "audit", "draw", str(dossier), "--n", "12", "--no-second"]) == 0
    sheet = dossier.with_name("dossier-audit.jsonl")
    label(sheet)
    take = ["dossier", "audit", "import", str(dossier), str(sheet), "--by"]
    assert run_command([*take, "../x"]) == 2
    assert run_command([*take, "Ada"]) == 0
    label(sheet, lambda rows: [{**rows[0], "label": "wrong"}, *rows[1:]])
    capsys.readouterr()
    assert run_command([*take, "Ada"]) == 2
    assert "is not replaced" in capsys.readouterr().err


def test_a_sheet_without_its_first_line_is_refused(tmp_path):
    sheet = tmp_path / "sheet.jsonl"
    sheet.write_text('{"leaf": "0", "label": "wrong"}\n')
    with pytest.raises(RunError, match="names no draw"):
        read_sheet(sheet)


def test_a_draw_of_a_suite_is_of_its_evaluations(dossier):
    command = ["dossier", "audit", "draw", str(dossier), "--no-second", "--suite", SUITE]
    assert run_command(command) == 0
    draw = json.loads((dossier / "audits/graders/draw.json").read_text())
    assert {folder.split("/")[1] for folder in draw["evaluations"]} == {SUITE}


@pytest.mark.skipif(BINARY is None, reason="no Chromium here: apt-get install chromium")
def test_the_form_saves_a_sheet_that_can_be_imported(dossier, tmp_path):
    assert run_command(["dossier", "audit", "draw", str(dossier), "--n", "12", "--no-second"]) == 0
    with browser(tmp_path / "profile") as chrome:
        chrome.open(dossier.with_name("dossier-audit.html").as_uri())
        assert chrome.run(CONTRAST)["bad"] == []
        chrome.run(
            "window.Blob = class { constructor(parts) { window.saved = parts.join('') } };"
            "URL.createObjectURL = () => '#'; HTMLAnchorElement.prototype.click = () => {};"
        )
        chrome.run("document.querySelectorAll('[value=correct]').forEach(e => e.click())")
        chrome.run("document.querySelector('[value=unsure]').click()")
        chrome.run("document.getElementById('save').click()")
        saved = chrome.run("window.saved")
        assert chrome.run("document.getElementById('count').textContent") == "12 of 12"
        assert chrome.messages == []
    filled = tmp_path / "labels.jsonl"
    filled.write_text(saved)
    command = ["dossier", "audit", "import", str(dossier), str(filled), "--by", "Ada", "--json"]
    assert run_command(command) == 0
    result = json.loads((dossier / "audits/graders/result.json").read_text())
    assert (result["labelled"], result["unsure"]) == (11, 1)


def test_a_recipe_promises_labels_with_its_plan(tmp_path):
    recipe = write_recipe(tmp_path, tmp_path / "key")
    make_key(tmp_path / "key")
    command = ["dossier", "plan", str(recipe), "--out", str(tmp_path / "run"), "--json"]
    assert run_command([*command, "--set", "evidence.audit=7"]) == 0
    events = [json.loads(line) for line in (tmp_path / "run/ledger.jsonl").read_text().splitlines()]
    (filed,) = [event for event in events if event["kind"] == "preregistered"]
    assert filed["payload"]["audit"] == 7
