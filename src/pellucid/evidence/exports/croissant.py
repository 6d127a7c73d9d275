"""Croissant 1.1 (MLCommons) for the sets that were asked: croissant-SUITE.json and items.

A dossier holds digests of items, not their texts, so that is what the records are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pellucid.artifacts import atomic_write_bytes, atomic_write_json
from pellucid.evidence.core.canonical import canonical_json, sha256_bytes
from pellucid.evidence.core.schema import DataSet
from pellucid.evidence.exports.source import Source

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
_TERMS = (
    *("arrayShape", "citeAs", "column", "containedIn", "data", "dataType", "equivalentProperty"),
    *("examples", "extract", "field", "fileObject", "fileProperty", "fileSet", "format"),
    *("includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path"),
    *("recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator"),
    *("source", "subField", "transform"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    **{term: f"cr:{term}" for term in _TERMS},
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}
_FIELDS = {
    "item": ("sc:Text", "Id of the item"),
    "sha256": ("sc:Text", "Digest of id, question, gold answer and grader"),
    "first_public": ("sc:Date", "Day on which the item was first public, where it is known"),
    "is_fresh": ("sc:Boolean", "Whether it was made after the weights were sealed"),
}


def write_croissant(source: Source, out: Path) -> list[Path]:
    """Two files for every set: its items as JSON lines, and their description."""
    written = []
    for suite, data in sorted(source.sets.items()):
        items = out / f"{suite}.items.jsonl"
        digest = atomic_write_bytes(items, item_lines(data))
        page = out / f"croissant-{suite}.json"
        atomic_write_json(page, describe(source, suite, items.name, digest))
        written += [items, page]
    return written


def item_lines(data: DataSet) -> bytes:
    """One canonical line for each item."""
    rows = ({"item": item, **about} for item, about in sorted(data["items"].items()))
    return b"".join(canonical_json(row) + b"\n" for row in rows)


def describe(source: Source, suite: str, file: str, digest: str) -> dict[str, Any]:
    """The JSON-LD of one set."""
    data = source.sets[suite]
    first = min(
        (i["first_public"] for i in data["items"].values() if i["first_public"]), default=""
    )
    title = f"Items of {suite}, by their digests"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": suite,
        "description": f"{title}. Source: {data['source']}",
        "license": data["licence"],
        "url": data["source"],
        "version": f"1.0.0+{sha256_bytes(item_lines(data))[:12]}",
        "datePublished": first or max((e for _, e in source.times.values()), default="1970-01-01"),
        "citeAs": f"{data['source']} ({data['licence']})",
        "creator": {"@type": "sc:Organization", "name": data["source"]},
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file,
                "name": file,
                "description": title,
                "contentUrl": file,
                "encodingFormat": "application/jsonlines",
                "sha256": digest,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "items",
                "name": "items",
                "description": title,
                "key": {"@id": "items/item"},
                "field": [_field(name, file) for name in _FIELDS],
            }
        ],
    }


def _field(name: str, file: str) -> dict[str, Any]:
    kind, meaning = _FIELDS[name]
    return {
        "@type": "cr:Field",
        "@id": f"items/{name}",
        "name": name,
        "description": meaning,
        "dataType": kind,
        "source": {"fileObject": {"@id": file}, "extract": {"column": name}},
    }
