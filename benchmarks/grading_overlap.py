"""Wall seconds of a step's rollout and grading, and of an evaluation: graded as groups end, against
graded at the end.

A scripted engine lets groups end one after another over a fixed time and leaves the processor
alone, as a GPU does; a slow second grader takes a fixed time of a worker process for each answer.
The grades are compared too. Prints JSON.

    python benchmarks/grading_overlap.py
"""

import json
import os
import statistics
import time
from functools import partial

from pellucid.config import RewardConfig, RolloutConfig, RunConfig
from pellucid.evaluate.runner import evaluate
from pellucid.records import Completion, Problem, SamplingParams, StopReason, Verdict
from pellucid.rewards.math import Opinion
from pellucid.rewards.pool import GraderPool
from pellucid.tasks.templates import get_template
from pellucid.train.collect import Collector

GROUPS, SAMPLES, ROLLOUT_S = 32, 8, 4.0
OPINION_S, WORKERS = 0.02, 2
STEPS = 3
PROBLEMS = [
    Problem(id=f"p/{i}", question=f"{i}", gold=rf"\f(x_{{{i}}})", grader="math")
    for i in range(GROUPS * (STEPS + 1))
]


def slow_judge(gold: str, answer: str) -> Opinion:
    """What the worker processes run."""
    time.sleep(OPINION_S)
    return Opinion(verdict=Verdict.CORRECT if len(answer) % 2 else Verdict.WRONG)


class Letters:
    eos_ids = (0,)
    chat_template = None

    def encode(self, text):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


class ScriptedEngine:
    """Groups end at equal distances."""

    def generate(self, requests, params, *, seed, progress=None, on_group=None):
        begin, groups = time.monotonic(), []
        for index, request in enumerate(requests):
            time.sleep(max(0.0, begin + ROLLOUT_S * (index + 1) / len(requests) - time.monotonic()))
            groups.append([completion(i, k) for k, i in enumerate(request.sample_ids)])
            if on_group is not None:
                on_group(index, groups[-1])
        return groups


def completion(sample_id: int, k: int) -> Completion:
    """Every answer is another one, and the strict grader is undecided."""
    text = rf"\boxed{{\g_{{{sample_id}}}(x){'y' * (k % 3)}}}"
    return Completion(
        sample_id=sample_id, token_ids=(1,), logprobs=(-1.0,), stop=StopReason.EOS, text=text
    )


class Later:
    """Grades when the scores are asked for: the sequential path."""

    def __init__(self, pool):
        self.grade = pool.grade

    def submit(self, problems, responses):
        return Asked(partial(self.grade, problems, responses))


class Asked:
    def __init__(self, grade):
        self.result = grade


def evaluated(grader):
    """An evaluation of as many samples as a step: its records, and its wall seconds."""
    records, begin = [], time.perf_counter()
    result = evaluate(
        ScriptedEngine(),
        Letters(),
        PROBLEMS[:GROUPS],
        template=get_template("plain"),
        params=SamplingParams(),
        k=SAMPLES,
        seed=0,
        arm="after",
        suite="toy",
        grader=grader,
        sink=records.append,
    )
    wall = time.perf_counter() - begin
    return [r.to_dict() for r in records], wall, result.grade_s


def main() -> None:
    config = RunConfig(
        rollout=RolloutConfig(prompts=GROUPS, group_size=SAMPLES),
        reward=RewardConfig(terms={"accuracy": 1.0}),
    )
    walls, waits, rewards, records, evaluations = {}, {}, {}, {}, {}
    for name, wrap in (("at the end", Later), ("as groups end", lambda pool: pool)):
        with GraderPool(judge="grading_overlap:slow_judge", num_workers=WORKERS) as pool:
            collector = Collector(
                config,
                PROBLEMS,
                get_template("plain"),
                ScriptedEngine(),
                Letters(),
                wrap(pool),
                "grpo",
            )
            collector.collect(STEPS + 1)  # starts the workers
            walls[name], waits[name], rewards[name] = [], [], []
            for step in range(1, STEPS + 1):
                begin = time.perf_counter()
                batch = collector.collect(step)
                walls[name].append(time.perf_counter() - begin)
                waits[name].append(batch.grading_wait_s)
                rewards[name].append([[r.reward for r in g] for g in batch.groups])
            records[name], *evaluations[name] = evaluated(wrap(pool))
    assert rewards["at the end"] == rewards["as groups end"], "a grade went astray"
    assert records["at the end"] == records["as groups end"], "an evaluation's grade went astray"
    report = {
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "rollout_s": ROLLOUT_S,
        "grading_s": GROUPS * SAMPLES * OPINION_S / WORKERS,
        "step_s": {name: round(statistics.median(w), 2) for name, w in walls.items()},
        "waited_for_grades_s": {name: round(statistics.median(w), 2) for name, w in waits.items()},
        "evaluation_s": {name: round(wall, 2) for name, (wall, _) in evaluations.items()},
        "evaluation_waited_s": {name: round(wait, 2) for name, (_, wait) in evaluations.items()},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
