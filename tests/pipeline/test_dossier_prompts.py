"""A dossier ships the hashes of the training problems, where the run's own scan read them."""

import gzip
import json
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pellucid.artifacts import RunFolder
from pellucid.config import RunConfig
from pellucid.evidence.core.hashed_prompts import count_again, gram_digests, parse_hashed
from pellucid.pipeline import dossier_scan
from pellucid.pipeline.dossier_scan import hashed_prompts
from pellucid.pipeline.screening import SCAN_FILE, screen
from pellucid.records import Problem


def problems(rng, name, count):
    return [
        Problem(id=f"{name}/{n}", question=sentence(rng), gold="1", grader="math")
        for n in range(count)
    ]


def sentence(rng):
    return " ".join("".join(rng.choices("abcdeghiklmnop", k=5)) for _ in range(25))


@pytest.fixture
def scanned(tmp_path, monkeypatch):
    """(function of the mode that gives scan and shipped bytes, training, suite)"""
    rng = random.Random(3)
    training, exam = problems(rng, "gsm8k/train", 30), problems(rng, "math/test", 10)
    training[12] = replace(training[12], question=f"Once more: {exam[3].question}")
    suite = SimpleNamespace(key="math", problems=exam)
    monkeypatch.setattr(dossier_scan, "_of_task", lambda recipe: training)

    def shipped(mode, edit=lambda scan: None):
        scan = json.loads(json.dumps(screen(training, [suite], mode).document()))
        edit(scan)
        (tmp_path / SCAN_FILE).parent.mkdir(exist_ok=True)
        (tmp_path / SCAN_FILE).write_text(json.dumps(scan))
        run = SimpleNamespace(root=tmp_path, stages=list)
        return scan, hashed_prompts(RunConfig.__new__(RunConfig), run, scan)

    return shipped, training, suite


def documents_of(packed):
    salt, documents = parse_hashed(gzip.decompress(packed).splitlines())
    return salt, list(documents)


def test_all_problems_are_shipped_and_the_matches_can_be_counted_again(scanned):
    shipped, training, suite = scanned
    scan, packed = shipped("report")
    salt, documents = documents_of(packed)
    assert [d.row for d in documents] == list(range(len(training)))
    assert documents[4].grams == set(gram_digests(training[4].question, salt))
    questions = {("math", p.id): p.question for p in suite.problems}
    assert count_again(scan, questions, salt, documents) == ([], len(training), 1)


def test_problems_that_were_dropped_are_not_there_and_rows_stay(scanned):
    shipped, training, _ = scanned
    _, packed = shipped("drop")
    assert [d.row for d in documents_of(packed)[1]] == [n for n in range(len(training)) if n != 12]


def test_the_same_run_gives_the_same_bytes(scanned):
    shipped, _, _ = scanned
    assert shipped("report") == shipped("report")


def test_what_cannot_be_shipped_is_said(scanned, monkeypatch, tmp_path):
    shipped, _, _ = scanned
    _, why = shipped("report", lambda scan: scan["sources"][0].update(documents=3))
    assert why == "other problems than those of its tasks were scanned for the run"
    monkeypatch.setattr(dossier_scan, "MOST_BYTES", 1024)
    assert shipped("report")[1] == "5 kB are more than 1"
    run = RunFolder(tmp_path / "other")
    assert hashed_prompts(RunConfig.__new__(RunConfig), run, None) == ""
