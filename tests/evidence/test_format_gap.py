"""Where one arm finds more answers than the other, better may mean no more than that."""

import copy
import json

import honest_dossier
import pytest
from honest_dossier import SUITE, K, Maker, merkle_root, seal, sealed_verdicts, write

from pellucid.evidence.claim_numbers import compute_document
from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.claims import compute_claim
from pellucid.evidence.core.comparisons import FORMAT_METRIC, NO_CLAIM
from pellucid.evidence.core.samples import sample_line
from pellucid.evidence.core.tally import Evaluation, ItemTally
from pellucid.evidence.core.verify import verify

AFTER, BEFORE, CHAT = (f"evals/{SUITE}/{arm}" for arm in ("after", "before", "chat"))


def control_of(claim, name):
    """The same claim, of the answers found alone."""
    margin = {k: v for k, v in claim["metric"].items() if k == "margin"}
    test = "clustered_t"
    return {**claim, "id": name, "metric": FORMAT_METRIC | margin, "test": test, "requires": []}


# The rule by itself


def arm(*verdicts):
    """An evaluation with these verdicts for the items of fifteen families."""
    made = Evaluation(SUITE, "", merkle_root="0" * 64)
    for number in range(30):
        made.items[f"{number}"] = ItemTally(f"{number // 2}", verdicts[number % len(verdicts)])
    return made


def gain(name, b, metric=None):
    return {
        "id": name,
        "kind": "paired_difference",
        "metric": metric or {"fn": "pass_at_1"},
        "arms": {"a": AFTER, "b": b},
        "unit": "problem",
        "cluster": "family",
        "test": "clustered_t",
        "family": "main",
        "rule": "low > 0 and p_adj < 0.05",
        "requires": [],
    }


def document(planned, evaluations, **options):
    """claims.json by the builder; `after` and the rest are two models."""
    models = dict.fromkeys(evaluations, "before") | {AFTER: "after"}
    given = {"prereg": "0001", "training_seeds": 3, "title": "", "cutoff": None, "sets": {}}
    claims = compute_document(
        planned, evaluations, scan=None, models=models, **given, **options
    ).claims["claims"]
    return {claim["id"]: claim for claim in claims}


SKILLED = arm("cccw", "ccww", "cccc", "cwww", "ccww")
UNTRAINED = arm("cuww", "wuww", "wwuu", "cwwu", "uwww")
"""Of the answers found, fewer are right too."""
HALF = arm("ccww", "cccw", "cwww", "wccw", "wwcc")
MUTE = arm("cuuw", "cuuu", "uuuw", "cwuu", "ucwu")
"""Half of what is found is right, as in `HALF`: it only answers less often."""


def both(b=BEFORE):
    return [gain("C1", b), gain("C2", b, FORMAT_METRIC)]


def test_a_gain_stands_that_the_answers_found_show_too():
    claims = document(both(), {AFTER: SKILLED, BEFORE: UNTRAINED})
    assert (claims["C1"]["holds"], claims["C1"]["level"]) == (True, "recomputed")
    assert claims["C2"]["holds"]


def test_a_gain_that_is_more_answers_alone_is_withheld():
    claims = document(both(), {AFTER: HALF, BEFORE: MUTE})
    assert float(claims["C1"]["reported"]["low"]) > 0
    assert (claims["C1"]["holds"], claims["C1"]["level"]) == (False, "withheld")
    assert claims["C1"]["limits"].startswith(
        "Withheld: an answer was found in 100.0% and 40.0% of the samples; "
        "C2, of the answers found alone, does not hold. "
    )


def test_without_a_control_in_the_plan_a_gain_with_a_gap_is_withheld():
    claims = document([gain("C1", BEFORE)], {AFTER: SKILLED, BEFORE: UNTRAINED})
    assert claims["C1"]["level"] == "withheld"
    assert "no claim of the answers found alone is here" in claims["C1"]["limits"]


