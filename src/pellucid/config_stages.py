"""Recipes of several stages: the pipeline of DeepSeek-R1, every knob typed. No torch, no I/O.

    base ─ zero ─► sampled and filtered ─ cold-start ─► Dev1 ─ reason-rl ─► Dev2
    base ◄─ reject: sampled from Dev2, filtered, with general data ─► Dev3 ─ general-rl ─► R1

A recipe with `[[stages]]` is one of these. Defaults are the paper's (arXiv 2501.12948v2, sections
2, 3 and B.4), scaled to one device. Names that a stage refers to are `base` or earlier stages.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pellucid.config import (
    CODE_TIMEOUT_S,
    MATH_VERIFY_TIMEOUT_S,
    AlgoConfig,
    DataConfig,
    EvalConfig,
    EvidenceConfig,
    Fraction,
    ModelConfig,
    PositiveInt,
    RewardConfig,
    RolloutConfig,
    Section,
    SftConfig,
    TaskEntry,
    TrainConfig,
)
from pellucid.config_curate import (
    EditorConfig,
    FilterConfig,
    GeneralDataConfig,
    RejectFilterConfig,
    ReviewConfig,
    SelectRule,
)
from pellucid.config_distill import ArmsConfig
from pellucid.config_rewards import (
    SAMPLED,
    HelpfulConfig,
    JudgeConfig,
    RewardTrainConfig,
    SafetyConfig,
)

BASE = "base"
"""What stages call the model that the recipe names."""


class StageConfig(Section):
    """What every stage has. `kind` says which it is and comes first in the recipe."""

    kind: str
    name: str = ""
    """Folder and reference; default: the kind."""

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", value) or value == BASE:
            raise ValueError(
                'must be lower-case letters, digits and hyphens, and not "base" (it names a folder)'
            )
        return value

    @model_validator(mode="after")
    def _named_after_its_kind(self) -> StageConfig:
        """Behind all checks: what runs before them takes the strictness of JSON away."""
        if not self.name:
            object.__setattr__(self, "name", self.kind)  # frozen only from here on
        return self

    def references(self) -> dict[str, str]:
        """Field -> name of the stage, or `base`, that this one builds on."""
        fields = ("start", "sampler", "rewards_from", "data_from", "teacher")
        named = {field: getattr(self, field, None) for field in fields}
        return {field: name for field, name in named.items() if isinstance(name, str)}


# Reinforcement learning


class RlStageConfig(StageConfig):
    """GRPO from the weights of `start` on a mixture of tasks."""

    start: str = BASE
    """Whose weights training starts from: `base` or an earlier stage."""
    tasks: tuple[TaskEntry, ...] = Field(default=(TaskEntry(name="chain"),), min_length=1)
    template: str | None = None
    """Prompt template of training, and of the model's evaluation. Default: that of `start`."""
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    algo: AlgoConfig = AlgoConfig()
    train: TrainConfig = TrainConfig()


class ZeroConfig(RlStageConfig):
    """R1-Zero: from the base, accuracy and format alone (paper, 2.2)."""

    kind: Literal["zero"]


class ReasonRewardConfig(RewardConfig):
    """Rewards of the first RL stage: the language of the thinking counts too (paper, eq. 7)."""

    terms: dict[str, float] = Field(
        default_factory=lambda: {"accuracy": 1.0, "format": 1.0, "language": 1.0}, min_length=1
    )


class ReasonRlConfig(RlStageConfig):
    """Reasoning RL behind the cold start (paper, 3.2.1)."""

    kind: Literal["reason-rl"]
    start: str = "cold-start"
    reward: ReasonRewardConfig = ReasonRewardConfig()


class GeneralRewardConfig(RewardConfig):
    """Rules, reward models and language, added (paper, eqs. 8-10); preferences count in the last
    quarter of the steps (paper: 400 of 1,700), before they are worth hacking.
    """

    terms: dict[str, float] = Field(
        default_factory=lambda: {
            "accuracy": 1.0,
            "format": 1.0,
            "language": 1.0,
            "helpful": 1.0,
            "safety": 1.0,
        },
        min_length=1,
    )
    starts: dict[str, Annotated[float, Field(ge=0.0, lt=1.0)]] = Field(
        default_factory=lambda: {"helpful": 0.75, "safety": 0.75}
    )

    @model_validator(mode="before")
    @classmethod
    def _starts_follow_terms(cls, value: Any) -> Any:
        """Terms chosen by hand need not name the default starts."""
        if isinstance(value, dict) and "terms" in value and "starts" not in value:
            terms = value["terms"] if isinstance(value["terms"], dict) else {}
            starts = {term: 0.75 for term in ("helpful", "safety") if term in terms}
            return {**value, "starts": starts}
        return value


