"""A control of fewer steps than the claim's run is told, by the verifier and by new dossiers."""

import pytest
from honest_dossier import Maker, write

from pellucid.evidence.claims import claim_limits
from pellucid.evidence.core.check_controls import trained_steps
from pellucid.evidence.core.verify import verify

BUDGET = ("control-shorter", "control-steps-unknown")


def budget_notes(maker, folder):
    """(code, text, claims) of what a verifier says of the control's steps; all else holds."""
    verdict = verify(write(maker.files(), folder))
    assert verdict.is_ok
    return [(f.code, f.text, f.claims) for f in verdict.findings if f.code in BUDGET]


@pytest.mark.parametrize("steps", [20, 21])
def test_a_control_of_as_many_steps_or_more_has_no_note(tmp_path, steps):
    maker = Maker()
    maker.control_steps = steps
    maker.checkpoints["stage"] = "zero"
    keep = maker.default_kinds
    maker.default_kinds = lambda: [
        (kind, {"stage": "zero", **payload} if kind == "checkpoint_saved" else payload)
        for kind, payload in keep()
    ]
    assert budget_notes(maker, tmp_path) == []


def test_a_control_of_fewer_steps_is_noted_on_the_claims_that_require_it(tmp_path):
    maker = Maker()
    maker.control_steps = 10
    text = "control random-reward trained 10 steps, the claim's run 20"
    assert budget_notes(maker, tmp_path) == [("control-shorter", text, ("C1",))]


def test_a_control_whose_steps_the_ledger_does_not_tell_is_noted(tmp_path):
    maker = Maker()
    maker.control_steps = None
    text = "for how many steps the control random-reward was trained is not told"
    assert budget_notes(maker, tmp_path) == [("control-steps-unknown", text, ("C1",))]


def test_steps_trained_after_a_control_was_measured_do_not_count():
    events = [
        ("checkpoint_saved", {"stage": "zero", "step": 64}),
        ("checkpoint_saved", {"stage": "random-reward", "step": 1}),
        ("evaluation_started", {"serial": 1, "arm": "random-reward", "suite": "sums"}),
        ("checkpoint_saved", {"stage": "random-reward", "step": 64}),
    ]
    assert trained_steps(events, "random-reward") == 1
    assert trained_steps(events, "zero") == 64
    assert trained_steps(events, "format-only") is None


def test_the_limits_of_a_claim_name_the_smaller_budget_of_the_controls_it_requires():
    claim = {
        "kind": "paired_difference",
        "test": "sign_flip",
        "metric": {"fn": "pass_at_1"},
        "requires": ["random-reward", "format-only"],
    }
    shorter = {"format-only": "control format-only trained 48 steps, the claim's run 64"}
    said = "Control format-only trained 48 steps, the claim's run 64: it had less time to gain."
    assert said in claim_limits(claim, 1, shorter)
    assert said not in claim_limits({**claim, "requires": ["random-reward"]}, 1, shorter)
    assert "trained" not in claim_limits(claim, 1)
