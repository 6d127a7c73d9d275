"""The stage of reward models end to end: templates, samples and files in, two models and their
accuracy out, and a killed stage goes on."""

import json
import random
from dataclasses import replace

import pytest
import torch
from chat_server import Reply, chat_server
from curated_world import ENGINES, OPENED, ScriptedEngine, World, byte_tokenizer, stop_after

from pellucid.artifacts import RunFolder
from pellucid.config_stages import PipelineConfig
from pellucid.data.preferences import read_pairs
from pellucid.errors import ConfigError, DataError, Interrupted
from pellucid.jsonl import read_jsonl
from pellucid.ledger import Ledger
from pellucid.model.scalar_head import load_reward_model
from pellucid.pipeline.stages import find_stage
from pellucid.records import Problem
from pellucid.runlog import Progress, read_metrics
from pellucid.tasks import smalltalk
from pellucid.train.reward_scorer import RewardModelScorer

TRAIN = {"batch_sequences": 8, "learning_rate": 1e-2, "checkpoint_every": 3, "epochs": 2}
EMBEDDED = {"sources": ["embedded"], "limit": 60, "held_out": 0.2}


def say(question: str, k: int) -> str | None:
    """Good and rude answers in turn; every fifth one never ends its thinking."""
    ask = smalltalk.find_ask(question)
    reply = smalltalk.reply(ask, "rude" if k % 2 else "good", random.Random(f"{question}/{k}"))
    return (
        None if k == 4 else f" <think> {reply.thinking} </think> <answer> {reply.answer} </answer>"
    )


def make_context(root, *, should_stop=lambda: False, keep_checkpoints=False, **values) -> World:
    stage = {"kind": "reward-models", "start": "base", "train": TRAIN}
    stage |= {"helpful": EMBEDDED, "safety": EMBEDDED} | values
    recipe = PipelineConfig.model_validate(
        {"template": "tiny", "stages": [stage], "keep_checkpoints": keep_checkpoints, "threads": 1}
    )
    folder = RunFolder(root).stage(1, "reward-models")
    ENGINES[folder.root] = ScriptedEngine(byte_tokenizer(), _question_of(say))
    OPENED.pop(folder.root, None)
    return World(
        recipe=recipe,
        config=recipe.stage("reward-models"),
        stage=folder,
        inputs={},
        address="0" * 64,
        ledger=Ledger(RunFolder(root).ledger),
        progress=Progress(is_silent=True),
        should_stop=should_stop,
    )


def _question_of(say):
    """The template `tiny` puts a line break where the paper's puts a space."""
    return lambda prompt, k: say(prompt.removesuffix("\nAssistant:"), k)


def run(context) -> dict:
    try:
        find_stage("reward-models")(context, context.config)
    finally:
        context.ledger.close()
    return json.loads((context.stage.root / "accuracy.json").read_text())


def test_both_models_are_trained_measured_and_ready_to_score(tmp_path) -> None:
    context = make_context(tmp_path)
    accuracy = run(context)
    root = context.stage.root
    assert accuracy["helpful"]["held-out"]["accuracy"]["ci95"][0] >= 0.0
    assert 0.0 <= accuracy["helpful"]["held-out"]["length_only"]["value"] <= 1.0
    assert accuracy["safety"]["held-out"]["majority_only"] < 1.0
    names = {record.name for record in read_metrics(context.stage.metrics)}
    assert {"helpful/train", "safety/train", "helpful/train/data"} <= names
    assert not (context.stage.checkpoints / "helpful").exists()
    problem = Problem(id="p", question="What is the opposite of hot?", gold="", grader="open")
    for name, sees in (("helpful", "summary"), ("safety", "response")):
        loaded = load_reward_model(root / name, dtype=torch.float32, device="cpu")
        assert loaded.card.sees == sees
        assert loaded.digest == accuracy[name]["head_sha256"]
        (score,) = RewardModelScorer.of(loaded).score([problem], ["<think> a </think> Cold."])
        assert 0.0 < score < 1.0
    held_out = read_pairs(root / "helpful.held-out.jsonl").rows
    learnt = {p.cluster for p in read_pairs(root / "helpful.train.jsonl").rows}
    assert not learnt & {p.cluster for p in held_out}


def test_samples_are_judged_and_labelled_and_files_measured(tmp_path) -> None:
    extra = tmp_path / "more.jsonl"
    extra.write_text('{"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}\n' * 2)
    sampled = {"sources": ["sampled"], "prompts": 12, "held_out": 0.2}
    context = make_context(
        tmp_path / "run",
        helpful=sampled | {"samples": 6, "max_length_gap": 0.5, "measure_on": [str(extra)]},
        safety=sampled | {"samples": 2},
        judge={"name": "smalltalk"},
    )
    accuracy = run(context)
    root = context.stage.root
    facts = json.loads((root / "helpful.data.json").read_text())
    # Of six samples the fifth shows nothing, so that two disjoint pairs are left.
    assert facts["judge"]["judged"] == 24
    assert facts["judge"]["position_bias"] == 0.0
    assert facts["judge"]["kept"] == facts["train"] + facts["held_out"]
    pairs = read_pairs(root / "helpful.train.jsonl").rows
    assert pairs
    assert all("<think>" in p.chosen for p in pairs)
    good = [p for p in pairs if smalltalk_quality(p.prompt, p.chosen)]
    assert len(good) == len(pairs)
    assert accuracy["helpful"][str(extra)]["pairs"] == 2
    labels = json.loads((root / "safety.data.json").read_text())
    assert labels["safe"] > 0 < labels["unsafe"]
    assert OPENED[root].count("base") == 4  # two samplings, two trainings


