"""Recipes: TOML and `--set` in, a checked configuration out, and back to resolved TOML.

A recipe with `stages` is a pipeline's. `false` switches off what may be absent (see `config_off`).
Every mistake becomes one line (see `config_errors`).
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

import pellucid
from pellucid.artifacts import sha256_json
from pellucid.config import RewardConfig, RunConfig
from pellucid.config_errors import entry_name, find_entry, item_section, one_line, section_of
from pellucid.config_off import read_off, write_off
from pellucid.config_stages import PipelineConfig
from pellucid.errors import ConfigError

RECIPE_FILE = "recipe.toml"
BY_RECIPE = "recipe"
BY_SET = "--set"

_SHIPPED = Path(pellucid.__file__).parents[2] / "recipes"
"""Recipes of a source checkout, found from any working directory."""
Recipe = RunConfig | PipelineConfig
"""Of one stage, or of several."""


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> tuple[Recipe, dict[str, str]]:
    """The configuration of a recipe with `a.b=c` overrides, and who set what by hand.

    `path` is a TOML file, a folder with a recipe.toml, or the name of a shipped recipe. The second
    value maps each dotted key that is no default to `recipe` or `--set`. Raises ConfigError.
    """
    file = find_recipe(path)
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    _open_shortcut(tree)
    set_by_hand = dict.fromkeys(_leaves(tree), BY_RECIPE)
    for override in overrides:
        key = apply_override(tree, override)
        set_by_hand = {k: by for k, by in set_by_hand.items() if not f"{k}.".startswith(f"{key}.")}
        set_by_hand[key] = BY_SET
    return parse_recipe(tree), set_by_hand


def find_recipe(path: Path | str) -> Path:
    """The TOML file that `path` stands for. Raises ConfigError that lists the shipped recipes."""
    given = Path(path)
    shipped = _SHIPPED / given.name
    for place in (given, given.with_suffix(""), shipped, shipped.with_suffix("")):
        if place.is_file():
            return place
        if (place / RECIPE_FILE).is_file():
            return place / RECIPE_FILE
    names = sorted(p.parent.name for p in _SHIPPED.glob(f"*/{RECIPE_FILE}"))
    near = difflib.get_close_matches(given.name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    there = f" (shipped: {', '.join(names)})" if names else ""
    raise ConfigError(f"no recipe at {path}{hint}{there}")


def load_run_recipe(
    path: Path | str, overrides: Sequence[str] = ()
) -> tuple[RunConfig, dict[str, str]]:
    """`load_recipe` of a recipe of one stage. Raises ConfigError for a pipeline's."""
    config, set_by_hand = load_recipe(path, overrides)
    if isinstance(config, PipelineConfig):
        raise ConfigError(
            f"{path} is a recipe of several stages: this command takes one of a single stage"
        )
    return config, set_by_hand


def parse_config(tree: Mapping[str, Any]) -> RunConfig:
    """A checked configuration of one stage from nested plain values. Raises ConfigError with one
    line.
    """
    config = _check(tree, RunConfig)
    assert isinstance(config, RunConfig), "checked against another section"
    return config


def parse_recipe(tree: Mapping[str, Any]) -> Recipe:
    """A checked configuration: a pipeline's where there are `stages`. Raises ConfigError."""
    return _check(tree, _root_of(tree))


def _root_of(tree: Mapping[str, Any]) -> type[RunConfig] | type[PipelineConfig]:
    return PipelineConfig if "stages" in tree else RunConfig


def _check(tree: Mapping[str, Any], root: type[Recipe]) -> Recipe:
    for key, value in _leaves(tree).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key} = {value}: must be a finite number")
    try:
        # Strict JSON: arrays become tuples, integers floats, and nothing else is converted.
        text = json.dumps(read_off(tree, root), default=str)
        return root.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(one_line(error, root, tree)) from None


def config_digest(config: Recipe) -> str:
    """SHA-256 of the canonical JSON of all values, defaults included."""
    return sha256_json(config.model_dump(mode="json"))


# Overrides


def apply_override(tree: dict[str, Any], override: str) -> str:
    """Puts one `a.b=c` into the tree of a recipe; returns the dotted key that it set. Raises
    ConfigError.
    """
    key, equals, text = override.partition("=")
    key, value = key.strip(), _value(text)
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key):
        raise ConfigError(f"--set {override!r}: write it as key=value, e.g. --set train.steps=20")
    if re.fullmatch(r"(stages\.[^.]+\.)?reward", key) and isinstance(value, str):
        key, value = f"{key}.terms", _shortcut_terms(value)  # the other reward settings stay
    *parents, last = key.split(".")
    place = _Place(tree, _root_of(tree), ())
    for name in parents:
        place = _descend(place, name)
    if isinstance(place.node, list):
        index = _index(place, last)
        place.node[index] = value
        last = str(index)
    else:
        place.node[last] = value
    return ".".join((*place.path, last))


