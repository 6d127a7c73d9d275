"""What a verifier can find, each under a stable code: scripts and referees rely on these names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Column = Literal["integrity", "recomputed", "replayed", "fresh", "clean"]
COLUMNS: tuple[Column, ...] = ("integrity", "recomputed", "replayed", "fresh", "clean")


class Code(NamedTuple):
    """A kind of finding."""

    column: Column
    """Column of the table that it spoils."""
    text: str
    """One line of general meaning."""
    is_note: bool = False
    """A note informs; it does not fail the dossier."""


CODES: dict[str, Code] = {
    # Files and their form
    "path-unsafe": Code("integrity", "a path that leaves the folder, is a link, or collides"),
    "archive-refused": Code("integrity", "an archive that is damaged or out of proportion"),
    "file-missing": Code("integrity", "a file that the manifest lists, or every dossier has"),
    "file-unlisted": Code("integrity", "a file that the manifest does not list"),
    "file-changed": Code("integrity", "a file whose size or digest is not the manifest's"),
    "file-malformed": Code("integrity", "a file that is not in the form that is specified"),
    # Seal and signatures
    "seal-missing": Code("integrity", "the dossier is not sealed"),
    "seal-mismatch": Code("integrity", "the seal is of another manifest, ledger or version"),
    "seal-chain-broken": Code("integrity", "the seal does not follow the version before it"),
    "seal-unsigned": Code("integrity", "not signed: nobody vouches for it", True),
    "signature-invalid": Code("integrity", "a signature does not fit its key or its text"),
    "foreign-signature": Code("integrity", "signed with another key than the one that must sign"),
    # Ledger, plan, attempts
    "ledger-broken": Code("integrity", "a ledger event was changed or does not follow the last"),
    "ledger-truncated": Code("integrity", "the ledger lacks events that the dossier speaks of"),
    "ledger-time": Code("integrity", "a ledger event is older than the one before it"),
    "unreported-attempt": Code("integrity", "an evaluation in the ledger that is not reported"),
    "attempts-exceeded": Code("integrity", "more attempts at an evaluation than were planned"),
    "prereg-missing": Code("integrity", "a claim, or an evaluation, without a plan"),
    "prereg-late": Code("integrity", "the plan was not sealed before the evaluation began"),
    "prereg-changed": Code("integrity", "the plan is not the one that the ledger recorded"),
    "claim-changed": Code("integrity", "the claim is not the one that was planned"),
    "families-changed": Code("integrity", "other families of problems than the plan's"),
    "views-changed": Code("integrity", "other views than the plan's: dates, cutoff, fresh, clean"),
    "stopped-otherwise": Code("integrity", "the training ended at another step than was planned"),
    "plan-older": Code("integrity", "a plan from before views and ending were fixed in it", True),
    # Evaluations against the plan
    "sample-edited": Code("integrity", "samples whose Merkle root is not the recorded one"),
    "sample-missing": Code("integrity", "fewer samples than were planned"),
    "sample-surplus": Code("integrity", "samples that were not planned, or twice the same"),
    "sample-malformed": Code("integrity", "a line that is no sample record"),
    "sample-inconsistent": Code("integrity", "samples that contradict their evaluation's facts"),
    "items-changed": Code("integrity", "other items than the plan's were asked"),
    "prompt-changed": Code("integrity", "another prompt template than the plan's was used"),
    "grader-changed": Code("integrity", "another grader than the plan's was used"),
    "seed-changed": Code("integrity", "another seed, or other sampling, than the plan's"),
    "weights-swapped": Code("integrity", "another model answered than the one that is claimed"),
    "baseline-wrong": Code("integrity", "another baseline than the plan's was measured"),
    "baseline-weak": Code("integrity", "the baseline was not measured with its best prompt"),
    "control-missing": Code("integrity", "a control that the claim requires was not measured"),
    "redaction-broken": Code("integrity", "withheld samples that do not fit the recorded root"),
    "verdicts-changed": Code("integrity", "other verdicts than the ledger recorded at the end"),
    # Reviews
    "review-broken": Code("integrity", "a round of review that is not as it was recorded"),
    "closing-unproven": Code("integrity", "a point closed by neither its author nor its test"),
    "change-uncited": Code("integrity", "a reviewed claim that changed without a reason"),
    "closing-weak": Code("integrity", "a closing word that the dossier's author knew", True),
    # Dossiers of other parties
    "party-altered": Code("integrity", "another party's dossier is not as they sealed it"),
    "party-samples-missing": Code("integrity", "another party's dossier lacks samples"),
    "party-fails": Code("integrity", "another party's dossier does not hold by itself"),
    "party-unsigned": Code("integrity", "another party's dossier is signed by nobody"),
    "party-own-key": Code("integrity", "another party's dossier, signed with this one's key"),
    "party-copied": Code("integrity", "another party's evaluations are this dossier's own"),
    "party-other-weights": Code("integrity", "another party asked other weights than released"),
    "party-diff": Code("integrity", "a diff that is not what comparing the dossiers gives"),
    "party-key": Code("integrity", "the key that another party signed with", True),
    "party-same-samples": Code("integrity", "another party's samples are equal to ours", True),
    "party-differs": Code("recomputed", "another party's interval lies apart from ours", True),
    # Selection
    "checkpoint-selection": Code("integrity", "another checkpoint than the rule chooses"),
    "checkpoint-missing": Code("integrity", "a checkpoint in the ledger that the index lacks"),
    # Recomputation
    "grade-mismatch": Code("recomputed", "the grader gives another verdict than was recorded"),
    "grades-reordered": Code("recomputed", "verdicts are right in number but of other samples"),
    "error-scored": Code("recomputed", "a failed instrument was counted as an answer"),
    "failures-decide": Code("recomputed", "a number that hangs on which samples failed"),
    "grader-unsound": Code("recomputed", "the grader fails its own test vectors"),
    "reward-mismatch": Code("recomputed", "a training reward is not the sum of its terms"),
    "claim-mismatch": Code("recomputed", "recomputing gives another number than is printed"),
    "claim-unsupported": Code("recomputed", "the claim cannot be computed from the samples"),
    "claim-fails": Code("recomputed", "the decision rule does not give what the claim says"),
    "format-decides": Code("recomputed", "a gain that may be more answers found, not withheld"),
    "single-run-unsaid": Code("recomputed", "a comparison of few trainings that hides it"),
    "control-gains": Code("recomputed", "a negative control shows the claimed gain as well"),
    "control-shorter": Code("recomputed", "a control of fewer steps than the claim's run", True),
    "control-steps-unknown": Code("recomputed", "a control whose steps are not told", True),
    "engine-differs": Code("recomputed", "arms answered by different engines or types", True),
    "extraction-gap": Code("recomputed", "arms differ in answers found by over 2 points", True),
    "energy-implausible": Code("recomputed", "joules that cannot be, or that have no source"),
    "energy-mismatch": Code("recomputed", "recomputing gives another bill than is reported"),
    # Human audits
    "audit-draw": Code("recomputed", "samples for a human audit that the seed does not draw"),
    "audit-label-foreign": Code("recomputed", "labels of samples that were not drawn"),
    "audit-label-missing": Code("recomputed", "drawn samples whose labels were left out"),
    "audit-label-changed": Code("recomputed", "labels that are not those that were stated"),
    "audit-mismatch": Code("recomputed", "labels give other numbers of the graders"),
    "audited": Code("recomputed", "what human labels say of the graders", True),
    "audit-seed": Code("recomputed", "an audit whose seed somebody chose", True),
    "audit-unlabelled": Code("recomputed", "an audit that was drawn and not labelled", True),
    "audit-missing": Code("recomputed", "fewer human labels than the plan promised", True),
    "audit-unsigned": Code("recomputed", "labels that only the dossier's author states", True),
    # Judges
    "judge-broken": Code("recomputed", "judgments that are not as they were stated"),
    "judgment-missing": Code("recomputed", "samples or probes that a judge left out"),
    "judge-mismatch": Code("recomputed", "judgments and labels give other numbers"),
    "judged": Code("recomputed", "what is known of a judge", True),
    "judge-alone": Code("recomputed", "verdicts of one judge alone", True),
    "judge-unchecked": Code("recomputed", "a judge whom fewer than 100 labels check", True),
    # Cleanliness
    "contaminated": Code("clean", "items of the test are in the training data", True),
    "scan-mismatch": Code("clean", "scanning again finds other overlaps than were recorded"),
    "scan-missing": Code("clean", "a suite without a contamination scan"),
    "scan-weak": Code("clean", "the scanner did not find planted leaks reliably"),
    "view-missing": Code("clean", "a capability claim without the views on clean items"),
    "view-mismatch": Code("clean", "recomputing a view gives another number than is printed"),
    "view-reverses": Code("clean", "the claim does not hold on clean, newer or fresh items"),
    # Replay and fresh items, found by `pellucid verify`
    "replay-mismatch": Code("replayed", "the weights do not give the recorded tokens"),
    "fresh-mismatch": Code("fresh", "fresh items give less than the claim's interval"),
    "fresh-unsealed": Code("fresh", "fresh items of a generator that was not sealed", True),
    # Notes
    "verifier-foreign": Code(
        "integrity", "a verify.pyz unlike this version's: do not run it", True
    ),
    "signature-unpinned": Code("integrity", "compare the key with the one published", True),
    "attempt-reported": Code("integrity", "an evaluation that was tried and is reported", True),
    "grade-not-redone": Code("recomputed", "samples that this verifier cannot grade", True),
    "samples-failed": Code("recomputed", "samples that failed and count in no accuracy", True),
    "samples-withheld": Code("recomputed", "samples whose text is withheld", True),
    "verdicts-unbound": Code("recomputed", "verdicts that could be changed when withheld", True),
    "claim-impossible": Code("recomputed", "a planned claim that no samples can give", True),
    "claim-withheld": Code("recomputed", "a comparison that is not called true", True),
    "rollouts-missing": Code("recomputed", "a training without a rollout to look at", True),
    "single-seed": Code("recomputed", "the training was run once", True),
    "scan-coarse": Code("clean", "partial copies may be missed, or look-alikes counted", True),
    "check-impossible": Code("clean", "something that cannot be checked from what is here", True),
    # The verifier itself
    "verifier-stopped": Code("integrity", "a check stopped on something that it did not expect"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found. Example: Finding(code="file-changed", where="claims.json", text="…")"""

    code: str
    where: str
    """File, or file and line, or claim."""
    text: str
    """One line: what exactly."""
    claims: tuple[str, ...] | None = None
    """Ids of the claims it spoils; None: all."""

    @property
    def kind(self) -> Code:
        return CODES[self.code]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {
            "code": self.code,
            "column": self.kind.column,
            "is_note": self.kind.is_note,
            "where": self.where,
            "text": self.text,
            "claims": None if self.claims is None else list(self.claims),
        }
