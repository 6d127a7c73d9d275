"""The peer-review file: every round with its points, answers and closings, as Markdown and HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pellucid.artifacts import atomic_write_text
from pellucid.evidence.core.canonical import parse_json
from pellucid.evidence.review.chain import ClaimChange, changes_between, read_errata
from pellucid.evidence.review.history import read_rounds
from pellucid.evidence.review.records import PointState, Report, Round, Status
from pellucid.evidence.review.sealed import CLAIMS, REVIEWS, read_claims

MARKDOWN_NAME, HTML_NAME = "history.md", "history.html"
_SHORT = 12
_ORDER = (Status.OPEN, Status.ANSWERED, Status.CLOSED)
_MARKUP = re.compile(r"([\\`*_\[\]#|])")
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundView:
    """A round and what it changed, as both formats show it."""

    round: Round
    changes: tuple[ClaimChange, ...]
    counts: Mapping[str, int]
    """Points by status."""


def export_reviews(dossier: Path) -> tuple[Path, Path]:
    """Write reviews/history.md and reviews/history.html; returns both paths.

    Equal reviews give equal bytes. Raises ReviewError for a damaged review.
    """
    views = round_views(dossier)
    title = _title(dossier)
    folder = dossier / REVIEWS
    markdown, page = folder / MARKDOWN_NAME, folder / HTML_NAME
    atomic_write_text(markdown, to_markdown(title, views))
    atomic_write_text(page, to_html(title, views))
    return markdown, page


def round_views(dossier: Path) -> list[RoundView]:
    """All rounds; the changes of a round are against the next one's claims, or today's."""
    rounds, errata = read_rounds(dossier), read_errata(dossier)
    later = [one.claims for one in rounds[1:]] + [read_claims(dossier / CLAIMS)]
    return [
        RoundView(
            round=one,
            changes=tuple(changes_between(one, after, errata)),
            counts={s: sum(p.status is s for p in one.states) for s in _ORDER},
        )
        for one, after in zip(rounds, later, strict=True)
    ]


def closed_by(state: PointState) -> str:
    """How a point was closed, in words; empty for one that is not."""
    if state.closed is None:
        return ""
    words = {
        "word": f"closed by {state.referee}'s own word",
        "signature": f"closed by {state.referee}'s signature",
        "test": f"closed by its test turning true: {state.closed.get('test')}",
    }
    return f"{words[state.closed['by']]}, {state.closed['time']}"


def answer_facts(answer: Mapping[str, Any]) -> str:
    """`C3 weakened; evaluation 12`, empty where an answer is text alone."""
    parts = [f"claim {claim} {effect}" for claim, effect in answer["changes"].items()]
    parts += [f"evaluation {serial}" for serial in answer["evidence"]]
    return "; ".join(parts)


def rerun_facts(rerun: Mapping[str, Any]) -> str:
    """What recomputing gave: the test's outcome, the values, and the evaluations named."""
    parts = []
    if rerun["test"] is not None:
        parts.append(f"{rerun['test']} is {'true' if rerun['holds'] else 'not true'}")
    parts += [f"{name} = {value}" for name, value in rerun["values"].items()]
    parts += [f"new evaluation {serial}" for serial in rerun["evidence"]]
    return "; ".join(parts)


def change_facts(change: ClaimChange) -> str:
    """`C3: reported 0.084 (0.051 to 0.117) → 0.061 (0.020 to 0.102), by R2.4`."""
    if change.before is None:
        what = f"new: {_number(change.after)}"
    elif change.after is None:
        what = f"withdrawn; it was {_number(change.before)}"
    else:
        what = f"{', '.join(change.fields)}: {_number(change.before)} → {_number(change.after)}"
    return f"{change.claim} · {what} · {', '.join(change.cites) or 'cites nothing'}"


def _number(claim: Mapping[str, Any] | None) -> str:
    printed = (claim or {}).get("reported")
    if not isinstance(printed, dict):
        return "no number"
    return f"{printed.get('value')} ({printed.get('low')} to {printed.get('high')})"


