"""dossier.html: a self-contained page of a dossier, every number tied to a claim or a file.

    read_dossier → Cells → page.html (jinja2) → D.html beside the dossier

The page is no part of what is sealed, so it is written beside the folder. Everything in it that a
stranger wrote is hostile text: escaped, its hidden characters shown; no script, no network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pellucid.artifacts import atomic_write_text
from pellucid.errors import RunError
from pellucid.evidence.core.claims import TWO_ARM_KINDS
from pellucid.evidence.core.findings import COLUMNS
from pellucid.evidence.review.export import answer_facts, change_facts, closed_by, rerun_facts
from pellucid.evidence.words import said
from pellucid.report import words
from pellucid.report.dossier.cells import (
    VIEW_NAMES,
    VIEWS,
    BareNumberError,
    Cells,
    refuse_bare,
    side,
)
from pellucid.report.dossier.costs import read_costs
from pellucid.report.dossier.read import (
    AUDIT_PATH,
    SCAN_PATH,
    DossierView,
    read_dossier,
)
from pellucid.report.panels import make_panels

MAX_BYTES = 5_000_000
"""Of the page."""
FILES_SHOWN = 2_000
AUDITED = {
    "agreement": "agreement of grader and people",
    "kappa": "Cohen's kappa",
    "false_positive_rate": "wrong answers that the grader accepts",
    "false_negative_rate": "right answers that the grader refuses",
    "disagreement": "answers on which two graders differ",
}
_HERE = Path(__file__).parent
_SHORT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One interval of a claim's small figure, in percent of the figure's width."""

    name: str
    low: float
    value: float
    high: float
    is_reversed: bool


def write_dossier_page(
    dossier: Path, out: Path | None = None, *, with_verdict: bool = False
) -> Path:
    """Write the page of a dossier and return its path; default: beside the folder, D.html.

    `with_verdict`: examine the dossier, and print the verifier's table above the claims.
    Raises RunError, one line, where the folder is no dossier or a file of it is damaged.
    """
    page = out if out is not None else dossier.resolve().with_suffix(".html")
    view = read_dossier(dossier, with_verdict=with_verdict)
    text = render(view)
    if len(text.encode()) > MAX_BYTES:
        text = render(view, with_samples=False)
    if len(text.encode()) > MAX_BYTES:
        raise RunError(f"the page of {dossier} would have over {MAX_BYTES:,} bytes: claim less")
    atomic_write_text(page, text)
    return page


def render(view: DossierView, *, with_samples: bool = True) -> str:
    """The page as text."""
    claims = {claim["id"]: claim for claim in view.document["claims"]}
    paths = [row["path"] for row in view.manifest]
    anchors = {path: f"file-{number}" for number, path in enumerate(paths)}
    cells = Cells(claims, anchors)
    environment = _environment(cells)
    style = (_HERE.parent / "page.css").read_text(encoding="utf-8")
    style += (_HERE / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        style=Markup(style),
        view=view,
        title=view.document["title"],
        comparisons=[c for c in claims.values() if c["kind"] in TWO_ARM_KINDS],
        measurements=[c for c in claims.values() if c["kind"] not in TWO_ARM_KINDS],
        lengths=[c for c in claims.values() if c["metric"]["fn"] in ("rate", "ratio")],
        capable=[c for c in claims.values() if c["is_capability"]],
        reversed=[(c, v) for c in claims for v in VIEWS if cells.reverses(c, v)],
        marks={c["id"]: marks(c) for c in claims.values()},
        view_names=VIEW_NAMES,
        columns=COLUMNS,
        panels=make_panels(view.curves),
        scans=list(_scan_rows(view, cells)),
        recalls=list(_recall_rows(view, cells)),
        audit=list(_audit_rows(view, cells)),
        judged=list(_judged_rows(view, cells)),
        costs=read_costs(view.energy, cells),
        files=[
            (row["path"], row["sha256"], cells.fact(row["path"], words.count(row["bytes"])))
            for row in view.manifest[:FILES_SHOWN]
        ],
        anchors=anchors,
        has_more=len(paths) > FILES_SHOWN,
        readings=view.readings if with_samples else (),
        has_readings=with_samples,
    )


def marks(claim: Mapping[str, Any]) -> list[Mark]:
    """The claim's intervals on one axis, where it has views; the axis spans what is drawn."""
    views = {view: _printed(claim, view) for view in VIEWS}
    shown = {view: printed for view, printed in views.items() if printed is not None}
    if len(shown) < 2:
        return []
    numbers = [float(p[name]) for p in shown.values() for name in ("low", "high")]
    if side(claim, claim["reported"]) != 0 and claim["kind"] == "paired_difference":
        numbers.append(0.0)
    low, span = min(numbers), (max(numbers) - min(numbers)) or 1.0
    return [
        Mark(
            name=view,
            **{n: 100.0 * (float(p[n]) - low) / span for n in ("low", "value", "high")},
            is_reversed=side(claim, p) * side(claim, claim["reported"]) < 0,
        )
        for view, p in shown.items()
    ]


def _printed(claim: Mapping[str, Any], view: str) -> Mapping[str, Any] | None:
    return claim["reported"] if view == "all" else claim["views"].get(view)


