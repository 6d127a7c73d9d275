"""The claims that a run makes by itself, and the sentences that say them.

Of every suite that base and trained model were both asked: is the trained model better? Beside
these, what was measured of each arm is printed as a claim of its own, so that a report can link
every number; those say nothing but their number, and their rule always holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.evaluate.suites import Suite
from pellucid.evidence.core.claims import TWO_ARM_KINDS
from pellucid.evidence.core.comparisons import FORMAT_METRIC, NO_CLAIM, format_draft, run_label
from pellucid.evidence.core.schema import PlannedClaim

MAIN_FAMILY = "main"
GAIN_RULE = "low > 0 and p_adj < 0.05"
NUMBER_RULE = "value >= 0"
DIFFERENCE_RULE = NO_CLAIM
"""Of what is printed and not claimed, these two hold whatever was measured."""
CONTROLS = ("random-reward", "format-only")
"""Arms that were trained from the same base on a reward that knows no answer."""
NO_CONTROLS = (
    "No control was run (random reward, reward for the format alone): the gain is not shown to "
    "come from the reward for right answers."
)

AS_THEY_ARE = "The models are measured as they are: what made the difference is not shown."


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEvaluation:
    """One model on one suite. Example: model="after", suite=Suite(key="gsm8k", …)"""

    model: str
    """Name of the model: `before`, `after`, a control, a stage."""
    suite: Suite

    @property
    def arm(self) -> str:
        return self.suite.arm(self.model)

    @property
    def folder(self) -> str:
        """Of the dossier."""
        return f"evals/{self.suite.key}/{self.arm}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models of a run. Example: model="distill", over="distill.student", is_claimed=True"""

    model: str
    over: str
    is_claimed: bool
    """That the first is better; else their difference is printed with its interval, untested."""


def default_claims(
    evaluations: Sequence[PlannedEvaluation],
    *,
    base: str,
    subject: str,
    controls: Sequence[str] = (),
    comparisons: Sequence[Comparison] = (),
) -> list[PlannedClaim]:
    """The claims of a run whose model `subject` came from `base`, and `comparisons` beside."""
    compared = [
        *_gains(evaluations, base, subject, controls),
        *(draft for one in comparisons for draft in _compared(evaluations, one)),
    ]
    return _numbered(compared, evaluations)


def compared_claims(
    evaluations: Sequence[PlannedEvaluation], models: Sequence[str]
) -> list[PlannedClaim]:
    """The claims of models that are measured as they are: each is above every one named before it,
    wherever both are asked the same problems.
    """
    compared = [
        _gain(own, other)
        for own in evaluations
        for other in evaluations
        if models.index(other.model) < models.index(own.model)
        and _ids(own.suite) == _ids(other.suite)
    ]
    return _numbered(compared, evaluations)


def _numbered(
    compared: Sequence[dict[str, Any]], evaluations: Sequence[PlannedEvaluation]
) -> list[PlannedClaim]:
    """Comparisons, the format control of each that is claimed, and every arm's own numbers."""
    drafts = [
        *compared,
        *(_format_control(draft) for draft in compared if draft["test"] is not None),
        *(draft for one in evaluations for draft in _numbers(one)),
    ]
    return [{"id": f"C{number}", **draft} for number, draft in enumerate(drafts, 1)]


def _format_control(gain: dict[str, Any]) -> dict[str, Any]:
    """The same of the answers found alone, without which a gain is withheld whose arms differ in
    how many were found (`core.comparisons`).
    """
    return {**format_draft(gain), "requires": []}