def _title(dossier: Path) -> str:
    value = parse_json((dossier / CLAIMS).read_bytes())
    return str(value.get("title") or dossier.name)


# Markdown


def to_markdown(title: str, views: Sequence[RoundView]) -> str:
    """The peer-review file as Markdown. Foreign text stays text: its markup is escaped."""
    lines = [f"# Peer review file: {_plain(title)}", ""]
    for view in views:
        lines += _round_lines(view)
    if not views:
        lines += ["No review has begun.", ""]
    return "\n".join(lines)


def _round_lines(view: RoundView) -> list[str]:
    one = view.round
    counts = ", ".join(f"{number} {status}" for status, number in view.counts.items())
    lines = [
        f"## Round {one.number}",
        "",
        f"Version reviewed: seal `{one.seal}`, from {one.started}. Points: {counts}.",
        "",
    ]
    for report in one.reports:
        lines += _report_lines(one, report)
    lines += [f"### Claims changed in round {one.number}", ""]
    lines += [f"- {_plain(change_facts(change))}" for change in view.changes] or ["None."]
    return [*lines, ""]


def _report_lines(one: Round, report: Report) -> list[str]:
    lines = [f"### Referee {_plain(report.referee)}", ""]
    lines += [f"- {_plain(fact)}" for fact in report_facts(report)]
    lines.append("")
    for state in one.states:
        if state.referee == report.referee:
            lines += _point_lines(state)
    return lines


def report_facts(report: Report) -> list[str]:
    """What a referee said of themselves and of the whole."""
    facts = [f"{name}: {word}" for name, word in report.assessment.items()]
    facts.append(f"conflict of interest: {report.conflict_of_interest or 'not stated'}")
    facts.append(f"use of AI: {report.ai_use or 'not stated'}")
    if report.key:
        facts.append(f"points are closed with the key {report.key[:_SHORT]}…")
    elif report.words_from == "author":
        facts.append("points are closed with a token that the authors made and handed over")
    else:
        facts.append("points are closed with a token that the referee made")
    return facts


def _point_lines(state: PointState) -> list[str]:
    point = state.point
    about = f" · {', '.join(point.claim_refs)}" if point.claim_refs else ""
    lines = [
        f"#### {point.id} · {point.severity} · {point.kind}{about} · {state.status}",
        "",
        *_quoted(point.text),
        "",
    ]
    if point.test:
        lines += [f"Closes when `{point.test.replace('`', '')}`.", ""]
    for answer in state.answers:
        facts = answer_facts(answer)
        lines += [f"**Answer** ({answer['time']}{'; ' if facts else ''}{_plain(facts)})", ""]
        lines += [*_quoted(answer["text"]), ""]
    for rerun in state.reruns:
        lines += [f"**Done again** ({rerun['time']}): {_plain(rerun_facts(rerun))}", ""]
    if state.closed:
        word = closed_by(state)
        lines += [f"**{_plain(word[0].upper() + word[1:])}**", ""]
    return lines


def _quoted(text: str) -> list[str]:
    return [f"> {_plain(line)}".rstrip() for line in text.split("\n")]


def _plain(text: str) -> str:
    """Foreign text that no Markdown reader takes for markup."""
    return _MARKUP.sub(r"\\\1", html.escape(visible(text), quote=False))


def visible(text: str) -> str:
    """Characters that would be invisible, or reorder a line, are written out."""
    return _HIDDEN.sub(lambda m: f"\\u{ord(m.group()):04x}", text)


# HTML


def to_html(title: str, views: Sequence[RoundView]) -> str:
    """The same as one self-contained page that loads nothing."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (visible, closed_by, answer_facts, rerun_facts, change_facts, report_facts):
        environment.filters[function.__name__] = function
    return environment.get_template("history.html").render(title=title, views=views)