def views_svg(drawn: Sequence[Mark]) -> Markup:
    """A small figure without text: the table beside it has the numbers."""
    rows = []
    for number, mark in enumerate(drawn):
        y, kind = 6 + 11 * number, "turned" if mark.is_reversed else mark.name
        rows.append(
            f'<line class="{kind}" x1="{_x(mark.low)}" x2="{_x(mark.high)}" y1="{y}" y2="{y}"/>'
            f'<circle class="{kind}" cx="{_x(mark.value)}" cy="{y}" r="3.2"/>'
        )
    height = 2 + 11 * len(drawn)
    return Markup(
        f'<svg class="views" viewBox="0 0 120 {height}" aria-hidden="true" focusable="false">'
        + "".join(rows)
        + "</svg>"
    )


def _x(percent: float) -> str:
    return f"{5 + 1.1 * percent:.1f}"


def _scan_rows(view: DossierView, cells: Cells) -> Iterator[dict[str, Any]]:
    """Of each suite: items scanned, and those at or above the threshold."""
    if view.scan is None:
        return
    for suite, found in view.scan["suites"].items():
        shares = [item["containment"] for item in found["items"].values()]
        leaked = sum(share >= view.scan["threshold"] for share in shares)
        yield {
            "suite": suite,
            "items": cells.fact(SCAN_PATH, words.count(len(shares))),
            "leaked": cells.fact(SCAN_PATH, words.count(leaked)),
            "largest": cells.fact(SCAN_PATH, words.percent(max(shares, default=0.0), 0)),
            "is_clean": leaked == 0,
        }


def _recall_rows(view: DossierView, cells: Cells) -> Iterator[tuple[str, Markup]]:
    """How well the scanner found leaks that were planted on purpose."""
    test = view.scan["self_test"] if view.scan else {}
    for kind, recall in (test.get("recall") or {}).items():
        yield f"planted: {kind}", cells.fact(SCAN_PATH, words.percent(float(recall)))
    if test.get("reliable_from_words") is not None:
        least = words.count(test["reliable_from_words"])
        yield "95 % of every kind, items of so many words or more", cells.fact(SCAN_PATH, least)
    if "false_positives" in test and "documents" in test:
        text = f"{words.count(test['false_positives'])} in {words.count(test['documents'])}"
        yield "false alarms, documents", cells.fact(SCAN_PATH, text)


def _audit_rows(view: DossierView, cells: Cells) -> Iterator[tuple[str, Markup]]:
    """What labels of people say of the graders, and how much of a claim they leave."""
    if view.audit is None:
        return
    yield "samples labelled", cells.fact(AUDIT_PATH, words.count(view.audit["labelled"]))
    yield "labels that say unsure", cells.fact(AUDIT_PATH, words.count(view.audit["unsure"]))
    for name, text in AUDITED.items():
        found = view.audit[name]  # type: ignore[literal-required]
        if found is not None:
            yield text, _estimated(cells, AUDIT_PATH, found)
    for claim, bound in view.audit["bounds"].items():
        shown = f"{bound['low']} to {bound['high']}"
        yield f"{claim} with the graders' errors", cells.fact(AUDIT_PATH, shown)


def _judged_rows(view: DossierView, cells: Cells) -> Iterator[dict[str, Any]]:
    """Of each judge and evaluation: the share of yes, its bounds, and as labels correct it."""
    for path, result in view.judged.items():
        for judge, found in result["judges"].items():
            kappa = found["kappa"]
            for evaluation, arm in found["evaluations"].items():
                missing = f"{words.count(arm['missing'])} of {words.count(arm['samples'])}"
                yield {
                    "judge": judge,
                    "evaluation": evaluation,
                    "accepted": _estimated(cells, path, arm["accepted"]),
                    "missing": cells.fact(path, missing),
                    "bounds": cells.fact(path, f"{arm['worst']} to {arm['best']}"),
                    "corrected": _estimated(cells, path, arm["corrected"]),
                    "kappa": _estimated(cells, path, kappa),
                }


def _estimated(cells: Cells, path: str, found: Mapping[str, str] | None) -> Markup:
    if found is None:
        return Markup('<span class="none">none</span>')
    return cells.fact(path, f"{found['value']} [{found['low']}, {found['high']}]")


def _environment(cells: Cells) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=refuse_bare,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "number": cells.number,
        "interval": cells.interval,
        "fact": cells.fact,
        "reverses": cells.reverses,
        "printed": cells.printed,
        "said": said,
        "views_svg": views_svg,
        "views": VIEWS,
    }
    for function in (answer_facts, change_facts, closed_by, rerun_facts, visible):
        environment.filters[function.__name__] = function
    environment.filters["short"] = lambda digest: f"{digest[:_SHORT]}…"
    environment.filters["pretty"] = _pretty
    environment.filters["clipped"] = lambda text: words.shortened(text)[0]
    return environment


def visible(text: str) -> Markup:
    """Foreign text, escaped, nothing hidden in it: it may be only a number, which is not ours."""
    if not isinstance(text, str):
        raise BareNumberError(f"{text!r} is no text")
    return Markup("{}").format(words.visible(text))


def _pretty(value: Mapping[str, Any]) -> str:
    """`fn pass_at_k, k 8`: a claim's small tables in words."""
    return ", ".join(f"{key} {words.visible(str(child))}" for key, child in value.items())
