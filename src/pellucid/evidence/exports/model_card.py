"""Hugging Face: README.md with a model-index, and .eval_results/*.yaml.

Formats: hub docs `model-cards` and `eval-results` (marked there as work in progress). Only numbers
of the released weights are written, each with its interval and the claim that it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pellucid.artifacts import atomic_write_text
from pellucid.evidence.core.claims import SHARE_KINDS, TWO_ARM_KINDS
from pellucid.evidence.exports.source import Source

_HUB_SET = re.compile(
    r"(?:https://huggingface\.co/datasets/)?(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?: at (?P<revision>[0-9a-f]{7,64}))?"
)
"""`openai/gsm8k at 1f2e…`: how our own data sets name their source."""
HEADLINE = "pass@1"
"""A task of the hub has one number; the others are in the card's index."""
_TASK = {"type": "text-generation", "name": "Text Generation"}


def write_model_card(source: Source, out: Path) -> list[Path]:
    """README.md, and a file of eval results for every suite whose data set is on the hub."""
    results = list(_results(source))
    readme = out / "README.md"
    atomic_write_text(readme, _readme(source, results))
    written = [readme]
    for suite in dict.fromkeys(result["suite"] for result in results):
        hub_set = hub_dataset(source, suite)
        own = [r for r in results if r["suite"] == suite and r["name"] == HEADLINE]
        if hub_set is not None and own:
            rows = [_eval_result(source, result, hub_set) for result in own]
            path = out / ".eval_results" / f"{re.sub(r'[^A-Za-z0-9_-]', '-', suite)}.yaml"
            atomic_write_text(path, "\n".join(yaml_lines(rows)) + "\n")
            written.append(path)
    return written


def hub_dataset(source: Source, suite: str) -> dict[str, str] | None:
    """{"id": "openai/gsm8k", "revision": …}, where the set's source is a data set of the hub."""
    match = _HUB_SET.fullmatch(source.sets[suite]["source"]) if suite in source.sets else None
    return {k: v for k, v in match.groupdict().items() if v} if match else None


def _results(source: Source) -> Iterator[dict[str, Any]]:
    for claim in source.claims["claims"]:
        folder = claim["arms"].get("a", "")
        if claim["kind"] in SHARE_KINDS and claim["is_capability"] and folder in source.released:
            yield {"claim": claim, "suite": folder.split("/")[1], "name": metric_name(claim)}


def metric_name(claim: Mapping[str, Any]) -> str:
    """`pass@1`, `pass@8`, `cons@16`."""
    stem, k = claim["metric"]["fn"].split("_at_")[0], claim["metric"].get("k", 1)
    return f"{stem}@{1 if claim['metric']['fn'] == 'pass_at_1' else k}"


def _percent(printed: str) -> str:
    return f"{Decimal(printed).scaleb(2):f}"


def _said(result: Mapping[str, Any]) -> str:
    printed = result["claim"]["reported"]
    low, high = _percent(printed["low"]), _percent(printed["high"])
    return f"95 % interval {low} to {high}, {printed['n_items']} problems"


def _eval_result(
    source: Source, result: Mapping[str, Any], hub_set: dict[str, str]
) -> dict[str, Any]:
    claim = result["claim"]
    began = source.times.get(source.roots[claim["arms"]["a"]]["eval_serial"])
    entry: dict[str, Any] = {
        "dataset": hub_set | {"task_id": result["suite"]},
        "value": Decimal(_percent(claim["reported"]["value"])),
        "notes": f"{result['name']}, {_said(result)}; claim {claim['id']} of seal {source.seal}",
    }
    return entry | ({"date": began[1]} if began else {})


def _readme(source: Source, results: list[dict[str, Any]]) -> str:
    index = {
        "model-index": [
            {
                "name": source.claims["title"],
                "results": [_index_row(source, result) for result in results],
            }
        ]
    }
    lines = ["---", *(yaml_lines(index) if results else ["pipeline_tag: text-generation"]), "---"]
    lines += ["", f"# {_plain(source.claims['title'])}", ""]
    seal = source.seal or "none: a draft"
    lines += [
        f"Weights root `{source.weights['root']}`; dossier seal `{seal}`.",
        "Every number below is a claim of that dossier: `python verify.pyz D` recomputes it.",
        "",
        "| claim | metric | value | 95 % interval | limits |",
        "|---|---|---|---|---|",
    ]
    for claim in source.claims["claims"]:
        if claim["arms"]["a"] in source.released:
            lines.append(_table_row(claim))
    return "\n".join(lines) + "\n"


def _table_row(claim: Mapping[str, Any]) -> str:
    printed, is_share = claim["reported"], claim["metric"]["fn"] != "ratio"
    value, low, high = (
        _percent(printed[n]) if is_share else printed[n] for n in ("value", "low", "high")
    )
    unit = "" if not is_share else " points" if claim["kind"] in TWO_ARM_KINDS else " %"
    what = _plain(claim["text"])
    limits = _plain(claim["limits"])
    return f"| {claim['id']} | {what} | {value}{unit} | {low} to {high} | {limits} |"


def _index_row(source: Source, result: Mapping[str, Any]) -> dict[str, Any]:
    claim, suite = result["claim"], result["suite"]
    name = (hub_dataset(source, suite) or {"id": suite})["id"]
    return {
        "task": _TASK,
        "dataset": {"name": suite, "type": name, "split": "test"},
        "metrics": [
            {
                "type": result["name"],
                "value": Decimal(_percent(claim["reported"]["value"])),
                "name": f"{result['name']} in percent ({_said(result)}; claim {claim['id']})",
            }
        ],
    }


def _plain(text: str) -> str:
    """One cell of a table: no markup, no line break, no hidden characters."""
    one_line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", one_line)


def yaml_lines(value: Any, indent: int = 0) -> Iterator[str]:
    """A JSON value as YAML lines; text is always in double quotes, so that none is misread."""
    pad = " " * indent
    if isinstance(value, dict):
        for key, child in value.items():
            if isinstance(child, dict | list) and child:
                yield f"{pad}{key}:"
                yield from yaml_lines(child, indent + 2)
            else:
                yield f"{pad}{key}: {_scalar(child)}"
    else:
        for child in value:
            first, *rest = list(yaml_lines(child, indent + 2))
            yield f"{pad}- {first[indent + 2 :]}"
            yield from rest


def _scalar(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, str):
        shown = "".join(c if c.isprintable() else " " for c in value)
        return json.dumps(shown, ensure_ascii=False)
    return json.dumps(value)