class _Place(NamedTuple):
    """Somewhere in the tree that `--set` walks through."""

    node: Any
    section: type[BaseModel] | None
    """What describes `node`; of a list, what describes the list's owner."""
    path: tuple[str, ...]
    """Entries of arrays by their index."""
    field: FieldInfo | None = None
    """Where `node` is a list: the field that holds it."""


def _open_shortcut(tree: dict[str, Any]) -> None:
    """`reward = "random"` as the table it stands for, so that `--set` can reach into it."""
    stages = tree.get("stages")
    for table in (tree, *(stages if isinstance(stages, list) else ())):
        if isinstance(table, dict) and isinstance(table.get("reward"), str):
            table["reward"] = {"terms": _shortcut_terms(table["reward"])}


def _shortcut_terms(name: str) -> dict[str, float]:
    return dict(RewardConfig.model_validate(name).terms)


def _descend(place: _Place, name: str) -> _Place:
    """The table or array under `name`, made from the field's default where it is not there yet."""
    node = place.node
    if isinstance(node, list):
        index = _index(place, name)
        child, path = node[index], (*place.path, str(index))
        below = _Place(child, item_section(place.field, child), path)
    else:
        field = place.section.model_fields.get(name) if place.section is not None else None
        if name not in node:
            is_filled = field is not None and section_of(field) is None
            node[name] = _plain(field.get_default(call_default_factory=True)) if is_filled else {}
        below = _Place(node[name], section_of(field), (*place.path, name), field)
    if not isinstance(below.node, dict | list):
        shown = ".".join(below.path)
        raise ConfigError(f"--set {shown}.…: {shown} is already {below.node!r}, which has no parts")
    return below


def _index(place: _Place, name: str) -> int:
    """Index of an entry that is given by its number or its name."""
    index = find_entry(place.node, name)
    if index is not None:
        return index
    path = ".".join((*place.path, name))
    names = [n for n in map(entry_name, place.node) if n]
    if name.isdigit() or not names:
        raise ConfigError(
            f"--set {path}: {name} is no index of its {len(place.node)} entries, from 0"
        )
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else f" ({', '.join(names)})"
    raise ConfigError(f"--set {path}: there is no entry {name}{hint}")


def _plain(default: Any) -> Any:
    """A default as the TOML a user could have written."""
    if isinstance(default, BaseModel):
        return write_off(default)
    if isinstance(default, tuple | list):
        return [_plain(item) for item in default]
    return dict(default) if isinstance(default, Mapping) else default


def _value(text: str) -> Any:
    """`3`, `0.5`, `true`, `[1, 2]`, `"text"` as TOML; anything else is the text itself."""
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text.strip()
    return value if isinstance(value, bool | int | float | str | list | dict) else text.strip()


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, tables and arrays of tables opened."""
    if isinstance(tree, Mapping):
        items: Iterator[tuple[Any, Any]] = iter(tree.items())
    elif isinstance(tree, list) and tree and all(isinstance(item, Mapping) for item in tree):
        items = iter(enumerate(tree))
    else:
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for key, value in items:
        leaves |= _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


# Resolved TOML


def dump_recipe(config: Recipe, set_by_hand: Mapping[str, str]) -> str:
    """All values of a configuration as TOML; those set by hand say who set them.

    What is None stands as `config_off` says. `load_recipe` of the text gives an equal
    configuration.
    """
    values = write_off(config)
    lines = ["# Resolved recipe: every value of the run. Lines without a mark are defaults."]
    lines += _table(values, "", set_by_hand)
    return "\n".join(lines) + "\n"


def dump_table(table: Mapping[str, Any]) -> str:
    """Plain values as TOML, with nothing said about where they come from."""
    return "\n".join(_table(table, "", {})).strip("\n") + "\n"


def _table(table: Mapping[str, Any], path: str, set_by_hand: Mapping[str, str]) -> Iterator[str]:
    """Lines of a table: its own values first, then its sub-tables, as TOML wants."""
    prefix = f"{path}." if path else ""
    plain = {key: value for key, value in table.items() if not _is_nested(value)}
    for key, value in plain.items():
        mark = _mark(f"{prefix}{key}", set_by_hand)
        yield f"{_key(key)} = {_toml(value)}{mark}"
    for key, value in table.items():
        here = f"{prefix}{key}"
        if key in plain:
            continue
        header = re.sub(r"\.\d+(?=\.|$)", "", here)
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from ("", f"[[{header}]]")
                yield from _table(item, f"{here}.{index}", set_by_hand)
        else:
            yield from ("", f"[{header}]")
            yield from _table(value, here, set_by_hand)


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    )


def _mark(key: str, set_by_hand: Mapping[str, str]) -> str:
    """A comment for what was set by hand, itself or as part of something set as a whole."""
    parts = key.split(".")
    for depth in range(len(parts), 0, -1):
        by = set_by_hand.get(".".join(parts[:depth]))
        if by is not None:
            return f"  # by {by}" if by == BY_SET else f"  # by the {by}"
    return ""


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but TOML also wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
