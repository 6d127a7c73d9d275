"""Builds `verify.pyz`: the verifier and the graders it packs, in one file that Python runs.

The bytes depend on the sources alone (fixed order, dates and modes, nothing compressed by a library
whose version matters), so that anyone can build it and compare digests.
"""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from pathlib import Path

import pellucid
from pellucid.artifacts import atomic_write_bytes

PACKAGE = Path(pellucid.__file__).parent
START = "pellucid.evidence.core.__main__"
_MAIN = """import sys

if sys.version_info < (3, 11):
    sys.exit("verify.pyz needs Python 3.11 or newer")
from pellucid.evidence.core.__main__ import main

sys.exit(main())
"""
_DATE = (1980, 1, 1, 0, 0, 0)


def build_verifier(out: Path) -> str:
    """Writes `verify.pyz` to `out` and returns its SHA-256."""
    return atomic_write_bytes(out, verifier_bytes())


def verifier_bytes() -> bytes:
    """The whole file; equal sources give equal bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, source in sorted(_files().items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, source)
    return b"#!/usr/bin/env python3\n" + data.getvalue()


def _files() -> dict[str, bytes]:
    """Name in the archive -> bytes. Packages keep only their name: what they gather needs more."""
    files = {"__main__.py": _MAIN.encode()}
    for module in packed_modules():
        path = _path(module)
        name = path.relative_to(PACKAGE.parent).as_posix()
        files[name] = b"" if path.name == "__init__.py" else path.read_bytes()
    return files


def packed_modules() -> list[str]:
    """The verifier's modules: everything of ours that it imports, directly or not.

    Raises ValueError where one of them needs a package.
    """
    found: set[str] = set()
    waiting = [START]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found.add(module)
        waiting += [p for p in _parents(module) if p not in found]
        if _path(module).name != "__init__.py":
            waiting += _imports(module)
    return sorted(found)


def _imports(module: str) -> list[str]:
    ours = []
    for node in ast.walk(ast.parse(_path(module).read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [_module_of(node.module, alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            if top == "pellucid":
                ours.append(name)
            elif top not in sys.stdlib_module_names:
                raise ValueError(f"{module} imports {name}: the verifier needs Python alone")
    return ours


def _module_of(base: str, name: str) -> str:
    """`from pellucid.rewards import algebra` imports a module; most others import from one."""
    whole = f"{base}.{name}"
    return whole if base.startswith("pellucid") and _path(whole).exists() else base


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _path(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
