"""RO-Crate 1.3: ro-crate-metadata.json, with one entity per kind of file and one per evaluation.

The manifest lists every file, so the crate does not: validators take seconds per hundred entities.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pellucid import __version__
from pellucid.artifacts import atomic_write_json
from pellucid.evidence.exports.source import Source
from pellucid.evidence.words import counted

SPECIFICATION = "https://w3id.org/ro/crate/1.3"
NAME = "ro-crate-metadata.json"
MOST_ENTITIES = 50
_SOFTWARE = "#pellucid"
SOFTWARE_URN = "urn:pellucid"
"""The specification wants a `url`; a name that is no address claims no place on the web."""
_LICENCE = "#licence"
_FILES = {
    "claims.json": ("Claims as programs over samples", "application/json"),
    "MANIFEST.jsonl": ("Every file with its SHA-256", "application/jsonl"),
    "SEAL.dsse.json": ("Seal: a DSSE envelope over the manifest", "application/json"),
    "ledger.jsonl": ("Hash-chained events of the run", "application/jsonl"),
    "prereg/0001.json": ("Plan, sealed before the evaluations", "application/json"),
    "weights/manifest.json": ("Digests of the released weights", "application/json"),
    "contamination/scan.json": ("Overlap of test items with training data", "application/json"),
    "energy/report.json": ("Energy and cost", "application/json"),
    "train/recipe.toml": ("Configuration of the training", "application/toml"),
    "evaluation.toml": ("What was asked of the models", "application/toml"),
    "VERIFY.md": ("How to check this dossier", "text/markdown"),
    "verify.pyz": ("The verifier: Python alone", "application/zip"),
}


def write_ro_crate(source: Source, out: Path, *, licence: str | None = None) -> list[Path]:
    """ro-crate-metadata.json. Inside the dossier (before it is sealed) it makes it a crate."""
    path = out / NAME
    graph = {"@context": f"{SPECIFICATION}/context", "@graph": list(entities(source, licence))}
    atomic_write_json(path, graph)
    return [path]


def entities(source: Source, licence: str | None) -> Iterator[dict[str, Any]]:
    """The graph: descriptor, root, software, files, evaluations; at most `MOST_ENTITIES`."""
    files = [_file(source, name) for name in _FILES if name in source.sizes]
    files += [
        _file(source, f"data/{suite}.json", f"Items of {suite}; licence: {data['licence']}")
        for suite, data in sorted(source.sets.items())
    ]
    room = MOST_ENTITIES - 4 - len(files)
    folders = sorted(source.roots)[: max(0, room // 2)]
    results = [
        _file(source, f"{f}/samples.jsonl.gz", f"Samples of {source.roots[f]['arm']}")
        for f in folders
    ]
    actions = [_action(source, folder) for folder in folders]
    terms = licence if licence is not None and licence.startswith("https://") else _LICENCE
    yield {
        "@id": NAME,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": SPECIFICATION},
    }
    yield {
        "@id": "./",
        "@type": "Dataset",
        "name": source.claims["title"],
        "description": (
            f"Dossier of {counted(len(source.claims['claims']), 'claim')} about the weights"
            f" {source.weights['root']}, with the samples that they are computed from."
        ),
        "datePublished": max((end for _, end in source.times.values()), default="1970-01-01"),
        "license": {"@id": terms},
        "hasPart": [{"@id": one["@id"]} for one in files + results],
        "mentions": [{"@id": one["@id"]} for one in actions],
    }
    yield {
        "@id": terms,
        "@type": "CreativeWork",
        "name": licence or "No licence is stated",
        "description": "Licence of the dossier; those of the data sets are in data/.",
    }
    yield {
        "@id": _SOFTWARE,
        "@type": "SoftwareApplication",
        "name": "Pellucid",
        "description": "Draws and grades the samples; train/code.json has the digest of its code.",
        "version": __version__,
        "url": SOFTWARE_URN,
    }
    yield from files
    yield from results
    yield from actions


def _file(source: Source, path: str, what: str | None = None) -> dict[str, Any]:
    known, form = _FILES.get(path, ("", "application/json"))
    form = "application/gzip" if path.endswith(".gz") else form
    entity = {
        "@id": path,
        "@type": "File",
        "name": path,
        "description": what or known,
        "encodingFormat": form,
        "contentSize": str(source.sizes.get(path, 0)),
    }
    return entity | ({"sha256": source.digests[path]} if path in source.digests else {})


def _action(source: Source, folder: str) -> dict[str, Any]:
    root = source.roots[folder]
    times = source.times.get(root["eval_serial"])
    action: dict[str, Any] = {
        "@id": f"#evaluation-{root['eval_serial']}",
        "@type": "CreateAction",
        "name": f"Evaluation of {root['arm']} on {root['suite']}",
        "instrument": {"@id": _SOFTWARE},
        "result": {"@id": f"{folder}/samples.jsonl.gz"},
    }
    if root["suite"] in source.sets:
        action["object"] = {"@id": f"data/{root['suite']}.json"}
    if times:
        action |= {"startTime": times[0], "endTime": times[1]}
    return action
