"""The address of a stage: what it is made of, in digests; and what it made, held against later.

Stages of the same values, inputs, seed and code have the same address: the second is not run.
The parts are kept beside the digest, so that a stage that runs anew can say why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pellucid.artifacts import StageFolder, atomic_write_json, sha256_file, sha256_json
from pellucid.config_stages import BASE, AnyStage, PipelineConfig
from pellucid.data.store import default_data_dir
from pellucid.errors import RunError
from pellucid.manifest import PACKAGE_ROOT
from pellucid.model.load import resolve, weights_digest

ADDRESS_FILE = "address.json"
"""Written before a stage starts: whose half-finished work lies in the folder."""
NOT_COMPUTING = ("cli", "report", "doctor.py")
"""Sources that only show what was computed: a change of them leaves every number as it is."""
KEPT_APART = ("checkpoints", "evals", "manifest.json", ADDRESS_FILE)
"""What later stages do not build on."""
LONGEST = 1024
"""Characters of a text of the recipe that may name a file."""
DIARY = ("metrics.jsonl", "rollouts.jsonl.zst")
"""Outputs that tell of the work and hold times: no part of what later stages are made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageAddress:
    """What a stage is made of. Example: its `digest` in manifest.json and address.json."""

    values: str
    """Digest of the stage's section of the recipe and of the device's."""
    inputs: Mapping[str, str]
    """Digest by role (`start`, `sampler`, …): of the base's weights, or a stage's outputs."""
    seed: int
    code: str
    """Digest of all sources that can change a number."""

    @property
    def digest(self) -> str:
        return sha256_json(asdict(self))

    def difference(self, there: Mapping[str, Any]) -> str | None:
        """What differs from the parts kept in a folder, in words; None: nothing does."""
        parts = asdict(self)
        words = {
            "values": "its values in the recipe have changed",
            "inputs": "what it builds on has changed",
            "seed": "its seed has changed",
            "code": "the code has changed",
        }
        return next((words[k] for k in parts if parts[k] != there.get(k)), None)


def make_address(
    recipe: PipelineConfig, stage: AnyStage, inputs: Mapping[str, str], seed: int
) -> StageAddress:
    """The address of a stage with `inputs`, digests by role.

    Values at their defaults stand in the code, which has a digest of its own.
    """
    shared = {"device", "dtype", "exact", "threads", "data"}
    shared |= {"code_timeout_s", "math_verify_timeout_s"}
    common = recipe.model_dump(mode="json", include=shared, exclude_defaults=True)
    values = stage.model_dump(
        mode="json", exclude={"name", *stage.references()}, exclude_defaults=True
    )
    template = recipe.template_of(stage.name)
    return StageAddress(
        values=sha256_json({"common": common, "stage": values, "template": template}),
        inputs=dict(inputs),
        seed=seed,
        code=computing_sources(),
    )


def input_digests(
    recipe: PipelineConfig,
    stage: AnyStage,
    base: str,
    manifests: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    """What a stage is made of, by role: models and data of earlier stages, files that it names.

    `base` is the digest of the base's weights, `manifests` those of finished stages by name.
    """
    digests = {
        role: base if name == BASE else outputs_digest(manifests[name])
        for role, name in stage.references().items()
    }
    student = getattr(stage, "student", None)
    if student is not None:
        digests["student"] = weights_digest(resolve(student))
    data = Path(recipe.data_dir) if recipe.data_dir else default_data_dir()
    texts = {text for text in _texts(stage.model_dump(mode="json")) if len(text) < LONGEST}
    for text in sorted(texts):
        found = [path for path in (Path(text), data / text) if path.is_file()]
        if found:
            digests[f"file {text}"] = sha256_file(found[0])
    return digests


def _texts(value: Any) -> Iterator[str]:
    """All strings of a tree."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


@cache
def computing_sources() -> str:
    """Digest of the sources that can change a number, as they were when first asked for."""
    files = sorted(PACKAGE_ROOT.rglob("*.py"))
    parts = {path.relative_to(PACKAGE_ROOT).as_posix(): path for path in files}
    return sha256_json(
        {
            name: sha256_file(path)
            for name, path in parts.items()
            if name.partition("/")[0] not in NOT_COMPUTING
        }
    )


# What a folder holds


def read_address(folder: Path) -> dict[str, Any] | None:
    """The parts and the `digest` of the stage whose work a folder holds; None: there is none."""
    path = folder / ADDRESS_FILE
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError):
        raise RunError(f"{path} is damaged: move {folder} away, and the stage runs anew") from None


def write_address(folder: Path, address: StageAddress) -> None:
    """Claims a folder for the work of a stage."""
    atomic_write_json(folder / ADDRESS_FILE, asdict(address) | {"digest": address.digest})


def read_manifest(stage: StageFolder) -> dict[str, Any] | None:
    """The manifest of a finished stage; None: it is not finished."""
    if not stage.manifest.is_file():
        return None
    try:
        return dict(json.loads(stage.manifest.read_text()))
    except (ValueError, TypeError):
        raise RunError(
            f"{stage.manifest} is damaged: move {stage.root} away, and the stage runs anew"
        ) from None


def digest_outputs(stage: StageFolder) -> dict[str, str]:
    """Digest of every file a stage made, by its path in the folder."""
    files = (p for p in sorted(stage.root.rglob("*")) if p.is_file())
    named = {path.relative_to(stage.root): path for path in files}
    return {
        name.as_posix(): sha256_file(path)
        for name, path in named.items()
        if name.parts[0] not in KEPT_APART and not name.name.startswith(".")
    }


def check_outputs(stage: StageFolder, manifest: Mapping[str, Any]) -> None:
    """Raises RunError that names the first file that is not what the stage made."""
    for name, digest in manifest["outputs"].items():
        path = stage.root / name
        if not path.is_file():
            wrong = "is gone"
        elif sha256_file(path) != digest:
            wrong = "is not what the stage made"
        else:
            continue
        raise RunError(
            f"{path} {wrong}, and later stages build on it: restore it, or move {stage.root} away "
            "and give the same command again, which makes it anew"
        )


def outputs_digest(manifest: Mapping[str, Any]) -> str:
    """One digest of what later stages build on."""
    outputs = manifest["outputs"]
    return sha256_json({name: outputs[name] for name in outputs if name not in DIARY})
