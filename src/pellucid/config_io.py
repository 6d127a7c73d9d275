"""Recipes: TOML and `--set` in, a checked `RunConfig` out, and back to resolved TOML.

Every mistake becomes one line with the dotted path, the value given and the rule or nearest key.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

import pellucid
from pellucid.artifacts import sha256_json
from pellucid.config import RewardConfig, RunConfig
from pellucid.errors import ConfigError

RECIPE_FILE = "recipe.toml"
BY_RECIPE = "recipe"
BY_SET = "--set"

_SHIPPED = Path(pellucid.__file__).parents[2] / "recipes"
"""Recipes of a source checkout, found from any working directory."""


def load_recipe(
    path: Path | str, overrides: Sequence[str] = ()
) -> tuple[RunConfig, dict[str, str]]:
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
        key = _apply(tree, override)
        set_by_hand = {k: by for k, by in set_by_hand.items() if not f"{k}.".startswith(f"{key}.")}
        set_by_hand[key] = BY_SET
    return parse_config(tree), set_by_hand


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


def parse_config(tree: Mapping[str, Any]) -> RunConfig:
    """A checked configuration from nested plain values. Raises ConfigError with one line."""
    for key, value in _leaves(tree).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key} = {value}: must be a finite number")
    try:
        # Strict JSON: arrays become tuples, integers floats, and nothing else is converted.
        return RunConfig.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None


def config_digest(config: RunConfig) -> str:
    """SHA-256 of the canonical JSON of all values, defaults included."""
    return sha256_json(config.model_dump(mode="json"))


# Overrides


def _apply(tree: dict[str, Any], override: str) -> str:
    """Put one `a.b=c` into the tree; returns the dotted key that it set."""
    key, equals, text = override.partition("=")
    key, value = key.strip(), _value(text)
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key):
        raise ConfigError(f"--set {override!r}: write it as key=value, e.g. --set train.steps=20")
    if key == "reward" and isinstance(value, str):  # the other reward settings stay
        key, value = "reward.terms", _shortcut_terms(value)
    *parents, last = key.split(".")
    node: Any = tree
    section: type[BaseModel] | None = RunConfig
    for depth, name in enumerate(parents):
        field = section.model_fields.get(name) if section is not None else None
        node = _descend(node, name, field, ".".join(parents[: depth + 1]))
        section = _section_of(field) if field is not None else None
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    else:
        node[last] = value
    return key


def _open_shortcut(tree: dict[str, Any]) -> None:
    """`reward = "random"` as the table it stands for, so that `--set` can reach into it."""
    if isinstance(tree.get("reward"), str):
        tree["reward"] = {"terms": _shortcut_terms(tree["reward"])}


def _shortcut_terms(name: str) -> dict[str, float]:
    return dict(RewardConfig.model_validate(name).terms)


def _descend(node: Any, name: str, field: FieldInfo | None, path: str) -> Any:
    """The table or array under `name`, made from the field's default where it is not there yet."""
    if isinstance(node, list):
        child = node[_index(node, name, path)]
    else:
        if name not in node:
            is_filled = field is not None and _section_of(field) is None
            node[name] = _plain(field.get_default(call_default_factory=True)) if is_filled else {}
        child = node[name]
    if not isinstance(child, dict | list):
        raise ConfigError(f"--set {path}.…: {path} is already {child!r}, which has no parts")
    return child


def _index(node: list[Any], name: str, path: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise ConfigError(f"--set {path}: {name} is no index of its {len(node)} entries, from 0")
    return int(name)


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _plain(default: Any) -> Any:
    """A default as the TOML a user could have written."""
    if isinstance(default, BaseModel):
        return default.model_dump(mode="json", exclude_none=True)
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


# Errors


def _one_line(error: ValidationError) -> str:
    """The first mistake in full, and how many more there are."""
    mistakes = error.errors(include_url=False)
    # Unknown keys first: a misspelt key is often the cause of the others.
    first = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
    path = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {path}{_suggestion(path)}{more}"
    if first["type"] == "missing":
        return f"{path} is missing{more}"
    given = json.dumps(first["input"], default=str, ensure_ascii=False)
    shown = given if len(given) <= 60 else f"{given[:57]}…"
    return f"{path} = {shown}: {_rule(first)}{more}"


_WORDS = {
    "a valid integer": "an integer",
    "a valid ": "a ",
    "an object": "a table",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}
"""pydantic's words -> TOML's and plain ones."""


def _rule(mistake: Mapping[str, Any]) -> str:
    """pydantic's message in our words: what must hold."""
    message = str(mistake["msg"])
    if message.startswith("Input should be "):
        rule = message.removeprefix("Input should be ")
        for theirs, ours in _WORDS.items():
            rule = rule.replace(theirs, ours)
        return f"must be {rule}"
    if mistake["type"] == "too_short":
        return "must not be empty"
    return message.removeprefix("Value error, ")


def _suggestion(path: str) -> str:
    """`; did you mean …?` from the keys of the same section, then from the whole tree."""
    section, _, key = path.rpartition(".")
    known = list(_known_keys())
    masked = re.sub(r"\.\d+(?=\.|$)", "", section)
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == masked}
    near = difflib.get_close_matches(key, siblings, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {section + '.' if section else ''}{near[0]}?"
    leaves = {k.rpartition(".")[2]: k for k in reversed(known)}
    near = difflib.get_close_matches(key, leaves, n=1, cutoff=0.7)
    if near:
        return f"; did you mean {leaves[near[0]]}?"
    return f"; known there: {', '.join(siblings)}" if siblings else ""


def _known_keys(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the tree; arrays of tables without their index."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _known_keys(part, f"{prefix}{name}.")


# Resolved TOML


def dump_recipe(config: RunConfig, set_by_hand: Mapping[str, str]) -> str:
    """All values of a configuration as TOML; those set by hand say who set them.

    What is None is left out. `load_recipe` of the text gives an equal configuration.
    """
    values = config.model_dump(mode="json", exclude_none=True)
    lines = ["# Resolved recipe: every value of the run. Lines without a mark are defaults."]
    lines += _table(values, "", set_by_hand)
    return "\n".join(lines) + "\n"


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
