"""Collecting a step: which problems, which ids, who is masked, what is drawn again."""

import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from pellucid.config import RewardConfig, RolloutConfig, RunConfig
from pellucid.data.mixture import Mixture, Part
from pellucid.errors import ConfigError
from pellucid.records import Completion, Problem, Rollout, Score, StopReason, Verdict
from pellucid.rewards.terms import TERMS, Term
from pellucid.tasks.templates import get_template
from pellucid.train.collect import Batch, Collector
from pellucid.train.grpo import batch_metrics

PROBLEMS = [Problem(id=f"p/{i}", question=f"{i}?", gold=str(i), grader="math") for i in range(7)]


class Letters:
    eos_ids = (0,)
    chat_template = None

    def encode(self, text):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(map(chr, ids))

    def chat(self, messages, add_generation_prompt=True):
        raise AssertionError("no chat here")


class EchoEngine:
    """Answers with the prompt and the index of the sample, so that mixed groups show. The groups
    end in `order` of their number.
    """

    def __init__(self, order=range):
        self.order = order
        self.calls = []

    def generate(self, requests, params, *, seed, progress=None, on_group=None):
        self.calls.append((requests, params, seed))
        groups = [
            [
                Completion(
                    sample_id=i,
                    token_ids=(1, 2),
                    logprobs=(-1.0, -1.0),
                    stop=StopReason.EOS,
                    text=f"{''.join(map(chr, r.prompt_ids)).split('?')[0]}/{k}",
                )
                for k, i in enumerate(r.sample_ids)
            ]
            for r in requests
        ]
        for index in self.order(len(groups)):
            on_group(index, groups[index])
        return groups


class RuleGrader:
    """`rule(problem, response)` is a verdict; every call is remembered."""

    def __init__(self, rule):
        self.rule = rule
        self.calls = []

    def grade(self, problems, responses):
        self.calls.append(list(responses))
        return [Score(verdict=self.rule(p, r)) for p, r in zip(problems, responses, strict=True)]

    def submit(self, problems, responses):
        pending = Future()
        pending.set_result(self.grade(problems, responses))
        return pending


def make(rule, *, resample_limit=0, prompts=3, problems=PROBLEMS, terms=("accuracy",)):
    config = RunConfig(
        seed=5,
        rollout=RolloutConfig(prompts=prompts, group_size=4, resample_limit=resample_limit),
        reward=RewardConfig(terms=dict.fromkeys(terms, 1.0)),
    )
    engine, grader = EchoEngine(), RuleGrader(rule)
    template = get_template("plain")
    collector = Collector(config, problems, template, engine, Letters(), grader, "grpo")
    return collector, engine, grader


def first_is_right(problem, response):
    return Verdict.CORRECT if response.endswith("/0") else Verdict.WRONG


def test_a_group_holds_the_samples_and_grades_of_one_problem_alone():
    collector, _, _ = make(first_is_right)
    batch = collector.collect(1)
    for group, row in zip(batch.groups, batch.advantages, strict=True):
        [problem] = {r.problem.id for r in group}
        assert [r.completion.text for r in group] == [f"{problem[2:]}/{k}" for k in range(4)]
        assert row.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-4)
        assert [r.reward for r in group] == [1.0, 0.0, 0.0, 0.0]
    assert [s.advantage > 0 for s in batch.sequences()] == [True, False, False, False] * 3


def test_a_problem_is_asked_as_its_grader_reads_answers():
    problems = [Problem(id="m", question="0?", gold="0", grader="math")]
    problems.append(Problem(id="c", question="1?", gold="1", grader="code"))
    collector, engine, _ = make(first_is_right, prompts=2, problems=problems)
    collector.template = get_template("r1-zero-boxed")
    collector.collect(1)
    prompts = ["".join(map(chr, request.prompt_ids)) for request in engine.calls[0][0]]
    assert {("boxed" in prompt, "User: 1?" in prompt) for prompt in prompts} == {
        (True, False),
        (False, True),
    }


def test_every_sample_of_a_run_has_its_own_id_also_those_drawn_again():
    collector, engine, _ = make(lambda p, r: Verdict.WRONG, resample_limit=2, prompts=9)
    for step in (1, 2, 3):
        batch = collector.collect(step)
        assert batch.num_resampled == 18
    ids = [i for requests, _, _ in engine.calls for r in requests for i in r.sample_ids]
    assert len(engine.calls) == 9
    assert len(set(ids)) == len(ids)


