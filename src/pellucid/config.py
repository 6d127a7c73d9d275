"""Every knob of a run: one typed tree, one default per knob. No torch, no I/O (see config_io).

The defaults are the paper's (arXiv 2501.12948v2, Methods) scaled to one device; presets live in
`pellucid.algo.presets`. Unknown keys and values out of range are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

PositiveInt = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]

AUTO = 0
"""In the tree, what a recipe writes as "auto"; it is replaced before anything runs."""

CODE_TIMEOUT_S = 3.0
"""As in HumanEval's harness. 973 of MBPP's 974 reference solutions compute for at most 0.01 s."""
MATH_VERIFY_TIMEOUT_S = 5.0
"""math-verify's own default."""


def _read_auto(value: Any) -> Any:
    if value == "auto":
        return AUTO
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError('must be a whole number of at least 1, or "auto"')


AutoInt = Annotated[
    int,
    BeforeValidator(_read_auto),
    PlainSerializer(lambda value: value if value != AUTO else "auto", return_type=int | str),
]


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelConfig(Section):
    id: str = "tiny-base"
    """`tiny-base`, `tiny-r1-base`, `tiny-r1-student` (embedded), a folder, a `.gguf` file, or a
    hub id `owner/name`.
    """
    revision: str | None = None
    """Pinned hub revision (commit); needed for hub ids."""
    path: str | None = None
    """Local folder or GGUF file to use instead of fetching `id`."""


class TaskConfig(Section):
    name: str = "chain"
    """Training problems: a data set (`gsm8k`, `math`, …) or a procedural task (`chain`,
    `countdown`, …).
    """
    split: str = "train"
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many problems."""
    template: str = "r1-zero"
    """Prompt template, used for training and for evaluation unless the suite names its own."""
    data_dir: str | None = None
    """Folder of downloaded data sets; default: the user's cache."""


class TaskEntry(Section):
    """One source of problems in a mixture (see `pellucid.data.mixture`)."""

    name: str
    """A data set (`gsm8k`, `mbpp`, …) or a procedural task (`chain`, …)."""
    split: str = "train"
    weight: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    """Share of the prompts, relative to the weights of the other entries."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many problems."""


class DataConfig(Section):
    """What is done to training data before training."""

    contamination: Literal["report", "drop", "refuse"] = "report"
    """Training problems that hold items of the run's own evaluation suites: count and name them,
    leave them out, or do not train. The default changes no training set: a recipe gives the model
    that it gave before, and its result says what it is worth.
    """