class GeneralRolloutConfig(RolloutConfig):
    """Cooler than before: higher temperatures gave incoherent general answers (paper, 3.2.2)."""

    temperature: float = Field(default=0.7, gt=0.0)


class WatchConfig(Section):
    """The watch for reward hacking: the reward models' scores against true accuracy on a probe set
    (paper, B.5); the rule is that of `pellucid.train.hack_watch`.
    """

    every: int = Field(default=10, ge=0)
    """Steps between probes. 0: off."""
    tasks: tuple[TaskEntry, ...] = ()
    """Problems with a gold to probe on. Empty: those of the first suite."""
    limit: PositiveInt = 64
    """Problems with a gold per probe, and as many general ones of the stage's own tasks, but at
    least one for each reward model.
    """
    window: int = Field(default=6, ge=2)
    """Probes over which a trend is told."""
    min_fall: Fraction = 0.02
    """A fall of accuracy of at least so much, while the reward rises, is warned of."""


class GeneralRlConfig(RlStageConfig):
    """RL on reasoning and general prompts with reward models (paper, 3.2.2)."""

    kind: Literal["general-rl"]
    start: str = "reject"
    rewards_from: str | None = "reward-models"
    """Stage whose reward models serve the terms `helpful` and `safety`. false: none."""
    rollout: GeneralRolloutConfig = GeneralRolloutConfig()
    reward: GeneralRewardConfig = GeneralRewardConfig()
    watch: WatchConfig = WatchConfig()


# Curated data


