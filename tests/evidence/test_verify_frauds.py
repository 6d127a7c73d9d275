"""Frauds that leave every digest right: what was left out, renamed, or said in words."""

import base64
import json

import honest_dossier
import pytest
from honest_dossier import (
    ITEMS,
    SUITE,
    K,
    Maker,
    chain,
    merkle_root,
    seal,
    sealed_verdicts,
    write,
)

from pellucid.evidence.core.canonical import canonical_json, sha256_bytes
from pellucid.evidence.core.samples import sample_line
from pellucid.evidence.core.verify import verify

AFTER = f"evals/{SUITE}/after"


@pytest.fixture(scope="module")
def honest():
    return Maker().files()


def failing(verdict):
    return {f.code for f in verdict.findings if not f.kind.is_note}


def notes(verdict):
    return {f.code for f in verdict.findings if f.kind.is_note}


def record_as_shipped(maker):
    """The forger's ledger knows the forged samples."""
    maker.recorded = {arm: merkle_root(map(sample_line, s)) for arm, s in maker.samples.items()}
    maker.sealed = {arm: sealed_verdicts(samples) for arm, samples in maker.samples.items()}


def with_claims(files, change):
    document = json.loads(files["claims.json"])
    change(document["claims"])
    return seal({**files, "claims.json": canonical_json(document)})


# What counts in no accuracy


@pytest.fixture
def means(monkeypatch):
    """All claims are of pass@1, which is computed however few samples were graded."""
    planned = honest_dossier.planned_claims

    def by_mean():
        claims = planned()
        claims[2]["metric"] = {"fn": "pass_at_1", "margin": 0.2}
        return claims

    monkeypatch.setattr(honest_dossier, "planned_claims", by_mean)


def fail(maker, samples, verdict="error", *, finish=None):
    """These samples of an arm become failures."""
    for sample in samples:
        sample["verdict"] = verdict
        if finish is not None:
            sample |= {"finish": finish, "error": "away", "response": "", "extracted": None}
    record_as_shipped(maker)


def wrong_ones(maker, arm="after"):
    return [s for s in maker.samples[arm] if s["verdict"] != "correct"]


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("verdict", ["error", "ungraded"])
def test_wrong_answers_called_failures_are_graded_again(verdict, tmp_path):
    maker = Maker()
    maker.claims = honest_dossier.planned_claims()
    fail(maker, wrong_ones(maker), verdict)
    assert failing(verify(write(maker.files(), tmp_path))) >= {"grade-mismatch"}


@pytest.mark.usefixtures("means")
def test_a_number_of_which_many_samples_failed_is_no_measurement(tmp_path):
    maker = Maker()
    maker.claims = honest_dossier.planned_claims()
    fail(maker, wrong_ones(maker), finish="error")
    verdict = verify(write(maker.files(), tmp_path))
    # Of what is left nearly every answer is found, which is a gap to the other arm.
    assert failing(verdict) == {"failures-decide", "format-decides"}
    (finding,) = [f for f in verdict.findings if f.code == "failures-decide"]
    correct = sum(s["verdict"] == "correct" for s in maker.samples["after"])
    assert f"{correct / (ITEMS * K):.1%} to 100.0% of all are right" in finding.text


@pytest.mark.usefixtures("means")
def test_few_failures_are_told_with_their_bounds_and_leave_the_column_in_part(tmp_path):
    maker = Maker()
    maker.claims = honest_dossier.planned_claims()
    fail(maker, wrong_ones(maker)[:2], finish="error")
    verdict = verify(write(maker.files(), tmp_path))
    assert failing(verdict) == set()
    assert "samples-failed" in notes(verdict)
    assert verdict.status("C2", "recomputed") == "in part"


