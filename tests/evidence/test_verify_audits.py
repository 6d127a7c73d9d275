"""A human audit is drawn, labelled and verified; every fraud in one is called by its name."""

import json

import pytest
from checked_dossier import AUDIT, draw, files_of, fill, own_key, second_of
from honest_dossier import AUTHOR, STRANGER, SUITE, Maker, seal, write

from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.samples import redact_sample
from pellucid.evidence.core.verify import verify
from pellucid.evidence.human_audit.draw import audit_folder
from pellucid.evidence.human_audit.labels import import_labels
from pellucid.report.dossier.page import write_dossier_page


def failing(verdict):
    return {f.code for f in verdict.findings if not f.kind.is_note}


def notes(verdict):
    return {f.code for f in verdict.findings if f.kind.is_note}


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """Files of an audited dossier, sealed, with a second grader and one labeller who signs."""
    folder = tmp_path_factory.mktemp("audited") / "dossier"
    maker = Maker()
    write(maker.files(), folder)
    watcher, (sheet, _) = draw(folder, second=second_of(maker))
    result = import_labels(folder, fill(sheet, watcher), "Ada", own_key(STRANGER))
    return seal(files_of(folder)), result


def test_an_honest_audit_is_told_and_nothing_is_said_against_it(audited, tmp_path):
    files, result = audited
    verdict = verify(write(files, tmp_path))
    assert failing(verdict) == set()
    told = [f.text for f in verdict.findings if f.code == "audited"]
    assert any(f"kappa {result['kappa']['value']}" in text for text in told)
    assert {f.where for f in verdict.findings if f.code == "audited"} >= {"C1", "C2"}
    assert not notes(verdict) & {"audit-seed", "audit-unsigned", "audit-unlabelled"}


def test_without_an_audit_nothing_is_said(tmp_path):
    verdict = verify(write(Maker().files(), tmp_path))
    assert not [f for f in verdict.findings if f.code.startswith("audit")]


def test_the_draw_holds_all_that_graders_differ_on_and_so_many_others(audited):
    files, result = audited
    drawn = json.loads(files[f"{AUDIT}/draw.json"])
    assert 0 < drawn["population"]["contested"] <= 20
    assert len(drawn["drawn"]) == drawn["population"]["contested"] + 40
    assert result["labelled"] == len(drawn["drawn"])
    share = drawn["population"]["contested"] / result["asked_twice"]
    assert abs(float(result["disagreement"]["value"]) - share) < 1e-4


def test_the_page_of_the_dossier_prints_the_numbers_with_their_file(audited, tmp_path):
    files, result = audited
    text = write_dossier_page(write(files, tmp_path / "d")).read_text()
    kappa = result["kappa"]
    assert f"{kappa['value']} [{kappa['low']}, {kappa['high']}]</a>" in text
    assert "Labels of Ada" in text
    assert (
        "checked by people"
        not in write_dossier_page(write(Maker().files(), tmp_path / "without")).read_text()
    )


def test_the_bound_on_a_claim_is_its_interval_widened_by_the_errors(audited):
    files, result = audited
    claims = {c["id"]: c["reported"] for c in json.loads(files["claims.json"])["claims"]}
    for claim in ("C1", "C2"):
        bound = result["bounds"][claim]
        assert float(bound["low"]) < float(claims[claim]["low"]) - 0.005
        assert float(bound["high"]) >= min(1.0, float(claims[claim]["high"]) + 0.005)
    assert "C3" not in result["bounds"]  # pass@4: errors of samples do not add up to it


def test_the_sheet_shows_no_verdict(tmp_path):
    write(Maker().files(), tmp_path / "d")
    _, (sheet, form) = draw(tmp_path / "d")
    rows = [json.loads(line) for line in sheet.read_text().splitlines()][1:]
    assert {tuple(row) for row in rows} == {
        ("number", "leaf", "question", "expected", "response", "label")
    }
    assert all(row["label"] == "" for row in rows)
    for word in ("verdict", "extracted", "contested", "checked"):
        assert word not in form.read_text().replace("input.checked", "")