@pytest.mark.parametrize(("unfound", "is_withheld"), [(2, False), (3, True)])
def test_two_points_are_no_gap_and_more_are(unfound, is_withheld):
    """Of 1500 graded samples 30 are two points of a hundred."""
    base = arm("w" * 50)
    for number in range(15 * unfound):
        tally = base.items[f"{number % 30}"]
        tally.verdicts = tally.verdicts.replace("w", "u", 1)
    claims = document([gain("C1", BEFORE)], {AFTER: arm("c" * 50), BEFORE: base})
    assert (claims["C1"]["level"] == "withheld") is is_withheld


def test_another_prompt_of_the_same_base_must_lose_as_well():
    planned = [*both(), gain("C3", CHAT), gain("C4", CHAT, FORMAT_METRIC)]
    weak = {AFTER: SKILLED, BEFORE: UNTRAINED}
    fair = document(planned, {**weak, CHAT: arm("cwww", "wwww", "ccww", "wwww", "wwwc")})
    assert {name: claim["holds"] for name, claim in fair.items()} == dict.fromkeys(fair, True)
    best = document(planned, {**weak, CHAT: SKILLED})
    assert (best["C1"]["holds"], best["C3"]["holds"]) == (False, False)
    assert best["C1"]["level"] == "withheld"
    assert "C3, against the same model under another prompt" in best["C1"]["limits"]
    assert best["C3"]["level"] == "recomputed"  # its arms find alike: the rule alone decides


def test_a_control_that_is_decided_in_another_way_is_none():
    for change in ({"rule": "value > -1"}, {"family": None, "rule": "low > 0"}, {"test": None}):
        planned = [gain("C1", BEFORE), {**gain("C2", BEFORE, FORMAT_METRIC), **change}]
        claims = document(planned, {AFTER: SKILLED, BEFORE: UNTRAINED})
        assert claims["C1"]["level"] == "withheld", change


def test_a_difference_of_which_nothing_is_claimed_is_not_withheld():
    plain = {**gain("C1", BEFORE), "test": None, "family": None, "rule": NO_CLAIM}
    claims = document([plain], {AFTER: SKILLED, BEFORE: UNTRAINED})
    assert (claims["C1"]["level"], claims["C1"]["holds"]) == ("recomputed", True)


def test_plans_of_version_1_asked_for_no_control_and_withhold_nothing():
    planned, arms = [gain("C1", BEFORE)], {AFTER: SKILLED, BEFORE: UNTRAINED}
    assert document(planned, arms, plan_version=1)["C1"]["holds"]


def test_what_is_left_if_missing_answers_were_as_good_has_the_sign_of_the_control():
    """f0 (a1 - a0), pooled, by counting: see `comparisons`."""
    a, b = SKILLED, UNTRAINED
    graded = sum(t.graded for t in a.items.values())
    f1, f0 = (sum(t.parsable for t in e.items.values()) / graded for e in (a, b))
    p1, p0 = (sum(t.correct for t in e.items.values()) / graded for e in (a, b))
    left = p1 - (p0 + (f1 - f0) * p1 / f1)
    pooled = {**gain("C2", BEFORE, FORMAT_METRIC), "unit": "sample"}
    control = compute_claim(pooled, {AFTER: a, BEFORE: b})
    assert left == pytest.approx(f0 * control.value)


# What the verifier says


@pytest.fixture
def gapped(monkeypatch):
    """Makes dossiers in which `before` gives no answer in 8 of its 96 samples."""
    planned = honest_dossier.planned_claims

    def make(*, with_controls):
        def claims():
            made = planned()
            own = [control_of(made[0], "C4"), control_of(made[2], "C5")] if with_controls else []
            return [*made, *own]

        monkeypatch.setattr(honest_dossier, "planned_claims", claims)
        maker = Maker()
        for sample in maker.samples["before"][:8]:
            sample |= {"response": "No idea.", "verdict": "unparsable", "extracted": None}
        record_as_shipped(maker)
        return maker

    return make


def record_as_shipped(maker):
    """The ledger knows the samples as they are now."""
    maker.recorded = {a: merkle_root(map(sample_line, s)) for a, s in maker.samples.items()}
    maker.sealed = {a: sealed_verdicts(s) for a, s in maker.samples.items()}


