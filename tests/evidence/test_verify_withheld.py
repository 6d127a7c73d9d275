"""Withholding a text is no way to change its verdict: the ledger knows it from before."""

import honest_dossier
import pytest
from honest_dossier import SUITE, K, Maker, write

from pellucid.evidence.core.canonical import sha256_json
from pellucid.evidence.core.samples import redact_sample
from pellucid.evidence.core.verify import verify

AFTER = f"evals/{SUITE}/after"


def found(verdict, *, is_note):
    return {f.code for f in verdict.findings if f.kind.is_note is is_note}


def examined(maker, folder):
    return verify(write(maker.files(), folder))


def withheld(change=None):
    """A dossier with all samples withheld, and those of the released model changed on that way;
    the numbers of claims.json follow them.
    """
    maker = Maker()
    maker.recorded = {arm: honest_dossier.honest_root(arm, n) for arm, n in maker.attempts}
    for arm, samples in maker.samples.items():
        maker.samples[arm] = [redact_sample(sample) for sample in samples]
        if change is not None and (arm == "after" or change is join_families):
            change(maker.samples[arm])
    return maker


def raise_verdicts(samples):
    for sample in samples:
        sample["verdict"] = "correct"


def swap_within_an_item(samples):
    """Counts stay what they are; only which sample was right is another."""
    for start in range(0, len(samples), K):
        own = samples[start : start + K]
        if len({s["verdict"] for s in own}) > 1:
            verdicts = [s["verdict"] for s in own]
            for sample, verdict in zip(own, verdicts[1:] + verdicts[:1], strict=True):
                sample["verdict"] = verdict
            return
    raise AssertionError("no item has different verdicts")


def join_families(samples):
    for sample in samples:
        sample["cluster"] = "family-0" if sample["cluster"] == "family-1" else sample["cluster"]


def shorten(samples):
    samples[5]["n_out"] = 1


def cut_off(samples):
    samples[5]["finish"] = "length"


def test_withheld_verdicts_are_held_to_the_ledger(tmp_path):
    verdict = examined(withheld(), tmp_path)
    assert found(verdict, is_note=False) == set()
    assert "verdicts-unbound" not in found(verdict, is_note=True)
    assert verdict.status("C2", "recomputed") == "in part"


@pytest.mark.parametrize(
    "change", [raise_verdicts, swap_within_an_item, join_families, shorten, cut_off]
)
def test_what_was_changed_with_the_withholding_is_found(change, tmp_path):
    verdict = examined(withheld(change), tmp_path)
    assert "verdicts-changed" in found(verdict, is_note=False)
    assert verdict.status("C2", "integrity") == "FAILS"


def test_withheld_votes_are_held_to_the_ledger(tmp_path, monkeypatch):
    """Two answers that differed become one majority."""
    planned = honest_dossier.planned_claims

    def with_votes():
        claims = planned()
        claims[1] |= {"kind": "cons_at_k", "metric": {"fn": "cons_at_k", "k": K}}
        return claims

    monkeypatch.setattr(honest_dossier, "planned_claims", with_votes)

    def make_a_majority(samples):
        for sample in samples:
            if "extracted" in sample["redacted"]["fields"]:
                sample["redacted"]["fields"]["extracted"] = sha256_json("7")

    assert found(examined(withheld(), tmp_path / "honest"), is_note=False) == set()
    verdict = examined(withheld(make_a_majority), tmp_path / "forged")
    assert found(verdict, is_note=False) == {"verdicts-changed"}


def test_a_ledger_from_before_verdicts_were_kept_is_noted_where_texts_are_withheld(tmp_path):
    def without_digests(maker):
        gone = ("verdicts_sha256", "votes_sha256")
        maker.events = [
            (kind, {k: v for k, v in payload.items() if k not in gone})
            for kind, payload in maker.default_kinds()
        ]
        return maker

    verdict = examined(without_digests(withheld()), tmp_path / "withheld")
    assert verdict.is_ok
    assert "verdicts-unbound" in found(verdict, is_note=True)
    whole = examined(without_digests(Maker()), tmp_path / "whole")
    assert whole.is_ok
    assert "verdicts-unbound" not in found(whole, is_note=True)