def test_a_form_escapes_what_a_stranger_wrote(tmp_path):
    maker = Maker()
    for sample in maker.samples["after"]:
        sample["response"] += "<script>alert(1)</script>{{ rows }}\u202e"
    write(maker.files(), tmp_path / "d")
    _, (_, form) = draw(tmp_path / "d", n=400)
    text = form.read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ rows }}\\x202e" in text


# Frauds


def resealed(files, change):
    files = dict(files)
    change(files)
    return seal(files)


def edit_json(files, name, change):
    value = json.loads(files[f"{AUDIT}/{name}"])
    change(value)
    files[f"{AUDIT}/{name}"] = canonical_json(value) + b"\n"


def edit_labels(files, change):
    path = f"{AUDIT}/labels-Ada.jsonl"
    files[path] = b"".join(line + b"\n" for line in change(files[path].splitlines()))


def flip(line):
    changed = line.replace(b'"label":"wrong"', b'"label":"correct"')
    return changed if changed != line else line.replace(b'"correct"', b'"wrong"')


FRAUDS = {
    "a sample of one's own choice": (
        lambda f: edit_json(f, "draw.json", lambda d: d["drawn"].reverse()),
        "audit-draw",
    ),
    "a sample drawn away": (
        lambda f: edit_json(f, "draw.json", lambda d: d["drawn"].pop()),
        "audit-draw",
    ),
    "a smaller population": (
        lambda f: edit_json(f, "draw.json", lambda d: d["population"].update(other=50)),
        "audit-draw",
    ),
    "fewer disagreements": (
        lambda f: edit_json(f, "second.json", lambda d: d["differ"].pop()),
        "audit-draw",
    ),
    "a dropped label": (lambda f: edit_labels(f, lambda lines: lines[1:]), "audit-label-missing"),
    "a changed label": (
        lambda f: edit_labels(f, lambda lines: [flip(lines[0]), *lines[1:]]),
        "audit-label-changed",
    ),
    "a label that stands twice": (
        lambda f: edit_labels(f, lambda lines: [*lines, flip(lines[0])]),
        "file-malformed",
    ),
    "a label of a sample not drawn": (
        lambda f: edit_labels(
            f, lambda lines: [*lines, canonical_json({**json.loads(lines[0]), "leaf": "0" * 64})]
        ),
        "audit-label-foreign",
    ),
    "a better kappa": (
        lambda f: edit_json(f, "result.json", lambda r: r["kappa"].update(value="0.9999")),
        "audit-mismatch",
    ),
    "a narrower bound": (
        lambda f: edit_json(f, "result.json", lambda r: r["bounds"]["C1"].update(low="0.4000")),
        "audit-mismatch",
    ),
    "a rate left out": (
        lambda f: edit_json(f, "result.json", lambda r: r.update(false_positive_rate=None)),
        "audit-mismatch",
    ),
    "a labeller left out": (
        lambda f: edit_json(f, "result.json", lambda r: r.update(labellers=["Bob"])),
        "audit-mismatch",
    ),
    "no numbers": (lambda f: f.pop(f"{AUDIT}/result.json"), "file-missing"),
    "no statement": (lambda f: f.pop(f"{AUDIT}/labels-Ada.dsse.json"), "audit-label-changed"),
}


@pytest.mark.parametrize("name", FRAUDS)
def test_a_fraud_is_called_by_its_name(name, audited, tmp_path):
    change, code = FRAUDS[name]
    verdict = verify(write(resealed(audited[0], change), tmp_path))
    assert code in failing(verdict)
    assert "verifier-stopped" not in failing(verdict)


def test_labels_that_another_signed_are_not_those_of_the_labeller(audited, tmp_path):
    """A forger flips a label and states it anew, but has not the labeller's key."""
    files = dict(audited[0])
    edit_labels(files, lambda lines: [flip(lines[0]), *lines[1:]])
    statement = json.loads(files[f"{AUDIT}/labels-Ada.dsse.json"])
    statement["signatures"] = []
    files[f"{AUDIT}/labels-Ada.dsse.json"] = canonical_json(statement) + b"\n"
    assert failing(verify(write(seal(files), tmp_path))) >= {"audit-label-changed"}


