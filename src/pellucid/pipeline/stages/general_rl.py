"""The stage general-rl: RL on reasoning and general prompts with reward models (paper, 3.2.2).

reward-models/helpful, safety ── scorers ─┬─► reward terms, which count late in the stage
                                          └─► the watch: their rewards against true accuracy
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pellucid.config_stages import GeneralRlConfig
from pellucid.errors import ConfigError
from pellucid.ledger import EventKind
from pellucid.model.scalar_head import is_reward_model, load_reward_model
from pellucid.pipeline.evaluations import Instruments
from pellucid.pipeline.probe_problems import MODEL_TERMS, probe_problems
from pellucid.pipeline.rl_stage import RlStage
from pellucid.pipeline.stage import StageContext
from pellucid.pipeline.stages.reinforce import reinforce
from pellucid.pipeline.workbench import resolve_device, resolve_dtype
from pellucid.protocols import ResponseScorer
from pellucid.records import Problem, Request, SamplingParams, Score, Verdict, sample_id
from pellucid.rewards.retry import grade_with_retry
from pellucid.train.grpo import StepHook
from pellucid.train.hack_watch import HackWatch, Parting, Probe
from pellucid.train.job import Beside
from pellucid.train.memory_plan import MemoryPlan
from pellucid.train.reward_scorer import RewardModelScorer

PROBES_NAME = "probe.jsonl"


def run(context: StageContext, config: GeneralRlConfig) -> None:
    """Trains what is left to train, under the watch, and exports the model."""
    scorers = open_scorers(context, config)  # before memory is planned: they take some of it
    beside = memory_beside(scorers)

    def make_hook(training: RlStage, instruments: Instruments) -> StepHook:
        fit_scorers(scorers, training.memory)
        if not config.watch.every:
            return lambda step: {}
        return ProbeSet(context, config, training, scorers, instruments).watch().after_update

    reinforce(
        context,
        config,
        scorers=scorers,
        beside=beside,
        make_hook=make_hook if scorers else None,
    )


def memory_beside(scorers: Mapping[str, RewardModelScorer]) -> Beside | None:
    """What the reward models take of the device's memory; None without any."""
    models = [scorer.model for scorer in scorers.values()]
    if not models:
        return None
    element = models[0].decoder.embedding.weight.element_size()
    return Beside(specs=tuple(model.spec for model in models), element=element)


def fit_scorers(scorers: Mapping[str, RewardModelScorer], memory: MemoryPlan | None) -> None:
    """Packs as large as the plan has room for; without a plan they stay as they are."""
    if memory is not None:
        for scorer in scorers.values():
            scorer.tokens_per_pack = memory.scoring_tokens


def open_scorers(context: StageContext, config: GeneralRlConfig) -> dict[str, RewardModelScorer]:
    """The reward models that the stage's terms name, on the device. Raises ConfigError where the
    stage they come from trained none of that name.
    """
    wanted = [term for term in MODEL_TERMS if term in config.reward.terms]
    if config.rewards_from is None:
        return {}
    device = resolve_device(context.recipe.device)
    dtype = resolve_dtype(context.recipe.dtype, device)
    scorers: dict[str, RewardModelScorer] = {}
    for term in wanted:
        folder = context.inputs[config.rewards_from].root / term
        if not is_reward_model(folder):
            raise ConfigError(
                f"stage {config.rewards_from} trained no {term} model: let it do so, or take "
                f"{term!r} out of stages.{config.name}.reward.terms"
            )
        loaded = load_reward_model(folder, dtype=dtype, device=device)
        scorers[term] = RewardModelScorer.of(loaded)
    return scorers


class ProbeSet:
    """The problems of the watch, and how the policy's answers to them are judged."""

    def __init__(
        self,
        context: StageContext,
        config: GeneralRlConfig,
        training: RlStage,
        scorers: Mapping[str, ResponseScorer],
        instruments: Instruments,
    ) -> None:
        self.context = context
        self.config = config
        self.training = training
        self.scorers = scorers
        self.bench, self.grader = instruments
        self.graded, self.open = probe_problems(context.recipe, config, training.mixture.problems)

    def watch(self) -> HackWatch:
        """The watch over these problems."""
        options = self.config.watch
        return HackWatch(
            self.context.stage.root / PROBES_NAME,
            self.measure,
            self._warn,
            every=options.every,
            num_steps=self.config.train.steps,
            window=options.window,
            min_fall=options.min_fall,
        )

    def measure(self, step: int) -> Probe:
        """The present policy on the probe set; the same random numbers at every step. Where the
        instrument failed on all answers, the probe says nothing of accuracy.
        """
        graded, scored = self._answers(self.graded), self._answers(self.open)
        verdicts, _ = grade_with_retry(self.grader, self.graded, graded)
        rewards: dict[str, float] = {}
        for term, scorer in self.scorers.items():
            own = [i for i, problem in enumerate(self.open) if problem.kind == term]
            values = scorer.score([self.open[i] for i in own], [scored[i] for i in own])
            rewards |= {self.open[i].id: v for i, v in zip(own, values, strict=True)}
        correct = {
            problem.id: float(score.is_correct)
            for problem, score in zip(self.graded, verdicts, strict=True)
            if score.verdict is not Verdict.ERROR  # of the instrument: no word on the policy
        }
        if not correct:
            self._say_blind(step, verdicts)
        return Probe(step=step, rewards=rewards, correct=correct)

    def _say_blind(self, step: int, verdicts: Sequence[Score]) -> None:
        why = verdicts[0].detail or "no reason given"
        self.context.progress.say(
            f"watch, step {step}: all {len(verdicts)} problems with a right answer failed to be "
            f"graded ({why}), so this probe counts for nothing: see `pellucid doctor`"
        )

    def _answers(self, problems: Sequence[Problem]) -> list[str]:
        template, tokenizer = self.training.template, self.bench.loaded.tokenizer
        rollout = self.training.config.rollout
        requests = [
            Request(
                prompt_ids=template.prompt_ids(problem.question, tokenizer, grader=problem.grader),
                sample_ids=(sample_id("probe", problem.id),),
            )
            for problem in problems
        ]
        params = SamplingParams(
            temperature=rollout.temperature,
            max_new_tokens=rollout.max_new_tokens,
            stop=rollout.stop or template.stop,
        )
        groups = self.bench.engine.generate(requests, params, seed=self.context.seed)
        return [template.response(group[0].text) for group in groups]

    def _warn(self, parting: Parting) -> None:
        """Into the ledger, once even where a kill takes the probe back, and to the console."""
        facts = {"address": self.context.address, "step": parting.step}
        warned = (e.payload for e in self.context.ledger.events if e.kind is EventKind.WARNED)
        if not any(facts.items() <= payload.items() for payload in warned):
            self.context.note(EventKind.WARNED, warning=parting.line(), **facts)
        self.context.progress.say(parting.line())
