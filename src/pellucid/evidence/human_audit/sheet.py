"""The sheet on which a person labels drawn samples: JSON lines, and a form for the browser.

Neither holds a verdict, an extracted answer, or which samples the graders differ on. The form saves
the same JSON lines; it loads nothing, and what it shows is a stranger's text, escaped.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pellucid.artifacts import atomic_write_text
from pellucid.errors import RunError
from pellucid.evidence.core.audit import LABELS, MOST_DRAWN
from pellucid.evidence.human_audit.draw import Shown
from pellucid.rewards.extract import THINK_CLOSE

ASKED = "Is the final answer of the response right, by what is expected?"
_FORM = Path(__file__).parent / "form.html"
LARGEST_BYTES = 512 << 20


class Sheet(NamedTuple):
    """A sheet that came back."""

    draw: str
    """SHA-256 of the draw that it is of."""
    labels: dict[str, str]
    """Leaf -> label, of the rows that have one."""
    num_empty: int


def write_sheets(
    samples: Sequence[Shown], draw_sha256: str, out: Path, asked: str = ASKED
) -> tuple[Path, Path]:
    """Writes `out`.jsonl and `out`.html; returns both paths. `asked`: what a label answers."""
    head = {"draw": draw_sha256, "asked": asked, "labels": list(LABELS)}
    rows = [
        {
            "number": number,
            "leaf": one.leaf,
            "question": one.question,
            "expected": one.gold,
            "response": one.response,
            "label": "",
        }
        for number, one in enumerate(samples, 1)
    ]
    lines = [json.dumps(line, ensure_ascii=True) + "\n" for line in (head, *rows)]
    paths = out.with_name(f"{out.name}.jsonl"), out.with_name(f"{out.name}.html")
    atomic_write_text(paths[0], "".join(lines))
    atomic_write_text(paths[1], _form(samples, head))
    return paths


def _form(samples: Sequence[Shown], head: dict[str, object]) -> str:
    parts = {
        "asked": html.escape(str(head["asked"])),
        "head": html.escape(json.dumps(head)),
        "rows": "".join(_row(number, one) for number, one in enumerate(samples, 1)),
    }
    # In one pass: what a stranger wrote may itself look like a place to fill in.
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: parts[found[1]], _FORM.read_text("utf-8"))


def _row(number: int, one: Shown) -> str:
    thinking, closed, answer = one.response.rpartition(THINK_CLOSE)
    before = (
        f"<details><summary>thinking</summary><pre>{_text(thinking)}</pre></details>"
        if closed
        else ""
    )
    expected = f"<h2>Expected</h2><pre>{_text(one.gold)}</pre>" if one.gold else ""
    choices = "".join(
        f'<label><input type="radio" name="{one.leaf}" value="{label}"> {label}</label>'
        for label in LABELS
    )
    return (
        f"<fieldset><legend>{number}</legend><h2>Question</h2><pre>{_text(one.question)}</pre>"
        f"{expected}<h2>Response</h2>{before}"
        f"<pre>{_text(answer)}</pre><p>{choices}</p></fieldset>\n"
    )


def _text(text: str) -> str:
    """Escaped; characters that hide or turn text are shown by their number."""
    shown = (c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
    return html.escape("".join(shown))


def read_sheet(path: Path) -> Sheet:
    """A sheet with its labels. Raises RunError, with the line, for what is none."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise RunError(f"{path} has over {LARGEST_BYTES:,} bytes: this is no sheet")
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}): name the sheet as JSON lines") from None
    lines = [line for line in lines if line.strip()]
    head = _object(path, 1, lines[0] if lines else "")
    draw = head.get("draw")
    if not isinstance(draw, str) or len(lines) > MOST_DRAWN * 2 + 1:
        raise RunError(f"{path} line 1 names no draw: keep the sheet's first line")
    labels: dict[str, str] = {}
    empty = 0
    for number, line in enumerate(lines[1:], 2):
        row = _object(path, number, line)
        leaf, label = row.get("leaf"), row.get("label")
        if not isinstance(leaf, str) or not isinstance(label, str):
            raise RunError(f"{path} line {number} lacks leaf or label: keep what was drawn")
        label = label.strip().lower()
        if label and label not in LABELS:
            raise RunError(f"{path} line {number}: {label[:20]!r} is not {', '.join(LABELS)}")
        if leaf in labels:
            raise RunError(f"{path} line {number}: its sample has a label already")
        if label:
            labels[leaf] = label
        empty += not label
    return Sheet(draw, labels, empty)


def _object(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise RunError(f"{path} line {number} is no JSON object: name the sheet as JSON lines")
    return row
