"""What the peers' scripts share: the model folder, the prompts, and the lines they report with."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from workload import prompts

__all__ = ["model_folder", "prompts", "read_work", "report", "versions"]


def read_work() -> dict[str, Any]:
    """The work order named on the command line."""
    return json.loads(Path(sys.argv[1]).read_text())


def model_folder(work: dict[str, Any], parent: Path) -> str:
    """Writes a Qwen2 of the ordered shape with random bfloat16 weights; returns its folder."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = parent / f"random-{work['shape']}"
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.set_default_dtype(torch.bfloat16)
        model = Qwen2ForCausalLM(Qwen2Config(**work["model"]))
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return str(folder)


def versions(*names: str) -> dict[str, str]:
    return {name: metadata.version(name) for name in names}


def report(
    job: str, who: str, repeats: list[dict[str, float]], settings: dict[str, Any], **more: Any
) -> None:
    """Prints one record; what else the peer prints is ignored."""
    record = {
        "record": True,
        "job": job,
        "who": who,
        "repeats": repeats,
        "median_s": median(r["seconds"] for r in repeats),
        "tokens_per_s": median(r["tokens"] / r["seconds"] for r in repeats),
        "settings": settings,
        **more,
    }
    print(json.dumps(record), flush=True)
