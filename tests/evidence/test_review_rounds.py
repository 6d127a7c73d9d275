"""Review rounds: who may close a point, what a new version must cite, what leaves no trace."""

import json

import pytest
from small_dossier import build_dossier, edit_claims, seal

from pellucid.errors import ReviewError
from pellucid.evidence.review.chain import claim_changes, uncited_changes
from pellucid.evidence.review.export import export_reviews
from pellucid.evidence.review.history import broken_closings, last_round, read_events, read_rounds
from pellucid.evidence.review.records import Effect, Status, closing_word
from pellucid.evidence.review.retest import retest
from pellucid.evidence.review.rounds import (
    answer_point,
    close_point,
    import_points,
    prepare_report,
    rerun_point,
    start_round,
)
from pellucid.evidence.seal import seal_dossier
from pellucid.ledger import EventKind, Ledger

LETTER = """---
referee: R2
significance: important
strength: solid
conflict_of_interest: none
ai_use: none
---
# Report on the toy

## R2.1 · blocking · request_experiment · C2
Does the gain hold on fresh items?

Test: C2.subsets.fresh.ci95.low > 0

## R2.2 · minor · question
Why so <b>few</b> items?
"""


@pytest.fixture
def dossier(tmp_path):
    return build_dossier(tmp_path / "d")


@pytest.fixture
def letter(tmp_path):
    path = tmp_path / "letter.md"
    path.write_text(LETTER)
    return path


def begin(dossier, letter):
    start_round(dossier)
    (imported,) = import_points(dossier, letter)
    return imported.token


def trace(dossier):
    return {
        p.relative_to(dossier).as_posix(): p.read_bytes() for p in dossier.rglob("*") if p.is_file()
    }


def test_a_round_runs_from_start_to_close(dossier, letter):
    token = begin(dossier, letter)
    state = answer_point(
        dossier, "R2.1", "See the fresh view.", changes={"C2": Effect.KEPT}, evidence=[1]
    )
    assert state.status is Status.ANSWERED
    assert rerun_point(dossier, "R2.1").holds
    assert close_point(dossier, "R2.1").closed["by"] == "test"
    assert close_point(dossier, "R2.2", token=token).closed["by"] == "word"
    kinds = [str(event.kind) for event in read_events(dossier)]
    assert kinds == [
        *("review_started", "points_imported", "point_answered", "point_rerun"),
        *("point_closed", "point_closed"),
    ]
    (one,) = read_rounds(dossier)
    assert [s.status for s in one.states] == [Status.CLOSED, Status.CLOSED]
    assert broken_closings([one]) == []


def test_only_the_token_of_the_referee_closes(dossier, letter):
    begin(dossier, letter)
    before = trace(dossier)
    with pytest.raises(ReviewError, match=r"not the token of R2: only who wrote R2\.2 closes it"):
        close_point(dossier, "R2.2", token="guess")
    with pytest.raises(ReviewError, match=r"only who wrote R2\.2 closes it"):
        close_point(dossier, "R2.2")
    assert trace(dossier) == before


def test_a_published_word_closes_no_other_point(dossier, letter):
    token = begin(dossier, letter)
    word = close_point(dossier, "R2.1", token=token).closed["word"]
    with pytest.raises(ReviewError, match="not the token"):
        close_point(dossier, "R2.2", token=word)
    assert closing_word(token, "R2.1") == word


def test_a_closing_forged_into_the_ledger_shows(dossier, letter):
    begin(dossier, letter)
    ledger = Ledger(dossier / "reviews/ledger.jsonl")
    for by in ({"by": "word", "word": "x"}, {"by": "test", "test": "1 > 0"}):
        ledger.append(EventKind.POINT_CLOSED, round=1, point="R2.1", **by)
        assert broken_closings(read_rounds(dossier)) == [
            "round 1: R2.1 was closed by somebody else than R2"
        ]
    ledger.append(EventKind.POINT_CLOSED, round=1, point="R2.1", by="signature", signature="00")
    assert len(broken_closings(read_rounds(dossier))) == 1
    ledger.close()


def test_a_test_closes_only_when_it_is_true_of_the_samples(tmp_path, letter):
    dossier = build_dossier(tmp_path / "d", fresh_gain=False)
    begin(dossier, letter)
    with pytest.raises(ReviewError, match=r"R2\.1 stays open: .* is not true"):
        close_point(dossier, "R2.1")
    assert not rerun_point(dossier, "R2.1").holds
    # Printing another number does not help: the test looks at the samples.
    edit_claims(dossier, lambda d: d["claims"][1]["views"]["fresh"].update(low="0.9"))
    with pytest.raises(ReviewError, match="stays open"):
        close_point(dossier, "R2.1")