@pytest.mark.usefixtures("means")
def test_a_claim_that_hangs_on_four_failures_does_not_hold(tmp_path):
    """Its rule is just true of the graded samples, and false with the failures among them."""
    maker = Maker()
    fail(maker, wrong_ones(maker)[:4], finish="error")
    right = sum(s["verdict"] == "correct" for s in maker.samples["after"])
    items = {s["item"]: [] for s in maker.samples["after"]}
    for sample in maker.samples["after"]:
        if sample["verdict"] != "error":
            items[sample["item"]].append(sample["verdict"] == "correct")
    graded = sum(sum(v) / len(v) for v in items.values()) / ITEMS
    assert graded > right / (ITEMS * K)
    maker.claims = honest_dossier.planned_claims()
    maker.claims[1]["rule"] = f"value > {(graded + right / (ITEMS * K)) / 2:.4f}"
    maker.plan = {**maker.default_plan(), "claims": maker.claims}
    findings = verify(write(maker.files(), tmp_path)).findings
    assert [f.where for f in findings if f.code == "failures-decide"] == ["C2"]


# What a claim says of itself


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: c[0].update(is_capability=False, views={}), "view-missing"),
        (lambda c: c[0].update(level="re-run"), "claim-unsupported"),
        (lambda c: c[0].update(level="replayed"), "claim-unsupported"),
        (lambda c: c[1].update(text="RL improves sums by 90 points"), "control-missing"),
    ],
    ids=["no-capability", "re-run", "replayed", "cause-without-control"],
)
def test_words_beside_a_number_are_held_to_something(change, code, honest, tmp_path):
    assert failing(verify(write(with_claims(honest, change), tmp_path))) == {code}


def test_pass_at_1_that_halves_is_recomputed(honest, tmp_path):
    """Missing samples that were counted as wrong answers: lighteval, issue 771."""

    def halve(claims):
        reported = claims[1]["reported"]
        reported["value"] = f"{float(reported['value']) / 2:.4f}"

    assert failing(verify(write(with_claims(honest, halve), tmp_path))) == {"claim-mismatch"}


def test_a_table_says_fails_also_of_findings_that_it_does_not_list(honest, tmp_path):
    def lie(claims):
        claims += [
            {**claims[1], "id": f"X{n}", "reported": {**claims[1]["reported"], "n_items": 1}}
            for n in range(30)
        ]

    verdict = verify(write(with_claims(honest, lie), tmp_path))
    assert verdict.more["claim-mismatch"] == 10
    assert {verdict.status(f"X{n}", "recomputed") for n in range(30)} == {"FAILS"}
    assert verdict.status("C2", "recomputed") == "ok"


# What is not here


@pytest.mark.parametrize("gone", ["samples.jsonl.gz", "root.json"])
def test_a_comparison_without_its_raw_data_is_not_supported(gone, honest, tmp_path):
    """A rival's number that nobody can compute: only the ledger speaks of the evaluation."""
    folder = f"evals/{SUITE}/before"
    names = {f"{folder}/{gone}", f"{folder}/samples.jsonl.gz"}
    files = seal({path: data for path, data in honest.items() if path not in names})
    verdict = verify(write(files, tmp_path))
    assert "claim-unsupported" in failing(verdict)
    assert verdict.status("C1", "recomputed") == "FAILS"


def test_a_ledger_that_was_cut_after_sealing_is_called_truncated(honest, tmp_path):
    lines = honest["ledger.jsonl"].splitlines(keepends=True)
    files = {**honest, "ledger.jsonl": b"".join(lines[:-3])}
    assert "ledger-truncated" in failing(verify(write(files, tmp_path)))


# How it was chosen, asked, compared


def test_a_checkpoint_chosen_on_the_test_set_is_found(tmp_path):
    maker = Maker()
    samples = maker.samples["after"]
    share = sum(s["verdict"] == "correct" for s in samples) / len(samples)
    maker.checkpoints["checkpoints"][1] |= {"scores": {"dev": share}, "evals": [AFTER]}
    verdict = verify(write(maker.files(), tmp_path))
    assert failing(verdict) == {"checkpoint-selection"}
    assert any(f"chosen by {SUITE}" in f.text for f in verdict.findings)


def test_another_engine_for_the_baseline_is_noted(honest, tmp_path):
    maker = Maker()
    for sample in maker.samples["before"]:
        sample["engine"] = {**sample["engine"], "dtype": "int4"}
    record_as_shipped(maker)
    verdict = verify(write(maker.files(), tmp_path / "a"))
    assert failing(verdict) == set()
    assert any("int4" in f.text for f in verdict.findings if f.code == "engine-differs")
    assert "engine-differs" not in notes(verify(write(honest, tmp_path / "b")))


