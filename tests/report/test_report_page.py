"""The report page of synthetic run folders: true, complete, harmless, and clear about damage."""

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from run_builder import HOSTILE, build_run

from pellucid.errors import RunError
from pellucid.report.page import write_report
from pellucid.report.panels import make_panels
from pellucid.report.read import read_run
from pellucid.report.readings import choose_pairs, choose_rollouts, spread_steps
from pellucid.report.tables import coverage, deepest, prompt_rows, suite_rows
from pellucid.report.words import (
    duration,
    interval,
    number,
    p_value,
    percent,
    points,
    shortened,
    visible,
)

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and visible text; complains about tags that are left open."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.open, self.words = [], [], [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        """All white space, also the narrow kind before a percent sign, as one blank."""
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = build_run(tmp_path_factory.mktemp("runs") / "done")
    return folder, write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    return build_run(tmp_path_factory.mktemp("runs") / "small", steps=6, problems=12, k=2)


@pytest.fixture
def run(small_run, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(small_run, tmp_path / "run")


def test_the_headline_says_what_result_json_says(finished):
    folder, source = finished
    result = json.loads((folder / "result.json").read_text())
    text = Page(source).text
    before, after = result["before"]["pass_at_1"], result["after"]["pass_at_1"]
    rose = f"Pass@1 on chain rose from {percent(before)} to {percent(after)}"
    assert " ".join(rose.split()) in text
    assert points(result["difference"]["value"]) in text
    assert interval(result["after"]["ci95"]) in text
    assert "60 held-out problems, 8 samples each" in text
    assert "not finished" not in text


def test_every_suite_prompt_and_arm_is_on_the_page(finished):
    text = Page(finished[1]).text
    for words in (
        "chain (chat-boxed)",
        "countdown",
        "template chat-boxed",
        "base only",
        "p (Holm)",
    ):
        assert words in text
    for heading in ("elicited, and what it added", "Learning or format?", "Training, step by step"):
        assert heading in text
    for panel in ("Reward", "Accuracy", "Length", "Entropy", "KL to the reference"):
        assert f">{panel}</h3>" in finished[1]
    for fact in ("2 min 31 s", "cpu, 2 threads", "chain whole", "sha256 abababababab", "never"):
        assert fact in text


def test_instrument_errors_are_told_with_their_bounds(finished):
    folder, source = finished
    raw = json.loads((folder / "stages/01-zero/evals/before-countdown.json").read_text())
    assert raw["verdicts"]["error"] > 0
    text = Page(source).text
    assert f"because the grader failed: {raw['verdicts']['error']}." in text
    assert percent(raw["pass_at_1_bounds"][1]).replace("\u202f", " ") in text


def test_model_output_stays_text(finished):
    page = Page(finished[1])
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "\u202e" not in finished[1]
    assert "\\u202etxt\\x07" in page.text


def test_the_page_needs_no_network_and_is_small(finished):
    page = Page(finished[1])
    loads = ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
    loading = [value for name, value in page.attributes if name in loads]
    assert loading
    assert all(value.startswith("#") for value in loading)
    assert not re.search(r"url\((?!#)|@import", finished[1])
    policies = [v for n, v in page.attributes if n == "content" and "default-src" in v]
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert len(finished[1].encode()) < 1_000_000


def test_the_page_can_be_used_by_keyboard_and_screen_reader(finished):
    page = Page(finished[1])
    ids = [value for name, value in page.attributes if name == "id"]
    anchors = [v[1:] for n, v in page.attributes if n == "href"]
    assert set(anchors) <= set(ids)
    assert ("lang", "en") in page.attributes
    assert page.tags.count("summary") == page.tags.count("details")
    assert page.tags.count("h1") == 1
    assert all(v == "true" for n, v in page.attributes if n == "aria-hidden")


def test_the_same_folder_gives_the_same_bytes(run):
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_an_unfinished_run_says_so_and_shows_what_is_there(tmp_path):
    folder = build_run(tmp_path / "half", steps=30, problems=10, k=2, finished=False)
    text = Page(write_report(folder).read_text(encoding="utf-8")).text
    assert "This run is not finished." in text
    assert "Training has reached step 10 of 30" in text
    assert "Before training, pass@1 on chain is" in text
    assert "Learning or format?" not in text


def test_a_run_that_has_only_a_recipe_gets_a_page(tmp_path):
    (tmp_path / "recipe.toml").write_text('name = "new"\n')
    text = Page(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "Training has not begun. Nothing has been evaluated yet." in text


def test_a_name_that_is_markup_is_shown_as_text(tmp_path):
    (tmp_path / "recipe.toml").write_text('name = "<b>$x$ & co"\n')
    source = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<b>" not in source
    assert "<b>$x$ & co: reinforcement" in Page(source).text


def test_a_torn_ledger_line_of_a_killed_run_is_no_damage(tmp_path):
    folder = build_run(tmp_path / "torn", steps=6, problems=10, k=2, finished=False)
    with (folder / "ledger.jsonl").open("a") as file:
        file.write('{"serial": 99')
    assert "not finished" in write_report(folder).read_text(encoding="utf-8")


EVAL = "stages/01-zero/evals/after-chain.json"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path):
    path.unlink()


def replace(old, new):
    def change(path):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("recipe.toml", remove, "is no run folder"),
        ("recipe.toml", replace("seed = 7", "seed = "), r"recipe\.toml is damaged"),
        ("result.json", truncate, r"result\.json is damaged"),
        ("result.json", replace('"wall_s"', '"wall"'), r"result\.json has no 'wall_s'"),
        ("result.json", replace("151.2", "15.2"), "was changed after the run ended"),
        ("ledger.jsonl", replace("run_started", "run_ended"), "line 1: its content was changed"),
        (EVAL, remove, r"after-chain\.json is missing"),
        (EVAL, truncate, r"after-chain\.json is damaged"),
        (EVAL, replace('"cons"', '"cans"'), r"damaged \(KeyError: 'cons'\)"),
        (EVAL, replace('"correct"', '"right"'), "is damaged"),
        ("stages/01-zero/evals/after-chain.samples.jsonl.zst", remove, "samples.* is missing"),
        ("stages/01-zero/metrics.jsonl", replace('"step"', '"stop"'), r"metrics\.jsonl is damaged"),
        ("stages/01-zero/rollouts.jsonl.zst", lambda p: p.write_bytes(b"\0" * 99), "is damaged"),
    ],
)
def test_a_missing_or_damaged_file_is_named_in_one_line(run, file, damage, words):
    damage(run / file)
    with pytest.raises(RunError, match=words) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)


def test_an_evaluation_that_disagrees_with_the_result_is_refused(run):
    raw = json.loads((run / EVAL).read_text())
    raw["pass_at_1"]["value"] += 0.01
    (run / EVAL).write_text(json.dumps(raw))
    with pytest.raises(RunError, match="one of them was changed"):
        write_report(run)


def test_elicited_and_added_come_from_the_unbiased_estimator(run):
    view = read_run(run)
    before, after = view.find("before", "chain"), view.find("after", "chain")
    covered = coverage(before, after)
    assert sorted(covered.before) == [1, 2]
    at_2 = [0.0 if c == 0 else 1.0 for c in before.correct]
    assert covered.before[2].value == pytest.approx(sum(at_2) / 12)
    assert covered.before[1].value == pytest.approx(before.pass_at_1.value)
    assert covered.added.value == pytest.approx(covered.after[2].value - covered.before[2].value)
    reach = min(after.pass_at_1.value, covered.before[2].value)
    assert covered.elicited == pytest.approx(reach - before.pass_at_1.value)


def test_elicited_and_added_are_read_where_most_samples_were_drawn_of_the_same_problems(run):
    headline = suite_rows(read_run(run))[0]
    before, after = (dataclasses.replace(arm, k=64) for arm in (headline.before, headline.after))
    deep = dataclasses.replace(headline, label="64 samples", before=before, after=after)
    others = dataclasses.replace(
        deep, before=dataclasses.replace(before, ids=[f"other/{i}" for i in before.ids])
    )
    base_only = dataclasses.replace(deep, after=None)
    assert deepest([headline, others, base_only, deep]) is deep
    assert deepest([headline, others, base_only]) is headline
    assert deepest([]) is None


def test_prompts_are_compared_on_the_same_problems_only(run):
    view = read_run(run)
    rows = prompt_rows(view, view.find("after", "chain"))
    assert sorted(row.label for row in rows) == ["chain", "chain (chat-boxed)"]
    gain = next(row.gain for row in rows if row.label == "chain (chat-boxed)")
    base = view.find("before", "chain-chat-boxed").pass_at_1.value
    assert gain.value == pytest.approx(view.find("after", "chain").pass_at_1.value - base)


def test_panels_show_what_was_measured_and_skip_what_was_not():
    curves = {
        "rollout/accuracy": ([1, 2], [0.25, 0.5]),
        "eval/chain/pass_at_1": ([2], [0.4]),
        "train/kl": ([], []),
    }
    [panel] = make_panels(curves)
    assert panel.title == "Accuracy"
    assert panel.summary.replace("\u202f", "") == "accuracy 25.0% → 50.0%, held-out chain 40.0%"
    assert panel.figure.count("<svg") == 1


def test_memory_taken_stands_beside_what_was_planned():
    curves = {
        "memory/used_gib": ([1, 2], [52.0, 53.5]),
        "memory/allocated_gib": ([1, 2], [50.0, 50.5]),
        "memory/planned_gib": ([1, 2], [55.3, 55.3]),
    }
    [panel] = make_panels(curves)
    assert panel.title == "Memory of the GPU"
    assert panel.summary == "taken 52 → 53.5, in use 50 → 50.5, planned 55.3 → 55.3"


def test_steps_to_read_are_spread_over_the_run():
    assert spread_steps([3, 1, 2]) == [1, 2, 3]
    assert spread_steps(range(1, 62)) == [1, 16, 31, 46, 61]
    assert spread_steps([]) == []


def rollout(step, verdict, identity):
    return {
        **dict.fromkeys(("question", "gold", "prompt", "problem"), "q"),
        "response": "r",
        "token_ids": [1],
        "stop": "eos",
        "extracted": None,
        "terms": {},
        "reward": 0.0,
        "advantage": 0.0,
        "step": step,
        "verdict": verdict,
        "sample_id": identity,
    }


def test_rollouts_are_chosen_by_sample_id_and_never_an_instrument_error():
    rows = [
        rollout(1, "wrong", 50),
        rollout(1, "unparsable", 20),
        rollout(1, "error", 1),
        rollout(1, "correct", 30),
        rollout(2, "correct", 5),
        rollout(3, "correct", 7),
    ]
    chosen = choose_rollouts(rows, [1, 3])
    assert [(s, [r.verdict for r in readings]) for s, readings in chosen] == [
        (1, ["correct", "unparsable"]),
        (3, ["correct"]),
    ]


def test_pairs_show_learned_lost_and_still_wrong_problems():
    def sample(problem, verdict, k_index=0):
        return {
            "problem_id": problem,
            "k_index": k_index,
            "verdict": verdict,
            "stop": "eos",
            "sample_id": ord(problem),
            "question": "q",
            "gold": "g",
            "response": "r",
            "extracted": None,
            "n_completion": 1,
            "logprob_sum": -1.0,
        }

    before = [sample(p, v) for p, v in zip("abcdef", ["wrong"] * 4 + ["correct"] * 2, strict=True)]
    verdicts = ["correct", "correct", "correct", "wrong", "wrong", "error"]
    after = [sample(p, v) for p, v in zip("abcdef", verdicts, strict=True)]
    pairs = choose_pairs(before, [sample("a", "correct", 1), *after])
    assert [(p.title, p.after.problem) for p in pairs] == [
        ("wrong before, correct after", "a"),
        ("wrong before, correct after", "b"),
        ("correct before, wrong after", "e"),
        ("wrong before and after", "d"),
    ]


def test_numbers_read_well():
    assert percent(0.1234) == "12.3\u202f%"
    assert interval([-0.0001, 0.25]) == "0.0 to 25.0"
    assert [points(x) for x in (0.2314, -0.05, 0.0001)] == ["+23.1", "−5.0", "0.0"]
    assert [p_value(p) for p in (0.00001, 0.0012, 0.3)] == ["p < 0.0001", "p = 0.0012", "p = 0.30"]
    assert [duration(s) for s in (48, 151.2, 3840)] == ["48 s", "2 min 31 s", "1 h 04 min"]
    assert [number(x) for x in (0.123456, 5107.4, -2)] == ["0.123", "5,107", "-2"]


def test_text_that_would_hide_or_reorder_is_made_visible():
    assert visible("a\u202eb\x00c\r\n\td\u200b") == "a\\u202eb\\x00c\\x0d\n\td\\u200b"
    assert visible("Größe 漢字 ≤ 🙂") == "Größe 漢字 ≤ 🙂"
    assert visible("\ud800") == "\\ud800"


def test_a_long_text_is_cut_in_the_middle_and_the_cut_counted():
    text, left_out = shortened("a" * 5000 + "b" * 5000)
    assert left_out == 4000
    assert text == "a" * 4000 + "\n\n[…]\n\n" + "b" * 2000
    assert shortened(HOSTILE)[1] == 0
