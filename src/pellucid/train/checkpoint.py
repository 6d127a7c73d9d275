"""Checkpoints: everything a killed run needs to go on with the same bits.

A checkpoint is a sealed folder that appears whole or not at all: `state.safetensors` (float32
masters, both Adam moments, the reference) and `checkpoint.json` (step counts, lengths of the
append-only files). A damaged one is named in the ledger and the one before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from safetensors.torch import load_file
from torch import Tensor

from pellucid.artifacts import StageFolder, atomic_directory
from pellucid.errors import RunError
from pellucid.model.shortage import shortage
from pellucid.model.tensor_file import save_file

STATE_NAME = "state.safetensors"
FACTS_NAME = "checkpoint.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a checkpoint says beside its tensors."""

    step: int
    """Steps done."""
    offsets: dict[str, int]
    """Lengths of metrics and rollouts at that moment."""


class Resumable(Protocol):
    """What trains, as far as a checkpoint is concerned."""

    optimizer_steps: int

    def state(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores them in place. KeyError or RuntimeError where they are another model's."""
        ...


class Checkpoints:
    """The checkpoints of one stage."""

    def __init__(
        self,
        folder: StageFolder,
        *,
        keep: int,
        on_save: Callable[[int], None],
        on_damage: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.on_save = on_save
        self.on_damage = on_damage

    def save(self, step: int, updater: Resumable, offsets: dict[str, int]) -> None:
        """Writes the state after `step` steps and deletes the oldest. RunError on a full disk."""
        tensors = updater.state()
        facts = {
            "step": step,
            "optimizer_steps": updater.optimizer_steps,
            "offsets": offsets,
        }
        with atomic_directory(self.folder.checkpoint(step)) as path:
            save_file({k: v.contiguous() for k, v in tensors.items()}, path / STATE_NAME)
            (path / FACTS_NAME).write_text(json.dumps(facts))
        self.folder.prune_checkpoints(self.keep)
        self.on_save(step)

    def load_last(self, updater: Resumable) -> Restored | None:
        """Restores the newest undamaged checkpoint in place; None where there is none."""
        step, damaged = self.folder.newest_whole_checkpoint()
        for line in damaged:
            self.on_damage(line)
        if step is None:
            return None
        path = self.folder.checkpoint(step)
        facts = json.loads((path / FACTS_NAME).read_text())
        tensors = load_file(path / STATE_NAME)
        try:
            updater.load_state(tensors)
        except (KeyError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and shortage(error):
                raise  # says nothing about the checkpoint
            raise RunError(
                f"{path.name} holds the state of another model or version ({error}): "
                "start afresh with another --out"
            ) from error
        updater.optimizer_steps = facts["optimizer_steps"]
        return Restored(step=facts["step"], offsets=facts["offsets"])
