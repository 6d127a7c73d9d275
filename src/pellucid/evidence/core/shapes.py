"""Holds parsed JSON to the TypedDicts of `schema.py`: every key, every type, nothing besides."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any, Literal, Union

from pellucid.evidence.core.schema_training import ItemScan, Scan, SuiteScan

OPEN = (Scan, SuiteScan, ItemScan)
"""Shapes to which a writer may add keys that the verifier does not read."""


def shape_problem(value: Any, shape: Any, where: str = "") -> str | None:
    """What is wrong with `value` as a `shape` (a TypedDict or a type of its fields), or None."""
    if shape is Any:
        return None
    if typing.is_typeddict(shape):
        return _object_problem(value, shape, where)
    origin, inner = typing.get_origin(shape), typing.get_args(shape)
    if origin in (Union, types.UnionType):
        problems = [shape_problem(value, option, where) for option in inner]
        return None if None in problems else problems[0]
    if origin is Literal:
        is_right = type(value) is str and value in inner
        return None if is_right else _wrong(where, value, " or ".join(map(str, inner)))
    if origin is list:
        return _list_problem(value, inner[0], where)
    if origin is dict:
        return _dict_problem(value, inner[1], where)
    is_right = type(value) in ((int, float) if shape is float else (shape,))
    name = "null" if shape is type(None) else getattr(shape, "__name__", str(shape))
    return None if is_right else _wrong(where, value, name)


def _object_problem(value: Any, shape: Any, where: str) -> str | None:
    if type(value) is not dict:
        return _wrong(where, value, "an object")
    fields = _fields(shape)
    if missing := sorted(fields.keys() - value.keys()):
        return f"{_at(where)}lacks {missing[0]}"
    extra = sorted(value.keys() - fields.keys())
    if extra and shape not in OPEN:
        return f"{_at(where)}has a foreign key {ascii(extra[0])[:40]}"
    for name, field in fields.items():
        if problem := shape_problem(value[name], field, f"{where}.{name}".lstrip(".")):
            return problem
    return None


def _list_problem(value: Any, inner: Any, where: str) -> str | None:
    if type(value) is not list:
        return _wrong(where, value, "a list")
    for index, entry in enumerate(value):
        if problem := shape_problem(entry, inner, f"{where}[{index}]"):
            return problem
    return None


def _dict_problem(value: Any, inner: Any, where: str) -> str | None:
    if type(value) is not dict:
        return _wrong(where, value, "an object")
    for key, entry in value.items():
        if problem := shape_problem(entry, inner, f"{where}[{ascii(key)[:60]}]"):
            return problem
    return None


@cache
def _fields(shape: Any) -> dict[str, Any]:
    return typing.get_type_hints(shape)


def _at(where: str) -> str:
    return f"{where} " if where else ""


def _wrong(where: str, value: Any, wanted: str) -> str:
    return f"{where or 'it'} is {ascii(value)[:60]} and should be {wanted}"