def smalltalk_quality(prompt: str, response: str) -> bool:
    from pellucid.rewards.smalltalk_judge import is_on_topic

    ask = smalltalk.find_ask(prompt)
    return ask is not None and is_on_topic(ask, response)


def test_a_stopped_stage_continues_to_the_same_models(tmp_path) -> None:
    whole = make_context(tmp_path / "whole")
    run(whole)
    cut = make_context(tmp_path / "cut", should_stop=stop_after(5))
    with pytest.raises(Interrupted):
        run(cut)
    assert not (cut.stage.root / "helpful").exists()
    again = make_context(tmp_path / "cut")
    run(again)
    for name in ("helpful", "safety"):
        heads = [
            (c.stage.root / name / "reward_head.safetensors").read_bytes() for c in (whole, again)
        ]
        assert heads[0] == heads[1]
    finished = make_context(tmp_path / "cut")
    before = (finished.stage.root / "accuracy.json").read_bytes()
    run(finished)
    assert OPENED.get(finished.stage.root) is None
    assert (finished.stage.root / "accuracy.json").read_bytes() == before


def test_mistakes_are_told_before_anything_is_sampled(tmp_path) -> None:
    context = make_context(tmp_path / "a", helpful={"sources": ["no/such/file.jsonl"]})
    with pytest.raises(DataError, match=r"no file no/such/file\.jsonl"):
        run(context)
    sampled = {"sources": ["sampled"]}
    context = make_context(tmp_path / "b", helpful=sampled, judge={"name": "smaltalk"})
    with pytest.raises(ConfigError, match="smalltalk"):
        run(context)
    assert not OPENED.get(context.stage.root)
    one_label = tmp_path / "safe.jsonl"
    one_label.write_text('{"prompt": "Hi", "response": "Hello!", "safe": true}\n')
    context = make_context(tmp_path / "c", helpful=None, safety={"sources": [str(one_label)]})
    with pytest.raises(DataError, match="1 of 1 labelled responses are safe"):
        run(context)
    with pytest.raises(ValueError, match="must be judged"):
        make_context(tmp_path / "d", helpful=sampled)
    with pytest.raises(ValueError, match="makes nothing"):
        make_context(tmp_path / "e", helpful=None, safety=None)


def test_a_judge_that_decides_nothing_leaves_no_pair(tmp_path) -> None:
    values = {"sources": ["sampled"], "prompts": 4, "samples": 2}
    context = make_context(
        tmp_path, helpful=values, judge={"name": "smalltalk", "min_margin": 2.0}, safety=None
    )
    with pytest.raises(DataError, match=r"4 judged, 4 undecided, .* lower judge\.min_margin"):
        run(context)
    mended = make_context(
        tmp_path,
        helpful=values | {"max_length_gap": 1.0},
        judge={"name": "smalltalk"},
        safety=None,
    )
    mended = replace(mended, recipe=mended.recipe)
    assert run(mended)["helpful"]["trained_on"] > 0
    assert OPENED[mended.stage.root] == ["base"]  # samples and judgments were kept


def test_templated_answers_do_not_hide_a_judge_that_talks_nonsense(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    values = {"sources": ["embedded", "sampled"], "limit": 8, "prompts": 4, "samples": 2}
    with chat_server(lambda body, before: Reply("Both have their merits.")) as server:
        judge = {"endpoint": {"base_url": server.base_url, "model": "judge-model", "retries": 0}}
        context = make_context(tmp_path, helpful=values, judge=judge, safety=None)
        with pytest.raises(DataError, match=r"talks nonsense: 0 judged, 4 without a clear verdict"):
            run(context)


def test_a_model_judges_over_the_network_and_nonsense_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    talks_sense = [False]

    def script(body: dict, before: int) -> Reply:
        """Knows the rude answer by its exclamation or its scorn; says nothing clear at first."""
        if not talks_sense[0]:
            return Reply("Both have their merits.")
        shown = body["messages"][1]["content"]
        a, b = (shown.split(f"Assistant {name}'s Answer|>\n")[1] for name in "AB")
        question = shown.split("\n")[1]
        good_a, good_b = (smalltalk_quality(question, text.split("\n<|")[0]) for text in (a, b))
        return Reply(
            "[[A>>B]]" if good_a > good_b else "[[B>>A]]" if good_b > good_a else "[[A=B]]"
        )

    values = {"sources": ["sampled"], "prompts": 4, "samples": 2, "max_length_gap": 1.0}
    with chat_server(script) as server:
        judge = {"endpoint": {"base_url": server.base_url, "model": "judge-model", "retries": 0}}
        context = make_context(tmp_path, helpful=values, judge=judge, safety=None)
        with pytest.raises(DataError, match=r"4 without a clear verdict; mend the judge, then run"):
            run(context)
        assert len(server.requests) == 4 * 4 * 2  # every question twice
        talks_sense[0] = True
        again = make_context(tmp_path, helpful=values, judge=judge, safety=None)
        assert run(again)["helpful"]["trained_on"] > 0
        assert len(server.requests) == 4 * 4 * 2 + 4 * 4
    kept = read_jsonl(again.stage.root / "judge.nonsense-1.jsonl")
    assert {line["text"] for line in kept} == {"Both have their merits."}
    pairs = read_pairs(again.stage.root / "helpful.train.jsonl").rows
    assert all(smalltalk_quality(p.prompt, p.chosen) for p in pairs)
    assert not any(smalltalk_quality(p.prompt, p.rejected) for p in pairs)
