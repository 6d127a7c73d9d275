"""A dossier as model card, RO-Crate, Croissant, Inspect log: in form, no number of its own."""

import copy
import gzip
import hashlib
import json

import pytest
import yaml
from small_dossier import HOSTILE, ITEMS, K, build_dossier, edit_claims

from pellucid.cli import run_command
from pellucid.errors import RunError
from pellucid.evidence.exports.croissant import write_croissant
from pellucid.evidence.exports.inspect import log_sample, write_inspect
from pellucid.evidence.exports.model_card import write_model_card
from pellucid.evidence.exports.ro_crate import MOST_ENTITIES, entities, write_ro_crate
from pellucid.evidence.exports.source import read_source


@pytest.fixture(scope="module")
def dossier(tmp_path_factory):
    return build_dossier(tmp_path_factory.mktemp("exports") / "d", title=f"A toy: {HOSTILE}")


@pytest.fixture
def source(dossier):
    return read_source(dossier)


def claims_of(dossier):
    return json.loads((dossier / "claims.json").read_text())["claims"]


# Model card


def test_a_model_card_names_claims_of_the_released_weights_only(dossier, source, tmp_path):
    edited = copy.deepcopy(source.claims)
    base = dict(edited["claims"][0], id="C7", arms={"a": "evals/toy/before"})
    edited["claims"].append(base)
    readme, results = write_model_card(replaced(source, claims=edited), tmp_path)
    _, front, body = readme.read_text().split("---\n", 2)
    (entry,) = yaml.safe_load(front)["model-index"]
    (row,) = entry["results"]
    printed = claims_of(dossier)[0]["reported"]
    assert row["task"]["type"] == "text-generation"
    assert row["dataset"] == {"name": "toy", "type": "makers/toy", "split": "test"}
    (metric,) = row["metrics"]
    assert (metric["type"], metric["value"]) == ("pass@1", float(printed["value"]) * 100)
    assert "claim C1" in metric["name"]
    assert "| C1 |" in body
    assert "| C2 |" in body
    assert "C7" not in body
    assert "<script>" not in body
    (result,) = yaml.safe_load(results.read_text())
    assert results.relative_to(tmp_path).as_posix() == ".eval_results/toy.yaml"
    assert set(result) == {"dataset", "value", "notes", "date"}
    assert result["dataset"] == {
        "id": "makers/toy",
        "revision": "0123456789abcdef",
        "task_id": "toy",
    }
    assert result["value"] == float(printed["value"]) * 100
    assert f"seal {source.seal}" in result["notes"]


def test_a_set_that_is_not_on_the_hub_gets_no_eval_results(source, tmp_path):
    sets = {"toy": dict(source.sets["toy"], source="made by hand")}
    assert write_model_card(replaced(source, sets=sets), tmp_path) == [tmp_path / "README.md"]


def replaced(source, **changes):
    values = {name: getattr(source, name) for name in source.__dataclass_fields__}
    return type(source)(**values | changes)


# RO-Crate


