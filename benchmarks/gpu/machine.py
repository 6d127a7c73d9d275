"""What a measurement was made on and from: device, driver, versions, code."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
from datetime import UTC, datetime
from typing import Any

from pellucid.manifest import code_state, package_versions

PACKAGES = ("torch", "triton", "numpy", "transformers", "vllm", "trl")
COMMIT_VARIABLE = "PELLUCID_COMMIT"
"""Names the commit where the code is a copy, without its repository or beside an older one."""


def code() -> dict[str, Any]:
    """Commit, whether files differ from it, and the digest of the sources."""
    state = code_state()
    named = os.environ.get(COMMIT_VARIABLE)
    is_known = named is None and "commit" in state
    return {
        "commit": named or state.get("commit"),
        "is_changed": state.get("diff_sha256") is not None if is_known else None,
        "source_sha256": state["source_sha256"],
        "version": state["version"],
    }


def environment() -> dict[str, Any]:
    """Date, Python, packages of this interpreter, driver and host cores."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": package_versions(PACKAGES),
        "driver": _query("driver_version"),
        "host_cores": len(os.sched_getaffinity(0)),
    }


class UsedMemory:
    """Most device memory in use by all processes while the block runs, above what was in use
    before: for peers that spread over several processes. None without nvidia-smi."""

    def __init__(self, every_s: float = 0.5) -> None:
        self.every_s = every_s
        self.peak_bytes: int | None = None
        self._stop = threading.Event()

    def __enter__(self) -> UsedMemory:
        self._before = self._used()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._before is not None and not self._stop.wait(self.every_s):
            used = self._used()
            if used is not None:
                self.peak_bytes = max(self.peak_bytes or 0, used - self._before)

    @staticmethod
    def _used() -> int | None:
        text = _query("memory.used")
        return None if text is None else int(text.split()[0]) * 2**20


def first_device() -> str:
    """The first device that CUDA sees, as nvidia-smi takes it."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"


def _query(field: str) -> str | None:
    """A field of the first device that CUDA sees; None without nvidia-smi or a device."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "-i", first_device(), f"--query-gpu={field}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    lines = done.stdout.split("\n")
    return lines[0].strip() if done.returncode == 0 and lines[0].strip() else None
