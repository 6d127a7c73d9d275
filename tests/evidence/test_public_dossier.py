"""The dossier that lies in the repository holds, for this version's verifier too."""

from __future__ import annotations

import tarfile
from pathlib import Path

from pellucid.evidence.core.verify import verify

ARCHIVE = Path(__file__).parents[2] / "recipes" / "r1-zero-gsm8k-0.5b" / "dossier.tar.xz"
KEY = "abe208792a5c70fc7b5375303266ee3d16e14798ec25ddaf88c3e3a19083ac02"


def test_the_public_dossier_holds_and_says_what_is_against_it(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        # Pythons before 3.11.4 know no filters.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path, **safe)
    folder = tmp_path / "r1-zero-gsm8k-0.5b"

    verdict = verify(folder, seed="1234", trusted_key=KEY)

    assert [f for f in verdict.findings if not f.kind.is_note] == []
    assert verdict.num_samples == 5 * (1319 * 4 + 500 * 4)
    notes = {f.code for f in verdict.findings}
    assert {"single-seed", "samples-withheld", "contaminated", "extraction-gap"} <= notes
    # Plan and ledger are of today's form, and where arms differ in answers found a planned claim
    # of the answers found alone stands beside.
    assert not {"plan-older", "verdicts-unbound", "claim-withheld", "control-missing"} & notes
    budgets = [(f.text, f.claims) for f in verdict.findings if f.code == "control-shorter"]
    gains = ("C1", "C2", "C3", "C4")
    assert budgets == [
        (f"control {control} trained 48 steps, the claim's run 64", gains)
        for control in ("format-only", "random-reward")
    ]
    gaps = {f.where: f.text for f in verdict.findings if f.code == "extraction-gap"}
    assert sorted(gaps) == ["C1", "C3", "C4", "C5", "C7", "C8"]
    controls = {"C1": "C5", "C3": "C7", "C4": "C8"}
    assert all(gaps[gain].endswith(f"speaks {control}") for gain, control in controls.items())