class RolloutConfig(Section):
    prompts: PositiveInt = 32
    """Unique problems per rollout."""
    group_size: int = Field(default=16, ge=2)
    """G: samples per problem (paper: 16). A single one has nothing to be compared with."""
    temperature: float = Field(default=1.0, gt=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Training needs 1.0: a truncated distribution biases every importance ratio."""
    top_k: int = Field(default=0, ge=0)
    max_new_tokens: PositiveInt = 256
    stop: tuple[str, ...] = ()
    """Strings that end a training completion, in place of the template's. Evaluations stop at the
    template's.
    """
    slots: AutoInt = AUTO
    """Sequences decoded at once; finished ones are replaced from the queue. "auto": on a GPU as
    many as the memory holds, see `pellucid plan`; elsewhere 512.
    """
    drafts: int = Field(default=0, ge=0, le=7)
    """On a GPU, tokens guessed a sample and step once few samples are left, and verified together;
    they change no token. Off where rows share pages of keys and values. 0: none.
    """
    resample_limit: int = Field(default=0, ge=0)
    """Dynamic sampling (DAPO): how often groups without advantage are replaced by new problems.
    0: off.
    """

    @model_validator(mode="after")
    def _whole_distribution(self) -> RolloutConfig:
        if self.top_p != 1.0 or self.top_k != 0:
            raise ValueError(
                "training samples need top_p = 1.0 and top_k = 0 (a truncated distribution biases "
                "the importance ratio); set them under [eval] instead"
            )
        return self


class RewardConfig(Section):
    terms: dict[str, float] = Field(
        default_factory=lambda: {"accuracy": 1.0, "format": 1.0}, min_length=1
    )
    """Reward terms and their weights (paper, eq. 4: accuracy and format with the same weight)."""
    starts: dict[str, Annotated[float, Field(ge=0.0, lt=1.0)]] = Field(default_factory=dict)
    """Share of the steps after which a term begins to count; a term that is not named counts from
    the start. Paper, B.4.1: preference rewards only in the last 400 of 1,700 steps, 0.765.
    """
    math_verify: bool = True
    """Ask math-verify where the strict grader finds no match."""
    truncated: Literal["grade", "mask", "zero"] = "grade"
    """A completion cut off by the token limit: grade what is there, mask it, or give it reward 0.
    """
    overlong_buffer: int = Field(default=0, ge=0)
    """Soft overlong penalty (DAPO): tokens before the limit over which the penalty grows to 1. 0:
    off.
    """

    @model_validator(mode="after")
    def _starts_are_terms(self) -> RewardConfig:
        if unknown := sorted(self.starts.keys() - self.terms.keys()):
            raise ValueError(
                f"starts names {', '.join(unknown)}, which terms does not: give it a weight there"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _shortcut(cls, value: Any) -> Any:
        """`reward = "random"` stands for a single term with weight 1; `"r1"` for accuracy and
        format.
        """
        if isinstance(value, str):
            return {} if value == "r1" else {"terms": {value: 1.0}}
        return value


class AlgoConfig(Section):
    """The objective. `preset` fills in what is not set by hand (see `pellucid.algo.presets`)."""

    preset: Literal["r1", "dapo", "dr-grpo", "gspo", "cispo"] = "r1"
    advantage: Literal["grpo", "dr-grpo", "rloo", "batch-std", "maxrl"] | None = None
    loss: Literal["clip", "cispo", "gspo"] | None = None
    aggregation: Literal["sequence-mean", "token-mean", "constant"] | None = None
    clip_low: float | None = Field(default=None, ge=0.0)
    clip_high: float | None = Field(default=None, ge=0.0)
    dual_clip: float | None = Field(default=None, gt=1.0)
    kl: Literal["k1", "k2", "k3"] | None = None
    beta: float | None = Field(default=None, ge=0.0)
    """Weight of the KL term in the loss. 0: no reference model is kept."""
    reference: Literal["hard", "ema"] = "hard"
    reference_every: PositiveInt = 400
    """Optimiser steps between replacements of the reference by the policy (paper: 400)."""
    reference_ema: Fraction = 0.6
    """Share of the policy that an EMA refresh mixes into the reference."""
    mismatch: Literal["off", "tis", "mask"] = "off"
    """Correction for rollout/trainer differences: truncated importance sampling, or masking."""
    mismatch_cap: float = Field(default=2.0, gt=1.0)
    old_logprobs: Literal["recompute", "rollout"] = "recompute"
    """Denominator of the ratio when a rollout is split into several minibatches."""


class ScheduleConfig(Section):
    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_fraction: Fraction = 0.1
    """Learning rate at the last step as a share of the peak (linear and cosine)."""


class TrainConfig(Section):
    steps: PositiveInt = 100
    """Rollouts; each gives `minibatches` optimiser steps."""
    minibatches: PositiveInt = 1
    """Optimiser steps per rollout (paper: 16, single inner epoch)."""
    tokens_per_pack: AutoInt = AUTO
    """Prompt and completion tokens in one forward pass; gradients accumulate over the packs.
    "auto": on a GPU as the memory allows, see `pellucid plan`; elsewhere 8192.
    """
    memory_gib: float | None = Field(default=None, gt=0.0)
    """GPU memory that the run may use. Default: all that is free when it starts."""
    learning_rate: float = Field(default=1e-6, gt=0.0)
    schedule: ScheduleConfig = ScheduleConfig()
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: NonNegative = 0.0
    adam_eps: float = Field(default=1e-8, gt=0.0)
    grad_clip: float = Field(default=1.0, gt=0.0)
    checkpoint_every: PositiveInt = 20
    keep_checkpoints: PositiveInt = 2
    eval_every: int = Field(default=0, ge=0)
    """Steps between small evaluations on the first suite, each an attempt in the ledger. 0: only
    before and after.
    """
    rollout_share: Fraction = 1.0
    """Share of training rollouts written to rollouts.jsonl.zst."""


class SftConfig(Section):
    """Supervised fine-tuning. Two epochs, cosine to a tenth and batches of 64: paper, B.4.2."""

    epochs: PositiveInt = 2
    batch_sequences: PositiveInt = 64
    """Examples per optimiser step; an epoch is cut into equal batches of at most so many."""
    max_tokens: int | None = Field(default=None, ge=2)
    """Examples with more prompt and completion tokens are left out and counted, never cut. Default:
    the model's context, which is the limit in any case.
    """
    tokens_per_pack: PositiveInt = 8192
    """Prompt and completion tokens in one forward pass; gradients accumulate over the packs."""
    learning_rate: float = Field(default=1e-5, gt=0.0)
    warmup_fraction: Fraction = 0.03
    """Share of the optimiser steps over which the learning rate rises."""
    final_fraction: Fraction = 0.1
    """Learning rate at the last step as a share of the peak; a cosine leads there."""
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: NonNegative = 0.0
    adam_eps: float = Field(default=1e-8, gt=0.0)
    grad_clip: float = Field(default=1.0, gt=0.0)
    checkpoint_every: PositiveInt = 50
    """Optimiser steps between checkpoints; the last step always leaves one."""
    keep_checkpoints: PositiveInt = 2


class SuiteConfig(Section):
    name: str = "chain"
    split: str = "test"
    k: PositiveInt = 1
    """Samples per problem; pass@1 is their mean."""
    limit: int | None = Field(default=None, ge=1)
    template: str | None = None
    """Prompt template of this suite; default: the task's."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    pass_at: tuple[PositiveInt, ...] = ()
    """Also report the unbiased pass@k for these k (each at most `k`)."""
    label: str | None = None
    """Name in tables; default: name, and template where it differs."""
    baseline_only: bool = False
    """Measure the base model only (say, under its chat template)."""

    @model_validator(mode="after")
    def _enough_samples(self) -> SuiteConfig:
        if any(k > self.k for k in self.pass_at):
            raise ValueError(f"pass_at asks for more samples than k = {self.k}")
        return self


class EvalConfig(Section):
    suites: tuple[SuiteConfig, ...] = Field(default=(SuiteConfig(),), min_length=1)
    """The first one is the headline in result.json."""
    temperature: NonNegative = 0.6
    """Paper, D.1: 0.6."""
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    max_new_tokens: PositiveInt = 256
    during_limit: PositiveInt = 100
    """Problems used by the small evaluations during training."""

    @model_validator(mode="after")
    def _headline_is_trained(self) -> EvalConfig:
        if self.suites[0].baseline_only:
            raise ValueError(
                "the first suite is the headline, before and after: move the one with "
                "baseline_only behind another"
            )
        return self


class ControlsConfig(Section):
    """Trainings of the same recipe whose reward knows no answer. What they gain as well, the reward
    for right answers did not bring: the claim that training improves a model requires them.
    """

    random_reward: bool = False
    """Train once more from the base, on a coin's toss."""
    format_only: bool = False
    """Train once more from the base, on the format alone."""
    steps: int | None = Field(default=None, ge=1)
    """Default: as many as `train.steps`. Fewer are cheaper and show less: the verifier and the
    limits of every claim that requires a control say so.
    """


class EvidenceConfig(Section):
    """The dossier of the run (see docs/dossier.md)."""

    dossier: bool = False
    """File a plan before the first evaluation; build, seal and verify a dossier after the last."""
    key: str | None = None
    """Private key that signs. Default: `~/.config/pellucid/dossier.key` where that exists, else
    `dossier.key` beside the run folder, made when it is missing.
    """
    packed: bool = False
    """Pack the samples: as a .tar.xz the dossier takes a third."""
    cutoff: str | None = Field(default=None, pattern=r"^\d{4}-\d\d-\d\d$")
    """Day until which the base model's data may reach: problems first public on or after it are the
    view `post_cutoff`. Fixed by the plan. Example: 2024-09-19
    """
    audit: int = Field(default=0, ge=0, le=10_000)
    """Samples on which people will check the graders: promised with the plan, and missed by the
    verifier where their labels are not there. 0: none are promised.
    """
    region: str = "world"
    """Where the run's electricity comes from: a country code of `energy/factors.json`, or `world`.
    """


class RunConfig(Section):
    """The whole recipe."""

    name: str = "run"
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Weights and activations; optimiser states are always float32. auto: bfloat16 on CUDA, else
    float32.
    """
    exact: Literal["auto"] | bool = "auto"
    """Rollout and trainer agree to the last bit on the log-probability of every token, whatever
    the batch. auto: where the kernels for it run (an NVIDIA GPU of capability 9.0 or newer).
    """
    threads: int = Field(default=0, ge=0)
    """CPU threads; 0: the cores this process may use."""
    unsafe_code: bool = False
    """Run programs that a model wrote without isolation, with resource limits only. False: a recipe
    with code problems is refused where programs cannot be isolated (see docs/sandbox.md).
    """
    code_timeout_s: float = Field(default=CODE_TIMEOUT_S, gt=0.0, le=600.0)
    """Seconds that a program which a model wrote may compute, with all its tests. The last one of a
    rollout that never ends is waited for; see docs/sandbox.md for what honest solutions take.
    """
    math_verify_timeout_s: float = Field(default=MATH_VERIFY_TIMEOUT_S, gt=0.0, le=600.0)
    """Seconds that math-verify may take for one answer; see docs/graders.md."""
    model: ModelConfig = ModelConfig()
    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    algo: AlgoConfig = AlgoConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    controls: ControlsConfig = ControlsConfig()
    evidence: EvidenceConfig = EvidenceConfig()

    @model_validator(mode="after")
    def _correction_sees_a_difference(self) -> RunConfig:
        is_blind = self.algo.old_logprobs == "rollout" and self.train.minibatches > 1
        if self.algo.mismatch != "off" and is_blind:
            raise ValueError(
                "algo.mismatch compares the trainer's log-probabilities with the rollout's: with "
                "algo.old_logprobs = 'rollout' there is nothing to compare; set it to 'recompute'"
            )
        return self

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not value or "/" in value:
            raise ValueError("name must be non-empty and without a slash")
        return value