# What is only noted


def test_a_seed_of_ones_own_and_the_authors_signature_are_noted(tmp_path):
    folder = write(Maker().files(), tmp_path / "d")
    watcher, (sheet, _) = draw(folder, seed="7")
    import_labels(folder, fill(sheet, watcher, unsure=(2,)), "Bob", own_key(AUTHOR))
    verdict = verify(write(seal(files_of(folder)), tmp_path / "sealed"))
    assert failing(verdict) == set()
    assert notes(verdict) >= {"audit-seed", "audit-unsigned", "audited"}


def test_a_draw_without_labels_is_noted(tmp_path):
    folder = write(Maker().files(), tmp_path / "d")
    draw(folder)
    verdict = verify(write(seal(files_of(folder)), tmp_path / "sealed"))
    assert failing(verdict) == set()
    assert "audit-unlabelled" in notes(verdict)


@pytest.mark.parametrize(("promised", "is_missed"), [(40, False), (400, True)])
def test_labels_that_the_plan_promised_are_missed(promised, is_missed, tmp_path):
    maker = Maker()
    kinds = maker.default_kinds()
    kinds[1][1]["audit"] = promised
    maker.events = kinds
    folder = write(maker.files(), tmp_path / "d")
    watcher, (sheet, _) = draw(folder)
    import_labels(folder, fill(sheet, watcher), "Ada", own_key(STRANGER))
    verdict = verify(write(seal(files_of(folder)), tmp_path / "sealed"))
    assert failing(verdict) == set()
    assert ("audit-missing" in notes(verdict)) is is_missed


def test_two_labellers_count_where_they_agree(tmp_path):
    folder = write(Maker().files(), tmp_path / "d")
    watcher, (sheet, _) = draw(folder)
    import_labels(folder, fill(sheet, watcher), "Ada", None)
    head, *rows = [json.loads(line) for line in sheet.read_text().splitlines()]
    rows[0]["label"] = "wrong" if rows[0]["label"] == "correct" else "correct"
    sheet.write_text("".join(json.dumps(line) + "\n" for line in (head, *rows)))
    result = import_labels(folder, sheet, "Bob", None)
    assert (result["labelled"], result["unsure"]) == (len(rows) - 1, 1)
    assert 0.5 < float(result["between_labellers"]["Ada, Bob"]["value"]) < 1.0
    verdict = verify(write(seal(files_of(folder)), tmp_path / "sealed"))
    assert failing(verdict) == set()


def test_labels_go_on_counting_after_texts_were_withheld(audited, tmp_path):
    """Leaf and pair of a withheld sample are known by its digests."""
    maker = Maker()
    write(maker.files(), tmp_path / "d")
    watcher, (sheet, _) = draw(tmp_path / "d", second=second_of(maker))
    import_labels(tmp_path / "d", fill(sheet, watcher), "Ada", own_key(STRANGER))
    kept = {p: d for p, d in files_of(tmp_path / "d").items() if p.startswith("audits/")}
    maker.recorded = {
        arm: json.loads((tmp_path / f"d/evals/{SUITE}/{arm}/root.json").read_text())["merkle_root"]
        for arm in maker.samples
    }
    for arm in maker.samples:
        maker.samples[arm] = [redact_sample(sample) for sample in maker.samples[arm]]
    maker.extra = kept
    verdict = verify(write(maker.files(), tmp_path / "withheld"))
    assert {code for code in failing(verdict) if code.startswith("audit")} == set()
    assert "audited" in notes(verdict)


def test_another_draw_does_not_replace_the_first(tmp_path):
    from pellucid.errors import RunError

    folder = write(Maker().files(), tmp_path / "d")
    draw(folder)
    with pytest.raises(RunError, match="another draw"):
        draw(folder, seed="a better one")
    assert json.loads((audit_folder(folder, "graders") / "draw.json").read_text())["n"] == 40
