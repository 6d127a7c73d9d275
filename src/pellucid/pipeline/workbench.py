"""What every command that runs a model needs: device, weights, tokenizer, engine."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import pellucid
from pellucid.artifacts import RunFolder
from pellucid.config import AUTO, ModelConfig, RunConfig
from pellucid.energy.nvml import Gpu
from pellucid.errors import ConfigError, RunError, UserError
from pellucid.kernels.available import hopper_ready
from pellucid.model.load import LoadedModel, load_model
from pellucid.model.ops import select_ops
from pellucid.model.transformer import Decoder
from pellucid.rollout.engine import InProcessEngine
from pellucid.runlog import Progress
from pellucid.train.memory_plan import MemoryPlan

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DEFAULT_SLOTS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """A loaded model with its engine."""

    loaded: LoadedModel
    engine: InProcessEngine
    device: str
    """`cpu` or `cuda`."""
    device_name: str
    """In words, for the record: `cpu, 2 threads`, `NVIDIA H200`."""

    def describe(self) -> dict[str, Any]:
        """What draws the samples, for their records."""
        return {
            "name": "pellucid",
            "version": pellucid.__version__,
            "torch": str(torch.__version__),
            "dtype": str(self.loaded.model.embedding.weight.dtype).removeprefix("torch."),
            "exact": self.loaded.model.exact,
            "device": self.device_name,
        }


def open_run_workbench(
    config: RunConfig, progress: Progress, memory: MemoryPlan | None = None
) -> Workbench:
    """Loads the model that a recipe names; keys and values keep to the `memory` plan.

    Raises ModelError, or ConfigError without a GPU.
    """
    device = resolve_device(config.device)
    threads = set_threads(config.threads)
    model = trained_or_given(config.model)
    with progress.task(f"loading {config.model.id}", 1, "model") as tick:
        loaded = load_model(model, dtype=resolve_dtype(config.dtype, device), device=device)
        loaded.model.exact = resolve_exact(config.exact, loaded.model)
        tick(1)
    return Workbench(
        loaded=loaded,
        engine=InProcessEngine(
            loaded.model,
            loaded.tokenizer,
            slots=DEFAULT_SLOTS if config.rollout.slots == AUTO else config.rollout.slots,
            kv_limit=memory.kv_limit if memory is not None else None,
            is_shared=memory is not None and memory.is_time_shared,
            drafts=config.rollout.drafts,
            must_be_exact=config.exact is True,
        ),
        device=device,
        device_name=describe_device(device, threads),
    )


def trained_or_given(model: ModelConfig) -> ModelConfig:
    """A run folder stands for the model it trained; anything else stays as it is."""
    folder = Path(model.path or model.id)
    if not (folder / "recipe.toml").is_file():
        return model
    trained = RunFolder(folder).last_model()
    if trained is not None:
        return model.model_copy(update={"path": str(trained.model)})
    raise RunError(f"{folder} holds no trained model yet: let `pellucid run` finish it first")


def metered_gpus(wanted: str) -> list[Gpu]:
    """The GPUs that a run with this `device` computes on, as its energy meter looks for them."""
    if resolve_device(wanted) == "cpu":
        return []
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return [Gpu(uuid=str(properties.uuid), name=properties.name)]


def free_memory() -> None:
    """Gives back what a model held that nobody names any more: the next one needs the room."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def resolve_device(wanted: str) -> str:
    """`auto` is CUDA where there is one. Raises ConfigError where CUDA was asked for in vain."""
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise ConfigError(
            "device is cuda but torch sees no GPU: set device=cpu, or look at `pellucid doctor`"
        )
    return "cpu"


def resolve_exact(wanted: str | bool, model: Decoder) -> bool:
    """`auto` is exact where that is possible. Raises UserError where it was asked for in vain."""
    weight = model.embedding.weight
    if wanted is False:
        return False
    if wanted is True:
        select_ops(weight.device, exact=True)
    is_possible = weight.dtype == torch.bfloat16 and hopper_ready(weight.device)
    if is_possible:
        from pellucid.rollout.resident_engine import supports

        is_possible = supports(model.spec)
    if wanted is True and not is_possible:
        raise UserError(
            "exact = true needs bfloat16 weights and heads that the attention kernels take (see "
            "docs/engine.md): set it to false"
        )
    return is_possible


def set_threads(wanted: int) -> int:
    """CPU threads of this process; 0: the cores it may use. More than that is far slower."""
    threads = wanted or usable_cores()
    torch.set_num_threads(threads)
    return threads


def usable_cores() -> int:
    """Cores this process may use; where the system cannot say (macOS), all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_device(device: str, threads: int) -> str:
    """The device in words."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return f"cpu, {threads} threads"


def resolve_dtype(wanted: str, device: str) -> torch.dtype:
    """`auto` is bfloat16 on CUDA, else float32."""
    if wanted == "auto":
        return torch.bfloat16 if device == "cuda" else torch.float32
    return _DTYPES[wanted]