def _gains(
    evaluations: Sequence[PlannedEvaluation], base: str, subject: str, controls: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The subject against the base under every prompt that the base was asked with."""
    for own in evaluations:
        if own.model != subject:
            continue
        for other in evaluations:
            if other.model == base and _same_items(own.suite, other.suite):
                yield _gain(own, other) | {"requires": list(controls)}


def _gain(own: PlannedEvaluation, other: PlannedEvaluation) -> dict[str, Any]:
    """That one evaluation is above another."""
    return {
        **_draft("paired_difference", {"fn": "pass_at_1"}, own.folder, other.folder),
        "test": "sign_flip",
        "family": MAIN_FAMILY,
        "rule": GAIN_RULE,
    }


def _compared(
    evaluations: Sequence[PlannedEvaluation], comparison: Comparison
) -> Iterator[dict[str, Any]]:
    """Two models on every suite that both were asked."""
    for own in evaluations:
        for other in evaluations:
            if (own.model, other.model) != (comparison.model, comparison.over):
                continue
            if own.suite.key == other.suite.key:
                is_claimed = comparison.is_claimed
                yield _gain(own, other) if is_claimed else _difference(own, other)


def _difference(own: PlannedEvaluation, other: PlannedEvaluation) -> dict[str, Any]:
    """How far one evaluation is above another; nothing is claimed of it."""
    draft = _draft("paired_difference", {"fn": "pass_at_1"}, own.folder, other.folder)
    return draft | {"rule": DIFFERENCE_RULE}


def _same_items(own: Suite, other: Suite) -> bool:
    """The same suite, or the base's own prompt for its problems."""
    if own.key == other.key:
        return True
    return other.baseline_only and _ids(own) == _ids(other)


def _ids(suite: Suite) -> list[str]:
    return [problem.id for problem in suite.problems]


def _numbers(one: PlannedEvaluation) -> Iterator[dict[str, Any]]:
    yield _draft("pass_at_1", {"fn": "pass_at_1"}, one.folder)
    for k in sorted({k for k in one.suite.pass_at if k > 1}):
        yield _draft("pass_at_k", {"fn": "pass_at_k", "k": k}, one.folder)
    if one.suite.k > 1:
        yield _draft("cons_at_k", {"fn": "cons_at_k", "k": one.suite.k}, one.folder)
    for of, among in (("parsable", "graded"), ("truncated", "samples")):
        rate = {"fn": "rate", "of": of, "among": among}
        yield _draft("rate", rate, one.folder) | {"unit": "sample"}
    length = {"fn": "ratio", "of": "tokens", "among": "samples"}
    yield _draft("ratio", length, one.folder) | {"unit": "sample"}


def _draft(kind: str, metric: dict[str, Any], a: str, b: str | None = None) -> dict[str, Any]:
    return {
        "kind": kind,
        "metric": metric,
        "arms": {"a": a} if b is None else {"a": a, "b": b},
        "unit": "problem",
        "cluster": "family",
        "test": None,
        "family": None,
        "rule": NUMBER_RULE,
        "requires": [],
    }


# Words


def claim_text(claim: Mapping[str, Any]) -> str:
    """One sentence for people."""
    suite, arm = _place(claim["arms"]["a"])
    what = _metric_words(claim["metric"])
    if claim["kind"] not in TWO_ARM_KINDS:
        return f"{what} of {arm} on {suite}"
    other_suite, other = _place(claim["arms"]["b"])
    over = other if other_suite == suite else f"{other} ({other_suite})"
    if claim["metric"] == FORMAT_METRIC:
        return f"of the answers found on {suite} more are right of {arm} than of {over}"
    if claim["test"] is None:
        return f"difference in {what} on {suite}: {arm} less {over}"
    if set(CONTROLS) <= set(claim["requires"]):
        return f"RL improves {what} on {suite}: {arm} over {over}, with controls"
    return f"{what} of {arm} on {suite} is above that of {over}"


def labelled_text(claim: Mapping[str, Any], training_seeds: int) -> str:
    """`claim_text`, which says of a comparison that it is of one training alone, or of two."""
    label = run_label(training_seeds) if claim["kind"] in TWO_ARM_KINDS else ""
    return label + claim_text(claim)


def claim_limits(
    claim: Mapping[str, Any], training_seeds: int, shorter: Mapping[str, str] | None = None
) -> str:
    """What a reader must not take the claim to say. `shorter`: control -> that it was trained for
    fewer steps.
    """
    if claim["kind"] not in TWO_ARM_KINDS:
        return "A measurement, not a comparison."
    if claim["test"] is None:
        return "A difference with its interval, not tested: of many such, some are chance."
    if claim["metric"] == FORMAT_METRIC:
        return "Answers found alone: what the missing ones would have been is not known."
    if training_seeds == 0:
        return AS_THEY_ARE
    missing = [name for name in CONTROLS if name not in claim["requires"]]
    limits = []
    if len(missing) == len(CONTROLS):
        limits.append(NO_CONTROLS)
    elif missing:
        limits.append(f"The control {missing[0]} was not run: what it would gain is not known.")
    told = [text for control, text in (shorter or {}).items() if control in claim["requires"]]
    limits += [f"{text[0].upper()}{text[1:]}: it had less time to gain." for text in told]
    if training_seeds == 1:
        limits.append("One training run: another seed may give another gain.")
    return " ".join(limits)


def _place(folder: str) -> tuple[str, str]:
    _, suite, arm = folder.split("/")
    return suite, arm


def _metric_words(metric: Mapping[str, Any]) -> str:
    fn = metric["fn"]
    if fn == "rate":
        among = metric["among"] if metric["among"] == "samples" else f"{metric['among']} samples"
        return f"share {metric['of']} of all {among}"
    if fn == "ratio":
        return f"{metric['of']} per {metric['among'].removesuffix('s')}"
    return {"pass_at_1": "pass@1", "pass_at_k": f"pass@{metric.get('k')}"}.get(
        fn, f"cons@{metric.get('k')}"
    )