def test_a_single_training_is_noted_and_three_or_none_are_not(tmp_path):
    for seeds, said in ((0, False), (1, True), (3, False)):
        maker = Maker()
        maker.plan = {**maker.default_plan(), "training_seeds": seeds}
        verdict = verify(write(maker.files(), tmp_path / str(seeds)))
        found = [f for f in verdict.findings if f.code == "single-seed"]
        assert [f.claims for f in found] == ([("C1", "C3")] if said else [])


def test_a_comparison_of_one_training_says_so_in_its_own_words(honest, tmp_path):
    def hide(claims):
        claims[2]["text"] = claims[2]["text"].removeprefix("single run: ")

    verdict = verify(write(with_claims(honest, hide), tmp_path))
    assert failing(verdict) == {"single-run-unsaid"}
    assert [f.where for f in verdict.findings if f.code == "single-run-unsaid"] == ["C3"]


def test_a_training_without_its_rollouts_is_noted(tmp_path):
    for trainings, said in ((1, True), (0, False)):
        maker = Maker()
        maker.plan = maker.default_plan() | {"training_seeds": trainings, "last_step": None}
        kinds = maker.default_kinds()
        maker.events = [k for k in kinds if trainings or k[0] != "checkpoint_saved"]
        maker.plan["ledger"]["count"] = 1
        files = maker.files()
        del files["train/rollouts.json"]
        verdict = verify(write(seal(files), tmp_path / str(trainings)))
        assert verdict.is_ok
        assert ("rollouts-missing" in notes(verdict)) is said


@pytest.mark.parametrize("threshold", [0.0, 1.01, 2.0])
def test_a_scan_under_which_copies_count_as_clean_is_weak(threshold, tmp_path):
    maker = Maker()
    maker.scan["threshold"] = threshold
    verdict = verify(write(maker.files(), tmp_path))
    assert "scan-weak" in failing(verdict)


def test_a_sample_of_another_arm_is_inconsistent(tmp_path):
    maker = Maker()
    maker.samples["after"][4]["arm"] = "before"
    record_as_shipped(maker)
    assert failing(verify(write(maker.files(), tmp_path))) == {"sample-inconsistent"}


# Signatures and times


def resigned(files, path, change):
    """An envelope whose parts were changed."""
    sealed = json.loads(files[path])
    change(sealed)
    return {**files, path: canonical_json(sealed) + b"\n"}


def test_a_signature_of_another_text_is_invalid(honest, tmp_path):
    def spoil(sealed):
        raw = bytearray(base64.b64decode(sealed["signatures"][0]["sig"]))
        raw[0] ^= 1
        sealed["signatures"][0]["sig"] = base64.b64encode(raw).decode()

    files = resigned(honest, "SEAL.dsse.json", spoil)
    assert failing(verify(write(files, tmp_path))) == {"signature-invalid"}


def test_a_plan_other_than_the_one_that_was_filed_is_found(tmp_path):
    maker = Maker()
    other = sha256_bytes(b"another plan")
    maker.events = [
        (kind, {**payload, "sha256": other} if kind == "preregistered" else payload)
        for kind, payload in maker.default_kinds()
    ]
    assert failing(verify(write(maker.files(), tmp_path))) == {"prereg-changed"}


def test_an_event_older_than_the_one_before_it_is_found(tmp_path, monkeypatch):
    def back_dated(kinds):
        events = chain(kinds)
        last = {k: v for k, v in events[-1].items() if k != "digest"}
        last["time"] = "2025-12-31T00:00:00Z"
        return [*events[:-1], {**last, "digest": sha256_bytes(canonical_json(last))}]

    maker = Maker()
    maker.plan = maker.default_plan()
    monkeypatch.setattr(honest_dossier, "chain", back_dated)
    assert failing(verify(write(maker.files(), tmp_path))) == {"ledger-time"}


def test_what_is_neither_folder_nor_zip_is_refused(tmp_path):
    path = tmp_path / "d.zip"
    path.write_bytes(b"PK\x03\x04 and no more")
    verdict = verify(path)
    assert failing(verdict) == {"archive-refused"}
    assert verdict.exit_code == 1
