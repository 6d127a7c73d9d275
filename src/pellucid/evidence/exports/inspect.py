"""Inspect: an evaluation log in JSON (format version 2) for each evaluation, for `inspect view`.

Field names are those of inspect_ai's `EvalLog` and `EvalSample`. The metrics are the claims' own
numbers. Samples are written as they are read, so memory does not grow with their number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pellucid import __version__
from pellucid.artifacts import sync_file, writing
from pellucid.errors import RunError
from pellucid.evidence.core.claims import SHARE_KINDS
from pellucid.evidence.core.samples import Sample, SampleError, read_samples
from pellucid.evidence.core.schema import Root
from pellucid.evidence.exports.source import Source

LOG_VERSION = 2
_STOP_REASONS = {"eos": "stop", "stop_string": "stop", "length": "max_tokens", "error": "unknown"}
_VALUES = {"correct": "C", "wrong": "I", "timeout": "I", "unparsable": "N"}
"""Inspect's letters; an instrument's failure has no score, as it says nothing of the model."""
_WITHHELD = "[withheld]"


def write_inspect(source: Source, out: Path) -> list[Path]:
    """SUITE_ARM.json for every evaluation; returns the paths."""
    written = []
    for folder, root in sorted(source.roots.items()):
        path = out / f"{root['suite']}_{root['arm']}.json".replace("/", "-")
        temporary = path.with_name(f".partial-{path.name}")
        with writing(path):
            out.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                _write_log(source, folder, root, file)
            sync_file(temporary)
            temporary.replace(path)
        written.append(path)
    return written


def _write_log(source: Source, folder: str, root: Root, file: IO[str]) -> None:
    samples = _samples(source.folder / folder / "samples.jsonl.gz", folder)
    first = next(samples, None)
    if first is None:
        raise RunError(f"{folder} has no sample: there is nothing to export")
    header = log_header(source, folder, root, first)
    file.write(json.dumps(header, ensure_ascii=False)[:-1] + ', "samples": [\n')
    file.write(json.dumps(log_sample(first, root), ensure_ascii=False))
    for sample in samples:
        file.write(",\n" + json.dumps(log_sample(sample, root), ensure_ascii=False))
    file.write("\n]}\n")


def log_header(source: Source, folder: str, root: Root, first: Sample) -> dict[str, Any]:
    """The log without its samples."""
    began, ended = source.times.get(root["eval_serial"], ("1970-01-01T00:00:00Z",) * 2)
    items = source.sets[root["suite"]]["items"] if root["suite"] in source.sets else {}
    name = f"pellucid/{root['arm']}"
    return {
        "version": LOG_VERSION,
        "status": "success",
        "eval": {
            "eval_id": root["merkle_root"][:22],
            "run_id": (source.seal or root["recorded_root"])[:22],
            "created": began,
            "task": root["suite"],
            "task_id": f"{root['suite']}-{root['eval_serial']}",
            "task_version": 0,
            "dataset": {
                "name": root["suite"],
                "location": f"data/{root['suite']}.json",
                "samples": root["count"] // root["k"],
                "sample_ids": sorted(items) or None,
                "shuffled": False,
            },
            "model": name,
            "model_args": {},
            "config": {"epochs": root["k"], "epochs_reducer": ["mean"]},
            "packages": {
                "pellucid": __version__,
                first["engine"]["name"]: first["engine"]["version"],
            },
            "metadata": {
                "dossier_seal": source.seal,
                "merkle_root": root["merkle_root"],
                "weights_root": root["model"],
                "grader_sha256": root["grader_sha256"],
                "template_sha256": root["template_sha256"],
            },
        },
        "plan": {
            "name": "plan",
            "steps": [{"solver": "generate", "params": {}}],
            "config": {
                "temperature": first["sampler"]["temperature"],
                "top_p": first["sampler"]["top_p"],
                "top_k": first["sampler"]["top_k"],
                "max_tokens": first["sampler"]["max_new_tokens"],
                "stop_seqs": first["sampler"]["stop"],
                "seed": root["seed"] % (1 << 63),
            },
        },
        "results": {
            "total_samples": root["count"],
            "completed_samples": root["count"],
            "scores": [_results(source, folder, first["grader"])],
        },
        "stats": {"started_at": began, "completed_at": ended, "model_usage": {}},
    }


def _results(source: Source, folder: str, grader: str) -> dict[str, Any]:
    """The claims about this evaluation alone, as metrics."""
    metrics = {}
    for claim in source.claims["claims"]:
        if claim["kind"] in SHARE_KINDS and claim["arms"] == {"a": folder}:
            printed = claim["reported"]
            metrics[f"{claim['metric']['fn']} ({claim['id']})"] = {
                "name": claim["metric"]["fn"],
                "value": float(printed["value"]),
                "params": dict(claim["metric"]),
                "metadata": {"claim": claim["id"], "ci95": [printed["low"], printed["high"]]},
            }
    return {"name": grader, "scorer": grader, "params": {}, "metrics": metrics}


def log_sample(sample: Sample, root: Root) -> dict[str, Any]:
    """One `EvalSample`: the problem's id, its k-th sample as the epoch."""
    model = f"pellucid/{root['arm']}"
    question, gold, response = (
        _WITHHELD if sample[name] is None else sample[name]  # type: ignore[literal-required]
        for name in ("question", "gold", "response")
    )
    answer = {"role": "assistant", "content": response, "source": "generate"}
    usage = {
        "input_tokens": sample["n_prompt"],
        "output_tokens": sample["n_out"],
        "total_tokens": sample["n_prompt"] + sample["n_out"],
    }
    logged: dict[str, Any] = {
        "id": sample["item"],
        "epoch": sample["k"] + 1,
        "input": question,
        "target": gold,
        "messages": [{"role": "user", "content": question, "source": "input"}, answer],
        "output": {
            "model": model,
            "choices": [{"message": answer, "stop_reason": _STOP_REASONS[sample["finish"]]}],
            "usage": usage,
        },
        "scores": {},
        "metadata": {
            "verdict": sample["verdict"],
            "item_sha256": sample["item_sha256"],
            "cluster": sample["cluster"],
            "logprob_sum": sample["logprob_sum"],
        },
        "store": {},
        "events": [],
        "model_usage": {model: usage},
        "attachments": {},
    }
    if sample["verdict"] in _VALUES:
        logged["scores"][sample["grader"]] = {
            "value": _VALUES[sample["verdict"]],
            "answer": sample["extracted"],
            "explanation": f"{sample['method']}: {sample['verdict']}",
        }
    if sample["error"] is not None:
        trace = {"traceback": "", "traceback_ansi": ""}
        logged["error"] = {"message": sample["error"], **trace}
    return logged


def _samples(path: Path, folder: str) -> Iterator[Sample]:
    try:
        for _, sample in read_samples(path):
            yield sample
    except (OSError, SampleError) as error:
        raise RunError(f"{folder}/samples.jsonl.gz cannot be read: {error}") from None
