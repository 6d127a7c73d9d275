"""The models of a run: as they lie on this machine, or as the run recorded them.

When a model is measured, the digests of its files and tensors are written beside its evaluations
(`evals/weights/NAME.json`). So a dossier can be built where the weights, often most of a run's
bytes, were not brought.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pellucid.artifacts import StageFolder, atomic_write_json
from pellucid.errors import RunError
from pellucid.evidence.core.canonical import sha256_json
from pellucid.evidence.core.schema_training import Weights
from pellucid.evidence.core.shapes import shape_problem
from pellucid.evidence.weights import model_files, tensor_digests

RECORDS = "weights"
"""Below a stage's evals/."""


def describe_model(model: Path, parent: str | None = None) -> Weights:
    """Files and tensors of a model folder or file. `parent`: root of what it was trained from."""
    files = model_files(model)
    return {
        "v": 1,
        "root": sha256_json(files),
        "files": files,
        "tensors": tensor_digests(model),
        "parent": parent,
    }


def record_model(evals: Path, name: str, model: Path, root: str) -> None:
    """Keeps the digests of a model that is about to be measured, unless they are there."""
    path = evals / RECORDS / f"{name}.json"
    if not path.is_file() or _read(path)["root"] != root:
        atomic_write_json(path, describe_model(model))


def recorded_models(stages: Sequence[StageFolder]) -> dict[str, Weights]:
    """What a run recorded, by the models' names. Raises RunError for a damaged record."""
    paths = [p for stage in stages for p in sorted((stage.evals / RECORDS).glob("*.json"))]
    return {path.stem: _read(path) for path in paths}


def _read(path: Path) -> Weights:
    try:
        weights = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): restore it") from error
    problem = shape_problem(weights, Weights)
    if problem is not None or sha256_json(weights["files"]) != weights["root"]:
        raise RunError(f"{path} is damaged ({problem or 'another root'}): restore it")
    return weights


class KnownModels:
    """Models of one run by their names."""

    def __init__(
        self, run: Path, places: Mapping[str, Path], recorded: Mapping[str, Weights]
    ) -> None:
        self._run, self._places, self._recorded = run, places, recorded
        self._described: dict[str, Weights] = {}

    def find(self, name: str) -> Weights | None:
        """As it lies here, else as it was recorded; None: neither."""
        if name not in self._described and name in self._places:
            self._described[name] = describe_model(self._places[name])
        return self._described.get(name) or self._recorded.get(name)

    def find_measured(self, name: str, root: str) -> Weights | None:
        """The model of that name and root; None where it is neither here nor recorded.

        Raises RunError where the run's own folder holds another model than was measured.
        """
        here = self.find(name)
        if here is not None and here["root"] == root:
            return here
        place = self._places.get(name)
        if place is not None and place.is_relative_to(self._run):
            raise RunError(
                f"{place} is not the model that was measured as {name}: restore it, or run the "
                "evaluations again"
            )
        recorded = self._recorded.get(name)
        return recorded if recorded is not None and recorded["root"] == root else None