class CurateStageConfig(StageConfig):
    """Sample a model, keep what is right and readable, fine-tune `start` on it."""

    start: str = BASE
    """Whose weights are fine-tuned (paper: the base, twice)."""
    tasks: tuple[TaskEntry, ...] = Field(default=(TaskEntry(name="chain"),), min_length=1)
    template: str = "r1-chat"
    """Prompt template that the model is taught, and evaluated with."""
    sample_template: str | None = None
    """Prompt template of sampling. Default: that of `sampler`."""
    problems: PositiveInt = 256
    """Problems that are sampled."""
    samples: PositiveInt = 4
    """Samples of each."""
    temperature: float = Field(default=1.0, gt=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_new_tokens: PositiveInt = 256
    math_verify: bool = True
    """Ask math-verify where the strict grader finds no match."""
    split_untagged: bool = False
    """Of answers without tags, take the paragraph of the final box for the summary and what stands
    before it for the thinking. A sampler that was paid for accuracy alone writes no tags.
    """
    filters: FilterConfig = FilterConfig()
    select: SelectRule = "shortest"
    """Which of a problem's kept samples are learnt."""
    keep: PositiveInt = 1
    """At most so many of one problem, unless `select` is `all`."""
    teacher: EditorConfig | None = None
    general: GeneralDataConfig | None = None
    review: ReviewConfig = ReviewConfig()
    sft: SftConfig = SftConfig()


class ColdStartConfig(CurateStageConfig):
    """Thousands of readable samples of R1-Zero, and a fine-tuned base: Dev1 (paper, B.3.2)."""

    kind: Literal["cold-start"]
    sampler: str = "zero"


class RejectConfig(CurateStageConfig):
    """Rejection sampling and fine-tuning of the base: Dev3 (paper, B.3.3)."""

    kind: Literal["reject"]
    sampler: str = "reason-rl"
    filters: RejectFilterConfig = RejectFilterConfig()
    general: GeneralDataConfig | None = GeneralDataConfig()
    """false: the samples alone."""


# Reward models


class RewardModelsConfig(StageConfig):
    """A helpful (pairwise) and a safety (pointwise) reward model on the decoder of `start`."""

    kind: Literal["reward-models"]
    start: str = "cold-start"
    helpful: HelpfulConfig | None = HelpfulConfig()
    """false: no such model."""
    safety: SafetyConfig | None = SafetyConfig()
    """false: no such model."""
    judge: JudgeConfig | None = None
    """Needed where `helpful` learns from samples."""
    train: RewardTrainConfig = RewardTrainConfig()

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> RewardModelsConfig:
        if self.helpful is None and self.safety is None:
            raise ValueError("leave helpful or safety in: a stage without both makes nothing")
        if self.helpful is not None and SAMPLED in self.helpful.sources and self.judge is None:
            raise ValueError(
                "helpful learns from samples, which must be judged: give judge a name or an "
                "endpoint, or take other sources"
            )
        return self


# Distillation


class DistillConfig(ArmsConfig, StageConfig):
    """A smaller student learns the curated data; other arms at equal compute beside it."""

    kind: Literal["distill"]
    student: ModelConfig = ModelConfig()
    data_from: str = "reject"
    """Stage whose examples the student learns, under their template."""
    teacher: str = "general-rl"
    """Stage whose model the on-policy arm learns from; without that arm it is not asked for."""

    def references(self) -> dict[str, str]:
        """Without the on-policy arm there is no teacher."""
        named = StageConfig.references(self)
        if "on-policy" not in self.arms:
            del named["teacher"]
        return named


AnyStage = Annotated[
    ZeroConfig
    | ColdStartConfig
    | ReasonRlConfig
    | RejectConfig
    | RewardModelsConfig
    | GeneralRlConfig
    | DistillConfig,
    Field(discriminator="kind"),
]
KINDS = ("zero", "cold-start", "reason-rl", "reject", "reward-models", "general-rl", "distill")
"""In the paper's order."""


class PipelineConfig(Section):
    """A recipe of several stages."""

    name: str = "pipeline"
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    exact: Literal["auto"] | bool = "auto"
    threads: int = Field(default=0, ge=0)
    unsafe_code: bool = False
    code_timeout_s: float = Field(default=CODE_TIMEOUT_S, gt=0.0, le=600.0)
    math_verify_timeout_s: float = Field(default=MATH_VERIFY_TIMEOUT_S, gt=0.0, le=600.0)
    """These are what they are in a recipe of one stage."""
    model: ModelConfig = ModelConfig()
    """The base."""
    template: str = "r1-zero"
    """Prompt template of the base, and of stages that start from it and name none."""
    data_dir: str | None = None
    """Folder of downloaded data sets; default: the user's cache."""
    data: DataConfig = DataConfig()
    math_verify: bool = True
    """Evaluations ask math-verify where the strict grader finds no match."""
    evidence: EvidenceConfig = EvidenceConfig()
    keep_checkpoints: bool = False
    """Keep the checkpoints of finished stages, from which nothing continues."""
    eval: EvalConfig = EvalConfig()
    """Measured on the base and on every stage's model: the stage table. A suite without template
    is asked with that of the model's own stage.
    """
    stages: tuple[AnyStage, ...] = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not value or "/" in value:
            raise ValueError("name must be non-empty and without a slash")
        return value

    @model_validator(mode="after")
    def _stages_build_on_earlier_ones(self) -> PipelineConfig:
        earlier: list[str] = []
        for stage in self.stages:
            if stage.name in earlier:
                raise ValueError(
                    f"two stages are called {stage.name!r}: give one of them another name"
                )
            for field, name in stage.references().items():
                _check_reference(stage, field, name, earlier)
            if isinstance(stage, DistillConfig):
                self._check_data(stage)
            earlier.append(stage.name)
        return self

    def _check_data(self, stage: DistillConfig) -> None:
        if not isinstance(self.stage(stage.data_from), CurateStageConfig):
            raise ValueError(
                f"stages.{stage.name}.data_from = {stage.data_from!r} curates nothing: name a "
                "stage of kind cold-start or reject"
            )

    def stage(self, name: str) -> AnyStage:
        """The stage of that name. Raises KeyError."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def template_of(self, name: str) -> str:
        """Prompt template that the model of a stage, or `base`, is asked with."""
        if name == BASE:
            return self.template
        stage = self.stage(name)
        if isinstance(stage, DistillConfig):
            return self.template_of(stage.data_from)
        if isinstance(stage, RlStageConfig | CurateStageConfig):
            return stage.template or self.template_of(stage.start)
        return self.template_of(stage.start)


def _check_reference(stage: AnyStage, field: str, name: str, earlier: Sequence[str]) -> None:
    known = [BASE, *earlier] if field in ("start", "sampler") else list(earlier)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(known) or "none yet"
    raise ValueError(
        f"stages.{stage.name}.{field} = {name!r} is no earlier stage{hint} (before it: {listed})"
    )
