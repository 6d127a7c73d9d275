"""`pellucid eval` plans, records, continues, and what it leaves makes a dossier that holds."""

import json
import shutil
import tomllib

import pytest

from pellucid.cli import run_command
from pellucid.evidence.core.verify import verify
from pellucid.evidence.seal import make_key
from pellucid.jsonl import ZstdJsonlWriter, read_jsonl, read_zstd_jsonl
from pellucid.model.load import ASSETS
from pellucid.pipeline import evaluations
from pellucid.pipeline.evaluation_options import make_options

MODELS = ("tiny-base", "tiny-r1-base")
ASKED = ["--suite", "chain", "--limit", "4", "--k", "2", "--max-new-tokens", "6"]
DEFAULTS = {"math_verify": True, "math_verify_timeout_s": 5.0, "code_timeout_s": 3.0}
SHARED = {
    "seed": 0,
    "device": "cpu",
    "task": {},
    "eval": {"suites": [{"name": "chain", "limit": 4}]},
}


def command(folder, *more, models=MODELS):
    key = folder.parent / "key"
    if not key.exists():
        make_key(key)
    return ["eval", *models, *ASKED, "--device", "cpu", "--json", "--key", str(key),
            "--out", str(folder), *more]  # fmt: skip


def dossier_of(folder, capsys):
    key = str(folder.parent / "key")
    assert run_command(["dossier", "build", str(folder), "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert run_command(["dossier", "seal", str(folder / "dossier"), "--key", key]) == 0
    capsys.readouterr()
    return folder / "dossier", built


def codes(dossier):
    return {(f.code, f.kind.is_note) for f in verify(dossier).findings}


def faults(dossier):
    return sorted(code for code, is_note in codes(dossier) if not is_note)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval") / "both"
    assert run_command(command(folder)) == 0
    return folder


@pytest.fixture
def own(measured, tmp_path):
    """A copy that a test may change."""
    shutil.copyfile(measured.parent / "key", tmp_path / "key")
    return shutil.copytree(measured, tmp_path / "both")


def kinds(folder):
    events = read_jsonl(folder / "ledger.jsonl")
    return [(e["kind"].removeprefix("evaluation_"), e["payload"].get("serial")) for e in events]


def test_an_evaluation_is_planned_before_its_first_sample_and_ends_with_its_root(measured):
    assert kinds(measured) == [
        ("run_started", None),
        ("preregistered", None),
        ("started", 1),
        ("ended", 1),
        ("started", 2),
        ("ended", 2),
        ("run_ended", None),
    ]
    ended = [e["payload"] for e in read_jsonl(measured / "ledger.jsonl")][3]
    result = json.loads((measured / "stages/01-tiny-base/evals/tiny-base-chain.json").read_text())
    assert ended["merkle_root"] == result["samples_root"]
    manifest = json.loads((measured / "stages/01-tiny-base/manifest.json").read_text())
    weights = json.loads((measured / "stages/01-tiny-base/weights/manifest.json").read_text())
    assert manifest["inputs"]["model"] == weights["root"] == result["origin"]["weights"]
    started = [e["payload"] for e in read_jsonl(measured / "ledger.jsonl")][2]
    assert started["grading"] == result["origin"]["grading"] == DEFAULTS
    windows = {(w["kind"], w["name"]) for w in read_jsonl(measured / "energy/windows.jsonl")}
    assert {("evaluation", f"{model}/chain") for model in MODELS} <= windows


def test_the_dossier_of_an_evaluation_alone_holds(own, capsys):
    dossier, built = dossier_of(own, capsys)
    assert (built["evaluations"], built["samples"], built["claims_tested"]) == (2, 16, 1)
    assert built["missing"] == [
        "contamination/scan.json: what the models were trained on is not known here",
        "claim C2: no item has what the metric needs",  # six tokens hold no answer
    ]
    assert faults(dossier) == []
    assert ("check-impossible", True) in codes(dossier)
    document = json.loads((dossier / "claims.json").read_text())
    settings = json.loads((dossier / "graders/settings.json").read_text())["evaluations"]
    assert settings == dict.fromkeys((f"evals/chain/{model}" for model in MODELS), DEFAULTS)
    difference, *numbers = document["claims"]
    assert document["title"] == "Claims of the evaluation both"
    assert difference["arms"] == {
        "a": "evals/chain/tiny-r1-base",
        "b": "evals/chain/tiny-base",
    }
    assert "RL" not in difference["text"]
    assert "measured as they are" in difference["limits"]
    said = json.loads((own / "result.json").read_text())["results"]
    assert float(difference["reported"]["value"]) == pytest.approx(
        said[1]["differences"][0]["value"], abs=1e-4
    )
    shares = [float(c["reported"]["value"]) for c in numbers if c["kind"] == "pass_at_1"]
    assert shares == pytest.approx([one["pass_at_1"] for one in said], abs=1e-4)
    kept = {p.name for p in (dossier / "weights").iterdir()}
    assert kept == {"manifest.json", "tiny-base.json", "tiny-r1-base.json"}


def test_an_edited_sample_of_an_evaluation_is_refused(own, capsys):
    path = own / "stages/02-tiny-r1-base/evals/tiny-r1-base-chain.samples.jsonl.zst"
    records = list(read_zstd_jsonl(path))
    records[0]["response"] += "!"
    path.unlink()
    with ZstdJsonlWriter(path) as writer:
        writer.append_all(records)
    assert run_command(["dossier", "build", str(own)]) == 2
    assert "does not hold the samples whose root" in capsys.readouterr().err


def test_the_same_command_gives_the_kept_result_and_other_options_are_refused(own, capsys):
    before = (own / "ledger.jsonl").read_bytes()
    assert run_command(command(own)) == 0
    [first, second] = json.loads(capsys.readouterr().out)
    assert (first["arm"], second["arm"]) == MODELS
    assert second["differences"][0]["over"] == "tiny-base"
    assert (own / "ledger.jsonl").read_bytes() == before
    assert run_command(command(own, "--seed", "5")) == 2
    assert "holds an evaluation with other options: seed is 0 there" in capsys.readouterr().err


def test_an_interrupted_evaluation_is_continued_and_its_aborted_attempt_stays(
    tmp_path, capsys, monkeypatch
):
    folder, whole, calls = tmp_path / "broken", evaluations.measure_into, []

    def breaks_at_the_second(*arguments, **named):
        calls.append(named["arm"])
        if len(calls) == 2:
            raise OSError(5, "the disk is gone")
        return whole(*arguments, **named)

    monkeypatch.setattr(evaluations, "measure_into", breaks_at_the_second)
    with pytest.raises(OSError, match="the disk is gone"):
        run_command(command(folder))
    assert run_command(["dossier", "build", str(folder)]) == 2
    assert "is not finished: let `pellucid eval` continue it" in capsys.readouterr().err
    assert run_command(command(folder)) == 0
    capsys.readouterr()
    assert calls == ["tiny-base", "tiny-r1-base", "tiny-r1-base"]
    attempts = [kind for kind in kinds(folder) if kind[1] is not None]
    assert attempts == [
        *(("started", 1), ("ended", 1), ("started", 2), ("aborted", 2)),
        *(("started", 3), ("ended", 3)),
    ]
    dossier, _ = dossier_of(folder, capsys)
    assert faults(dossier) == []
    assert ("attempt-reported", True) in codes(dossier)


def test_an_evaluation_that_is_left_out_of_its_dossier_shows(own, capsys):
    for path in (own / "stages/02-tiny-r1-base/evals").glob("*.*"):
        path.unlink()
    dossier, _ = dossier_of(own, capsys)
    assert "unreported-attempt" in faults(dossier)
    assert "claim-changed" in faults(dossier)


def options(*models, names=(), **more):
    asked = [{"id": one, "template": template} for one, template in models]
    return make_options(SHARED | more, asked, names)


@pytest.fixture
def run_folder(tmp_path):
    """A run whose recipe sets its graders, with the embedded model for what it trained."""
    run = tmp_path / "run"
    (run / "stages/01-zero").mkdir(parents=True)
    (run / "stages/01-zero/model").symlink_to(ASSETS / "tiny-base")
    (run / "recipe.toml").write_text(
        'code_timeout_s = 0.5\nmath_verify_timeout_s = 2.0\ntask = { template = "tiny" }\n'
        "reward = { math_verify = false }\n"
        "eval = { temperature = 1.0, top_p = 1.0, max_new_tokens = 6 }\n"
    )
    return str(run)


def test_a_runs_model_is_graded_as_its_recipe_does_unless_told_otherwise(
    run_folder, tmp_path, capsys
):
    own = {"math_verify": False, "math_verify_timeout_s": 2.0, "code_timeout_s": 0.5}
    asked = command(tmp_path / "own", models=[run_folder])
    assert run_command([a for a in asked if a != "--json"]) == 0
    assert "graded with math-verify off, programs 0.5 s" in capsys.readouterr().err
    [summary] = json.loads((tmp_path / "own/result.json").read_text())["results"]
    started = [e["payload"] for e in read_jsonl(tmp_path / "own/ledger.jsonl")][2]
    assert summary["grading"] == started["grading"] == own

    changed = ["--set", "math_verify=true", "--set", "code_timeout_s=9"]
    assert run_command(command(tmp_path / "set", *changed, models=[run_folder])) == 0
    [summary] = json.loads(capsys.readouterr().out)
    assert summary["grading"] == own | {"math_verify": True, "code_timeout_s": 9.0}
    assert run_command(command(tmp_path / "set", models=[run_folder])) == 2
    assert "code_timeout_s is 9.0 there and 0.5 here" in capsys.readouterr().err


def test_several_models_are_graded_as_the_first_is(run_folder, tmp_path, capsys):
    assert run_command(command(tmp_path / "x", models=["tiny-r1-base", run_folder])) == 0
    gradings = [one["grading"] for one in json.loads(capsys.readouterr().out)]
    assert gradings == [DEFAULTS, DEFAULTS]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("eval.top_k=4", "--set eval.top_k: of an evaluation code_timeout_s, math_verify_tim"),
        ("code_timeout_s=0", "code_timeout_s = 0: must be greater than 0"),
        ("math_verify=perhaps", 'reward.math_verify = "perhaps": must be a boolean'),
        ("code_timeout_s", "write it as key=value"),
    ],
)
def test_what_cannot_be_set_of_graders_is_one_line(override, message, tmp_path, capsys):
    assert run_command(command(tmp_path / "x", "--set", override, models=["tiny-base"])) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_default_folder_is_of_the_options():
    one = options(("tiny-base", "tiny"))
    assert one.default_folder.parent.name == "evals"
    assert one.default_folder.name.startswith("tiny-base-")
    assert one.default_folder == options(("tiny-base", "tiny")).default_folder
    others = (options(("tiny-base", "plain")), options(("tiny-base", "tiny"), seed=1))
    assert one.default_folder not in [other.default_folder for other in others]
    assert tomllib.loads(one.text())["models"][0]["weights"] == one.models[0].weights


def test_a_model_with_another_template_has_a_suite_of_its_own():
    both = options(("tiny-base", "tiny"), ("tiny-r1-base", "plain"))
    assert [m.config.eval.suites[0].template for m in both.models] == [None, "plain"]
    assert {m.config.task.template for m in both.models} == {"tiny"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["tiny-base"], "two models are called tiny-base"),
        (["--name", "a", "--name", "b"], "2 names for 1 models"),
        (["--name", "A b"], "the name 'A b' has more than lower case"),
        (["tiny-r1-base", "--revision", "abc"], "--revision is the commit of one model"),
    ],
)
def test_names_that_do_not_tell_models_apart_are_one_line(more, message, tmp_path, capsys):
    models = ["tiny-base", *(m for m in more if m.startswith("tiny"))]
    rest = [m for m in more if not m.startswith("tiny")]
    assert run_command(command(tmp_path / "x", *rest, models=models)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