def found(verdict, *, is_note):
    return {f.code for f in verdict.findings if f.kind.is_note is is_note}


def with_claims(files, change):
    claims = json.loads(files["claims.json"])
    change({claim["id"]: claim for claim in claims["claims"]})
    return seal({**files, "claims.json": canonical_json(claims)})


def withhold(claims):
    for name in ("C1", "C3"):
        claims[name] |= {"level": "withheld", "holds": False}


def test_a_gap_with_its_controls_is_a_note(gapped, tmp_path):
    verdict = verify(write(gapped(with_controls=True).files(), tmp_path))
    assert found(verdict, is_note=False) == set()
    assert "extraction-gap" in found(verdict, is_note=True)
    assert verdict.status("C1", "recomputed") == "ok"


def test_a_gain_that_should_be_withheld_and_is_not_is_found(gapped, tmp_path):
    files = gapped(with_controls=False).files()
    verdict = verify(write(files, tmp_path / "claimed"))
    assert found(verdict, is_note=False) == {"format-decides"}
    assert {f.where for f in verdict.findings if f.code == "format-decides"} == {"C1", "C3"}
    assert verdict.status("C1", "recomputed") == "FAILS"
    honest = verify(write(with_claims(files, withhold), tmp_path / "withheld"))
    assert found(honest, is_note=False) == set()
    assert "claim-withheld" in found(honest, is_note=True)
    assert honest.status("C1", "recomputed") == "in part"
    assert honest.status("C2", "recomputed") == "ok"


def test_a_control_that_nobody_planned_is_none(gapped, tmp_path):
    maker = gapped(with_controls=True)
    maker.plan = maker.default_plan()
    maker.plan["claims"] = maker.plan["claims"][:3]
    assert "prereg-missing" in found(verify(write(maker.files(), tmp_path)), is_note=False)


def test_a_control_that_no_answer_allows_is_left_out_and_the_claims_are_withheld(gapped, tmp_path):
    """A base that never answers in the right form, which no honest author can help."""
    maker = gapped(with_controls=True)
    for sample in maker.samples["before"]:
        sample |= {"response": "No idea.", "verdict": "unparsable", "extracted": None}
    record_as_shipped(maker)
    maker.plan = maker.default_plan()
    maker.claims = maker.claims[:3]
    files = with_claims(maker.files(), withhold)
    verdict = verify(write(files, tmp_path / "all"))
    assert found(verdict, is_note=False) == set()
    assert {"claim-impossible", "claim-withheld"} <= found(verdict, is_note=True)
    for sample in maker.samples["before"][:K]:
        sample |= {"response": "\\boxed{0}", "verdict": "wrong", "extracted": "0"}
    record_as_shipped(maker)
    some = verify(write(with_claims(maker.files(), withhold), tmp_path / "some"))
    assert found(some, is_note=False) == {"claim-changed"}  # now there is something to report


def test_withholding_without_a_reason_is_found(tmp_path):
    verdict = verify(write(with_claims(Maker().files(), withhold), tmp_path))
    assert found(verdict, is_note=False) == {"claim-fails"}


def test_a_withheld_claim_that_is_called_true_is_found(gapped, tmp_path):
    def half(claims):
        withhold(claims)
        claims["C1"]["holds"] = True

    files = with_claims(gapped(with_controls=False).files(), half)
    assert found(verify(write(files, tmp_path)), is_note=False) == {"claim-fails"}


def test_under_a_plan_of_version_1_a_gap_is_a_note(gapped, tmp_path):
    maker = gapped(with_controls=False)
    plan = copy.deepcopy(maker.default_plan())
    for name in ("cutoff", "clean_below", "last_step"):
        del plan[name]
    for name in ("families_sha256", "dates_sha256", "fresh_sha256"):
        del plan["suites"][SUITE][name]
    maker.plan = {**plan, "v": 1}
    verdict = verify(write(maker.files(), tmp_path))
    assert verdict.is_ok
    assert {"extraction-gap", "plan-older"} <= found(verdict, is_note=True)
