"""The evaluation runner on scripted engines and graders: no sample becomes a silent 0."""

import json
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import pytest

from pellucid.config import EvalConfig, SuiteConfig
from pellucid.errors import ConfigError, DataError, RunError
from pellucid.evaluate import runner
from pellucid.evaluate.compare import compare
from pellucid.evaluate.records import EvalResult, Origin, SampleRecord, arm_summary
from pellucid.evaluate.runner import evaluate, prompt_sha256
from pellucid.evaluate.suites import make_suites
from pellucid.records import (
    Completion,
    Problem,
    SamplingParams,
    Score,
    StopReason,
    Verdict,
    sample_id,
)

C, W, U, T, E = (
    Verdict.CORRECT,
    Verdict.WRONG,
    Verdict.UNPARSABLE,
    Verdict.TIMEOUT,
    Verdict.ERROR,
)
SAMPLER = {
    "temperature": 0.6,
    "top_p": 1.0,
    "top_k": 0,
    "max_new_tokens": 9,
    "stop": ["</answer>"],
}
SHORT = {"c": C, "w": W, "u": U, "t": T, "e": E}


class Letters:
    """One token per character."""

    eos_ids = (0,)
    chat_template = None

    def encode(self, text):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


@dataclass
class Template:
    name: str = "r1-zero"
    stop: tuple[str, ...] = ("</answer>",)

    sha256: str = "ab" * 32

    def render(self, question, tokenizer, *, grader):
        return f"Q: {question}"

    def response(self, text):
        return "<think>" + text


@dataclass
class ScriptedEngine:
    """Answers question i with the texts of `script[i]`; `!` at the end: cut off by the limit."""

    script: list[list[str]]
    calls: list = field(default_factory=list)

    def generate(self, requests, params, *, seed, progress=None, on_group=None):
        self.calls.append((requests, params, seed))
        groups = self._groups(requests)
        for index in reversed(range(len(groups))):  # the last one ends first
            on_group(index, groups[index])
        return groups

    def _groups(self, requests):
        return [
            [
                Completion(
                    sample_id=identity,
                    token_ids=tuple(map(ord, text)),
                    logprobs=(-0.5,) * len(text),
                    stop=StopReason.LENGTH if text.endswith("!") else StopReason.EOS,
                    text=text,
                )
                for identity, text in zip(request.sample_ids, texts, strict=True)
            ]
            for request, texts in zip(requests, self.script, strict=True)
        ]


@dataclass
class LetterGrader:
    """Letter after `<think>`: the verdict; the next: the answer. `recovers`: `e` fails but once."""

    recovers: bool = False
    submitted: list = field(default_factory=list)
    asked_again: list = field(default_factory=list)

    def submit(self, problems, responses):
        self.submitted.append([p.id for p in problems])
        pending = Future()
        pending.set_result([self._score(r.removeprefix("<think>"), False) for r in responses])
        return pending

    def grade(self, problems, responses):
        self.asked_again += [p.id for p in problems]
        return [self._score(text.removeprefix("<think>"), True) for text in responses]

    def _score(self, text, again):
        verdict = SHORT[text[0]]
        if verdict is E and again and self.recovers:
            verdict = C
        answer = None if verdict in (U, E) else text[1]
        return Score(
            verdict=verdict, extracted=answer, method="letter", detail="broken" * (verdict is E)
        )


def problems(count, families=None):
    return [
        Problem(
            id=f"toy/test/{i}",
            question=f"q{i}",
            gold="7",
            grader="letter",
            family=families[i] if families else "",
        )
        for i in range(count)
    ]


def run(script, *, grader=None, families=None, arm="before", sink=None, **options):
    return evaluate(
        options.pop("engine", None) or ScriptedEngine(script),
        Letters(),
        problems(len(script), families),
        template=Template(),
        params=options.pop("params", SamplingParams(temperature=0.6, max_new_tokens=9)),
        k=len(script[0]),
        seed=3,
        arm=arm,
        suite="toy",
        grader=grader or LetterGrader(),
        sink=sink,
        **options,
    )


