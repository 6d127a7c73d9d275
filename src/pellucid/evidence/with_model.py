"""The model that a referee holds in hand: loaded late, named by its root, with an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.config import ModelConfig
from pellucid.errors import DataError
from pellucid.evidence.weights import weights_root
from pellucid.records import SamplingParams
from pellucid.tasks.templates import TEMPLATES, Template

if TYPE_CHECKING:
    from pellucid.model.load import LoadedModel
    from pellucid.rollout.engine import InProcessEngine

SLOTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedModel:
    """A loaded model."""

    loaded: LoadedModel
    engine: InProcessEngine
    root: str
    """As dossiers name it."""
    hardware: str
    """`cpu float32`, `NVIDIA H200 bfloat16`."""


def root_of(model: str) -> str:
    """Root digest of a model's files: a path, an embedded model or a hub id. Raises ModelError."""
    from pellucid.model.load import resolve

    return weights_root(resolve(_config(model)))


def open_model(model: str, *, dtype: str, device: str, exact: bool = False) -> OpenedModel:
    """Loads weights in the type that the samples were drawn in.

    `exact`: as the run had it; kept to where this machine can. Raises ModelError or DataError.
    """
    import torch

    from pellucid.kernels.available import hopper_ready
    from pellucid.model.load import load_model
    from pellucid.rollout.engine import InProcessEngine

    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in types:
        raise DataError(f"samples of type {dtype!r}: replay knows {', '.join(types)}")
    loaded = load_model(_config(model), dtype=types[dtype], device=device)
    weight = loaded.model.embedding.weight
    is_possible = weight.is_cuda and dtype == "bfloat16" and hopper_ready(weight.device)
    loaded.model.exact = exact and is_possible
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return OpenedModel(
        loaded=loaded,
        engine=InProcessEngine(loaded.model, loaded.tokenizer, slots=SLOTS),
        root=weights_root(loaded.path),
        hardware=f"{name} {dtype}",
    )


def template_of(digest: str) -> Template:
    """The prompt template with this digest. Raises DataError where this version has none."""
    found = next((t for t in TEMPLATES.values() if t.sha256 == digest), None)
    if found is None:
        raise DataError(
            f"no prompt template has the digest {digest[:12]}…: use the version of Pellucid that "
            "made the dossier (env/environment.json)"
        )
    return found


def params_of(sampler: Mapping[str, object]) -> SamplingParams:
    """The sampler of a dossier's record, as the engine takes it."""
    fields = {name: value for name, value in sampler.items() if name != "rng"}
    return SamplingParams(**(fields | {"stop": tuple(sampler["stop"])}))  # type: ignore[arg-type]


def _config(model: str) -> ModelConfig:
    is_local = Path(model).expanduser().exists()
    return ModelConfig(id=model, path=model if is_local else None)
