"""Assembles a dossier from a finished run folder: what was recorded, and nothing made up after it.

What a run did not record is not reconstructed but named, in the list that `build` returns and in
the dossier's VERIFY.md. The folder appears whole or not at all; of an earlier version of the
dossier the seals, the reviews and other parties' dossiers are kept, so that versions chain.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pellucid.artifacts import (
    RunFolder,
    StageFolder,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    writing,
)
from pellucid.energy.account import account, read_windows, write_account
from pellucid.energy.factors import WORLD, find_factor
from pellucid.errors import RunError
from pellucid.evidence.claim_numbers import compute_document
from pellucid.evidence.claims import MAIN_FAMILY
from pellucid.evidence.core.check_controls import shorter_text, trained_steps
from pellucid.evidence.core.check_grading import SETTINGS
from pellucid.evidence.core.grade import grader_sha256
from pellucid.evidence.core.hashed_prompts import HASHED
from pellucid.evidence.core.party import EXTERNAL
from pellucid.evidence.core.schema import (
    PLAN_VERSION,
    SEAL_NAME,
    Claims,
    DataSet,
    PlannedClaim,
    Preregistration,
)
from pellucid.evidence.core.schema_training import Scan
from pellucid.evidence.core.tally import Evaluation
from pellucid.evidence.evaluations import DURING, KeptEvaluation, kept_evaluations, ship
from pellucid.evidence.known_models import KnownModels, recorded_models
from pellucid.evidence.plan import FOLDER as PREREG
from pellucid.evidence.plan import LAST_STEP, filed_plan
from pellucid.evidence.seal import SEALS
from pellucid.evidence.training import (
    MAX_EARLIER_ROLLOUTS,
    MAX_ROLLOUTS,
    WEIGHTS,
    Rewarded,
    copy_records,
    ship_models,
    write_checkpoints,
    write_code_and_environment,
    write_rollouts,
)
from pellucid.evidence.words import verify_md
from pellucid.evidence.zipapp import build_verifier
from pellucid.ledger import Ledger
from pellucid.rewards.vectors import load_vectors

KEPT = (SEAL_NAME, SEALS, EXTERNAL, "reviews", "audits", "judges")
"""Of an earlier version."""
ROLLOUTS = "train/rollouts.json"
ENERGY, WINDOWS = "energy", "windows.jsonl"
"""Folder of the run's energy accounts, where they were kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a dossier is made from, besides the run folder itself."""

    released: StageFolder | None
    """Stage whose model is released; None: the evaluations say what they measured."""
    subject: str
    """Name of the released model."""
    base: str
    """Name of what training started from."""
    sets: Mapping[str, DataSet]
    """By suite."""
    claims: Sequence[PlannedClaim]
    """Where no plan was filed: the claims that one would have had."""
    models: Mapping[str, Path] = field(default_factory=dict)
    """Name -> folder or file of every model that was measured and is on this machine."""
    rewarded: Mapping[str, Rewarded] = field(default_factory=dict)
    """Of every stage of reinforcement learning, by its name."""
    scan: Scan | None = None
    """None: not scanned."""
    prompts: bytes | str = ""
    """The training problems, hashed (`core.hashed_prompts`), or why they are not shipped; empty:
    there are none that a scan for near copies read.
    """
    texts: Callable[[str], Mapping[int, bytes]] | None = None
    """Name of a model -> token id -> the token's bytes, for packed samples; None: plain ones."""
    controls: Sequence[StageFolder] = ()
    is_evaluation: bool = False
    """Models were measured as they are, and nothing was trained."""
    region: str = WORLD
    """Of the electricity (`energy.factors`)."""
    cutoff: str | None = None
    """Items first public on or after this day are `post_cutoff`. Example: 2026-06-01"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What came of it."""

    folder: Path
    weights: str
    """Root of the released model."""
    evaluations: int
    samples: int
    held: int
    """Claims with a test whose rule holds."""
    tested: int
    missing: list[str] = field(default_factory=list)
    """A line for everything that the run did not record."""


def build(run: RunFolder, sources: Sources, out: Path) -> Built:
    """Writes the dossier of a run, unsealed. Raises RunError where the run is damaged or has no
    evaluation that can be shipped.
    """
    if out.exists() and any(out.iterdir()) and not (out / "claims.json").is_file():
        raise RunError(f"{out} holds something that is no dossier: choose another --out")
    ledger = Ledger(run.ledger)
    try:
        plan = filed_plan(run.root, ledger)
    finally:
        ledger.close()
    temporary = out.with_name(f".partial-{out.name}-{os.getpid()}")
    with writing(out):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            built = _Assembly(run, sources, temporary, plan, ledger).assemble()
            _keep_versions(out, temporary)
            shutil.rmtree(out, ignore_errors=True)
            temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Built(folder=out, **built)


