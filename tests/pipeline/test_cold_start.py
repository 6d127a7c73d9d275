"""Cold start and rejection sampling end to end: what is sampled, kept, learnt, and continued."""

import json
from dataclasses import replace

import pytest
from chat_server import Reply, chat_server
from curated_world import ENGINES, OPENED, make_world, stop_after

from pellucid import endpoint
from pellucid.curate.example import read_examples
from pellucid.errors import DataError, EndpointError, Interrupted, RunError
from pellucid.jsonl import read_zstd_jsonl
from pellucid.pipeline import sampling
from pellucid.pipeline.stages import find_stage
from pellucid.runlog import read_metrics
from pellucid.tasks import chain

GOLD = {p.question: p.gold for p in chain.problems("train", 10_000, 0)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(sampling, "CHUNK_SAMPLES", 6)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(chain, "problems", lambda split, count, seed: CHAIN)
    from pellucid.tasks import PROCEDURAL

    monkeypatch.setitem(PROCEDURAL, "chain", lambda split, count, seed: CHAIN)


CHAIN = chain.problems("train", 6, 0)


def answer(thinking: str, value: str) -> str:
    return f" <think> {thinking} </think> <answer> {value} </answer>"


def honest(question: str, k: int) -> str | None:
    """Sample 0 is cut off, 1 is long, 2 is short; both are right."""
    gold = GOLD[question]
    return None if k == 0 else answer(f"I get {gold}" + " at last" * (2 - k), gold)


def run(context) -> None:
    find_stage(context.config.kind)(context, context.config)
    context.ledger.close()


def files(context):
    root = context.stage.root
    return read_examples(root / "examples.jsonl"), json.loads((root / "filters.json").read_text())


def test_a_cold_start_keeps_the_shortest_right_sample_and_learns_it(tmp_path) -> None:
    context = make_world(tmp_path, honest)
    run(context)
    examples, counts = files(context)
    assert [e.problem for e in examples] == sorted(CHAIN, key=[e.problem for e in examples].index)
    assert {e.id.rpartition("#")[2] for e in examples} == {"2"}
    first = examples[0]
    gold = first.gold
    assert (first.thinking, first.summary) == (f"I get {gold}", f"\\boxed{{{gold}}}")
    assert first.response == f"<think>\nI get {gold}\n</think>\n\n\\boxed{{{gold}}}"
    assert (counts["candidates"], counts["kept"], counts["sampled"]) == (18, 6, 6)
    assert {k: v for k, v in counts["dropped"].items() if v} == {"finished": 6, "selection": 6}
    assert OPENED[context.stage.root] == ["zero", "base"]
    assert (context.stage.model / "model.safetensors").is_file()
    names = {record.name for record in read_metrics(context.stage.metrics)}
    assert {"sft", "sft/data", "timing"} <= names


def test_in_its_own_template_a_sample_is_learnt_token_for_token(tmp_path) -> None:
    context = make_world(tmp_path, honest, template="r1-zero")
    run(context)
    example = files(context)[0][0]
    assert example.token_ids == tuple(
        ENGINES[context.stage.root].tokenizer.encode(example.response)
    )


def untagged(question: str, k: int) -> str:
    return f" I count.\n\nSo it is \\boxed{{{GOLD[question]}}}." + " Yes." * k


def test_a_sampler_that_writes_no_tags_is_told_apart_or_named(tmp_path) -> None:
    context = make_world(tmp_path / "a", untagged)
    with pytest.raises(DataError, match=r"most fell to 'format' \(18\): set split_untagged"):
        run(context)
    context = make_world(tmp_path / "b", untagged, split_untagged=True)
    run(context)
    examples, counts = files(context)
    assert {e.thinking for e in examples} == {"I count."}
    assert all(e.summary == f"So it is \\boxed{{{e.gold}}}." for e in examples)
    assert (len(examples), counts["split_untagged"], counts["sampled"]) == (6, 18, 6)
    assert not counts["dropped"].get("rewritten")


def test_what_is_no_longer_right_in_the_new_form_is_dropped(tmp_path) -> None:
    odd = CHAIN[2].question

    def say(question: str, k: int) -> str:
        value = GOLD[question]
        return answer(f"I get {value}", f"\\text{{\n{value}}}" if question == odd else value)

    context = make_world(tmp_path, say)
    run(context)
    examples, counts = files(context)
    assert (len(examples), counts["dropped"]["rewritten"]) == (5, 1)


def test_rejection_sampling_drops_code_and_adds_general_data(tmp_path) -> None:
    general = tmp_path / "talk.jsonl"
    general.write_text('{"prompt": "Hi?", "response": "Hello."}\n' * 9)

    def say(question: str, k: int) -> str:
        gold = GOLD[question]
        thinking = [f"```\n{gold}\n```", f"I get {gold}", "word " * 3][k]
        return answer(thinking + "\n" + "o" * (30 if k == 2 else 0), gold)

    context = make_world(
        tmp_path / "run",
        say,
        kind="reject",
        filters={"max_paragraph_chars": 25},
        general={"sources": [str(general)], "share": 0.25},
    )
    run(context)
    examples, counts = files(context)
    assert [e.kind for e in examples] == ["reasoning"] * 6 + ["general"] * 2
    assert examples[-1].response == "<think>\n\n</think>\n\nHello."
    assert (counts["sampled"], counts["general"]) == (6, 2)
    assert (counts["dropped"]["code"], counts["dropped"]["paragraphs"]) == (6, 6)


def test_bad_general_data_is_missed_before_anything_is_sampled(tmp_path) -> None:
    context = make_world(tmp_path, honest, general={"sources": ["nowhere.jsonl"]})
    with pytest.raises(DataError, match=r"'nowhere.jsonl' is no file"):
        run(context)
    assert context.stage.root not in OPENED


def test_an_empty_set_is_one_line_and_keeps_the_samples(tmp_path) -> None:
    context = make_world(tmp_path, lambda question, k: answer("I get 0", "0"))
    with pytest.raises(DataError, match=r"of 18 samples for cold-start none .*'correct' \(18\)"):
        run(context)
    counts = json.loads((context.stage.root / "filters.json").read_text())
    assert counts["verdicts"] == {"wrong": 18}
    again = make_world(tmp_path, honest)
    with pytest.raises(DataError, match="none is left"):
        run(again)
    assert ENGINES[again.stage.root].num_samples == 0


def test_a_killed_stage_goes_on_behind_its_last_chunk(tmp_path) -> None:
    whole = make_world(tmp_path / "whole", honest)
    run(whole)
    stopped = make_world(tmp_path / "killed", honest, should_stop=stop_after(3))
    with pytest.raises(Interrupted, match="after 6 of 18 samples"):
        run(stopped)
    stopped.ledger.close()
    path = stopped.stage.root / "candidates.jsonl.zst"
    assert len(list(read_zstd_jsonl(path))) == 6
    # A frame that was being written when the process died is torn, and drawn anew.
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])
    resumed = make_world(tmp_path / "killed", honest)
    run(resumed)
    assert ENGINES[resumed.stage.root].num_samples == 12
    for name in ("candidates.jsonl.zst", "examples.jsonl", "model/model.safetensors"):
        assert (resumed.stage.root / name).read_bytes() == (whole.stage.root / name).read_bytes()


