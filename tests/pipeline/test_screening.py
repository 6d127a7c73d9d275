"""Training problems are held against the run's own suites before anything is trained."""

import json
import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from pellucid.artifacts import sha256_file
from pellucid.config import DataConfig
from pellucid.data.mixture import Mixture, Part
from pellucid.errors import DataError
from pellucid.evaluate.suites import Suite
from pellucid.ledger import EventKind, Ledger
from pellucid.pipeline import screening
from pellucid.pipeline.screening import SCAN_FILE, screen
from pellucid.records import Problem, SamplingParams


def problem(name, number, text):
    return Problem(id=f"{name}/train/{number}", question=text, gold="1", grader="math")


@pytest.fixture
def world():
    rng = random.Random(3)

    def text():
        return " ".join("".join(rng.choices("abcdeghiklmnop", k=5)) for _ in range(25))

    training = [problem("gsm8k", n, text()) for n in range(30)]
    exam = tuple(replace(problem("math", n, text()), id=f"math/test/{n}") for n in range(10))
    training[12] = replace(training[12], question=f"Once more: {exam[3].question.upper()}!")
    suite = Suite(
        key="math",
        label="math",
        problems=exam,
        template="r1-zero",
        params=SamplingParams(),
        k=1,
        pass_at=(),
        baseline_only=False,
    )
    return training, suite


def test_report_keeps_all_and_says_what_it_found(world, tmp_path):
    training, suite = world
    found = screen(training, [suite], "report")
    assert found.kept == training
    assert found.summary["leaked_documents"] == found.summary["leaked_items"] == 1
    assert "1 of 30 training problems hold 1 of 10 evaluation items" in found.line
    ledger = Ledger(tmp_path / "ledger.jsonl")
    found.record(tmp_path, ledger)
    event = ledger.last(EventKind.CONTAMINATION_SCANNED)
    ledger.close()
    assert (event.payload["dropped"], event.payload["mode"]) == (0, "report")
    document = json.loads((tmp_path / SCAN_FILE).read_text())
    matches = document["suites"]["math"]["items"]["math/test/3"]["matches"]
    assert [match["row"] for match in matches] == [12]


def test_drop_leaves_out_exactly_the_problems_that_hold_items(world):
    training, suite = world
    found = screen(training, [suite], "drop")
    assert found.dropped == ("gsm8k/train/12",)
    assert found.kept == training[:12] + training[13:]
    with pytest.raises(DataError, match="every training problem"):
        screen([training[12]], [suite], "drop")


def test_refuse_names_the_first_pair_and_the_way_out(world):
    training, suite = world
    with pytest.raises(DataError, match=r"gsm8k/train/12 of math/test/3.*data\.contamination"):
        screen(training, [suite], "refuse")
    assert screen(training[:12], [suite], "refuse").kept == training[:12]


def test_generated_problems_are_not_compared(world):
    training, suite = world
    generated = [replace(p, id=f"chain/train/{n}") for n, p in enumerate(training)]
    assert screen(generated, [suite], "refuse") is None
    chains = replace(suite, problems=tuple(replace(p, id="chain/test/1") for p in suite.problems))
    assert screen(training, [chains], "refuse") is None


@dataclass
class Context:
    """What `screened_mixture` sees of a stage."""

    recipe: object
    stage: object
    config: object
    seed: int = 5
    notes: list = field(default_factory=list)

    @property
    def progress(self):
        return SimpleNamespace(say=self.notes.append)

    def note(self, kind, /, **payload):
        self.notes.append((kind, payload))


def test_a_stage_of_a_pipeline_trains_on_what_is_left(world, tmp_path, monkeypatch):
    training, suite = world
    mixed = Mixture([Part(training[:20], 0.7), Part(training[20:], 0.3)], seed=5)
    monkeypatch.setattr(screening, "load_mixture", lambda tasks, *, seed, data_dir: mixed)
    monkeypatch.setattr(screening, "pipeline_suites", lambda recipe: (suite,))
    recipe = SimpleNamespace(data=DataConfig(contamination="drop"), data_dir=None)
    names = {"stage": SimpleNamespace(root=tmp_path), "config": SimpleNamespace(name="zero")}
    context = Context(recipe=recipe, **names)
    left = screening.screened_mixture(context, ())
    assert [len(part.problems) for part in left.parts] == [19, 10]
    assert [part.weight for part in left.parts] == [0.7, 0.3]
    (kind, payload), said = context.notes
    assert kind is EventKind.CONTAMINATION_SCANNED
    assert (payload["dropped"], payload["leaked_items"]) == (1, 1)
    assert said.startswith("zero: contamination: 1 of 30")
    assert sha256_file(tmp_path / SCAN_FILE) == payload["scan"]
    monkeypatch.setattr(screening, "pipeline_suites", lambda recipe: ())
    assert screening.screened_mixture(Context(recipe=recipe, **names), ()) is mixed
