"""Judges of a suite: their missing verdicts, flips and people's labels; frauds have their names."""

import gzip
import json
import sys

import pytest
from checked_dossier import (
    ASKED,
    GENEROUS,
    SILENT,
    SWAYED,
    checked_files,
    files_of,
    judge,
    people,
)
from honest_dossier import ITEMS, SUITE, K, Maker, merkle_root, seal
from honest_dossier import write as write_files

from pellucid.cli import run_command
from pellucid.endpoint import Answer
from pellucid.errors import ConfigError, RunError
from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.judged import PROBES
from pellucid.evidence.core.samples import redact_sample, sample_line
from pellucid.evidence.core.verify import verify
from pellucid.evidence.judges.ask import ModelJudge, Question, messages, open_judge
from pellucid.evidence.judges.record import judge_suite
from pellucid.report.dossier.page import write_dossier_page

JUDGED = f"judges/{SUITE}"
AFTER = f"evals/{SUITE}/after"


def failing(verdict):
    return {f.code for f in verdict.findings if not f.kind.is_note}


def notes(verdict):
    return {f.code for f in verdict.findings if f.kind.is_note}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Files of a sealed dossier with two judges and people's labels, and the result."""
    folder = tmp_path_factory.mktemp("judged") / "dossier"
    write_files(Maker().files(), folder)
    judge(folder, GENEROUS, SWAYED)
    result = people(folder)
    return seal(files_of(folder)), result


def test_nothing_is_said_against_honest_judges_and_their_numbers_are_told(judged, tmp_path):
    verdict = verify(write_files(judged[0], tmp_path))
    assert failing(verdict) == set()
    told = [f.text for f in verdict.findings if f.code == "judged"]
    assert any("12 of 288 verdicts missing" in text for text in told)
    assert any("100% flip under the probe flattery" in text for text in told)
    assert not notes(verdict) & {"judge-alone", "judge-unchecked"}


def test_a_missing_verdict_is_no_no(judged):
    """Four samples an arm have none: they are told with the bounds that they leave."""
    arm = judged[1]["judges"]["generous"]["evaluations"][AFTER]
    right = [s["verdict"] == "correct" or s["gold"] in ("13", "21", "33")
             for s in Maker().samples["after"] if s["gold"] != "17"]  # fmt: skip
    assert (arm["samples"], arm["missing"]) == (ITEMS * K, K)
    assert float(arm["accepted"]["value"]) == pytest.approx(sum(right) / len(right), abs=1e-4)
    assert float(arm["worst"]) == pytest.approx(sum(right) / (ITEMS * K), abs=1e-4)
    assert float(arm["best"]) == pytest.approx((sum(right) + K) / (ITEMS * K), abs=1e-4)


def test_labels_take_out_what_a_judge_gives_away(judged):
    truth = sum(s["verdict"] == "correct" for s in Maker().samples["after"]) / (ITEMS * K)
    arm = judged[1]["judges"]["generous"]["evaluations"][AFTER]
    assert float(arm["accepted"]["value"]) > truth + 0.03
    assert float(arm["corrected"]["value"]) == pytest.approx(truth, abs=0.02)
    assert float(arm["corrected"]["low"]) < truth < float(arm["corrected"]["high"])


def test_flips_are_counted_by_probe(judged):
    generous, swayed = (judged[1]["judges"][name]["flips"] for name in ("generous", "swayed"))
    assert list(generous) == list(PROBES)
    assert {f["to_yes"] + f["to_no"] for f in generous.values()} == {0}
    assert (swayed["flattery"]["asked"], swayed["flattery"]["share"]["value"]) == (20, "1.0000")
    assert swayed["again"]["share"]["value"] == "0.0000"


def test_judges_are_compared_where_both_spoke(judged):
    both = judged[1]["between"]["generous, swayed"]
    assert both["samples"] == 3 * (ITEMS - 1) * K
    assert 0.5 < float(both["kappa"]["value"]) < 1.0
    assert 0.5 < float(judged[1]["judges"]["generous"]["kappa"]["value"]) < 1.0
    assert judged[1]["judges"]["swayed"]["kappa"]["value"] == "1.0000"


def test_one_judge_whom_nobody_checked_is_noted(tmp_path):
    folder = write_files(Maker().files(), tmp_path / "d")
    judge(folder, SWAYED, probed=0)
    verdict = verify(write_files(seal(files_of(folder)), tmp_path / "sealed"))
    assert failing(verdict) == set()
    assert notes(verdict) >= {"judge-alone", "judge-unchecked"}


