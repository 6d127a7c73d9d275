"""Exports are read by the libraries they are made for, where those are installed."""

import json
import warnings
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from small_dossier import ITEMS, K, build_dossier

from pellucid.evidence.exports.croissant import write_croissant
from pellucid.evidence.exports.inspect import write_inspect
from pellucid.evidence.exports.model_card import write_model_card
from pellucid.evidence.exports.ro_crate import write_ro_crate
from pellucid.evidence.exports.source import read_source

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""Of rdflib, which croissant's and the crate's libraries stand on."""


def needed(name, package):
    """The module of a library; the test is skipped where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own, as it loads
        return pytest.importorskip(name, reason=f"pip install {package} to check this export")


@pytest.fixture(scope="module")
def dossier(tmp_path_factory):
    return build_dossier(tmp_path_factory.mktemp("libraries") / "d")


@pytest.fixture(scope="module")
def source(dossier):
    return read_source(dossier)


def printed(source):
    return float(source.claims["claims"][0]["reported"]["value"])


def test_the_hub_reads_the_model_card(source, tmp_path):
    readme, results = write_model_card(source, tmp_path)
    card = huggingface_hub.ModelCard.load(readme)
    [row] = card.data.eval_results
    assert (row.dataset_type, row.metric_type) == ("makers/toy", "pass@1")
    assert row.metric_value == pytest.approx(100 * printed(source))
    card.data.eval_results[0].verified = None
    assert card.data.to_dict()["model-index"][0]["results"]
    if not hasattr(huggingface_hub, "parse_eval_result_entries"):
        pytest.skip("this huggingface_hub knows no .eval_results: install a newer one")
    rows = yaml.safe_load(results.read_text())
    [entry] = huggingface_hub.parse_eval_result_entries(rows)
    assert (entry.dataset_id, entry.task_id) == ("makers/toy", "toy")
    assert huggingface_hub.eval_result_entries_to_yaml([entry]) == rows


def test_inspect_reads_the_logs(source, tmp_path):
    log_of = needed("inspect_ai.log", "inspect_ai")
    paths = write_inspect(source, tmp_path)
    for path in paths:
        log = log_of.read_eval_log(str(path))
        assert (log.status, log.version, len(log.samples)) == ("success", 2, ITEMS * K)
        first = log_of.read_eval_log_sample(str(path), id=log.samples[0].id, epoch=2)
        assert first.scores["math"].value in ("C", "I", "N")
    after = log_of.read_eval_log(str(paths[0]))
    [metric] = after.results.scores[0].metrics.values()
    assert metric.value == printed(source)
    assert after.stats.completed_at == source.times[2][1].replace("Z", "+00:00")


def test_croissant_reads_the_items(source, tmp_path, caplog):
    mlc = needed("mlcroissant", "mlcroissant")
    items, page = write_croissant(source, tmp_path)
    data = mlc.Dataset(jsonld=page)
    assert data.metadata.issues.errors == set()
    assert data.metadata.issues.warnings == set()
    assert "not standard" not in caplog.text
    found = [row["items/item"].decode() for row in data.records("items")]
    assert found == [json.loads(line)["item"] for line in items.read_text().splitlines()]


def published_context():
    """The context that a crate names: the validator would fetch it, rocrate ships a copy."""
    package = find_spec("rocrate")
    if package is None:
        pytest.skip("pip install rocrate to check this export")
    [folder] = package.submodule_search_locations
    context = json.loads((Path(folder) / "data" / "ro-crate.jsonld").read_text())
    if context["@id"] != "https://w3id.org/ro/crate/1.3/context":
        pytest.skip("this rocrate ships another context than that of 1.3: install a newer one")
    return context


def test_the_crate_holds_to_its_profile(dossier, source, tmp_path, monkeypatch):
    services = needed("rocrate_validator.services", "roc-validator")
    http = needed("rocrate_validator.utils.http", "roc-validator")
    models = needed("rocrate_validator.models", "roc-validator")
    context = published_context()

    class Answer:
        status_code, headers, ok = 200, {"Content-Type": "application/ld+json"}, True
        text = json.dumps(context)
        content = text.encode()

        def json(self):
            return context

    # Methods of its requester are looked up as they are called, so the class has none yet.
    monkeypatch.setattr(http.HttpRequester, "get", lambda *_, **__: Answer(), raising=False)
    for path in dossier.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(dossier)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    write_ro_crate(source, tmp_path, licence="https://spdx.org/licenses/CC-BY-4.0")
    settings = services.ValidationSettings(
        rocrate_uri=str(tmp_path), requirement_severity=models.Severity.RECOMMENDED
    )
    issues = {issue.message for issue in services.validate(settings).get_issues()}
    assert issues == {
        "The Root Data Entity SHOULD have a `publisher` property (Organization or Person)"
    }
