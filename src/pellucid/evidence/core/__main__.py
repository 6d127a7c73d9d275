"""`python verify.pyz DOSSIER --seed N`: prints the table of claims and what was found.

Exit code: 0 all that can be checked holds, 1 something does not, 2 wrong use.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pellucid.evidence.core.canonical import is_sha256
from pellucid.evidence.core.case import ascii_safe
from pellucid.evidence.core.findings import CODES, COLUMNS
from pellucid.evidence.core.party import Party
from pellucid.evidence.core.recognise import why_no_dossier
from pellucid.evidence.core.verify import Verdict, verify

WIDTH = 12
NUMBER_WIDTH = 28


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="verify", description="Checks a dossier of claims.")
    parser.add_argument("dossier", type=Path, help="folder, zip or tar")
    parser.add_argument("--seed", default="", help="your own random number: chooses what to replay")
    parser.add_argument("--key", help="id (64 hex digits) of the key that must have signed")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(arguments)
    if options.key is not None and not is_sha256(options.key):
        parser.error("--key takes the 64 hexadecimal digits of a key's id")
    if not options.dossier.exists():
        parser.error(f"there is no {options.dossier}: name a dossier's folder, zip or tar")
    if reason := why_no_dossier(options.dossier):
        sys.stderr.write(f"verify: {ascii_safe(reason)}\n")
        return 2
    gc.disable()  # nothing here makes cycles, and a million live records are slow to walk
    verdict = verify(options.dossier, seed=options.seed, trusted_key=options.key)
    text = json.dumps(verdict.to_dict(), indent=1) if options.json else render(verdict)
    return _print(text + "\n", verdict.exit_code)


def _print(text: str, code: int) -> int:
    """Whatever the terminal's encoding; a closed pipe is no error."""
    try:
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def render(verdict: Verdict) -> str:
    """The table and the findings, for a terminal."""
    names = [*verdict.claims, *(party.place for party in verdict.parties)]
    width = min(24, max(len("claim"), *map(len, names)))
    lines = ["claim".ljust(width) + "  " + "".join(c.ljust(WIDTH) for c in COLUMNS)]
    lines[0] += "claimed"
    for claim, row in verdict.table().items():
        cells = "".join(row[column].ljust(WIDTH) for column in COLUMNS)
        text = ascii_safe(verdict.claims[claim])
        number = ascii_safe(verdict.reported.get(claim, ""))[: NUMBER_WIDTH - 2]
        shown = f"{cells}{number.ljust(NUMBER_WIDTH)}{text[:60]}"
        lines.append(f"{ascii_safe(claim)[:width].ljust(width)}  {shown}".rstrip())
    for party in verdict.parties:
        cells = "".join(party.status[column].ljust(WIDTH) for column in COLUMNS)
        lines.append(f"{party.place[:width].ljust(width)}  {cells}{_party(party)}")
    lines.append("")
    lines += _found(verdict)
    signer = f"key {verdict.keyid}" if verdict.keyid else "nobody"
    lines.append(
        f"{verdict.num_samples} samples, {verdict.num_regraded} graded again; signed by {signer}"
    )
    lines.append("all that can be checked holds" if verdict.is_ok else "THE DOSSIER DOES NOT HOLD")
    return "\n".join(lines)


def _party(party: Party) -> str:
    asked = f"{party.num_released} of {party.num_evaluations} evaluations are of these weights"
    return f"{asked}; signed by {f'key {party.keyid}' if party.keyid else 'nobody'}"


def _found(verdict: Verdict) -> list[str]:
    """Findings first, notes after them."""
    lines = []
    for is_note in (False, True):
        for finding in verdict.findings:
            if CODES[finding.code].is_note is is_note:
                mark = "note" if is_note else "FAIL"
                lines.append(f"{mark}  {finding.code}  {finding.where}: {finding.text}")
    lines += [f"      … and {n} more of {code}" for code, n in verdict.more.items()]
    return [*lines, ""] if lines else lines


if __name__ == "__main__":
    sys.exit(main())
