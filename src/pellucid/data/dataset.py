"""What is recorded of a data set: source, pinned revision, licence, dates, digests. No I/O.

Two digests pin a split. `original_sha256` is of the published file as a public repository holds
it, with any .gz around it removed (for MATH: of the tar archive of its files). `content_sha256` is
of the normalised (question, gold) rows and holds whatever container a mirror serves: it is checked
on every fetch and on every load.

Rights classes. A: open licence given by the makers of the data. B: open licence of whoever
publishes the file, but the text belongs to a competition's organiser who did not license it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pellucid.errors import DataError
from pellucid.tasks.lookup import lookup


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One split of a data set."""

    name: str
    rows: int
    """Rows as published, those without a usable gold included."""
    folder_file: str
    """Path below the folder given with --from; the name without .gz is accepted as well."""
    original_sha256: str
    remote_files: tuple[str, ...]
    """Paths in the remote repository, read one after the other."""
    content_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set: everything needed to fetch it, to read it and to say whose it is."""

    name: str
    title: str
    host: Literal["hub", "github"]
    """hub: a Hugging Face data set repository. github: raw files of a public repository."""
    repository: str
    revision: str
    """Full commit id."""
    licence: str
    rights: Literal["A", "B"]
    first_public: str
    """ISO date (month or day) on which the test items were first public."""
    reader: str
    """Name in `pellucid.data.readers.READERS`: the field mapping."""
    splits: tuple[Split, ...]
    grader: str = "math"
    family: str = "none"
    """Which rows are variants of each other, in words."""
    order: Literal["source", "hash"] = "source"
    """hash: rows sorted by the digest of their question, so that the first n are a fair sample of
    a set that is published by subject, and mirrors in another order give the same ids."""
    note: str = ""

    def split(self, name: str) -> Split:
        """The split of that name; DataError naming the nearest one."""
        return lookup({s.name: s for s in self.splits}, name, f"split of {self.name}", DataError)
