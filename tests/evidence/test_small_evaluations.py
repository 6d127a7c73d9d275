"""Looks at held-out problems during training: recorded, shipped, and not the final draw."""

import json

import pytest
from finished_run import RECIPE

from pellucid.config_io import load_recipe
from pellucid.evidence.core.verify import verify
from pellucid.evidence.seal import make_key
from pellucid.jsonl import read_jsonl, read_zstd_jsonl
from pellucid.pipeline import small_evaluations
from pellucid.pipeline.dossier import build_dossier, seal
from pellucid.pipeline.small_evaluations import during_seed
from pellucid.pipeline.zero import run
from pellucid.runlog import Progress

SILENT = Progress(is_silent=True)


def small_run(folder):
    """Two steps, a look after each."""
    key = folder / "key"
    if not key.exists():
        make_key(key)
    text = RECIPE.format(key=key).replace("random_reward = true", "random_reward = false")
    text = text.replace("steps = 1, checkpoint_every = 1", "steps = 2, checkpoint_every = 2")
    text = text.replace("checkpoint_every = 2", "checkpoint_every = 2, eval_every = 1")
    path = folder / "tiny.toml"
    path.write_text(text.replace("[eval]", "[eval]\nduring_limit = 3"))
    config, by_hand = load_recipe(path)
    run(config, folder / "run", set_by_hand=by_hand, progress=SILENT)
    return folder / "run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("small"))


def starts(run_folder):
    events = read_jsonl(run_folder / "ledger.jsonl")
    return [e["payload"] for e in events if e["kind"] == "evaluation_started"]


def records(run_folder, name):
    path = run_folder / f"stages/01-zero/evals/{name}.samples.jsonl.zst"
    return list(read_zstd_jsonl(path))


def test_every_look_is_an_attempt_in_the_ledger_and_in_the_dossier(finished):
    looks = [(s["arm"], s["samples"]) for s in starts(finished) if s["suite"] == "chain-during"]
    assert looks == [("zero-step-1", 3), ("zero-step-2", 3)]
    verdict = verify(finished / "dossier")
    assert [f for f in verdict.findings if not f.kind.is_note] == []
    roots = sorted(p.parent.name for p in (finished / "dossier/evals/chain-during").rglob("root.*"))
    assert roots == ["zero-step-1", "zero-step-2"]
    missing = (finished / "dossier/VERIFY.md").read_text().partition("What is not here")[2]
    assert "zero-step" not in missing
    metrics = read_jsonl(finished / "stages/01-zero/metrics.jsonl")
    noted = [line["values"]["pass_at_1"] for line in metrics if line["name"] == "eval/chain"]
    during = finished / "stages/01-zero/evals/during"
    kept = [during / f"zero-step-{step}-chain-during.json" for step in (1, 2)]
    assert noted == [json.loads(path.read_text())["pass_at_1"]["value"] for path in kept]


def test_a_look_draws_other_samples_than_the_final_evaluation(finished):
    look, final = (
        records(finished, name) for name in ("during/zero-step-2-chain-during", "after-chain")
    )
    assert {r["problem_id"] for r in look} < {r["problem_id"] for r in final}
    assert {r["sample_id"] for r in look}.isdisjoint(r["sample_id"] for r in final)
    assert {r["seed"] for r in look} == {during_seed(1)} != {r["seed"] for r in final}


def test_the_weights_in_memory_are_named_not_the_files_they_came_from(finished):
    first, second = (
        {r["weights"] for r in records(finished, f"during/zero-step-{n}-chain-during")}
        for n in (1, 2)
    )
    before = {r["weights"] for r in records(finished, "before-chain")}
    assert len(first) == len(second) == 1
    assert not first & before
    assert first != second


def test_a_look_that_is_hidden_from_the_dossier_shows(finished, tmp_path):
    aside = finished / "stages/01-zero/evals/during"
    aside.rename(aside.with_name("aside"))
    try:
        built = build_dossier(finished, tmp_path / "dossier", SILENT)
    finally:
        aside.with_name("aside").rename(aside)
    seal(built.folder, None)
    codes = {f.code for f in verify(built.folder).findings}
    assert "unreported-attempt" in codes


def test_a_step_done_again_is_not_looked_at_twice_unless_its_weights_differ(tmp_path, monkeypatch):
    whole, stopped = small_evaluations.SmallEvaluations.after_update, []

    def stops_after_the_second(self, step, instruments):
        groups = whole(self, step, instruments)
        if step == 2 and not stopped:
            stopped.append(step)
            raise RuntimeError("killed before the checkpoint")
        return groups

    monkeypatch.setattr(small_evaluations.SmallEvaluations, "after_update", stops_after_the_second)
    with pytest.raises(RuntimeError, match="killed"):
        small_run(tmp_path)
    monkeypatch.undo()
    real = small_evaluations.loaded_root
    seen = []

    def other_bits_the_second_time(model):
        seen.append(real(model))
        return seen[-1] if len(seen) < 2 else "f" * 64

    monkeypatch.setattr(small_evaluations, "loaded_root", other_bits_the_second_time)
    folder = small_run(tmp_path)
    looks = [s["arm"] for s in starts(folder) if s["suite"] == "chain-during"]
    assert looks == ["zero-step-1", "zero-step-2", "zero-step-2-2"]
    faults = [f for f in verify(folder / "dossier").findings if not f.kind.is_note]
    assert faults == []