def test_a_stage_killed_while_it_learns_goes_on_from_its_checkpoint(tmp_path) -> None:
    whole = make_world(tmp_path / "whole", honest)
    run(whole)
    path = tmp_path / "killed"
    # 18 samples are watched one by one, then the steps: after the first of two it is enough.
    stopped = make_world(path, honest, should_stop=stop_after(7))
    with pytest.raises(Interrupted, match="after step 1"):
        run(stopped)
    stopped.ledger.close()
    resumed = make_world(path, lambda question, k: pytest.fail("sampled again"))
    run(resumed)
    assert OPENED[resumed.stage.root] == ["base"]
    weights = "model/model.safetensors"
    assert (resumed.stage.root / weights).read_bytes() == (whole.stage.root / weights).read_bytes()


def test_a_stage_that_waits_for_review_stops_and_goes_on_when_told(tmp_path) -> None:
    context = make_world(tmp_path, honest, review="wait")
    with pytest.raises(RunError, match=r"6 examples wait in .*review.md: review them, then run"):
        run(context)
    assert OPENED[context.stage.root] == ["zero"]
    context.ledger.close()
    path = context.stage.root / "review.md"
    text = path.read_text().replace("\ndecision: keep", "\ndecision: drop", 1)
    path.write_text(text.replace("\ndecision: keep", "\ndecision: perhaps", 1))
    with pytest.raises(DataError, match=r"review.md line \d+: 'decision: perhaps' is no decision"):
        run(make_world(tmp_path, honest, review="wait"))
    edited = text.replace("\ndecision: keep", "\ndecision: edit", 1)
    position = edited.index("I get", edited.index("decision: edit", 600))
    path.write_text(edited[:position] + "Slowly " + edited[position:])
    again = make_world(tmp_path, honest, review="wait")
    run(again)
    examples, counts = files(again)
    assert len(examples) == 5
    assert examples[0].thinking.startswith("Slowly I get")
    assert (counts["review"]["dropped"], counts["review"]["edited"]) == (1, 1)
    assert counts["dropped"]["review"] == 1


