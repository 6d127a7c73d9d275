"""What stops a step names the step, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pellucid.errors import NumericsError, UserError
from pellucid.model.shortage import shortage

REMEDY = (
    "`pellucid plan` says what a recipe takes; lower train.memory_gib, or end what else uses the "
    "memory; the same command continues from the last checkpoint"
)


@contextmanager
def named(step: int) -> Iterator[None]:
    """Errors raised inside begin with the step. NaN stays NumericsError and a user's mistake of
    its own kind; memory that could not be had becomes UserError, which names the bytes.
    """
    try:
        yield
    except (NumericsError, UserError) as error:
        prefix = f"step {step}: "
        if str(error).startswith(prefix):
            raise
        raise type(error)(prefix + str(error)) from error
    except RuntimeError as error:
        line = shortage(error)
        if line is None:
            raise
        raise UserError(f"step {step}: {line}: {REMEDY}") from error
