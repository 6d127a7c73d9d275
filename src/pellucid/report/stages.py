"""The page of a pipeline: models by suites, curves by stage, one problem in every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pellucid.artifacts import StageFolder
from pellucid.report.figures import models_svg
from pellucid.report.panels import Panel, make_panels
from pellucid.report.read import EvalView, RunView, read_object, read_samples, stage_curves
from pellucid.report.readings import Reading, choose_readings

ARMS_NAME = "arms.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One model on one suite."""

    name: str
    evaluation: EvalView
    from_base: dict[str, Any] | None
    """Difference of pass@1 as result.json has it."""
    from_above: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteTable:
    """One suite, model by model."""

    label: str
    rows: tuple[ModelRow, ...]
    figure: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """One stage: what it is, and its curves."""

    name: str
    kind: str
    is_finished: bool
    seconds: float | None
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRow:
    """One way of teaching a student, or the student untaught (`costs` is None) or warmed."""

    name: str
    measured: tuple[EvalView | None, ...]
    """On each suite of the table."""
    costs: dict[str, Any] | None
    """As arms.json has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmsTable:
    """The arms of a stage that distills."""

    stage: str
    labels: tuple[str, ...]
    """Of the suites."""
    budget: dict[str, Any]
    rows: tuple[ArmRow, ...]


def is_pipeline(view: RunView) -> bool:
    """Whether the run's recipe has stages."""
    return "stages" in view.recipe


def suite_tables(view: RunView) -> list[SuiteTable]:
    """A table for each suite, the headline first, models in the order of their stages."""
    measured = {(s["name"], key): e for s in _stages(view) for key, e in s["suites"].items()}
    tables = []
    for key in view.suites:
        rows = []
        for name in [stage.stage_name for stage in view.stages]:
            evaluation = view.find(name, key)
            if evaluation is not None:
                entry = measured.get((name, key), {})
                rows.append(
                    ModelRow(
                        name=name,
                        evaluation=evaluation,
                        from_base=entry.get("from_base"),
                        from_above=entry.get("from_above"),
                    )
                )
        figure = models_svg([(row.name, row.evaluation.pass_at_1) for row in rows])
        tables.append(SuiteTable(label=view.label(key), rows=tuple(rows), figure=Markup(figure)))
    return tables


def arms_tables(view: RunView) -> list[ArmsTable]:
    """A table for each finished stage that distills. Raises RunError where its file is damaged."""
    tables = []
    for stage in view.stages:
        path = stage.root / ARMS_NAME
        if not path.is_file():
            continue
        table = read_object(path, ("budget", "arms"))
        names = [arm["measured_as"] for arm in table["arms"]]
        keys = [key for key in view.suites if any(view.find(name, key) for name in names)]
        rows = [
            ArmRow(
                name=arm["name"],
                measured=tuple(view.find(arm["measured_as"], key) for key in keys),
                costs=arm if arm["steps"] is not None else None,
            )
            for arm in table["arms"]
        ]
        tables.append(
            ArmsTable(
                stage=stage.stage_name,
                labels=tuple(view.label(key) for key in keys),
                budget=table["budget"],
                rows=tuple(rows),
            )
        )
    return tables


def _stages(view: RunView) -> Sequence[dict[str, Any]]:
    return view.result["stages"] if view.result else ()


def stage_views(view: RunView) -> list[StageView]:
    """All stages of the recipe, begun or not."""
    folders = {stage.stage_name: stage for stage in view.stages}
    seconds = {s["name"]: s["seconds"] for s in _stages(view)}
    return [
        StageView(
            name=stage["name"],
            kind=stage["kind"],
            is_finished=_is_finished(folders.get(stage["name"])),
            seconds=seconds.get(stage["name"]),
            panels=_panels(folders.get(stage["name"])),
        )
        for stage in view.recipe["stages"]
    ]


def _is_finished(folder: StageFolder | None) -> bool:
    return folder is not None and folder.manifest.is_file()


def _panels(folder: StageFolder | None) -> tuple[Panel, ...]:
    return tuple(make_panels(stage_curves(folder))) if folder is not None else ()


def model_readings(view: RunView) -> list[list[Reading]]:
    """A few problems of the first suite, each as every model answered it."""
    if not view.suites:
        return []
    evaluations = [view.find(stage.stage_name, view.suites[0]) for stage in view.stages]
    return choose_readings({e.arm: read_samples(e) for e in evaluations if e is not None})