def teacher_script(say):
    def script(body, before):
        prompt = body["messages"][0]["content"]
        question = prompt.partition("Question:\n")[2].partition("\n\n")[0]
        return say(question, prompt, before)

    return script


def test_a_teacher_writes_the_summaries_and_what_it_spoils_is_counted(tmp_path) -> None:
    questions = [problem.question for problem in CHAIN]
    spoilt = {
        questions[0]: Reply("It is \\boxed{0}."),
        questions[1]: Reply("  "),
        questions[2]: Reply("It is", finish_reason="length"),
        questions[3]: Reply("No idea."),
    }

    def say(question, prompt, before):
        assert f"The answer it came to: {GOLD[question]}" in prompt
        good = Reply(f"<think>hm</think>She gets \\boxed{{{GOLD[question]}}}.")
        return spoilt.get(question, good)

    with chat_server(teacher_script(say)) as server:
        endpoint_config = {"base_url": server.base_url, "model": "m", "retries": 0}
        teacher = {"summarise": True, "endpoint": endpoint_config}
        context = make_world(tmp_path, honest, teacher=teacher)
        run(context)
        assert len(server.requests) == 6
    examples, counts = files(context)
    assert {e.prompt for e in examples} == set(questions[4:])
    assert examples[0].summary == f"She gets \\boxed{{{examples[0].gold}}}."
    dropped = {k: v for k, v in counts["dropped"].items() if k.startswith("teacher")}
    assert dropped == {"teacher-changed": 2, "teacher-empty": 1, "teacher-nonsense": 1}


def test_a_teacher_translates_what_the_language_filter_would_drop(tmp_path) -> None:
    def mixed(question: str, k: int) -> str:
        return answer(f"я получаю {GOLD[question]}", GOLD[question])

    lost = CHAIN[0].question

    def say(question, prompt, before):
        assert prompt.startswith("Translate the thinking process to the same language as")
        return Reply(f"I get {'nothing' if question == lost else GOLD[question]}")

    with chat_server(teacher_script(say)) as server:
        endpoint_config = {"base_url": server.base_url, "model": "m", "retries": 0}
        context = make_world(
            tmp_path, mixed, teacher={"translate": True, "endpoint": endpoint_config}
        )
        run(context)
    examples, counts = files(context)
    assert [e.thinking for e in examples] == [f"I get {e.gold}" for e in examples]
    assert len(examples) == 5
    assert counts["failing"]["language"] == 18
    assert (counts["dropped"]["language"], counts["dropped"]["teacher-changed"]) == (0, 1)


def test_a_teacher_that_dies_half_way_keeps_what_was_made(tmp_path) -> None:
    is_dead = []

    def say(question, prompt, before):
        if is_dead and question in is_dead:
            return Reply(status=500, body=b"")
        return Reply(f"It is \\boxed{{{GOLD[question]}}}.")

    is_dead += [CHAIN[1].question, CHAIN[4].question]
    with chat_server(teacher_script(say)) as server:
        values = {"base_url": server.base_url, "model": "m", "retries": 1, "concurrency": 1}
        teacher = {"summarise": True, "endpoint": values}
        context = make_world(tmp_path, honest, teacher=teacher)
        with pytest.raises(EndpointError, match=r"2 of 6 requests .* failed \(HTTP 500\)"):
            run(context)
        context.ledger.close()
        before = len(server.requests)
        is_dead.clear()
        again = make_world(tmp_path, honest, teacher=teacher)
        run(again)
        assert len(server.requests) == before + 2
    assert ENGINES[again.stage.root].num_samples == 0
    assert len(files(again)[0]) == 6


def test_samples_of_other_problems_are_refused(tmp_path) -> None:
    context = make_world(tmp_path, honest)
    run(context)
    for name in ("examples.jsonl", "filters.json"):
        (context.stage.root / name).unlink()
    other = make_world(tmp_path, honest)
    CHAIN[0] = replace(CHAIN[0], id="other/0")
    try:
        with pytest.raises(RunError, match=r"samples of chain/train/0, which this stage does not"):
            run(other)
    finally:
        CHAIN[0] = replace(CHAIN[0], id="chain/train/0")


def test_an_edit_after_the_fact_is_seen_and_not_mixed_into_a_begun_training(tmp_path) -> None:
    context = make_world(tmp_path, honest, review="optional")
    run(context)
    path = context.stage.root / "review.md"
    assert len(files(context)[0]) == 6
    path.write_text(path.read_text().replace("\ndecision: keep", "\ndecision: drop", 1))
    again = make_world(tmp_path, honest, review="optional")
    with pytest.raises(RunError, match="is of other examples"):
        run(again)
    assert len(files(again)[0]) == 5
    assert ENGINES[again.stage.root].num_samples == 0