def test_judgments_go_on_counting_after_texts_were_withheld(tmp_path):
    maker = Maker()
    kept = checked_files(maker, tmp_path / "d")
    maker.recorded = {arm: merkle_root(map(sample_line, s)) for arm, s in maker.samples.items()}
    maker.samples = {arm: [redact_sample(s) for s in own] for arm, own in maker.samples.items()}
    maker.extra = kept
    verdict = verify(write_files(maker.files(), tmp_path / "withheld"))
    assert not [c for c in failing(verdict) if c.startswith(("audit", "judg"))]
    assert notes(verdict) >= {"judged", "audited"}


def test_the_page_of_the_dossier_tells_the_judges_apart(judged, tmp_path):
    files, result = judged
    text = write_dossier_page(write_files(files, tmp_path / "d")).read_text()
    arm = result["judges"]["generous"]["evaluations"][AFTER]
    assert f"{arm['worst']} to {arm['best']}</a>" in text
    assert f">{arm['corrected']['value']} [" in text
    assert text.count("<td>swayed</td>") == 3


# Frauds


def edit_judgments(files, change, *, restated=True):
    """Change the lines of a judge's judgments; the forger states the new root."""
    path = f"{JUDGED}/generous/judgments.jsonl.gz"
    lines = change(gzip.decompress(files[path]).splitlines())
    files[path] = gzip.compress(b"".join(line + b"\n" for line in lines), mtime=0)
    if restated:
        about = json.loads(files[f"{JUDGED}/generous/judge.json"])
        about |= {"root": merkle_root(lines), "count": len(lines)}
        files[f"{JUDGED}/generous/judge.json"] = canonical_json(about)


def replaced(line, **fields):
    return canonical_json({**json.loads(line), **fields})


def silent_ones_say_no(lines):
    return [replaced(line, verdict="no", error="") if b'"verdict":null' in line else line
            for line in lines]  # fmt: skip


def edit_result(files, change):
    result = json.loads(files[f"{JUDGED}/result.json"])
    change(result)
    files[f"{JUDGED}/result.json"] = canonical_json(result)


def edit_about(files, **fields):
    about = json.loads(files[f"{JUDGED}/generous/judge.json"])
    files[f"{JUDGED}/generous/judge.json"] = canonical_json(about | fields)


