"""Where dossiers of other parties lie in a dossier, and what the verifier says of each.

external/<party>/dossier/…      theirs, byte for byte as they sealed it, with their key
external/<party>/diff.json      what it differs in from the dossier around it (`diff.py`)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from pellucid.evidence.core.archive import Archive
from pellucid.evidence.core.findings import COLUMNS, Column

EXTERNAL = "external"
DOSSIER, DIFF = "dossier", "diff.json"
MAX_PARTIES = 16
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\Z)){0,63}", re.ASCII)


def is_party_name(name: str) -> bool:
    """Whether a party's folder may be called so: letters, digits, `.`, `_` and `-`."""
    return _NAME.fullmatch(name) is not None


class Inner:
    """The files of a folder inside an archive, as an archive of their own."""

    def __init__(self, archive: Archive, folder: str) -> None:
        self._archive, self._prefix = archive, f"{folder}/"
        self.sizes = {
            path.removeprefix(self._prefix): size
            for path, size in archive.sizes.items()
            if path.startswith(self._prefix)
        }
        self.problems: list[tuple[str, str]] = []
        """Those of the whole archive are named there."""

    def open(self, path: str) -> BinaryIO:
        return self._archive.open(self._prefix + path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Another party's dossier, examined by itself. Example: Party(name="lab", keyid="ab…", …)"""

    name: str
    keyid: str | None
    """Key that signed it."""
    status: Mapping[Column, str]
    """The worst of its claims, by column: `ok`, `in part`, `FAILS` or `not done`."""
    num_evaluations: int
    num_released: int
    """Evaluations of the weights that the dossier around it releases."""
    num_samples: int
    verdict: Mapping[str, Any]
    """All that was found in it, plain."""

    @property
    def place(self) -> str:
        return f"{EXTERNAL}/{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {
            "name": self.name,
            "keyid": self.keyid,
            **{str(column): self.status[column] for column in COLUMNS},
            "evaluations": self.num_evaluations,
            "evaluations_of_released": self.num_released,
            "samples": self.num_samples,
            "verdict": dict(self.verdict),
        }


def worst(statuses: list[str]) -> str:
    """One cell for several. What was done for none of them is not done."""
    for status in ("FAILS", "in part", "ok"):
        if status in statuses:
            return status
    return "not done"


def worst_by_column(table: Mapping[str, Mapping[Column, str]]) -> dict[Column, str]:
    """The table of a dossier in one line."""
    return {column: worst([row[column] for row in table.values()]) for column in COLUMNS}
