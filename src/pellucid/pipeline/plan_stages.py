"""What each stage of a pipeline will take of a GPU, told before any of them runs.

Reinforcement learning is planned as in a recipe of one stage, with reward models and teachers
beside it; sampling and fine-tuning have plans of their own (`train.phase_plans`). All stages have
the base's shape, but the student of a distillation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pellucid.config import RewardConfig, RunConfig, SftConfig, TaskEntry
from pellucid.config_rewards import SAMPLED, HelpfulConfig, SafetyConfig
from pellucid.config_stages import (
    AnyStage,
    CurateStageConfig,
    DistillConfig,
    GeneralRlConfig,
    PipelineConfig,
    RewardModelsConfig,
    RlStageConfig,
)
from pellucid.curate.general import most_general
from pellucid.data.mixture import load_mixture
from pellucid.errors import ConfigError
from pellucid.model.load import Outline, find_outline
from pellucid.pipeline.distill.on_policy_arm import ALGO
from pellucid.pipeline.plan import (
    TYPICAL_TRIED,
    PlanOptions,
    PromptLengths,
    Target,
    find_target,
    plan_job,
    prompt_lengths,
)
from pellucid.pipeline.probe_problems import MODEL_TERMS
from pellucid.pipeline.sampling import CHUNK_SAMPLES
from pellucid.pipeline.stage import common_config, stage_seed
from pellucid.pipeline.workbench import DEFAULT_SLOTS, trained_or_given
from pellucid.records import Problem
from pellucid.train.job import Beside, Job
from pellucid.train.memory_plan import MemoryPlan
from pellucid.train.phase_plans import sampling_plan, tuning_plan
from pellucid.train.step_time import StepTime, predict

BF16 = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of a stage that has the device to itself. Example: name="sampling"."""

    stage: str
    name: str
    memory: MemoryPlan
    steps: int | None
    """At most: of training, or chunks of sampling. None: a budget ends it."""
    step_s: float | None
    """None: how fast the device is, is not known."""

    @property
    def total_s(self) -> float | None:
        """At most."""
        if self.steps is None or self.step_s is None:
            return None
        return self.steps * self.step_s

    def as_json(self) -> dict[str, Any]:
        """Bytes by class, and seconds."""
        memory = self.memory
        names = "weights states gradients reference kv decoding prefill activations logits"
        names += " head_work block_work overhead beside scoring"
        names += " rollout_peak training_peak peak"
        return {
            "stage": self.stage,
            "phase": self.name,
            "bytes": {name: getattr(memory, name) for name in names.split()},
            "slots": memory.slots,
            "kv_pages": memory.kv_pages,
            "tokens_per_pack": memory.tokens_per_pack,
            "scoring_tokens": memory.scoring_tokens,
            "steps": self.steps,
            "seconds": {"step": self.step_s, "total": self.total_s},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelinePlan:
    """What `pellucid plan` tells of a recipe of several stages."""

    device: str
    free: int
    phases: tuple[Phase, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "free_bytes": self.free,
            "phases": [phase.as_json() for phase in self.phases],
            "notes": list(self.notes),
        }


def plan_pipeline(recipe: PipelineConfig, options: PlanOptions) -> PipelinePlan:
    """Plans all stages for the GPU here, or for one that is named.

    Raises ConfigError, naming the stage, where one does not fit.
    """
    notes: list[str] = []
    target = find_target(_common(recipe, recipe.stages[0].name), options, notes)
    base = find_outline(trained_or_given(recipe.model))
    phases: list[Phase] = []
    for stage in recipe.stages:
        planner = _Planner(recipe, stage, options, target, base, notes)
        try:
            phases += planner.phases()
        except ConfigError as error:
            raise ConfigError(f"stages.{stage.name}: {error}") from None
    return PipelinePlan(
        device=target.name,
        free=target.free,
        phases=tuple(phases),
        notes=tuple(dict.fromkeys(notes)),
    )


def _common(recipe: PipelineConfig, stage: str, **sections: object) -> RunConfig:
    return common_config(
        recipe,
        recipe.model,
        template=recipe.template_of(stage),
        seed=stage_seed(recipe.seed, stage),
        **sections,
    )


class _Planner:
    """The phases of one stage."""

    def __init__(
        self,
        recipe: PipelineConfig,
        stage: AnyStage,
        options: PlanOptions,
        target: Target,
        base: Outline,
        notes: list[str],
    ) -> None:
        self.recipe = recipe
        self.stage = stage
        self.options = options
        self.target = target
        self.base = base
        self.notes = notes

    def phases(self) -> Iterator[Phase]:
        """In the order in which they run."""
        stage = self.stage
        if isinstance(stage, RlStageConfig):
            yield self._reinforcement(stage)
        elif isinstance(stage, CurateStageConfig):
            yield from self._curation(stage)
        elif isinstance(stage, RewardModelsConfig):
            yield from self._reward_models(stage)
        else:
            yield from self._distillation(stage)

    def _reinforcement(self, stage: RlStageConfig) -> Phase:
        config = _common(
            self.recipe,
            stage.name,
            rollout=stage.rollout,
            reward=RewardConfig(),
            algo=stage.algo,
            train=stage.train,
        )
        scored: tuple[str, ...] = ()
        if isinstance(stage, GeneralRlConfig) and stage.rewards_from is not None:
            scored = tuple(term for term in MODEL_TERMS if term in stage.reward.terms)
        beside = Beside(specs=(self.base.spec,) * len(scored), element=BF16) if scored else None
        prompts = self._prompts(stage.tasks, self.base, self.recipe.template_of(stage.name))
        return self._learning(config, self.base, prompts, beside, steps=stage.train.steps)

    def _learning(
        self,
        config: RunConfig,
        outline: Outline,
        prompts: PromptLengths,
        beside: Beside | None,
        *,
        steps: int | None,
        name: str = "training",
    ) -> Phase:
        target = find_target(config, self.options, [])  # train.memory_gib may differ by stage
        options = replace(
            self.options, mean_length=self._mean_length(config.rollout.max_new_tokens)
        )
        report = plan_job(config, options, target, outline, prompts, (), beside)
        seconds = report.time.step_s if report.time is not None else None
        return self._phase(name, report.memory, steps, seconds)

    def _curation(self, stage: CurateStageConfig) -> Iterator[Phase]:
        sampled_with = stage.sample_template or self.recipe.template_of(stage.sampler)
        asked = self._prompts(stage.tasks, self.base, sampled_with)
        yield self._sampling(self.base, asked, stage.problems, stage.samples, stage.max_new_tokens)
        read = self._prompts(stage.tasks, self.base, stage.template)
        yield self._tuning(
            self.base, read, stage.sft, stage.max_new_tokens, _most_examples(stage), "fine-tuning"
        )

    def _reward_models(self, stage: RewardModelsConfig) -> Iterator[Phase]:
        template = self.recipe.template_of(stage.name)
        parts: list[tuple[str, HelpfulConfig | SafetyConfig | None, int]] = [
            ("helpful", stage.helpful, 2),
            ("safety", stage.safety, 1),
        ]
        for name, config, texts in parts:
            if config is None:
                continue
            prompts = self._prompts(config.tasks, self.base, template)
            length = config.max_new_tokens
            if SAMPLED in config.sources:
                yield self._sampling(
                    self.base, prompts, config.prompts, config.samples, length, f"sampling {name}"
                )
            examples = round(config.limit * len(config.sources) * (1 - config.held_out))
            yield self._tuning(
                self.base, prompts, stage.train, length, examples, f"training {name}", texts
            )

    def _distillation(self, stage: DistillConfig) -> Iterator[Phase]:
        student = find_outline(trained_or_given(stage.student))
        data = self.recipe.stage(stage.data_from)
        assert isinstance(data, CurateStageConfig), "checked with the recipe"
        template = self.recipe.template_of(stage.name)
        taught = self._prompts(data.tasks, student, template)
        asked = self._prompts(stage.tasks, student, template) if stage.tasks else taught
        for arm in stage.arms:
            if arm == "on-policy":
                config = _common(self.recipe, stage.name, rollout=stage.rollout, algo=ALGO)
                beside = Beside(
                    specs=(self.base.spec,),
                    element=BF16,
                    is_teacher=True,
                    is_compared_whole=stage.on_policy.estimate == "vocabulary",
                )
                yield self._learning(config, student, asked, beside, steps=None, name=arm)
                continue
            if arm == "iterative-sft":
                yield self._sampling(
                    student,
                    asked,
                    stage.rollout.prompts,
                    stage.rollout.group_size,
                    stage.rollout.max_new_tokens,
                    f"{arm}, sampling",
                    is_budgeted=True,
                )
            count = _most_examples(data) if arm == "sft" else None
            yield self._tuning(student, taught, stage.sft, data.max_new_tokens, count, arm)

    # Parts

    def _sampling(
        self,
        outline: Outline,
        prompts: PromptLengths,
        problems: int,
        samples: int,
        max_new_tokens: int,
        name: str = "sampling",
        *,
        is_budgeted: bool = False,
    ) -> Phase:
        at_once = min(problems, max(1, CHUNK_SAMPLES // samples))
        job = _job(outline, prompts, at_once, samples, max_new_tokens)
        memory = sampling_plan(replace(job, slots=DEFAULT_SLOTS), self.target.free)
        time = self._time(job, memory, prompts)
        seconds = time.prefill_s + time.decode_s if time is not None else None
        chunks = -(-problems // at_once)
        return self._phase(name, memory, None if is_budgeted else chunks, seconds)

    def _tuning(
        self,
        outline: Outline,
        prompts: PromptLengths,
        sft: SftConfig,
        max_new_tokens: int,
        examples: int | None,
        name: str,
        scored_texts: int = 0,
    ) -> Phase:
        """`scored_texts`: of an example of a reward model; 0: tokens are learnt."""
        batch = min(sft.batch_sequences, examples or sft.batch_sequences)
        limit = max_new_tokens
        if sft.max_tokens is not None:
            limit = max(min(limit, sft.max_tokens - prompts.longest), 1)
        job = _job(outline, prompts, batch, max(scored_texts, 1), limit)
        memory = tuning_plan(
            job, self.target.free, sft.tokens_per_pack, has_logits=not scored_texts
        )
        time = self._time(job, memory, prompts)
        seconds = time.training_s + time.optimizer_s if time is not None else None
        steps = sft.epochs * -(-examples // batch) if examples else None
        return self._phase(name, memory, steps, seconds)

    def _time(self, job: Job, memory: MemoryPlan, prompts: PromptLengths) -> StepTime | None:
        if self.target.peaks is None:
            return None
        typical = replace(job, prompt_tokens=max(round(prompts.mean), 1))
        mean = self._mean_length(job.max_new_tokens) or float(job.max_new_tokens)
        return predict(typical, memory, self.target.peaks, mean)

    def _mean_length(self, limit: int) -> float | None:
        """What a person said, as far as this stage's completions are that long."""
        mean = self.options.mean_length
        return None if mean is None else min(mean, float(limit))

    def _prompts(
        self, tasks: Sequence[TaskEntry], outline: Outline, template: str
    ) -> PromptLengths:
        return prompt_lengths(self._load(tasks), template, self.options, outline, self.notes)

    def _load(self, tasks: Sequence[TaskEntry]) -> Callable[[], Sequence[Problem]]:
        def load() -> Sequence[Problem]:
            seed = stage_seed(self.recipe.seed, self.stage.name)
            mixture = load_mixture(tasks, seed=seed, data_dir=self.recipe.data_dir)
            if len(mixture.parts) == 1:
                return mixture.problems
            # The first are those that the mean is told of: all tasks by their shares.
            return [*mixture.window(0, TYPICAL_TRIED), *mixture.problems]

        return load

    def _phase(
        self, name: str, memory: MemoryPlan, steps: int | None, step_s: float | None
    ) -> Phase:
        return Phase(stage=self.stage.name, name=name, memory=memory, steps=steps, step_s=step_s)


def _job(
    outline: Outline, prompts: PromptLengths, problems: int, samples: int, max_new_tokens: int
) -> Job:
    return Job(
        spec=outline.spec,
        element=BF16,
        prompts=problems,
        group_size=samples,
        prompt_tokens=prompts.longest,
        max_new_tokens=max_new_tokens,
    )


def _most_examples(stage: CurateStageConfig) -> int:
    """Were every sample right and readable."""
    each = stage.samples if stage.select == "all" else min(stage.keep, stage.samples)
    sampled = stage.problems * each
    return sampled + (most_general(sampled, stage.general.share) if stage.general else 0)
