"""Look a name up in a table; a mistyped one is answered with its nearest neighbour."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from pellucid.errors import ConfigError, UserError

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, what: str, error: type[UserError] = ConfigError) -> T:
    """`table[name]`, or `error` naming the nearest known name and all of them."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise error(f"unknown {what} {name!r}: {hint}known are {', '.join(table)}")