def test_a_step_collected_again_after_a_kill_asks_for_the_same():
    for step in (1, 4):
        asked = []
        for _ in range(2):
            collector, engine, _ = make(lambda p, r: Verdict.WRONG, resample_limit=1)
            collector.collect(step)
            asked.append(engine.calls)
        assert asked[0] == asked[1]


def test_only_groups_without_spread_are_drawn_again():
    def rule(problem, response):
        return first_is_right(problem, response) if int(problem.gold) % 2 else Verdict.WRONG

    collector, engine, _ = make(rule, resample_limit=1, prompts=7)
    batch = collector.collect(1)
    assert batch.num_resampled == 4  # of the 7 problems, 0 2 4 6
    assert len(engine.calls[1][0]) == 4
    odd = [g[0].problem.id for g in batch.groups if int(g[0].problem.gold) % 2]
    assert {"p/1", "p/3", "p/5"} <= set(odd)


def test_accuracy_is_of_the_graded_samples_alone():
    def rule(problem, response):
        return Verdict.UNGRADED if response.endswith("/3") else first_is_right(problem, response)

    metrics = batch_metrics(make(rule)[0].collect(1))
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert metrics["verdict/ungraded"] == pytest.approx(1 / 4)
    assert metrics["masked"] == 0
    nothing = batch_metrics(make(lambda p, r: Verdict.UNGRADED)[0].collect(1))
    assert "accuracy" not in nothing


def test_where_the_instrument_fails_twice_the_sample_takes_no_part():
    def rule(problem, response):
        return Verdict.ERROR if response.endswith("/3") else first_is_right(problem, response)

    collector, _, grader = make(rule)
    batch = collector.collect(1)
    *first, second = grader.calls
    assert [len(call) for call in first] == [4, 4, 4]
    assert len(second) == 3
    assert all(r.endswith("/3") for r in second)
    for group, row in zip(batch.groups, batch.advantages, strict=True):
        assert [r.masked for r in group] == [False, False, False, True]
        assert row[3] == 0
        assert float(row[:3].sum()) == pytest.approx(0.0, abs=1e-6)
    assert len(batch.sequences()) == 9


def test_consecutive_steps_take_consecutive_problems_of_the_mixture():
    mixture = Mixture([Part(PROBLEMS[:4], 0.75), Part(PROBLEMS[4:], 0.25)], seed=5)
    collector, _, _ = make(first_is_right, problems=mixture, prompts=4)
    row = [group[0].problem for step in (1, 2, 3) for group in collector.collect(step).groups]
    assert row == mixture.window(0, 12)
    assert sum(p in PROBLEMS[4:] for p in row) == 3


