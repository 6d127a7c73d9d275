"""Weights, choice of the checkpoint, graders' self-tests, and the rewards that were trained on."""

from __future__ import annotations

import math

from pellucid.evidence.core.canonical import sha256_json
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.grade import UNDECIDED, Regrader, grader_sha256
from pellucid.evidence.core.schema import CheckpointRule, Vector
from pellucid.evidence.core.schema_training import (
    Checkpoint,
    Checkpoints,
    Rollouts,
    TrainingRollout,
    Weights,
)

CHECKPOINTS = "train/checkpoints.json"
ROLLOUTS = "train/rollouts.json"
WEIGHTS = "weights/manifest.json"
REWARD_TOLERANCE = 1e-6


def check_weights(case: Case) -> None:
    """Every root is of the files that it names."""
    case.weights = _weights(case, WEIGHTS)
    for path in sorted(case.archive.sizes):
        if path.startswith("weights/") and path.endswith(".json") and path != WEIGHTS:
            model = _weights(case, path)
            if model is not None:
                name = path.removeprefix("weights/").removesuffix(".json")
                case.models[name] = model["root"]


def _weights(case: Case, path: str) -> Weights | None:
    weights: Weights | None = case.load(path, Weights)
    if weights is not None and sha256_json(weights["files"]) != weights["root"]:
        case.find("weights-swapped", path, "its root is not that of the files that it lists")
    return weights


def check_models(case: Case) -> None:
    """What answered as a model is the model of that name in weights/."""
    for folder, root in case.roots.items():
        arm = root["arm"]
        # A planned arm is called like its model, with its prompt behind it where there are several;
        # the looks of a training are called like its stage, and are of models between two.
        is_planned = any(arm in plan["arms"] for plan in case.plans.values())
        named = [n for n in case.models if is_planned and arm.startswith(f"{n}-")]
        name = arm if arm in case.models else max(named, key=len, default=None)
        if name is not None and root["model"] != case.models[name]:
            text = f"what answered is not the model of weights/{name}.json"
            case.find("weights-swapped", folder, text, case.using(folder))


def check_selection(case: Case) -> None:
    """The rule, as planned, chooses the checkpoint that was released, from all that were saved."""
    index = case.checkpoints = case.load(CHECKPOINTS, Checkpoints)
    if index is None:
        return
    for name, plan in case.plans.items():
        if plan["checkpoint_rule"] != index["rule"]:
            text = f"its rule is not that of plan {name}"
            case.find("checkpoint-selection", CHECKPOINTS, text)
    steps = [c["step"] for c in index["checkpoints"]]
    if len(set(steps)) != len(steps):
        case.find("checkpoint-selection", CHECKPOINTS, "a step stands twice")
    _check_saved(case, index, steps)
    _check_scores(case, index)
    chosen = choose_checkpoint(index["checkpoints"], index["rule"])
    if chosen is None:
        if index["checkpoints"]:
            text = f"no checkpoint has the score {index['rule']['metric'][:60]!r}"
            case.find("checkpoint-selection", CHECKPOINTS, text)
        return
    if chosen["step"] != index["chosen"]:
        text = f"step {index['chosen']} was chosen, the rule chooses step {chosen['step']}"
        case.find("checkpoint-selection", CHECKPOINTS, text)
    released = [c["weights"] for c in index["checkpoints"] if c["step"] == index["chosen"]]
    if case.weights is not None and released and released[0] != case.weights["root"]:
        case.find(
            "weights-swapped", WEIGHTS, "the released weights are not the chosen checkpoint's"
        )


def choose_checkpoint(checkpoints: list[Checkpoint], rule: CheckpointRule) -> Checkpoint | None:
    """The checkpoint that a rule chooses; None: none has the score that it needs."""
    ordered = sorted(checkpoints, key=lambda c: c["step"])
    if rule["pick"] == "last":
        return ordered[-1] if ordered else None
    scored = [c for c in ordered if rule["metric"] in c["scores"]]
    if not scored:
        return None
    scores = [c["scores"][rule["metric"]] for c in scored]
    best = max(scores) if rule["pick"] == "max" else min(scores)
    winners = [c for c, score in zip(scored, scores, strict=True) if score == best]
    return winners[0 if rule["tie"] == "first" else -1]


def _check_saved(case: Case, index: Checkpoints, steps: list[int]) -> None:
    saved = {
        event["payload"]["step"]
        for event in case.events
        if event["kind"] == "checkpoint_saved"
        and index["stage"] in (None, event["payload"].get("stage"))
    }
    for step in sorted(saved - set(steps)):
        text = f"the ledger says that step {step} was saved"
        case.find("checkpoint-missing", CHECKPOINTS, text)


def _check_scores(case: Case, index: Checkpoints) -> None:
    """A score that names one evaluation is the accuracy found there."""
    for checkpoint in index["checkpoints"]:
        for folder in checkpoint["evals"]:
            evaluation = case.evaluations.get(folder)
            where = f"{CHECKPOINTS} step {checkpoint['step']}"
            if evaluation is None:
                case.find("unreported-attempt", where, f"{folder[:80]} is not in the dossier")
                continue
            if case.roots[folder]["model"] != checkpoint["weights"]:
                case.find("weights-swapped", where, f"{folder[:80]} measured another model")
            _check_dev(case, index, where, folder)
            tallies = [t for t in evaluation.items.values() if t.graded]
            share = math.fsum(t.correct / t.graded for t in tallies) / max(1, len(tallies))
            scores = checkpoint["scores"].values()
            if not any(abs(score - share) <= 1e-6 for score in scores):
                text = f"its score is not the {share:.6f} that {folder[:80]} gives"
                case.find("checkpoint-selection", where, text)


