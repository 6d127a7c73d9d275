"""What every command that runs a model needs: device, weights, tokenizer, engine."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from pellucid.config import ModelConfig, RunConfig
from pellucid.errors import ConfigError
from pellucid.model.load import LoadedModel, load_model
from pellucid.rollout.engine import InProcessEngine

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """A loaded model with its engine."""

    loaded: LoadedModel
    engine: InProcessEngine
    device: str
    """`cpu` or `cuda`."""
    device_name: str
    """In words, for the record: `cpu, 2 threads`, `NVIDIA H200`."""


def open_workbench(
    model: ModelConfig, *, device: str = "auto", dtype: str = "auto", threads: int = 0, slots: int
) -> Workbench:
    """Loads a model for sampling and training. Raises ModelError, or ConfigError without a GPU."""
    device = resolve_device(device)
    threads = set_threads(threads)
    chosen = _resolve_dtype(dtype, device)
    loaded = load_model(model, dtype=chosen, device=device)
    return Workbench(
        loaded=loaded,
        engine=InProcessEngine(loaded.model, loaded.tokenizer, slots=slots),
        device=device,
        device_name=describe_device(device, threads),
    )


def open_run_workbench(config: RunConfig) -> Workbench:
    """The workbench that a recipe asks for."""
    return open_workbench(
        config.model,
        device=config.device,
        dtype=config.dtype,
        threads=config.threads,
        slots=config.rollout.slots,
    )


def resolve_device(wanted: str) -> str:
    """`auto` is CUDA where there is one. Raises ConfigError where CUDA was asked for and is
    missing.
    """
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise ConfigError(
            'device is cuda but torch sees no GPU: set device = "cpu", or check the driver with '
            "`pellucid doctor`"
        )
    return "cpu"


def set_threads(wanted: int) -> int:
    """CPU threads for this process; 0: the cores it may use. More than that is catastrophically
    slow.
    """
    threads = wanted or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    return threads


def describe_device(device: str, threads: int) -> str:
    """The device in words."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return f"cpu, {threads} threads"


def _resolve_dtype(wanted: str, device: str) -> torch.dtype:
    if wanted == "auto":
        return torch.bfloat16 if device == "cuda" else torch.float32
    return _DTYPES[wanted]