def test_an_epoch_shows_every_problem_once_and_the_next_one_in_another_order():
    collector, _, _ = make(first_is_right)
    row = [g[0].problem.id for step in range(1, 15) for g in collector.collect(step).groups]
    epochs = [row[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == sorted(p.id for p in PROBLEMS) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


class LengthScorer:
    def score(self, problems, responses):
        return [float(len(r)) for r in responses]


def mixed_rollout(task, kind, reward, terms, *, verdict=Verdict.CORRECT, masked=False):
    completion = Completion(
        sample_id=1, token_ids=(1,), logprobs=(-1.0,), stop=StopReason.EOS, text="a"
    )
    problem = Problem(id=f"{task}/train/0", question="?", gold="1", grader="math", kind=kind)
    score = Score(verdict=verdict)
    return Rollout(
        problem=problem,
        prompt_ids=(1,),
        completion=completion,
        score=score,
        terms=terms,
        reward=reward,
        masked=masked,
    )


def test_statistics_of_a_term_are_of_the_rollouts_to_which_it_applies():
    open_ = Verdict.UNGRADED
    groups = [
        [
            mixed_rollout("gsm8k", "reasoning", 2.0, {"accuracy": 1.0, "format": 1.0}),
            mixed_rollout(
                "gsm8k",
                "reasoning",
                0.0,
                {"accuracy": 0.0, "format": 0.0},
                verdict=Verdict.WRONG,
            ),
        ],
        [
            mixed_rollout("mbpp", "reasoning", 2.0, {"accuracy": 1.0, "format": 1.0}),
            mixed_rollout(
                "mbpp", "reasoning", 0.0, {"accuracy": 0.0}, verdict=Verdict.ERROR, masked=True
            ),
        ],
        [
            mixed_rollout("hh", "helpful", 4.0, {"helpful": 3.0, "format": 1.0}, verdict=open_),
            mixed_rollout("hh", "helpful", 2.0, {"helpful": 1.0, "format": 1.0}, verdict=open_),
        ],
    ]
    metrics = batch_metrics(Batch(groups=groups, advantages=torch.zeros(3, 2)))
    assert metrics["reward/accuracy"] == pytest.approx(2 / 3)
    assert metrics["reward/accuracy/count"] == 3
    assert metrics["reward/helpful"] == 2.0
    assert metrics["reward/helpful/std"] == 1.0
    assert metrics["reward/helpful/count"] == 2
    assert metrics["reward/format/count"] == 5
    assert metrics["reward/format/std"] == pytest.approx(0.4)
    assert [metrics[f"accuracy/{t}"] for t in ("gsm8k", "mbpp")] == [0.5, 1.0]
    assert "accuracy/hh" not in metrics
    assert metrics["reward_mean/helpful"] == 3.0
    assert metrics["reward_mean/reasoning"] == pytest.approx(4 / 3)
    alone = batch_metrics(Batch(groups=groups[:1], advantages=torch.zeros(1, 2)))
    assert not {n for n in alone if n.startswith(("accuracy/", "reward_mean/"))}


def test_general_prompts_are_rated_by_the_model_and_not_counted_as_wrong():
    config = RunConfig(
        rollout=RolloutConfig(prompts=2, group_size=2),
        reward=RewardConfig(terms={"accuracy": 1.0, "helpful": 2.0}),
    )
    chat = Problem(id="chat/1", question="Hello?", gold="", grader="open", kind="helpful")
    grader = RuleGrader(
        lambda p, r: Verdict.UNGRADED if p.grader == "open" else first_is_right(p, r)
    )
    collector = Collector(
        config,
        [PROBLEMS[0], chat],
        get_template("plain"),
        EchoEngine(),
        Letters(),
        grader,
        "grpo",
        scorers={"helpful": LengthScorer()},
    )
    rewards = {g[0].problem.id: [r.reward for r in g] for g in collector.collect(1).groups}
    assert rewards == {"p/0": [1.0, 0.0], "chat/1": [14.0, 14.0]}


class LateGrader(RuleGrader):
    """Answers in any order, on threads of its own, after delays."""

    def __init__(self, rule, seed):
        super().__init__(rule)
        self.draw = random.Random(seed)
        self.threads = ThreadPoolExecutor(4)

    def submit(self, problems, responses):
        delay = self.draw.random() * 0.02

        def work():
            time.sleep(delay)
            return self.grade(problems, responses)

        return self.threads.submit(work)


@pytest.mark.parametrize("seed", range(4))
def test_groups_that_end_in_any_order_and_grades_that_come_in_any_order_change_nothing(seed):
    def rule(problem, response):
        verdicts = (Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSABLE, Verdict.ERROR)
        return random.Random(response).choice(verdicts)

    terms = ("random", "accuracy", "repetition")
    expected = make(rule, prompts=7, terms=terms)[0].collect(2)
    draw = random.Random(seed)
    collector, engine, _ = make(rule, prompts=7, terms=terms)
    engine.order = lambda number: draw.sample(range(number), number)
    collector.grader = LateGrader(rule, seed)
    batch = collector.collect(2)
    collector.grader.threads.shutdown()
    assert batch.groups == expected.groups
    assert torch.equal(batch.advantages, expected.advantages)
    for rollout in (r for group in batch.groups for r in group):
        assert rollout.score.verdict is rule(rollout.problem, rollout.completion.text)
        coin = TERMS["random"].rule(
            rollout.problem, "", rollout.score, rollout.completion.sample_id
        )
        assert (rollout.terms["random"], tuple(rollout.terms)) == (coin, terms)
    assert {r.masked for g in batch.groups for r in g} == {True, False}


def test_terms_of_the_text_are_computed_while_the_engine_still_samples(monkeypatch):
    begun = threading.Event()

    def rule(problem, response, score, sample_id):
        begun.set()
        return float(len(response))

    def order(number):
        for index in range(number):
            yield index
            assert begun.wait(20.0), "the first group's terms wait for the last group"

    monkeypatch.setitem(TERMS, "format", Term(rule=rule))
    collector, engine, _ = make(first_is_right, terms=("format", "accuracy"))
    engine.order = order
    for rollout in (r for group in collector.collect(1).groups for r in group):
        assert rollout.terms["format"] == len(rollout.completion.text)


def test_a_rule_that_fails_on_its_thread_is_heard():
    collector, _, _ = make(first_is_right, terms=("language",))
    odd = [replace(PROBLEMS[0], language="tlh")]
    collector.mixture = Mixture.single(odd, 5)
    with pytest.raises(ConfigError, match="tlh"):
        collector.collect(1)
