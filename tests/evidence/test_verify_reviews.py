"""The verifier believes no closing and no changed claim that it cannot trace back."""

import json

import pytest
from small_dossier import build_dossier, edit_claims

from pellucid.evidence.core.canonical import canonical_json, sha256_bytes
from pellucid.evidence.core.verify import verify
from pellucid.evidence.review.history import last_round
from pellucid.evidence.review.records import Effect
from pellucid.evidence.review.rounds import (
    answer_point,
    close_point,
    closing_statement,
    import_points,
    prepare_report,
    rerun_point,
    start_round,
)
from pellucid.evidence.seal import seal_dossier
from pellucid.ledger import EventKind, Ledger

LETTER = """---
referee: R2
---
## R2.1 · blocking · request_experiment · C2
Does the gain hold on fresh items?

Test: C2.subsets.fresh.ci95.low > 0

## R2.2 · minor · question · C1
Why so few items?
"""
CODES = ("review-broken", "closing-unproven", "change-uncited", "closing-weak", "ledger-broken",
         "verifier-stopped", "file-malformed")  # fmt: skip


def found(dossier):
    """(code, where, claims) of what the verifier finds in the reviews, in any order."""
    verdict = verify(dossier)
    return {(f.code, f.claims) for f in verdict.findings if f.code in CODES}


def append(dossier, kind, **payload):
    ledger = Ledger(dossier / "reviews/ledger.jsonl")
    ledger.append(kind, **payload)
    ledger.close()


@pytest.fixture
def begun(tmp_path):
    """(dossier, token) of a round whose referee made the closing words."""
    dossier = build_dossier(tmp_path / "d")
    (tmp_path / "letter.md").write_text(LETTER)
    made = prepare_report(dossier, tmp_path / "letter.md", tmp_path / "R2.json")
    start_round(dossier)
    import_points(dossier, tmp_path / "R2.json")
    return dossier, made.token


def test_an_honest_round_and_the_version_after_it_pass(begun):
    dossier, token = begun
    answer_point(dossier, "R2.1", "See there.", changes={"C2": Effect.WEAKENED}, evidence=[1])
    rerun_point(dossier, "R2.1")
    close_point(dossier, "R2.1")
    close_point(dossier, "R2.2", token=token)
    edit_claims(dossier, lambda d: d["claims"][1].update(text="Training may raise pass@1"))
    seal_dossier(dossier, None, [])
    assert found(dossier) == set()
    start_round(dossier)
    seal_dossier(dossier, None, [])
    assert found(dossier) == set()


def test_a_word_that_the_author_made_is_noted(tmp_path):
    dossier = build_dossier(tmp_path / "d")
    (tmp_path / "letter.md").write_text(LETTER)
    start_round(dossier)
    (imported,) = import_points(dossier, tmp_path / "letter.md")
    close_point(dossier, "R2.2", token=imported.token)
    assert found(dossier) == {("closing-weak", ())}


@pytest.mark.parametrize(
    "proof",
    [
        {"by": "word", "word": "x"},
        {"by": "word"},
        {"by": "author"},
        {},
        {"by": "test", "test": "1 > 0"},
        {"by": "signature", "signature": "00", "statement": {}},
    ],
)
def test_a_point_that_somebody_else_closed_is_named(begun, proof):
    dossier, _ = begun
    append(dossier, EventKind.POINT_CLOSED, round=1, point="R2.1", **proof)
    assert found(dossier) == {("closing-unproven", ("C2",))}


def test_a_test_that_is_not_true_closes_nothing(tmp_path):
    dossier = build_dossier(tmp_path / "d", fresh_gain=False)
    (tmp_path / "letter.md").write_text(LETTER)
    start_round(dossier)
    import_points(dossier, tmp_path / "letter.md")
    test = json.loads((dossier / "reviews/round-1/R2.report.json").read_text())["points"][0]["test"]
    append(dossier, EventKind.POINT_CLOSED, round=1, point="R2.1", by="test", test=test)
    assert found(dossier) == {("closing-unproven", ("C2",))}