def _keep_versions(old: Path, new: Path) -> None:
    for name in KEPT:
        if (old / name).is_dir():
            shutil.copytree(old / name, new / name)
        elif (old / name).is_file():
            shutil.copyfile(old / name, new / name)


class _Assembly:
    """One dossier being written."""

    def __init__(
        self,
        run: RunFolder,
        sources: Sources,
        out: Path,
        plan: Preregistration | None,
        ledger: Ledger,
    ) -> None:
        self.run, self.sources, self.out = run, sources, out
        self.plan, self.events = plan, ledger.events
        self.missing: list[str] = []
        self.answered: dict[str, str] = {}
        """Evaluation -> root of the weights that answered."""
        recorded = recorded_models([*run.stages(), *sources.controls])
        self.models = KnownModels(run.root, sources.models, recorded)

    def assemble(self) -> dict[str, object]:
        """All files but manifest and seal."""
        stages = self.run.stages()
        is_evaluation = self.sources.is_evaluation
        released = self._measured(stages) if is_evaluation else self._training(stages)
        evaluations, samples = self._evaluations(stages)
        self._sets()
        document = compute_document(
            self.plan["claims"] if self.plan else self.sources.claims,
            evaluations,
            prereg=self.plan["id"] if self.plan else "",
            training_seeds=self.plan["training_seeds"] if self.plan else 1,
            title=f"Claims of the {'evaluation' if is_evaluation else 'run'} {self.run.root.name}",
            cutoff=self._cutoff(),
            sets=self.sources.sets,
            scan=self.sources.scan,
            models=self.answered,
            plan_version=self.plan["v"] if self.plan else PLAN_VERSION,
            shorter=self._shorter(),
        )
        self.missing += document.missing
        atomic_write_json(self.out / "claims.json", document.claims)
        self._bill(document.claims)
        shutil.copyfile(self.run.ledger, self.out / "ledger.jsonl")
        self._plan_files()
        build_verifier(self.out / "verify.pyz")
        atomic_write_text(self.out / "VERIFY.md", verify_md(document.claims, self.missing))
        tested = [c for c in document.claims["claims"] if c["test"] is not None]
        return {
            "weights": released,
            "evaluations": len(evaluations),
            "samples": samples,
            "held": sum(claim["holds"] for claim in tested),
            "tested": len(tested),
            "missing": self.missing,
        }

    def _shorter(self) -> dict[str, str]:
        """Control -> that it was trained for fewer steps than the released model."""
        if self.sources.released is None:
            return {}
        events = [(event.kind, event.payload) for event in self.events]
        own = trained_steps(events, self.sources.released.stage_name) or 0
        names = [folder.stage_name for folder in self.sources.controls]
        steps = {name: trained_steps(events, name) for name in names}
        return {
            name: shorter_text(name, number, own)
            for name, number in steps.items()
            if number is not None and number < own
        }

    def _cutoff(self) -> str | None:
        """The plan's, where it fixed one."""
        is_fixed = self.plan is not None and self.plan["v"] > 1
        return self.plan["cutoff"] if self.plan and is_fixed else self.sources.cutoff

    def _measured(self, stages: list[StageFolder]) -> str:
        write_checkpoints(self.out, [], LAST_STEP, "", stages[-1].stage_name)
        self.missing += write_code_and_environment(self.out, stages)
        return ship_models(self.out, self.run, stages)

    def _training(self, stages: list[StageFolder]) -> str:
        stage = self.sources.released
        assert stage is not None, "a training releases a model"
        released = self._released()
        self.missing += copy_records(self.out, self.run, stages, stage)
        rule = self.plan["checkpoint_rule"] if self.plan else LAST_STEP
        if not write_checkpoints(self.out, self.events, rule, released, stage.stage_name):
            self.missing.append("train/checkpoints.json: the ledger knows of no checkpoint")
        self._rollouts([one for one in stages if one.rollouts.is_file()])
        return released

    def _released(self) -> str:
        base, own = self.models.find(self.sources.base), self.models.find(self.sources.subject)
        if own is None:
            raise RunError(
                f"{self.run.root} holds no model {self.sources.subject} and no record of its "
                "digests: bring its folder back, or build where it is"
            )
        if base is None:
            self.missing.append("weights/manifest.json: parent (the base is not on this machine)")
        parent = base["root"] if base is not None else None
        atomic_write_json(self.out / WEIGHTS, own | {"parent": parent})
        return own["root"]

    def _rollouts(self, trained: list[StageFolder]) -> None:
        """Most of the last stage of reinforcement learning, some of those before it."""
        for stage in trained:
            is_last = stage is trained[-1]
            place = ROLLOUTS if is_last else f"train/stages/{stage.name}/rollouts.json"
            most = MAX_ROLLOUTS if is_last else MAX_EARLIER_ROLLOUTS
            by = self.sources.rewarded.get(stage.stage_name)
            if by is None or not write_rollouts(self.out / place, stage, by, most):
                self.missing.append(f"{place}: none were recorded with their grader")
        if not trained:
            self.missing.append(f"{ROLLOUTS}: no stage trained on rewards")

    def _evaluations(self, stages: list[StageFolder]) -> tuple[dict[str, Evaluation], int]:
        folders = [stage.evals for stage in (*stages, *self.sources.controls)]
        kept, lines = kept_evaluations(folders, self.events)
        during, more = kept_evaluations([stage.evals / DURING for stage in stages], self.events)
        self.missing += lines + more
        if not kept:
            raise RunError(
                f"{self.run.root} has no evaluation with the origin of its samples: run it again "
                "with this version, then build"
            )
        shipped: dict[str, Evaluation] = {}
        for one in (*kept, *during):
            if one.folder in shipped:
                raise RunError(f"{one.folder} was measured twice: {one.path} is one too many")
            if one not in during:  # whose models were overwritten by the next step
                self._check_model(one)
            texts = self.sources.texts(one.result.arm) if self.sources.texts else None
            shipped[one.folder] = ship(one, self.out, texts)
            self.answered[one.folder] = one.result.origin.weights
        self._graders([*kept, *during])
        return shipped, sum(one.result.n_samples for one in (*kept, *during))

    def _check_model(self, one: KeptEvaluation) -> None:
        """weights/NAME.json of what answered; where nothing is known of it, that is said."""
        if self.sources.is_evaluation:
            return
        name = one.result.arm
        place = f"weights/{name}.json"
        weights = self.models.find_measured(name, one.result.origin.weights)
        if weights is not None:
            atomic_write_json(self.out / place, weights | {"tensors": {}})
            return
        line = f"{place}: the model that was measured is not on this machine"
        self.missing += [line] if line not in self.missing else []

    def _graders(self, kept: list[KeptEvaluation]) -> None:
        """What the graders were set to, and self-test vectors where today's graders are those that
        graded.
        """
        starts = {one.folder: one.attempt.start.payload for one in kept}
        told = {name: facts["grading"] for name, facts in starts.items() if "grading" in facts}
        if told:
            atomic_write_json(self.out / SETTINGS, {"v": 1, "evaluations": told})
        digests = {one.result.origin.grader_sha256 for one in kept}
        if digests != {grader_sha256()}:
            self.missing.append("graders/: the graders have changed since the run, see code.json")
            return
        vectors = [
            {"grader": v.grader, "gold": v.gold, "response": v.response, "verdict": str(v.verdict)}
            for v in load_vectors()
        ]
        atomic_write_json(self.out / "graders" / grader_sha256() / "vectors.json", vectors)

    def _sets(self) -> None:
        for suite, dataset in self.sources.sets.items():
            atomic_write_json(self.out / "data" / f"{suite}.json", dataset)
        if self.sources.scan is not None:
            atomic_write_json(self.out / "contamination/scan.json", self.sources.scan)
        else:
            self.missing.append(f"contamination/scan.json: {self._not_scanned()}")
        self._prompts()
        if (self.run.root / ENERGY).is_dir():
            shutil.copytree(self.run.root / ENERGY, self.out / ENERGY)
        else:
            self.missing.append("energy/: none was measured")

    def _prompts(self) -> None:
        prompts = self.sources.prompts
        if isinstance(prompts, bytes):
            atomic_write_bytes(self.out / HASHED, prompts)
        elif prompts:
            self.missing.append(f"{HASHED}: {prompts}")

    def _bill(self, claims: Claims) -> None:
        """energy/report.json: joules, kWh and CO2e by stage, and for every point gained."""
        if not (self.out / ENERGY / WINDOWS).is_file():
            return
        gained: dict[str, float] = {}
        for claim in claims["claims"]:
            if claim["family"] == MAIN_FAMILY:
                suite = claim["arms"]["a"].split("/")[1]
                gained.setdefault(suite, 100 * float(claim["reported"]["value"]))
        windows, factor = (
            read_windows(self.out / ENERGY / WINDOWS),
            find_factor(self.sources.region),
        )
        write_account(self.out / ENERGY, account(windows, factor, points=gained))

    def _not_scanned(self) -> str:
        if self.sources.is_evaluation:
            return "what the models were trained on is not known here"
        return "the training data was not scanned"

    def _plan_files(self) -> None:
        if self.plan is None:
            self.missing.append(
                "prereg/: no plan was filed before the evaluations (`pellucid dossier plan`)"
            )
            return
        shutil.copytree(self.run.root / PREREG, self.out / PREREG)