def test_a_rerun_refuses_samples_that_are_not_the_sealed_ones(dossier, letter):
    begin(dossier, letter)
    edit_claims(dossier, lambda d: d["claims"][1]["roots"].update(a="0" * 64))
    with pytest.raises(ReviewError, match="evals/toy/after: its samples are not the ones"):
        rerun_point(dossier, "R2.1")


def test_retest_gives_the_numbers_that_claims_print(dossier):
    claims = json.loads((dossier / "claims.json").read_text())["claims"]
    test = "C1.value > 0 and C2.p_adj < 2 and C2.views.clean.low > -2 and C2.fresh == 0"
    with pytest.raises(ReviewError, match=r"'C2\.fresh' names no number"):
        retest(dossier, test)
    outcome = retest(dossier, test.rpartition(" and ")[0])
    assert outcome.holds
    assert outcome.values["C1.value"] == pytest.approx(
        float(claims[0]["reported"]["value"]), abs=5e-5
    )
    assert outcome.values["C2.p_adj"] == pytest.approx(
        float(claims[1]["reported"]["p_adj"]), abs=5e-5
    )
    assert outcome.values["C2.views.clean.low"] == pytest.approx(
        float(claims[1]["views"]["clean"]["low"]), abs=5e-5
    )


def test_a_prepared_report_can_be_closed_by_nobody_but_the_referee(dossier, letter, tmp_path):
    made = prepare_report(dossier, letter, tmp_path / "R2.json")
    start_round(dossier)
    (imported,) = import_points(dossier, tmp_path / "R2.json")
    assert imported.token is None
    assert imported.report.words_from == "referee"
    assert made.token not in "".join(map(str, trace(dossier).values()))
    assert close_point(dossier, "R2.2", token=made.token).status is Status.CLOSED


def test_a_new_version_must_cite_a_point_for_every_changed_claim(dossier, letter):
    begin(dossier, letter)
    first = last_round(dossier).seal
    edit_claims(dossier, lambda d: d["claims"][1].update(text="Training may raise pass@1"))
    answer_point(dossier, "R2.1", "We keep it.", changes={"C2": Effect.KEPT})
    assert uncited_changes(dossier) == [
        "claim C2 has another text since round 1, and cites no point"
    ]
    second = seal(dossier, version=2, previous=first)
    with pytest.raises(ReviewError, match=r"claim C2 has another text .* cites no point"):
        start_round(dossier)
    answer_point(dossier, "R2.1", "We say less.", changes={"C2": Effect.WEAKENED})
    assert uncited_changes(dossier) == []
    (change,) = claim_changes(dossier)
    assert (change.claim, change.fields, change.cites) == ("C2", ("text",), ("R2.1",))
    begun = start_round(dossier)
    assert (begun.number, begun.seal) == (2, second)
    facts = json.loads((dossier / "reviews/round-2/manuscript.seal").read_text())
    assert facts["previous"] == first


def test_sealing_refuses_a_change_that_cites_nothing(dossier, letter):
    begin(dossier, letter)
    assert seal_dossier(dossier, None, []).version == 2
    edit_claims(dossier, lambda d: d["claims"][1].update(limits="none"))
    with pytest.raises(ReviewError, match=r"claim C2 has another limits .* add an erratum"):
        seal_dossier(dossier, None, [])
    answer_point(dossier, "R2.1", "Corrected.", changes={"C2": Effect.CORRECTED})
    assert seal_dossier(dossier, None, []).version == 3
    assert start_round(dossier).number == 2


def test_an_erratum_is_a_reason_too_and_a_new_claim_needs_one(dossier, letter):
    begin(dossier, letter)
    edit_claims(dossier, lambda d: d["claims"].append(dict(d["claims"][0], id="C9")))
    assert uncited_changes(dossier) == ["claim C9 is new since round 1, and cites no point"]
    (dossier / "errata.json").write_text('[{"id": "E1", "claims": ["C9"], "text": "forgotten"}]')
    assert [c.cites for c in claim_changes(dossier)] == [("E1",)]
    (dossier / "errata.json").write_text('[{"id": "E1", "claims": ["C9"]}]')
    with pytest.raises(ReviewError, match=r"errata\.json entry 1: an erratum has id, claims"):
        claim_changes(dossier)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda d: (d / "SEAL.dsse.json").unlink(), "is not sealed"),
        (lambda d: (d / "SEAL.dsse.json").write_text("{}"), "is no seal"),
        (lambda d: (d / "MANIFEST.jsonl").write_text(""), "not of this MANIFEST.jsonl"),
        (lambda d: edit_claims(d, lambda c: c.update(title="x")), "not the one that was sealed"),
    ],
)
def test_a_round_needs_a_seal_that_fits(dossier, spoil, complaint):
    spoil(dossier)
    with pytest.raises(ReviewError, match=complaint):
        start_round(dossier)
    assert not (dossier / "reviews").exists()


