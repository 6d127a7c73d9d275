"""report.html: a self-contained page that tells what a run did, from the files of its folder alone.

    read_run → tables, figures, readings → page.html (jinja2) → run/report.html

Everything a model wrote is hostile text: the template escapes all of it, control characters are
shown, and the page's own policy forbids scripts and network. Nothing is measured here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pellucid.artifacts import atomic_write_text
from pellucid.ledger import EventKind
from pellucid.records import Verdict
from pellucid.report import figures, words
from pellucid.report.made import curated_sets, drop_reasons, reward_rows
from pellucid.report.panels import make_panels
from pellucid.report.read import EvalView, RunView, read_rollouts, read_run, read_samples
from pellucid.report.readings import Pair, choose_pairs, choose_rollouts, spread_steps
from pellucid.report.stages import (
    arms_tables,
    is_pipeline,
    model_readings,
    stage_views,
    suite_tables,
)
from pellucid.report.tables import (
    Coverage,
    SuiteRow,
    coverage,
    deepest,
    prompt_rows,
    suite_rows,
    verdict_shares,
)

_HERE = Path(__file__).parent
_SHORT_DIGEST = 12


def write_report(run: Path) -> Path:
    """Write run/report.html and return its path; an unfinished run gets a page that says so.

    Raises RunError, one line, where the folder is no run or a file is missing or damaged.
    """
    view = read_run(run)
    template, context = (
        ("pipeline.html", _pipeline_context(view))
        if is_pipeline(view)
        else ("page.html", _context(view))
    )
    text = _environment().get_template(template).render(_shared(view) | context)
    atomic_write_text(view.folder.report, text)
    return view.folder.report


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        words.percent,
        words.interval,
        words.points,
        words.points_interval,
        words.p_value,
        words.count,
        words.duration,
        words.number,
        words.visible,
    ):
        environment.filters[function.__name__] = function
    return environment


def _shared(view: RunView) -> dict[str, Any]:
    """What every page shows."""
    return {
        "style": Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        "title": view.recipe.get("name", view.folder.root.name),
        "result": view.result,
        "facts": _facts(view),
        "recipe_text": view.recipe_text,
    }


def _pipeline_context(view: RunView) -> dict[str, Any]:
    sets = curated_sets(view)
    return {
        "curated": sets,
        "drop_reasons": drop_reasons(sets),
        "reward_rows": reward_rows(view),
        "tables": suite_tables(view),
        "arms": arms_tables(view),
        "stages": stage_views(view),
        "readings": model_readings(view),
    }


def _context(view: RunView) -> dict[str, Any]:
    rows = suite_rows(view)
    headline = rows[0] if rows else None
    deep = deepest(rows)
    covered = _coverage(deep)
    return {
        "progress": _progress(view),
        "rows": rows,
        "headline": headline,
        "trend": _trend(headline),
        "is_shown": _trend(headline) in ("rose", "fell"),
        "suites_figure": _suites_figure(rows),
        "coverage": covered,
        "coverage_label": deep.label if deep else None,
        "coverage_figure": _coverage_figure(covered),
        "prompts": prompt_rows(view, headline.after) if headline and headline.after else [],
        "panels": make_panels(view.curves),
        "arms": [(r.label, e, verdict_shares(e)) for r in rows for e in (r.before, r.after) if e],
        "verdicts": [v.value for v in Verdict],
        "pairs": _pairs(headline),
        "rollouts": choose_rollouts(read_rollouts(view), spread_steps(_rollout_steps(view))),
    }


def _trend(row: SuiteRow | None) -> str | None:
    """What the headline may claim: `rose` or `fell` only where the interval excludes no change."""
    if row is None or row.difference is None:
        return None
    low, high = row.difference["ci95"]
    return "rose" if low > 0 else "fell" if high < 0 else "did not change measurably"


def _progress(view: RunView) -> dict[str, Any]:
    """How far an unfinished run has come."""
    return {
        "step": view.last_step,
        "steps": view.recipe.get("train", {}).get("steps"),
        "evals": len(view.evals),
    }


def _suites_figure(rows: list[SuiteRow]) -> Markup | None:
    lines = [
        (
            row.label,
            row.before.pass_at_1 if row.before else None,
            row.after.pass_at_1 if row.after else None,
        )
        for row in rows
    ]
    return _svg(figures.intervals_svg(lines)) if lines else None


def _coverage(row: SuiteRow | None) -> Coverage | None:
    return coverage(row.before, row.after) if row and row.before else None


def _coverage_figure(covered: Coverage | None) -> Markup | None:
    return _svg(figures.pass_at_k_svg(covered.before, covered.after)) if covered else None


def _svg(text: str) -> Markup:
    """Figures are ours: matplotlib has escaped the labels in them."""
    return Markup(text)


def _pairs(row: SuiteRow | None) -> list[Pair]:
    if row is None or row.before is None or row.after is None:
        return []
    return choose_pairs(_samples(row.before), _samples(row.after))


def _samples(evaluation: EvalView) -> list[dict[str, Any]]:
    return [s for s in read_samples(evaluation) if s["k_index"] == 0]


def _rollout_steps(view: RunView) -> list[int]:
    return view.curves.get("rollout/reward_mean", ([], []))[0]


def _facts(view: RunView) -> list[tuple[str, str]]:
    """The run in a table: (what, value); what the files do not know is left out."""
    recipe, manifest = view.recipe, view.manifest or {}
    section = {name: recipe.get(name, {}) for name in ("model", "task", "train", "rollout", "algo")}
    code, packages = manifest.get("code", {}), manifest.get("packages", {})
    times = [e.time for e in view.events]
    resumed = sum(e.kind is EventKind.RESUMED for e in view.events)
    wall = words.duration(view.result["wall_s"]) if view.result else None
    facts = {
        "Model": section["model"].get("path") or section["model"].get("id"),
        "Model digest": _digest(manifest.get("inputs", {}).get("model")),
        "Task": _joined(section["task"], "name", "split"),
        "Prompt template": section["task"].get("template"),
        "Objective": section["algo"].get("preset"),
        "Steps": section["train"].get("steps"),
        "Problems × samples a step": _joined(section["rollout"], "prompts", "group_size", " × "),
        "Seed": recipe.get("seed"),
        "Device": view.result["device"] if view.result else manifest.get("device"),
        "Wall time": wall,
        "Started": times[0] if times else None,
        "Last event": times[-1] if times else None,
        "Continued after a stop": f"{resumed} times" if resumed else "never",
        "Ledger": f"{len(view.events)} events, chain whole" if view.events else None,
        "Pellucid": code.get("version"),
        "Commit": code.get("commit"),
        "Changes to the commit": _digest(code.get("diff_sha256")),
        "Sources": _digest(code.get("source_sha256")),
        "Python": manifest.get("python"),
        "Platform": manifest.get("platform"),
        "Packages": ", ".join(f"{name} {v}" for name, v in packages.items() if v) or None,
        "To repeat it": "pellucid run recipe.toml --out again, inside this folder",
    }
    return [(name, str(value)) for name, value in facts.items() if value is not None]


def _joined(section: dict[str, Any], first: str, second: str, by: str = " / ") -> str | None:
    values = [str(section[key]) for key in (first, second) if key in section]
    return by.join(values) or None


def _digest(value: str | None) -> str | None:
    return f"sha256 {value[:_SHORT_DIGEST]}…" if value else None
