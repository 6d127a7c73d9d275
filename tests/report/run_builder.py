"""Builds synthetic run folders with the real writers: what the report is tested on."""

import math
import random
from concurrent.futures import Future
from dataclasses import dataclass

from pellucid.artifacts import RunFolder, atomic_write_json, atomic_write_text, sha256_file
from pellucid.evaluate.compare import compare
from pellucid.evaluate.records import arm_summary
from pellucid.evaluate.runner import evaluate
from pellucid.jsonl import ZstdJsonlWriter
from pellucid.ledger import EventKind, Ledger
from pellucid.manifest import write_manifest
from pellucid.records import (
    Completion,
    Problem,
    SamplingParams,
    Score,
    StopReason,
    Verdict,
    sample_id,
)
from pellucid.runlog import MetricsLog, MetricsRecord
from pellucid.tasks.templates import get_template

RECIPE = """\
name = "{name}"  # recipe
seed = 7

[model]
id = "tiny-base"

[task]
name = "chain"
split = "train"
template = "r1-zero"

[rollout]
prompts = 4
group_size = 2

[algo]
preset = "r1"

[train]
steps = {steps}
"""
HOSTILE = (
    "</pre><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} $\\frac{a}{b}$ "
    "\u202etxt\x07"
)


@dataclass
class SkilledEngine:
    """Solves a problem with a probability that depends on it; sometimes gives no answer at all."""

    skill: float
    format: float
    hostile: str

    def generate(self, requests, params, *, seed, progress=None, on_group=None):
        groups = [[self._one(request, i) for i in request.sample_ids] for request in requests]
        for index, group in enumerate(groups):
            on_group(index, group)
        return groups

    def _one(self, request, identity):
        draw, hard = random.Random(identity), random.Random(repr(request.prompt_ids)).random()
        if draw.random() > self.format:
            text, stop = f"I do not know 7 {self.hostile}", StopReason.LENGTH
        else:
            answer = "42" if draw.random() < self.skill ** (3 * hard) else str(draw.randrange(41))
            text, stop = (
                f"7 + 5 = 12, then 12 * 2 = 24 …</think> <answer>{answer}</answer>",
                StopReason.EOS,
            )
        ids = tuple(range(len(text) // 4))
        return Completion(
            sample_id=identity, token_ids=ids, logprobs=(-0.3,) * len(ids), stop=stop, text=text
        )


class Letters:
    eos_ids = (0,)
    chat_template = "present"

    def encode(self, text):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(map(chr, ids))

    def chat(self, messages, add_generation_prompt):
        return "<user>" + messages[0]["content"] + "<assistant>"


class TagGrader:
    """Reads <answer>…</answer>; the instrument fails on every answer `broken`."""

    def __init__(self, broken=""):
        self.broken = broken

    def submit(self, problems, responses):
        pending = Future()
        pending.set_result(self.grade(problems, responses))
        return pending

    def grade(self, problems, responses):
        return [self._one(r) for r in responses]

    def _one(self, response):
        if "<answer>" not in response:
            return Score(verdict=Verdict.UNPARSABLE, method="strict")
        answer = response.split("<answer>")[1].removesuffix("</answer>")
        if answer == self.broken:
            return Score(verdict=Verdict.ERROR, detail="worker died")
        verdict = Verdict.CORRECT if answer == "42" else Verdict.WRONG
        return Score(verdict=verdict, extracted=answer, method="strict")


def build_run(path, *, steps=40, problems=60, k=8, hostile=HOSTILE, name="tiny", finished=True):
    """A run folder as the pipeline leaves it: two suites, a second prompt, training, rollouts."""
    folder = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder.recipe, RECIPE.format(name=name, steps=steps))
    stage = folder.stage(1, "zero")
    ledger = Ledger(folder.ledger)
    ledger.append(EventKind.RUN_STARTED)
    arms = {"before": SkilledEngine(0.25, 0.55, hostile)}
    if finished:
        arms["after"] = SkilledEngine(0.75, 0.97, hostile)
    suites = [
        ("chain", "r1-zero", k),
        ("chain-chat-boxed", "chat-boxed", 2),
        ("countdown", "r1-zero", 2),
    ]
    results = {}
    for suite, _, samples in suites:
        ledger.append(EventKind.EVALUATION_STARTED, arm="before", suite=suite, k=samples)
    for arm, engine in arms.items():
        for suite, template, samples in suites:
            if not (arm == "after" and suite == "chain-chat-boxed"):
                results[arm, suite] = _measure(
                    stage, engine, arm, suite, template, samples, problems
                )
    _train(stage, steps if finished else steps // 3, hostile)
    if finished:
        _finish(folder, stage, ledger, suites, results)
    ledger.close()
    return path


def _measure(stage, engine, arm, suite, template, k, problems):
    records = []
    source = "countdown" if suite == "countdown" else "chain"
    result = evaluate(
        engine,
        Letters(),
        [
            Problem(
                id=f"{source}/test/{i}",
                question=f"A bus has {i} people, 5 get on & the number doubles. How many < 100?",
                gold="42",
                grader="math",
                family=f"f{i // 2}",
            )
            for i in range(problems)
        ],
        template=get_template(template),
        params=SamplingParams(temperature=0.6, top_p=0.95, max_new_tokens=64),
        k=k,
        seed=7,
        arm=arm,
        suite=suite,
        grader=TagGrader(broken="13" if suite == "countdown" else ""),
        pass_at=(1, k),
        sink=records.append,
    )
    atomic_write_text(stage.evals / f"{arm}-{suite}.json", result.to_json())
    with ZstdJsonlWriter(stage.evals / f"{arm}-{suite}.samples.jsonl.zst") as writer:
        writer.append_all(r.to_dict() for r in records)
    return result


def _train(stage, steps, hostile):
    draw = random.Random(1)
    metrics, rollouts = MetricsLog(stage.metrics), ZstdJsonlWriter(stage.rollouts)
    for step in range(1, steps + 1):
        skill = 0.1 + 0.75 / (1 + math.exp(6 - 12 * step / max(steps, 1)))
        groups = {
            "rollout": {
                "reward_mean": 2 * skill - 0.1 + draw.gauss(0, 0.05),
                "accuracy": skill + draw.gauss(0, 0.03),
                "length_mean": 60 - 20 * skill + draw.gauss(0, 1),
                "length_truncated_frac": 0.4 * (1 - skill),
                "reward/accuracy": skill,
                "reward/format": min(1.0, skill + 0.2),
                "verdict/unparsable": 0.45 * (1 - skill),
                "tokens": 480.0,
            },
            "train": {
                "entropy": 1.2 * (1 - skill) + 0.1,
                "kl": 0.02 * skill,
                "grad_norm": None if step == 3 else 0.5 + draw.random() / 5,
            },
            "timing": {"step_s": 1.5, "tokens_per_s": 5000 + 300 * draw.random()},
        }
        if step % 10 == 0:
            groups["eval/chain"] = {"pass_at_1": skill}
        for name, values in groups.items():
            metrics.write(MetricsRecord(step=step, name=name, values=values))
        rollouts.append_all(_rollout(step, i, draw.random() < skill, hostile) for i in range(8))
    metrics.close()
    rollouts.close()


def _rollout(step, i, is_right, hostile):
    return {
        "step": step,
        "problem": f"chain/train/{i // 2}",
        "question": "How many?",
        "gold": "42",
        "prompt": "A conversation between User and Assistant. User: How many? Assistant:",
        "response": "<think> 40 + 2 </think> <answer>42</answer>"
        if is_right
        else f"<think>{hostile}",
        "token_ids": [1, 2, 3],
        "logprobs": [-0.1, -0.2, -0.3],
        "sample_id": sample_id("train", step, i),
        "stop": "eos",
        "verdict": "correct" if is_right else "unparsable",
        "extracted": "42" if is_right else None,
        "method": "strict",
        "terms": {"accuracy": float(is_right), "format": float(is_right)},
        "reward": 2.0 * is_right,
        "masked": False,
        "advantage": 1.0 if is_right else -1.0,
    }


def _finish(folder, stage, ledger, suites, results):
    entries = []
    for suite, template, _ in suites:
        before, after = results["before", suite], results.get(("after", suite))
        entries.append(
            {
                "suite": suite.replace("-chat-boxed", " (chat-boxed)"),
                "key": suite,
                "template": template,
                "before": arm_summary(before),
                "after": arm_summary(after) if after else None,
                "difference": compare(before, after).to_dict() if after else None,
            }
        )
    headline = {key: entries[0][key] for key in ("suite", "before", "after", "difference")}
    result = headline | {"suites": entries, "wall_s": 151.2, "device": "cpu, 2 threads"}
    atomic_write_json(folder.result, result)
    write_manifest(
        stage.manifest,
        stage="zero",
        digest="0" * 64,
        inputs={"model": "ab" * 32},
        outputs={},
        seed=7,
        device="cpu, 2 threads",
    )
    ledger.append(EventKind.RUN_ENDED, result=sha256_file(folder.result))
