"""What each field of a sample record may hold, as tables of checks."""

from __future__ import annotations

import math
from collections.abc import Callable

from pellucid.evidence.core.canonical import is_sha256

SAMPLE_VERSION = 1
VERDICTS = ("correct", "wrong", "unparsable", "timeout", "error", "ungraded")
FINISHES = ("eos", "stop_string", "length", "error")


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_name(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= 500 and value.isprintable()


def _is_text_or_none(value: object) -> bool:
    return value is None or type(value) is str


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


def _is_word(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_number_or_none(value: object) -> bool:
    return value is None or _is_number(value)


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_list_or_none(value: object) -> bool:
    return value is None or type(value) is list


def _is_object(value: object) -> bool:
    return type(value) is dict


def _is_object_or_none(value: object) -> bool:
    return value is None or type(value) is dict


def _is_sha256_or_none(value: object) -> bool:
    return value is None or is_sha256(value)


def _is_stop_list(value: object) -> bool:
    return type(value) is list and all(type(s) is str for s in value)


Check = Callable[[object], bool]

CHECKS: dict[str, Check] = {
    "v": lambda v: v == SAMPLE_VERSION and type(v) is int,
    "eval_serial": _is_count,
    "suite": _is_name,
    "arm": _is_name,
    "item": _is_name,
    "item_sha256": is_sha256,
    "cluster": _is_name,
    "model": is_sha256,
    "template_sha256": is_sha256,
    "prompt_sha256": is_sha256,
    "k": _is_count,
    "seed": _is_word,
    "sample_id": _is_word,
    "sampler": _is_object,
    "engine": _is_object,
    "question": _is_text_or_none,
    "gold": _is_text_or_none,
    "grader": _is_name,
    "grader_sha256": is_sha256,
    "response": _is_text_or_none,
    "token_ids": _is_list_or_none,
    "finish": lambda v: type(v) is str and v in FINISHES,
    "n_prompt": _is_count,
    "n_out": _is_count,
    "logprob_sum": _is_number,
    "verdict": lambda v: type(v) is str and v in VERDICTS,
    "extracted": _is_text_or_none,
    "method": _is_text,
    "detail": _is_text,
    "retried": _is_bool,
    "wall_ms": _is_number_or_none,
    "energy_window": _is_text_or_none,
    "error": _is_text_or_none,
    "supersedes": _is_sha256_or_none,
    "redacted": _is_object_or_none,
}

TAIL = (
    "k",
    "sample_id",
    "response",
    "token_ids",
    "finish",
    "n_out",
    "logprob_sum",
    "verdict",
    "extracted",
    "method",
    "detail",
    "retried",
    "wall_ms",
    "energy_window",
    "error",
    "supersedes",
    "redacted",
)
"""Fields in which samples of one item differ."""
HEAD = tuple(name for name in CHECKS if name not in TAIL)
RANGED = {"k": 1 << 40, "sample_id": 1 << 64, "n_out": 1 << 40}

SAMPLER: dict[str, Check] = {
    "temperature": _is_number,
    "top_p": _is_number,
    "top_k": _is_count,
    "max_new_tokens": _is_count,
    "stop": _is_stop_list,
    "rng": _is_text,
}

ENGINE: dict[str, Check] = {
    "name": _is_text,
    "version": _is_text,
    "dtype": _is_text,
    "batch_invariant": _is_bool,
    "tensor_parallel": _is_count,
}
