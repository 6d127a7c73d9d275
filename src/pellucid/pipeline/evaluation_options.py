"""What `pellucid eval` was asked: models, suites, sampler, seed; evaluation.toml in its folder.

All models are asked the same problems with the same sampler and seed. A prompt template of its own
makes a suite of its own, as in recipes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from pellucid.artifacts import RunFolder, sha256_json
from pellucid.config import RunConfig
from pellucid.config_io import apply_override, dump_table, parse_config
from pellucid.errors import ConfigError, RunError
from pellucid.evaluate.suites import slug
from pellucid.evidence.weights import weights_root
from pellucid.model.load import resolve
from pellucid.pipeline.grading import Grading
from pellucid.pipeline.workbench import trained_or_given

NAME = "evaluation.toml"
PARENT = "evals"
"""Folder of the evaluations for which no other was named."""
_DIGITS = 8
SETTABLE = ("code_timeout_s", "math_verify_timeout_s", "reward.math_verify")
"""What `--set` changes of an evaluation: the settings of its graders. All else has an option."""


@dataclass(frozen=True, slots=True)
class EvaluationFolder(RunFolder):
    """Paths of an evaluation: those of a run, with a stage for each model."""

    holds: ClassVar[str] = "an evaluation with other options"

    @property
    def recipe(self) -> Path:
        return self.root / NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedModel:
    """A model with all that says how it is asked. Example: name="qwen2.5-0.5b", weights="9f…"."""

    name: str
    """Its arm in files and claims."""
    config: RunConfig
    weights: str
    """Root digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One evaluation."""

    models: tuple[AskedModel, ...]
    document: Mapping[str, Any]
    """What evaluation.toml says."""

    @property
    def first(self) -> RunConfig:
        """What all models share is read from here."""
        return self.models[0].config

    @property
    def default_folder(self) -> Path:
        """One for every set of options and weights, so that the same command continues."""
        names = "-".join(model.name for model in self.models)[:80]
        return Path(PARENT) / f"{names}-{sha256_json(self.document)[:_DIGITS]}"

    def text(self) -> str:
        """evaluation.toml"""
        head = "# What was asked of these models; `pellucid eval` with the same options goes on.\n"
        return head + dump_table(self.document)


def grader_values(grading: Grading | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Values of a recipe that set the graders: those of a run, changed by `KEY=VALUE`; None: a
    recipe's defaults. Raises ConfigError for any other key.
    """
    tree: dict[str, Any] = {}
    if grading is not None:
        tree = asdict(grading)
        tree["reward"] = {"math_verify": tree.pop("math_verify")}
    for override in overrides:
        key, equals, value = override.partition("=")
        name = "reward.math_verify" if key.strip() == "math_verify" else key.strip()
        if equals and name not in SETTABLE:
            raise ConfigError(
                f"--set {name}: of an evaluation {', '.join(SETTABLE)} can be set; "
                "all else is an option, see pellucid eval --help"
            )
        apply_override(tree, name + equals + value)
    return tree


def make_options(
    shared: Mapping[str, Any], models: Sequence[Mapping[str, Any]], names: Sequence[str] = ()
) -> Options:
    """Looks the models up and completes the options.

    `shared`: values of a recipe (seed, device, task, eval, …) that hold for all models; `models`:
    `id`, and where they are given `revision` and `template`. `names`: of the models, else made from
    their ids. Raises ConfigError, or ModelError for a model that is not to be found.
    """
    called = [given or _name(model["id"]) for given, model in _pairs(models, names)]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two models are called {twice}: name them, with a --name for each")
    listed = []
    for name, model in zip(called, models, strict=True):
        root = weights_root(resolve(trained_or_given(_config(shared, models, model).model)))
        listed.append({"name": name, **model, "weights": root})
    return _complete(shared, listed)


def read_options(folder: Path) -> Options:
    """The options of an evaluation that was begun. RunError where evaluation.toml is damaged."""
    path = folder / NAME
    try:
        document = tomllib.loads(path.read_text())
        models = document.pop("models")
        return _complete(document, models)
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise RunError(f"{path} cannot be read ({error}): restore it") from None


def _complete(shared: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> Options:
    asked = tuple(
        AskedModel(name=m["name"], config=_config(shared, models, m), weights=m["weights"])
        for m in models
    )
    first = asked[0].config
    document = {
        "seed": first.seed,
        "device": first.device,
        "unsafe_code": first.unsafe_code,
        "code_timeout_s": first.code_timeout_s,
        "math_verify_timeout_s": first.math_verify_timeout_s,
        "reward": {"math_verify": first.reward.math_verify},
        "task": first.task.model_dump(mode="json", include={"data_dir"}, exclude_none=True),
        "eval": _plain_eval(shared, first),
        "models": [dict(model) for model in models],
    }
    return Options(models=asked, document=document)


def _plain_eval(shared: Mapping[str, Any], first: RunConfig) -> dict[str, Any]:
    sampler = first.eval.model_dump(include={"temperature", "top_p", "top_k", "max_new_tokens"})
    return {**sampler, "suites": [dict(suite) for suite in shared["eval"]["suites"]]}


def _config(
    shared: Mapping[str, Any], models: Sequence[Mapping[str, Any]], model: Mapping[str, Any]
) -> RunConfig:
    """The recipe by which a model is measured. The first model's template is the suites' own."""
    default, own = models[0]["template"], model["template"]
    more = {"template": own} if own != default else {}
    suites = [{**suite, **more} for suite in shared["eval"]["suites"]]
    return parse_config(
        {
            **shared,
            "model": {key: model[key] for key in ("id", "revision") if key in model},
            "task": {**shared["task"], "template": default},
            "eval": {**shared["eval"], "suites": suites},
        }
    )


def _pairs(
    models: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[tuple[str | None, Mapping[str, Any]]]:
    if names and len(names) != len(models):
        raise ConfigError(f"{len(names)} names for {len(models)} models: give one for each")
    bad = next((name for name in names if slug(name, "") != name), None)
    if bad is not None:
        raise ConfigError(f"the name {bad!r} has more than lower case, digits, dots and hyphens")
    return list(zip(names or [None] * len(models), models, strict=True))


def _name(model: str) -> str:
    """`Qwen/Qwen2.5-0.5B` is called `qwen2.5-0.5b`; a folder or file as it is called there."""
    path = Path(model)
    last = path.resolve().name if path.exists() else path.name
    return slug(last.removesuffix(".gguf"), "model")
