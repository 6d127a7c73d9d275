"""Writing safetensors files so that a disk's refusal is an OSError, as everywhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

_ERRNO = re.compile(r"(?:os error |code: )(\d+)")
"""How the library's releases tell the operating system's error number."""


def save_file(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Writes contiguous tensors that share no memory. Raises OSError where the disk refuses: the
    library's own error is none, so that a full disk would end in a traceback.
    """
    try:
        safetensors.torch.save_file(dict(tensors), str(path), metadata=metadata)
    except SafetensorError as error:
        found = _ERRNO.search(str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error