def test_a_suite_with_an_open_problem_is_refused_before_any_work():
    graded, *_ = problems(1)
    prompt = Problem(id="chat/1", question="Hi?", gold="", grader="open", kind="helpful")
    with pytest.raises(DataError, match="chat/1 is an open problem") as caught:
        evaluate(
            ScriptedEngine([]), Letters(), [graded, prompt], template=Template(),
            params=SamplingParams(), k=1, seed=3, arm="before", suite="toy", grader=LetterGrader(),
        )  # fmt: skip
    assert "\n" not in str(caught.value)


def test_a_small_evaluation_by_hand():
    result = run(
        [["c7", "w8", "u", "c7!"], ["w1", "w1", "c7", "t9"], ["u", "u", "u", "u!"]], pass_at=(2, 4)
    )
    assert result.pass_at_1.value == pytest.approx((2 / 4 + 1 / 4 + 0) / 3)
    assert result.pass_at[2].value == pytest.approx((5 / 6 + 1 / 2 + 0) / 3)
    assert result.pass_at[4].value == pytest.approx(2 / 3)
    assert result.cons.value == pytest.approx((1 + 0 + 0) / 3)
    assert result.verdicts == {
        "correct": 3,
        "wrong": 3,
        "unparsable": 5,
        "timeout": 1,
        "error": 0,
        "ungraded": 0,
    }
    assert result.pass_at_1_parsable.value == pytest.approx(3 / 7)
    assert result.unparsable_frac == pytest.approx(5 / 12)
    assert result.truncated_frac == pytest.approx(2 / 12)
    assert result.completion_tokens == 2 + 2 + 1 + 3 + 8 + 3 + 2
    assert result.length_mean == pytest.approx(result.completion_tokens / 12)
    assert result.prompt_tokens == 3 * len("Q: q0")
    assert result.pass_at_1_bounds == (result.pass_at_1.value, result.pass_at_1.value)
    assert (result.pass_at_1.n, result.pass_at_1.k, result.n_samples) == (3, 4, 12)


def test_the_engine_is_asked_once_with_ids_that_do_not_name_the_arm():
    before, after = ScriptedEngine([["c7", "w1"]]), ScriptedEngine([["c7", "w1"]])
    run([["c7", "w1"]], engine=before, arm="before")
    run([["c7", "w1"]], engine=after, arm="after")
    assert before.calls == after.calls
    [(requests, params, seed)] = before.calls
    assert requests[0].prompt_ids == tuple(map(ord, "Q: q0"))
    assert requests[0].sample_ids == tuple(
        sample_id("eval", "toy", "toy/test/0", i) for i in (0, 1)
    )
    assert params == SamplingParams(temperature=0.6, max_new_tokens=9, stop=("</answer>",))
    assert seed == 3


def test_an_instrument_error_is_retried_once_and_then_excluded_with_bounds():
    grader = LetterGrader()
    result = run(
        [["c7", "e", "w1", "w1"], ["e", "e", "e", "e"], ["c7", "c7", "c7", "w1"]], grader=grader
    )
    assert grader.submitted == [[f"toy/test/{i}"] * 4 for i in (2, 1, 0)]
    assert grader.asked_again == ["toy/test/0"] + ["toy/test/1"] * 4
    assert result.verdicts["error"] == 5
    assert result.retried == 5
    assert result.pass_at_1.value == pytest.approx((1 / 3 + 3 / 4) / 2)
    assert result.pass_at_1.n == 2
    assert result.pass_at_1_bounds == pytest.approx(((1 + 0 + 3) / 12, (2 + 4 + 3) / 12))


def test_an_instrument_that_recovers_leaves_no_error():
    records = []
    result = run([["c7", "e7"]], grader=LetterGrader(recovers=True), sink=records.append)
    assert result.verdicts["error"] == 0
    assert result.pass_at_1.value == 1.0
    assert [r.retried for r in records] == [False, True]


def test_a_grader_that_fails_on_everything_stops_the_evaluation():
    with pytest.raises(RunError, match=r"failed on every sample of toy \(broken\)"):
        run([["e", "e"]])


def test_pass_at_k_leaves_out_problems_with_too_few_graded_samples():
    result = run([["c7", "e"], ["w1", "c7"]], pass_at=(1, 2))
    assert result.pass_at[2].n == 1
    assert result.pass_at[2].value == 1.0
    assert result.pass_at[1].n == 2