def test_a_crate_has_what_its_specification_demands(dossier, source, tmp_path):
    (path,) = write_ro_crate(source, tmp_path, licence="https://spdx.org/licenses/CC-BY-4.0")
    crate = json.loads(path.read_text())
    assert path.name == "ro-crate-metadata.json"
    assert crate["@context"] == "https://w3id.org/ro/crate/1.3/context"
    by_id = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(by_id) == len(crate["@graph"])
    descriptor = by_id["ro-crate-metadata.json"]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.3"}
    root = by_id[descriptor["about"]["@id"]]
    assert {"name", "description", "datePublished", "license"} <= root.keys()
    for part in root["hasPart"]:
        file = dossier / part["@id"]
        entity = by_id[part["@id"]]
        assert entity["contentSize"] == str(file.stat().st_size)
        if file.name not in ("MANIFEST.jsonl", "SEAL.dsse.json"):
            assert entity["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    actions = [by_id[one["@id"]] for one in root["mentions"]]
    assert [a["@type"] for a in actions] == ["CreateAction", "CreateAction"]
    for action in actions:
        assert by_id[action["instrument"]["@id"]]["@type"] == "SoftwareApplication"
        assert action["object"]["@id"] in by_id
        assert action["result"]["@id"] in by_id
        assert action["startTime"] <= action["endTime"]


def test_a_crate_stays_small(source):
    roots = {
        f"evals/toy/{n}": dict(source.roots["evals/toy/after"], eval_serial=n) for n in range(99)
    }
    many = list(entities(replaced(source, roots=roots), None))
    assert len(many) <= MOST_ENTITIES
    assert len({one["@id"] for one in many}) == len(many)


# Croissant


def test_croissant_describes_the_items_that_it_ships(dossier, source, tmp_path):
    items, page = write_croissant(source, tmp_path)
    described = json.loads(page.read_text())
    assert described["@type"] == "sc:Dataset"
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    for name in ("name", "description", "license", "url", "creator", "datePublished"):
        assert described[name]
    (file,) = described["distribution"]
    assert file["contentUrl"] == items.name
    assert file["sha256"] == hashlib.sha256(items.read_bytes()).hexdigest()
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    assert len(rows) == ITEMS
    (records,) = described["recordSet"]
    columns = {field["source"]["extract"]["column"] for field in records["field"]}
    assert columns == set(rows[0])
    assert {f["source"]["fileObject"]["@id"] for f in records["field"]} == {file["@id"]}
    assert records["key"]["@id"] in {field["@id"] for field in records["field"]}


# Inspect: the fields of inspect_ai's EvalLog, EvalSpec, EvalResults and EvalSample that we write

MESSAGE = {"role": ("user", "assistant"), "content": str, "source": ("input", "generate")}
USAGE = {"input_tokens": int, "output_tokens": int, "total_tokens": int}
SAMPLE = {
    "id": str,
    "epoch": int,
    "input": str,
    "target": str,
    "messages": [MESSAGE],
    "output": {
        "model": str,
        "choices": [
            {
                "message": MESSAGE,
                "stop_reason": ("stop", "max_tokens", "model_length", "unknown"),
            }
        ],
        "usage": USAGE,
    },
    "scores": {str: {"value": ("C", "I", "N", "P"), "answer": (str, None), "explanation": str}},
    "metadata": {str: object},
    "store": {},
    "events": [],
    "model_usage": {str: USAGE},
    "attachments": {},
}
METRIC = {"name": str, "value": float, "params": {str: object}, "metadata": {str: object}}
LOG = {
    "version": (2,),
    "status": ("success", "started", "cancelled", "error"),
    "eval": {
        "eval_id": str,
        "run_id": str,
        "created": str,
        "task": str,
        "task_id": str,
        "task_version": int,
        "dataset": {
            "name": str,
            "location": str,
            "samples": int,
            "sample_ids": [str],
            "shuffled": bool,
        },
        "model": str,
        "model_args": {},
        "config": {"epochs": int, "epochs_reducer": [str]},
        "packages": {str: str},
        "metadata": {str: object},
    },
    "plan": {
        "name": str,
        "steps": [{"solver": str, "params": {}}],
        "config": {
            "temperature": float,
            "top_p": float,
            "top_k": int,
            "max_tokens": int,
            "stop_seqs": [str],
            "seed": int,
        },
    },
    "results": {
        "total_samples": int,
        "completed_samples": int,
        "scores": [{"name": str, "scorer": str, "params": {}, "metrics": {str: METRIC}}],
    },
    "stats": {"started_at": str, "completed_at": str, "model_usage": {}},
    "samples": [SAMPLE],
}


def check(value, shape, where="log"):
    """Raise AssertionError where a value is not in the shape; unknown fields are no shape."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), where
        anything = shape.get(str)
        assert anything or set(value) == set(shape), f"{where}: {set(value) ^ set(shape)}"
        for name, child in value.items():
            check(child, anything or shape[name], f"{where}.{name}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for child in value:
            check(child, shape[0], f"{where}[]")
    elif isinstance(shape, tuple):
        assert value in shape or type(value) in shape, f"{where}: {value!r}"
    else:
        assert isinstance(value, shape), f"{where}: {value!r}"


def test_an_inspect_log_has_the_fields_that_inspect_reads(dossier, source, tmp_path):
    paths = write_inspect(source, tmp_path)
    assert [path.name for path in paths] == ["toy_after.json", "toy_before.json"]
    log = json.loads(paths[0].read_text())
    check(log, LOG)
    assert list(log) == list(LOG)  # inspect relies on the order
    assert len(log["samples"]) == ITEMS * K == log["results"]["total_samples"]
    assert {sample["epoch"] for sample in log["samples"]} == {1, 2}
    (metric,) = log["results"]["scores"][0]["metrics"].values()
    printed = claims_of(dossier)[0]["reported"]
    assert metric["value"] == float(printed["value"])
    right = [s["scores"]["math"]["value"] == "C" for s in log["samples"]]
    assert sum(right) / len(right) == pytest.approx(metric["value"])
    assert log["eval"]["created"] <= log["stats"]["completed_at"]
    assert not list(tmp_path.glob(".partial-*"))


def test_the_check_of_shapes_can_fail():
    with pytest.raises(AssertionError, match=r"log: \{'more'\}"):
        check({"more": 1}, {})
    with pytest.raises(AssertionError, match=r"log\.a: 'x'"):
        check({"a": "x"}, {"a": int})


def test_failed_and_withheld_samples_are_not_made_up(dossier, source):
    line = gzip.decompress((dossier / "evals/toy/after/samples.jsonl.gz").read_bytes())
    sample = json.loads(line.splitlines()[0])
    sample |= {"verdict": "error", "finish": "error", "error": "out of memory", "response": None}
    logged = log_sample(sample, source.roots["evals/toy/after"])
    assert logged["scores"] == {}
    assert logged["error"]["message"] == "out of memory"
    assert logged["output"]["choices"][0]["message"]["content"] == "[withheld]"


def test_times_are_those_of_the_ledger(dossier, source):
    events = [json.loads(line) for line in (dossier / "ledger.jsonl").read_text().splitlines()]
    assert [e["payload"]["serial"] for e in events] == [1, 1, 2, 2]
    assert source.times == {
        n: (events[2 * n - 2]["time"], events[2 * n - 1]["time"]) for n in (1, 2)
    }


# The command


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("model-card", "README.md"),
        ("ro-crate", "ro-crate-metadata.json"),
        ("croissant", "croissant-toy.json"),
        ("inspect", "toy_after.json"),
    ],
)
def test_the_command_writes_beside_a_sealed_dossier(tmp_path, capsys, name, file):
    dossier = build_dossier(tmp_path / "d")
    before = sorted(p.relative_to(dossier) for p in dossier.rglob("*"))
    assert run_command(["dossier", "export", str(dossier), "--format", name]) == 0
    assert (tmp_path / f"d-{name}" / file).is_file()
    assert sorted(p.relative_to(dossier) for p in dossier.rglob("*")) == before
    inside = ["dossier", "export", str(dossier), "--format", name, "--out", str(dossier / "x")]
    assert run_command(inside) == 2
    assert "is sealed: a file more would break that" in capsys.readouterr().err


def test_a_draft_can_become_a_crate(tmp_path):
    dossier = build_dossier(tmp_path / "d")
    (dossier / "SEAL.dsse.json").unlink()
    command = ["dossier", "export", str(dossier), "--format", "ro-crate", "--out", str(dossier)]
    assert run_command(command) == 0
    assert (dossier / "ro-crate-metadata.json").is_file()


def test_what_is_no_dossier_is_one_line(tmp_path):
    with pytest.raises(RunError, match=r"claims\.json of the dossier: is not there"):
        read_source(tmp_path)
    dossier = build_dossier(tmp_path / "d")
    edit_claims(dossier, lambda document: document.pop("title"))
    with pytest.raises(RunError, match=r"claims\.json is not in its form"):
        read_source(dossier)