def test_a_signature_is_of_its_key_and_of_the_last_answer(tmp_path):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    letter = {"referee": "R3", "key": public, "points": [{"text": "Why?"}]}
    (tmp_path / "r.json").write_text(json.dumps(letter))
    for number, is_late in enumerate((False, True)):
        dossier = build_dossier(tmp_path / str(number))
        start_round(dossier)
        import_points(dossier, tmp_path / "r.json")
        current = last_round(dossier)
        statement = closing_statement(current, current.find("R3.1"))
        made = key.sign(b"pellucid-review-closing-v1\n" + canonical_json(statement)).hex()
        if is_late:
            answer_point(dossier, "R3.1", "Because.")
        proof = {"by": "signature", "statement": statement, "signature": made}
        append(dossier, EventKind.POINT_CLOSED, round=1, point="R3.1", **proof)
        assert found(dossier) == ({("closing-unproven", ())} if is_late else set())


def test_a_changed_claim_cites_an_answer_or_an_erratum(begun):
    dossier, _ = begun
    edit_claims(dossier, lambda d: d["claims"][1].update(text="More than shown"))
    assert ("change-uncited", ("C2",)) in found(dossier)
    answer_point(dossier, "R2.1", "We keep it.", changes={"C2": Effect.KEPT})
    assert ("change-uncited", ("C2",)) in found(dossier)
    (dossier / "errata.json").write_text('[{"id": "E1", "claims": ["C2"], "text": " "}]')
    assert ("change-uncited", ("C2",)) in found(dossier)
    (dossier / "errata.json").write_text('[{"id": "E1", "claims": ["C2"], "text": "a slip"}]')
    assert found(dossier) == set()


def test_a_claim_that_went_or_came_without_a_word_is_named(begun):
    dossier, _ = begun
    edit_claims(dossier, lambda d: d["claims"].append(dict(d["claims"][0], id="C9")))
    edit_claims(dossier, lambda d: d["claims"].pop(0))
    assert found(dossier) == {("change-uncited", ("C1",)), ("change-uncited", ("C9",))}


def spoil_report(dossier):
    path = dossier / "reviews/round-1/R2.report.json"
    path.write_text(path.read_text().replace("fresh items?", "anything?"))


def add_a_report(dossier):
    (dossier / "reviews/round-1/R7.report.json").write_text("{}")


def drop_the_ledger(dossier):
    (dossier / "reviews/ledger.jsonl").unlink()


def drop_the_import(dossier):
    path = dossier / "reviews/ledger.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])


def review_another_version(dossier, version="0" * 64):
    path = dossier / "reviews/round-1/claims.json"
    facts = {"round": 2, "seal_sha256": version, "claims_sha256": sha256_bytes(path.read_bytes())}
    (dossier / "reviews/round-2").mkdir()
    (dossier / "reviews/round-2/claims.json").write_bytes(path.read_bytes())
    append(dossier, EventKind.REVIEW_STARTED, **facts)


def review_no_version(dossier):
    review_another_version(dossier, version=[[]])


def answer_a_ghost(dossier):
    append(dossier, EventKind.POINT_ANSWERED, round=1, point="R9.1", text="x", changes={})


def answer_in_no_round(dossier):
    append(dossier, EventKind.POINT_ANSWERED, round=4, point="R2.1", text="x", changes={})


def cite_no_evaluation(dossier):
    append(dossier, EventKind.POINT_ANSWERED, round=1, point="R2.1", text="x", evidence=[77])


def close_twice(dossier):
    for _ in range(2):
        proof = {"by": "test", "test": "C2.subsets.fresh.ci95.low > 0"}
        append(dossier, EventKind.POINT_CLOSED, round=1, point="R2.1", **proof)


@pytest.mark.parametrize(
    "spoil",
    [spoil_report, add_a_report, drop_the_ledger, drop_the_import, review_another_version,
     review_no_version, answer_a_ghost, answer_in_no_round, cite_no_evaluation, close_twice],
)  # fmt: skip
def test_a_round_that_is_not_as_it_was_recorded_is_named(begun, spoil):
    dossier, _ = begun
    spoil(dossier)
    assert {code for code, _ in found(dossier)} == {"review-broken"}