def test_records_carry_what_was_graded_and_survive_json():
    records = []
    origin = Origin(eval_serial=2, weights="9f", grader_sha256="8e", engine={"name": "scripted"})
    result = run(
        [["c7", "w8!"], ["u", "t9"]], families=["f", ""], sink=records.append, origin=origin
    )
    assert EvalResult.from_json(result.to_json()).origin == origin
    assert [(r.problem_id, r.k_index) for r in records] == [
        ("toy/test/0", 0),
        ("toy/test/0", 1),
        ("toy/test/1", 0),
        ("toy/test/1", 1),
    ]
    assert records[1] == SampleRecord(
        arm="before",
        suite="toy",
        problem_id="toy/test/0",
        question="q0",
        gold="7",
        family="f",
        k_index=1,
        sample_id=sample_id("eval", "toy", "toy/test/0", 1),
        prompt_sha256=prompt_sha256([ord(c) for c in "Q: q0"]),
        response="<think>w8!",
        token_ids=(119, 56, 33),
        stop=StopReason.LENGTH,
        verdict=W,
        extracted="8",
        method="letter",
        detail="",
        retried=False,
        n_prompt=5,
        n_completion=3,
        logprob_sum=-1.5,
        grader="letter",
        # printf '{"gold":"7","grader":"letter","id":"toy/test/0","question":"q0"}' | sha256sum
        item_sha256="a24e9cd5569d2b72d088b3b9471d0391d099bb99f23032a7dfc6e6c0c1fdc2fd",
        template="r1-zero",
        template_sha256="ab" * 32,
        prompt="Q: q0",
        seed=3,
        sampler=SAMPLER,
        eval_serial=2,
        weights="9f",
        grader_sha256="8e",
        engine={"name": "scripted"},
    )
    assert records[2].family == "toy/test/1"
    for record in records:
        assert SampleRecord.from_json(record.to_json()) == record
    keys = list(json.loads(records[0].to_json()))
    assert keys == sorted(keys)
    with pytest.raises(RunError, match="damaged sample record"):
        SampleRecord.from_json('{"arm": "before"}')


def test_records_from_before_their_origin_was_kept_are_still_read():
    records = []
    result = run([["c7"]], sink=records.append)
    old = json.loads(records[0].to_json())
    for name in ("grader", "item_sha256", "prompt", "seed", "sampler", "weights", "engine"):
        del old[name]
    assert SampleRecord.from_json(json.dumps(old)).weights == ""
    old = json.loads(result.to_json())
    del old["origin"]
    assert EvalResult.from_json(json.dumps(old)).origin == Origin()


def test_a_large_suite_is_measured_in_waves_with_the_same_result(monkeypatch):
    script = [["c7", "w8"], ["e", "t9"], ["u", "c7!"], ["c7", "c7"], ["w1", "u"]]

    class Engine(ScriptedEngine):
        def generate(self, requests, params, *, seed, progress=None, on_group=None):
            texts = [self.script.pop(0) for _ in requests]
            progress(2 * len(requests), 2 * len(requests))
            return ScriptedEngine(texts, self.calls).generate(
                requests, params, seed=seed, on_group=on_group
            )

    whole, parts, ticks, graded = [], [], [], []
    expected = run(script, sink=whole.append)
    monkeypatch.setattr(runner, "WAVE_SAMPLES", 5)
    monkeypatch.setattr(runner, "WAVE_TOKENS", 0)
    engine = Engine(list(script))
    result = run(
        script,
        engine=engine,
        sink=parts.append,
        progress=lambda *tick: ticks.append(tick),
        graded=lambda *tick: graded.append(tick),
    )
    assert [len(requests) for requests, *_ in engine.calls] == [2, 2, 1]
    assert ticks == [(4, 10), (8, 10), (10, 10)]
    assert graded == [(done, 10) for done in (2, 4, 6, 8, 10)]
    assert parts == whole
    assert replace(result, generate_s=0, grade_s=0) == replace(expected, generate_s=0, grade_s=0)


