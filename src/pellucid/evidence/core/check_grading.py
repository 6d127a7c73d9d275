"""Settings of the graders: what is compared was graded alike, as far as the ledger tells of it.

Time limits and the second opinion decide verdicts that no sample shows. Ledgers keep them since
they were kept with an attempt's start; of older ones nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from pellucid.evidence.core.case import Case

SETTINGS = "graders/settings.json"


class GraderSettings(TypedDict):
    """graders/settings.json"""

    v: int
    evaluations: dict[str, dict[str, Any]]
    """`evals/<suite>/<arm>` -> `math_verify`, `math_verify_timeout_s`, `code_timeout_s`, as the
    ledger has them."""


def check_grading(case: Case, starts: Mapping[int, Mapping[str, Any]]) -> None:
    """`starts`: events of the ledger by the number of their attempt."""
    told: dict[str, Any] = {}
    for folder, root in case.roots.items():
        start = starts.get(root["eval_serial"])
        if start is not None and "grading" in start["payload"]:
            told[folder] = start["payload"]["grading"]
    for claim in case.claim_list():
        first, *others = claim["arms"].values()
        for folder in others:
            if first in told and folder in told and told[first] != told[folder]:
                difference = _difference(told[folder], told[first])
                text = f"it is compared with {first}, which was graded otherwise ({difference})"
                case.find("grader-changed", folder, text, [claim["id"]])
    if SETTINGS in case.archive.sizes:
        settings = case.load(SETTINGS, GraderSettings)
        for folder, own in (settings["evaluations"] if settings is not None else {}).items():
            if own != told.get(folder):
                text = f"{folder[:100]} has other settings than the ledger's"
                case.find("grader-changed", SETTINGS, text, case.using(folder))


def _difference(one: Any, other: Any) -> str:
    if type(one) is not dict or type(other) is not dict:
        return "no settings"
    names = sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n))
    name = names[0]
    return ascii(f"{name}: {one.get(name)} here, {other.get(name)} there")[1:-1][:120]
