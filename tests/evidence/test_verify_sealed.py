"""Families, dates, freshness, cutoff and the last step belong to the plan, and to nobody later."""

import copy
import json

import honest_dossier
import pytest
from honest_dossier import SUITE, Maker, merkle_root, seal, sealed_verdicts, write

from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.samples import sample_line
from pellucid.evidence.core.schema import OldPlannedSuite, OldPreregistration
from pellucid.evidence.core.verify import verify

DATA = f"data/{SUITE}.json"


def failing(verdict):
    return {f.code for f in verdict.findings if not f.kind.is_note}


def notes(verdict):
    return {f.code for f in verdict.findings if f.kind.is_note}


def old_plan(maker):
    """As version 1 would have said it."""
    plan = maker.default_plan()
    suites = {
        suite: {key: about[key] for key in OldPlannedSuite.__annotations__}
        for suite, about in plan["suites"].items()
    }
    kept = {key: plan[key] for key in OldPreregistration.__annotations__}
    return {**kept, "v": 1, "suites": suites}


def with_sets(monkeypatch, change):
    """The forger's data/<suite>.json, from which the views were made anew."""
    honest = honest_dossier.data_set()
    plan = Maker().default_plan()
    changed = copy.deepcopy(honest)
    change(changed["items"])
    monkeypatch.setattr(honest_dossier, "data_set", lambda: changed)
    maker = Maker()
    maker.plan = plan
    return maker


def join_families(maker):
    """All problems become one another's variants, before the ledger saw them."""
    for samples in maker.samples.values():
        for sample in samples:
            sample["cluster"] = f"family-{int(sample['item'].split('/')[1]) // 3}"
    maker.recorded = {arm: merkle_root(map(sample_line, s)) for arm, s in maker.samples.items()}
    maker.sealed = {arm: sealed_verdicts(samples) for arm, samples in maker.samples.items()}


def test_families_chosen_after_the_plan_are_found(tmp_path):
    maker = Maker()
    join_families(maker)
    verdict = verify(write(maker.files(), tmp_path))
    assert failing(verdict) == {"families-changed"}
    assert all("families" in f.text for f in verdict.findings if f.code == "families-changed")


def test_days_of_publication_chosen_after_the_plan_are_found(tmp_path, monkeypatch):
    def rejuvenate(items):
        for about in list(items.values())[::4]:
            about["first_public"] = "2026-12-01"

    verdict = verify(write(with_sets(monkeypatch, rejuvenate).files(), tmp_path))
    assert failing(verdict) == {"views-changed"}
    assert any("the days of publication" in f.text for f in verdict.findings)


def test_freshness_declared_after_the_plan_is_found(tmp_path):
    """The view is left as it is: whoever would have filled it is found by the same digest."""
    files = Maker().files()
    data = json.loads(files[DATA])
    for about in data["items"].values():
        about["is_fresh"] = True
    files = seal({**files, DATA: canonical_json(data)})
    verdict = verify(write(files, tmp_path))
    assert "views-changed" in failing(verdict)
    assert any("what counts as fresh" in f.text for f in verdict.findings)


@pytest.mark.parametrize("cutoff", [None, "2026-05-01", "2025-01-01"])
def test_a_cutoff_chosen_after_the_plan_is_found(cutoff, tmp_path):
    files = Maker().files()
    claims = json.loads(files["claims.json"]) | {"cutoff": cutoff}
    if cutoff is None:
        for claim in claims["claims"]:
            claim["views"]["post_cutoff"] = None
    verdict = verify(write(seal({**files, "claims.json": canonical_json(claims)}), tmp_path))
    assert failing(verdict) == {"views-changed"}
    assert any("the cutoff changed after plan 0001" in f.text for f in verdict.findings)


def test_dates_that_were_taken_away_are_missed(tmp_path):
    files = Maker().files()
    claims = json.loads(files["claims.json"])
    for claim in claims["claims"]:
        claim["views"]["post_cutoff"] = None
    bare = {path: data for path, data in files.items() if path != DATA}
    verdict = verify(write(seal({**bare, "claims.json": canonical_json(claims)}), tmp_path))
    assert failing(verdict) == {"views-changed"}


def test_a_laxer_threshold_than_planned_is_found_and_a_stricter_one_is_not(tmp_path):
    for threshold, said in ((0.5, set()), (0.4, set()), (0.95, {"views-changed"})):
        maker = Maker()
        maker.scan["threshold"] = threshold
        files = maker.files()
        if said:  # the item that was not clean is clean now
            claims = json.loads(files["claims.json"])
            for claim in claims["claims"]:
                claim["views"]["clean"] = {**claim["reported"], "p": claim["reported"]["p"],
                                           "p_adj": None}  # fmt: skip
            files = seal({**files, "claims.json": canonical_json(claims)})
        assert failing(verify(write(files, tmp_path / str(threshold)))) == said


@pytest.mark.parametrize(("planned", "fails"), [(20, False), (None, False), (10, True), (40, True)])
def test_a_training_that_ended_elsewhere_than_planned_is_found(planned, fails, tmp_path):
    """Stopped while it looked good, or continued until it did."""
    maker = Maker()
    maker.plan = {**maker.default_plan(), "last_step": planned}
    expected = {"stopped-otherwise"} if fails else set()
    assert failing(verify(write(maker.files(), tmp_path))) == expected


def test_a_plan_of_version_1_goes_on_verifying_and_is_called_older(tmp_path):
    maker = Maker()
    maker.plan = old_plan(maker)
    join_families(maker)
    verdict = verify(write(maker.files(), tmp_path / "old"))
    assert verdict.is_ok
    assert "plan-older" in notes(verdict)
    assert verdict.status("C1", "integrity") == "in part"
    assert "plan-older" not in notes(verify(write(Maker().files(), tmp_path / "new")))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(v=3),
        lambda p: p.update(v=1),
        lambda p: p.update(v=[2]),
        lambda p: p.pop("cutoff"),
        lambda p: p["suites"][SUITE].pop("dates_sha256"),
    ],
)
def test_a_plan_in_no_known_form_is_refused(change, tmp_path):
    maker = Maker()
    maker.plan = maker.default_plan()
    change(maker.plan)
    verdict = verify(write(maker.files(), tmp_path))
    assert {"file-malformed", "prereg-missing"} <= failing(verdict)
    assert "verifier-stopped" not in failing(verdict)