def test_a_problem_is_graded_while_others_are_drawn():
    grader, seen = LetterGrader(), []

    class Engine(ScriptedEngine):
        def generate(self, requests, params, *, seed, progress=None, on_group=None):
            def ended(index, group):
                on_group(index, group)
                seen.append(len(grader.submitted))

            return super().generate(requests, params, seed=seed, on_group=ended)

    script = [["c7"], ["w1"], ["c7"]]
    result = run(script, engine=Engine(script), grader=grader)
    assert seen == [1, 2, 3]
    assert [p.verdicts for p in result.problems] == [(C,), (W,), (C,)]
    assert grader.asked_again == []


def test_what_the_grader_raises_ends_the_evaluation():
    class Broken(LetterGrader):
        def submit(self, problems, responses):
            pending = Future()
            pending.set_exception(ConfigError("unknown grader"))
            return pending

    with pytest.raises(ConfigError, match="unknown grader"):
        run([["c7"]], grader=Broken())


def test_prompt_digest_is_that_of_the_plain_json_array():
    # printf '[1,23,4]' | sha256sum
    assert prompt_sha256([1, 23, 4]) == (
        "0ae86d640d2e0b64083cd07a91f1e64cf36a49b669ac97ed297557dbe658b04e"
    )


def test_a_result_survives_json_with_its_errors():
    result = run([["c7", "e", "u"], ["w1", "c7", "w1"]], pass_at=(2, 3))
    assert EvalResult.from_json(result.to_json()) == result
    with pytest.raises(RunError, match="damaged evaluation result"):
        EvalResult.from_json("{}")


def test_summary_has_the_shape_of_result_json():
    summary = arm_summary(run([["c7", "w1"], ["w1", "w1"]], pass_at=(2,)))
    assert summary["pass_at_1"] == 0.25
    assert summary["ci95"][0] <= 0.25 <= summary["ci95"][1]
    assert (summary["n"], summary["k"]) == (2, 2)
    assert summary["pass_at_2"] == 0.5
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"params": SamplingParams(temperature=0.0)}, ConfigError, "temperature 0 draws the same"),
        ({"pass_at": (3,)}, ConfigError, "needs more than k = 2 samples"),
    ],
)
def test_requests_that_make_no_sense_are_refused(change, error, words):
    with pytest.raises(error, match=words):
        run([["c7", "w1"]], **change)


def test_a_suite_without_problems_or_with_a_repeated_one_is_refused():
    common = {
        "template": Template(),
        "params": SamplingParams(),
        "k": 1,
        "seed": 0,
        "arm": "a",
        "suite": "s",
        "grader": LetterGrader(),
    }
    with pytest.raises(DataError, match="has no problems"):
        evaluate(ScriptedEngine([]), Letters(), [], **common)
    with pytest.raises(DataError, match="toy/test/0 twice"):
        evaluate(ScriptedEngine([]), Letters(), problems(1) * 2, **common)


def test_comparison_by_hand():
    before = run([["u", "u"], ["w1", "c7"], ["c7", "c7"], ["u", "w1"]])
    after = run([["c7", "w1"], ["c7", "c7"], ["c7", "u"], ["w1", "w1"]], arm="after")
    comparison = compare(before, after)
    assert comparison.difference.value == pytest.approx((0.5 + 0.5 - 0.5 + 0) / 4)
    assert comparison.wrong_to_right == 2
    assert comparison.right_to_wrong == 1
    assert (comparison.problems_better, comparison.problems_worse) == (2, 1)
    assert comparison.transitions == {
        "unparsable>correct": 1,
        "unparsable>wrong": 2,
        "wrong>correct": 1,
        "correct>correct": 2,
        "correct>unparsable": 1,
        "wrong>wrong": 1,
    }
    # answered: 5 of 8 -> 7 of 8; right among them: 3 of 5 -> 4 of 7
    assert comparison.split.total == pytest.approx(1 / 8)
    assert comparison.split.format == pytest.approx(2 / 8 * (3 / 5 + 4 / 7) / 2)
    assert comparison.split.format + comparison.split.learning == pytest.approx(1 / 8)
    # both arms answered problems 1, 2 and 3
    assert comparison.parsable_difference.n == 3
    assert comparison.parsable_difference.value == pytest.approx((0.5 + 0 + 0) / 3)
    plain = comparison.to_dict()
    assert plain["value"] == comparison.difference.value
    assert plain["ci95"] == comparison.difference.ci95
    json.dumps(plain, allow_nan=False)