def _check_dev(case: Case, index: Checkpoints, where: str, folder: str) -> None:
    """What chooses among checkpoints must not be what the claims are measured on."""
    suite = case.roots[folder]["suite"]
    using = [i for f, root in case.roots.items() if root["suite"] == suite for i in case.using(f)]
    if index["rule"]["pick"] != "last" and using:
        text = f"it was chosen by {suite[:60]}, on which claims rest"
        case.find("checkpoint-selection", where, text, using)


# Graders


def check_graders(case: Case) -> None:
    """The graders named by the evaluations pass their own test vectors here."""
    digests = {root["grader_sha256"] for root in case.roots.values()}
    for digest in sorted(digests):
        path = f"graders/{digest}/vectors.json"
        vectors = case.load(path, list[Vector])
        if vectors is not None:
            _check_vectors(case, path, vectors)
        if digest != grader_sha256():
            text = "the graders here are of another version: equal verdicts are what counts"
            case.find("grade-not-redone", path, text)


def _check_vectors(case: Case, path: str, vectors: list[Vector]) -> None:
    regrader = Regrader()
    if not vectors:
        case.find("grader-unsound", path, "there is no test vector")
    for number, vector in enumerate(vectors, 1):
        where = f"{path} vector {number}"
        try:
            outcome = regrader.outcome(vector["grader"], vector["gold"], vector["response"])
        except Exception as error:  # noqa: BLE001 - a stranger's text met a grader's weak spot
            case.find("grader-unsound", where, f"the grader stopped ({type(error).__name__})")
            continue
        if outcome is not None and outcome[0] not in (UNDECIDED, vector["verdict"]):
            text = f"{outcome[0]}, should be {ascii(vector['verdict'])[:20]}"
            case.find("grader-unsound", where, text)


# Rewards


def check_rollouts(case: Case) -> None:
    """Each reward is the sum of its terms, and each verdict that of its own response."""
    regrader = Regrader()
    paths = [path for path in sorted(case.archive.sizes) if _is_of_rollouts(path)]
    for path in paths:
        record = case.load(path, Rollouts)
        if record is not None:
            _check_rollouts(case, path, record, regrader)
    if not paths and is_of_training(case):
        text = "no rollout of the training is here: rewards, where it had any, are not added up"
        case.find("rollouts-missing", ROLLOUTS, text)


def _is_of_rollouts(path: str) -> bool:
    is_of_stage = path.startswith("train/stages/") and path.endswith("/rollouts.json")
    return path == ROLLOUTS or is_of_stage


def is_of_training(case: Case) -> bool:
    """Whether anything here was trained; else its models were measured as they are."""
    kinds = {event["kind"] for event in case.events}
    if any(plan["training_seeds"] for plan in case.plans.values()):
        return True
    return not kinds.isdisjoint(("stage_started", "checkpoint_saved"))


def _check_rollouts(case: Case, path: str, record: Rollouts, regrader: Regrader) -> None:
    wrong: list[tuple[int, str, str]] = []
    for number, rollout in enumerate(record["rollouts"], 1):
        where = f"{path} rollout {number}"
        if problem := _reward_problem(rollout):
            case.find("reward-mismatch", where, problem)
        verdict = _verdict(regrader, rollout)
        if verdict not in (None, rollout["verdict"]):
            wrong.append((number, str(verdict), rollout["verdict"]))
    if len(record["rollouts"]) > record["total"]:
        case.find("reward-mismatch", path, "more rollouts than the training had")
    if wrong:
        number, verdict, recorded = wrong[0]
        is_reordered = len(wrong) > 1 and sorted(w[1] for w in wrong) == sorted(w[2] for w in wrong)
        text = f"{verdict}, recorded as {recorded[:20]} ({len(wrong)} rollouts in all)"
        code = "grades-reordered" if is_reordered else "grade-mismatch"
        case.find(code, f"{path} rollout {number}", text)


def _reward_problem(rollout: TrainingRollout) -> str | None:
    reward, terms, weights = rollout["reward"], rollout["terms"], rollout["weights"]
    if rollout["masked"]:
        return "masked, but with a reward" if reward else None
    if terms.keys() - weights.keys():
        return "a term without its weight"
    numbers = [reward, *terms.values(), *weights.values()]
    if any(abs(number) > 1e12 for number in numbers):
        return "a number out of range"
    total = math.fsum(terms[name] * weights[name] for name in terms)
    if abs(total - reward) > REWARD_TOLERANCE * max(1.0, abs(total)):
        return f"{reward:.6g}, its terms give {total:.6g}"
    return None


def _verdict(regrader: Regrader, rollout: TrainingRollout) -> str | None:
    """On grading again; None: it cannot be, or need not be, redone."""
    gold, response = rollout["gold"], rollout["response"]
    if gold is None or response is None or rollout["verdict"] in ("error", "ungraded", "timeout"):
        return None
    try:
        outcome = regrader.outcome(rollout["grader"], gold, response)
    except Exception as error:  # noqa: BLE001 - a stranger's text met a grader's weak spot
        return f"stopped with {type(error).__name__}"
    return None if outcome is None or outcome[0] == UNDECIDED else outcome[0]
