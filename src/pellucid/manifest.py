"""What a stage was made from: code, package versions, inputs, seed, device."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pellucid
from pellucid.artifacts import atomic_write_json, sha256_bytes, sha256_tree

RECORDED_PACKAGES = (
    "torch",
    "numpy",
    "pydantic",
    "tokenizers",
    "safetensors",
    "gguf",
    "huggingface-hub",
    "math-verify",
    "sympy",
    "zstandard",
)
"""Packages whose version can change a number."""

PACKAGE_ROOT = Path(pellucid.__file__).parent
_GIT_TIMEOUT_S = 20


def code_state() -> dict[str, Any]:
    """Which code runs: digest of the sources and, in a checkout, the commit and the diff to it."""
    state: dict[str, Any] = {
        "version": pellucid.__version__,
        "source_sha256": sha256_tree(PACKAGE_ROOT, "**/*.py"),
    }
    # A package may be installed inside somebody else's repository: a tracked file proves ours.
    if shutil.which("git") and _git("ls-files", "--error-unmatch", "__init__.py") is not None:
        commit, diff = _git("rev-parse", "HEAD"), _git("diff", "HEAD", "--", ".")
        if commit is not None and diff is not None:
            state["commit"] = commit.decode().strip()
            state["diff_sha256"] = sha256_bytes(diff) if diff else None
    return state


def _git(*arguments: str) -> bytes | None:
    """Output of a git command in the package's folder; None where git refuses."""
    command = ["git", "-C", str(PACKAGE_ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False)
    return done.stdout if done.returncode == 0 else None


def environment() -> dict[str, Any]:
    """Python, platform (without the host's name) and package versions."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": package_versions(RECORDED_PACKAGES),
    }


def package_versions(names: tuple[str, ...]) -> dict[str, str | None]:
    """Installed version of each package; None where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def write_manifest(
    path: Path,
    *,
    stage: str,
    digest: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    seed: int,
    device: str,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a stage's manifest, last of all its files, and return it.

    `inputs` and `outputs` map names (`model`, `data/chain/train`, `checkpoints/step-000060`) to
    SHA-256; `device` is what ran, in words (`cpu, 2 threads`, `NVIDIA H200`).
    """
    manifest = {
        "stage": stage,
        "digest": digest,
        "inputs": dict(inputs),
        "outputs": dict(outputs),
        "seed": seed,
        "device": device,
        "code": code_state(),
        **environment(),
        **(more or {}),
    }
    atomic_write_json(path, manifest)
    return manifest