def test_a_gain_in_format_alone_is_called_format():
    before = run([["u", "u", "c7", "w1"]] * 6)
    after = run([["c7", "w1", "c7", "w1"]] * 6, arm="after")
    split = compare(before, after).split
    assert split.learning == pytest.approx(0.0)
    assert split.format == pytest.approx(0.25)


def test_an_instrument_error_is_no_flip():
    before, after = run([["e", "c7"]]), run([["c7", "e"]], arm="after")
    comparison = compare(before, after)
    assert (comparison.wrong_to_right, comparison.right_to_wrong) == (0, 0)


def test_arms_with_other_problems_cannot_be_paired():
    with pytest.raises(DataError, match="hold different problems"):
        compare(run([["c7"]] * 2), run([["c7"]] * 3, arm="after"))


def test_suites_get_their_defaults_labels_and_keys():
    config = EvalConfig(
        suites=(
            SuiteConfig(name="gsm8k", k=4, pass_at=(1, 4), limit=2),
            SuiteConfig(name="gsm8k", k=4, template="chat-boxed", baseline_only=True),
            SuiteConfig(name="math-500", label="MATH 500!", max_new_tokens=99),
        ),
        max_new_tokens=50,
    )
    asked = []

    def load(name, split, limit):
        asked.append((name, split, limit))
        return problems(2)

    suites = make_suites(config, default_template="r1-zero", load=load)
    assert [(s.key, s.label, s.template) for s in suites] == [
        ("gsm8k", "gsm8k", "r1-zero"),
        ("gsm8k-chat-boxed", "gsm8k (chat-boxed)", "chat-boxed"),
        ("math-500", "MATH 500!", "r1-zero"),
    ]
    assert asked == [("gsm8k", "test", 2), ("gsm8k", "test", None), ("math-500", "test", None)]
    assert [s.params.max_new_tokens for s in suites] == [50, 50, 99]
    assert suites[0].params.temperature == 0.6
    assert (suites[0].k, suites[0].pass_at, suites[1].baseline_only) == (4, (1, 4), True)


def test_two_suites_of_one_name_are_refused():
    config = EvalConfig(suites=(SuiteConfig(name="chain"), SuiteConfig(name="chain", k=2)))
    with pytest.raises(ConfigError, match="two suites are called 'chain'"):
        make_suites(config, default_template="tiny", load=lambda *_: problems(1))


def test_a_problem_on_which_the_instrument_failed_is_left_out_of_the_consensus():
    result = run([["e0", "e0"], ["c7", "c7"]])
    assert result.cons.value == pytest.approx(1.0)
    assert result.cons.n == 1


def test_format_and_language_of_the_samples_are_means_with_intervals():
    ugly, mixed, fine = "c7", "c7 two 三四</think> 7", "c7 two words</think> 7"
    result = run([[ugly, mixed], [fine, fine]])
    assert [p.readable for p in result.problems] == [(False, True), (True, True)]
    assert result.readable.value == pytest.approx(0.75)
    shares = [share for p in result.problems for share in p.language]
    assert shares == pytest.approx([1.0, 1 / 3, 1.0, 1.0])
    assert result.language.value == pytest.approx((2 / 3 + 1.0) / 2)
    assert result.language.low <= result.language.value <= result.language.high
    assert EvalResult.from_json(result.to_json()) == result
    summary = arm_summary(result)
    assert summary["readable"]["value"] == pytest.approx(0.75)
    assert len(summary["language"]["ci95"]) == 2


def test_a_result_from_before_these_measures_is_still_read():
    old = json.loads(run([["c7"]]).to_json())
    for name in ("readable", "language"):
        del old[name]
        for problem in old["problems"]:
            del problem[name]
    result = EvalResult.from_json(json.dumps(old))
    assert (result.readable, result.problems[0].language) == (None, ())


def test_a_comparison_of_one_problem_is_still_json():
    plain = compare(run([["c7"]]), run([["w3"]], arm="after")).to_dict()
    assert plain["mde"] is None
    assert plain["parsable_difference"]["mde"] is None
    json.dumps(plain, allow_nan=False)
