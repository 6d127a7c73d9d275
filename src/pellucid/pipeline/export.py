"""`export`: a run's trained model, or any model, as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import torch

from pellucid.config import ModelConfig
from pellucid.model.export import export_model
from pellucid.model.load import load_model
from pellucid.pipeline.workbench import trained_or_given
from pellucid.runlog import Progress


def export_run(source: str, out: Path, progress: Progress) -> Path:
    """Writes the model of a run folder, or a model by its name, into `out` in bfloat16."""
    model = trained_or_given(ModelConfig(id=source))
    with progress.task("exporting", 1, "model") as tick:
        loaded = load_model(model, dtype=torch.bfloat16, device="cpu")
        if out.is_dir():
            out.rmdir()  # an empty folder, as the command line has checked
        export_model(loaded.model, loaded.tokenizer, out)
        tick(1)
    return out