def test_steps_out_of_order_are_refused(dossier, letter, tmp_path):
    with pytest.raises(ReviewError, match=r"no review of .* has begun"):
        import_points(dossier, letter)
    token = begin(dossier, letter)
    with pytest.raises(ReviewError, match="round 1 is on this very version"):
        start_round(dossier)
    with pytest.raises(ReviewError, match="R2's report is already in round 1"):
        import_points(dossier, letter)
    with pytest.raises(ReviewError, match=r"no point 'R2\.9'; its points: R2\.1, R2\.2"):
        answer_point(dossier, "R2.9", "x")
    with pytest.raises(ReviewError, match="no claim 'C7'"):
        answer_point(dossier, "R2.1", "x", changes={"C7": Effect.KEPT})
    with pytest.raises(ReviewError, match="no evaluation with serial 3; there are 1, 2"):
        answer_point(dossier, "R2.1", "x", evidence=[3])
    close_point(dossier, "R2.2", token=token)
    with pytest.raises(ReviewError, match=r"R2\.2 is closed"):
        answer_point(dossier, "R2.2", "but")
    with pytest.raises(ReviewError, match="is no dossier"):
        start_round(tmp_path / "nowhere")


def test_a_changed_report_or_ledger_shows(dossier, letter):
    begin(dossier, letter)
    report = dossier / "reviews/round-1/R2.report.json"
    whole = report.read_text()
    report.write_text(whole.replace("fresh items?", "anything?"))
    with pytest.raises(ReviewError, match=r"round-1/R2\.report\.json is not the file that"):
        last_round(dossier)
    report.write_text(whole)
    ledger = dossier / "reviews/ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"round":1', '"round":2', 1))
    with pytest.raises(ReviewError, match="line 1: its content was changed"):
        last_round(dossier)


def test_a_signature_closes_what_its_key_signed(dossier, tmp_path):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives import serialization as form

    from pellucid.evidence.review.rounds import closing_statement
    from pellucid.evidence.review.signed import read_signature, write_signature

    keys = [ed25519.Ed25519PrivateKey.generate() for _ in range(2)]
    for number, key in enumerate(keys):
        pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        (tmp_path / f"{number}.pem").write_bytes(pem)
    public = keys[0].public_key().public_bytes(form.Encoding.Raw, form.PublicFormat.Raw).hex()
    report = {"referee": "R3", "key": public, "points": [{"text": "Why?"}, {"text": "How?"}]}
    (tmp_path / "r.json").write_text(json.dumps(report))
    start_round(dossier)
    (imported,) = import_points(dossier, tmp_path / "r.json")
    assert imported.token is None

    def signed(number):
        current = last_round(dossier)
        statement = closing_statement(current, current.find("R3.1"))
        write_signature(tmp_path / f"{number}.pem", statement, tmp_path / "sig")
        return read_signature(tmp_path / "sig")

    right = signed(0)
    with pytest.raises(ReviewError, match=r"not a signature that R3\.1 is settled"):
        close_point(dossier, "R3.1", signature=signed(1))
    with pytest.raises(ReviewError, match=r"not a signature that R3\.2 is settled"):
        close_point(dossier, "R3.2", signature=right)
    answer_point(dossier, "R3.1", "Because.")
    with pytest.raises(ReviewError, match="after the last answer"):
        close_point(dossier, "R3.1", signature=right)
    assert close_point(dossier, "R3.1", signature=signed(0)).closed["by"] == "signature"
    assert broken_closings(read_rounds(dossier)) == []


def test_the_peer_review_file_tells_everything_and_escapes_foreign_text(dossier, letter):
    token = begin(dossier, letter)
    answer_point(
        dossier, "R2.2", "Because <i>time</i>\n# no heading", changes={"C1": Effect.WEAKENED}
    )
    rerun_point(dossier, "R2.1", evidence=[2])
    close_point(dossier, "R2.2", token=token)
    edit_claims(dossier, lambda d: d["claims"][0].update(text="less"))
    markdown, page = export_reviews(dossier)
    text, html = markdown.read_text(), page.read_text()
    for expected in ("R2.1 · blocking · request_experiment · C2 · open", "significance: important"):
        assert expected in text
        assert expected in " ".join(html.replace('<span class="open">', "").split())
    assert "> Because &lt;i&gt;time&lt;/i&gt;\n> \\# no heading" in text
    assert "&lt;b&gt;few&lt;/b&gt;" in html
    assert "<b>" not in html + text
    assert "closed by R2" in html
    assert "new evaluation 2" in text
    assert "C1 · text: " in text
    again = export_reviews(dossier)
    assert (again[0].read_text(), again[1].read_text()) == (text, html)
