"""What TOML has no word for: a value that may be absent is switched off by `false`.

    rewards_from = false      # without reward models
    [stages.train]
    max_tokens = false        # no limit

No text can be mistaken for it, so folders and stages may be called whatever they like. A field that
takes true and false for themselves may not be absent as well.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pellucid.config_errors import item_section, section_of


def may_be_absent(field: FieldInfo) -> bool:
    """Whether None is among the values of a field."""
    return type(None) in typing.get_args(field.annotation)


def read_off(tree: Mapping[str, Any], section: type[BaseModel] | None) -> dict[str, Any]:
    """The tree as the sections take it: None for each `false` of a field that may be absent."""
    read: dict[str, Any] = {}
    for key, value in tree.items():
        field = section.model_fields.get(key) if section is not None else None
        if value is False and field is not None and may_be_absent(field):
            read[key] = None
        elif isinstance(value, Mapping):
            read[key] = read_off(value, section_of(field))
        elif isinstance(value, list):
            read[key] = [
                read_off(item, item_section(field, item)) if isinstance(item, Mapping) else item
                for item in value
            ]
        else:
            read[key] = value
    return read


def write_off(section: BaseModel) -> dict[str, Any]:
    """The values of a section as TOML can hold them; `read_off` is the way back.

    None is left out where it is the default, and `false` where another value is.
    """
    return _written(section, section.model_dump(mode="json"))


def _written(section: BaseModel, plain: Mapping[str, Any]) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is None:
            if field.get_default(call_default_factory=True) is not None:
                written[name] = False
        elif isinstance(value, BaseModel):
            written[name] = _written(value, plain[name])
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            written[name] = [_written(*pair) for pair in zip(value, plain[name], strict=True)]
        else:
            written[name] = plain[name]
    return written