FRAUDS = {
    "failures become noes": (
        lambda f: edit_judgments(f, silent_ones_say_no),
        "judge-mismatch",
    ),
    "a verdict is changed": (
        lambda f: edit_judgments(
            f, lambda lines: [replaced(lines[0], verdict="yes"), *lines[1:]], restated=False
        ),
        "judge-broken",
    ),
    "a failure with a verdict": (
        lambda f: edit_judgments(f, lambda lines: [replaced(lines[0], error="x"), *lines[1:]]),
        "judge-broken",
    ),
    "a judgment left out": (
        lambda f: edit_judgments(f, lambda lines: lines[1:]),
        "judgment-missing",
    ),
    "a probe left out": (
        lambda f: edit_judgments(f, lambda ls: [x for x in ls if b'"probe":"flattery"' not in x]),
        "judgment-missing",
    ),
    "a sample judged twice": (
        lambda f: edit_judgments(f, lambda lines: [*lines, lines[0]]),
        "judge-broken",
    ),
    "a sample from elsewhere": (
        lambda f: edit_judgments(f, lambda lines: [*lines, replaced(lines[0], leaf="0" * 64)]),
        "judge-broken",
    ),
    "another question": (lambda f: edit_about(f, asked="Is it kind?"), "judge-broken"),
    "fewer probes": (lambda f: edit_about(f, probed=0), "judge-broken"),
    "evaluations left out": (lambda f: edit_about(f, evaluations=[AFTER]), "judge-broken"),
    "a better kappa": (
        lambda f: edit_result(f, lambda r: r["judges"]["generous"]["kappa"].update(value="0.99")),
        "judge-mismatch",
    ),
    "a higher corrected share": (
        lambda f: edit_result(
            f,
            lambda r: r["judges"]["generous"]["evaluations"][AFTER]["corrected"].update(
                value="0.9000"
            ),
        ),
        "judge-mismatch",
    ),
    "a judge left out": (
        lambda f: [f.pop(p) for p in list(f) if p.startswith(f"{JUDGED}/swayed/")],
        "judge-mismatch",
    ),
    "numbers without judges": (
        lambda f: [
            f.pop(p)
            for p in list(f)
            if p.startswith(f"{JUDGED}/") and not p.endswith("/result.json")
        ],
        "judge-broken",
    ),
    "labels of another draw": (
        lambda f: f.update({f"audits/{SUITE}/draw.json": f[f"audits/{SUITE}/draw.json"] + b" "}),
        "file-malformed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAUDS)
def test_a_fraud_is_called_by_its_name(name, judged, tmp_path):
    change, code = FRAUDS[name]
    files = dict(judged[0])
    change(files)
    found = failing(verify(write_files(seal(files), tmp_path)))
    assert code in found
    assert "verifier-stopped" not in found


# Who judges


def test_a_model_that_refuses_or_contradicts_itself_gives_no_verdict():
    said = ["I think [[yes]]", "[[no]]", "I cannot help.", "[[yes]] or [[no]]",
            "<think>[[yes]]</think>[[no]]", None]  # fmt: skip

    class Asker:
        def ask_all(self, asks):
            assert [a.seed for a in asks] == [0, 1, 0, 0, 0, 0]
            return [Answer(text=t, failure="" if t else "HTTP 500") for t in said]

    questions = [Question(str(n), "p", "", "a", int(n == 1)) for n in range(6)]
    verdicts = ModelJudge("m", "m", Asker()).judge(questions, ASKED)
    assert [v.is_yes for v in verdicts] == [True, False, None, None, False, None]
    assert [v.error for v in verdicts[2:4]] == ["no clear verdict"] * 2
    assert verdicts[5].error == "HTTP 500"


def test_what_a_model_is_told_holds_question_answer_and_reference():
    system, user = messages(Question("1", "{prompt}", "4", "It is {4}", 0), ASKED)
    assert ASKED in system["content"]
    for text in ("{prompt}", "It is {4}", "for comparison|>\n4"):
        assert text in user["content"]


COMMAND = """\
import json, sys
for line in sys.stdin:
    q = json.loads(line)
    if q["gold"] != "9":
        print(json.dumps({"id": q["id"], "verdict": "yes" if q["gold"] in q["answer"] else "no"}))
"""


def test_the_commands_judge_draw_and_correct(tmp_path, capsys):
    folder = write_files(Maker().files(), tmp_path / "d")
    program = tmp_path / "judge.py"
    program.write_text(COMMAND)
    spec = tmp_path / "local.toml"
    spec.write_text(f"command = {json.dumps([sys.executable, str(program)])}\n")
    command = ["dossier", "judge", str(folder), "--suite", SUITE, "--judge", str(spec)]
    assert run_command([*command, "--judge", "smalltalk", "--probed", "4"]) == 0
    out = capsys.readouterr().out
    assert "local  evals/sums/after: accepted" in out
    assert "4 of 96 without a verdict" in out
    assert run_command(command) == 2
    assert "is not judged anew" in capsys.readouterr().err
    assert run_command(["dossier", "audit", "draw", str(folder), "--judged", SUITE]) == 0
    assert verify(folder).findings  # not sealed
    assert {"judge-mismatch", "judgment-missing"}.isdisjoint(failing(verify(folder)))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "give either endpoint"),
        ("command = []", "command takes a list of words"),
        ("name = 'a/b'\ncommand = ['x']", "letters, digits"),
        ("endpoint = {model = 'm', base_url = 'ftp://x'}", "http"),
        ("endpoint = {base_url = 'http://x'}", "endpoint.model"),
        ("= 3", "no TOML file"),
    ],
)
def test_a_judge_that_cannot_be_read_is_refused_in_a_line(text, complaint, tmp_path):
    path = tmp_path / "judge.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint), open_judge(str(path), tmp_path / "words"):
        pass


def test_a_command_that_fails_is_no_judge(tmp_path):
    spec = tmp_path / "judge.toml"
    spec.write_text(f"command = {json.dumps([sys.executable, '-c', 'raise SystemExit(3)'])}\n")
    with open_judge(str(spec), tmp_path) as judge, pytest.raises(RunError, match="failed"):
        judge.judge([Question("1", "p", "", "a", 0)], ASKED)


def test_no_judge_comes_after_the_draw_and_none_asks_another_question(tmp_path):
    folder = write_files(Maker().files(), tmp_path / "d")
    judge(folder, SWAYED, probed=0)
    with pytest.raises(RunError, match="ask the same"):
        judge_suite(folder, SUITE, GENEROUS, asked="Is it?", probed=0, progress=SILENT)
    people(folder, n=30)
    with pytest.raises(RunError, match="comes too late"):
        judge(folder, GENEROUS)


def test_a_judge_that_is_not_there_is_named_before_another_is_asked(tmp_path, capsys):
    folder = tmp_path / "dossier"
    write_files(Maker().files(), folder)
    arguments = ["dossier", "judge", str(folder), "--suite", SUITE]
    judges = ["--judge", "smalltalk", "--judge", str(tmp_path / "other.toml")]
    assert run_command([*arguments, *judges]) == 2
    assert "other.toml" in capsys.readouterr().err
    assert not (folder / JUDGED).exists()
