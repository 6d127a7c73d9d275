"""Private training data as salted hashes of its n-grams: a stranger scans it without seeing text.

The format is in `evidence/core/hashed_prompts.py`, which needs the standard library alone. What a
file reveals, to whoever holds it with its salt: how many distinct n-grams each document has; which
documents share n-grams; and whether any five words that one can guess stand in a document. Common
phrases can be guessed one after the other, and phrases that overlap can be chained; so this hides
what is rare, and hides no text from somebody who already suspects it. Without the salt nothing can
be tried; a new salt makes two files unlinkable.

Left out: number-masked twins, and items of fewer than five words.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from pellucid.artifacts import writing
from pellucid.audit.contamination.decide import decide, kind_of
from pellucid.audit.contamination.hashing import WordHasher
from pellucid.audit.contamination.index import ItemIndex, Match
from pellucid.audit.contamination.lookup import Ints
from pellucid.audit.contamination.records import Item, Pair, Rule, Scan, Source, SourceCount
from pellucid.errors import DataError
from pellucid.evidence.core.containment import DECIDING, counted
from pellucid.evidence.core.hashed_prompts import (
    KIND,
    MAX_SALT_BYTES,
    VERSION,
    HashedError,
    HashedPrompt,
    gram_digests,
    parse_hashed,
    whole_digest,
)

HASHED_ENDING = ".hashed.jsonl.gz"
"""Of the files' names."""
SALT_BYTES = 16
_BATCH = 2000


def write_hashed(sources: Sequence[Source], out: Path, salt: bytes) -> int:
    """Writes the hashes of all documents; returns how many there are.

    Names of files stay here: sources are numbered, rows lead the owner back. Raises DataError for
    a salt that is empty or longer than 64 bytes, or a file whose name does not end rightly.
    """
    if not 1 <= len(salt) <= MAX_SALT_BYTES:
        raise DataError(f"the salt has {len(salt)} bytes: give 1 to 64, or leave it to chance")
    if not out.name.endswith(HASHED_ENDING):
        raise DataError(f"{out.name} would not be known for what it is: end it in {HASHED_ENDING}")
    documents = 0
    unfinished = out.with_name(f".partial-{out.name}-{os.getpid()}")
    header = {"pellucid": KIND, "v": VERSION, "n": DECIDING, "salt": salt.hex()}
    try:
        # mtime 0: the same corpus and salt give the same bytes.
        with writing(out), gzip.GzipFile(unfinished, mode="wb", mtime=0) as file:
            file.write(json.dumps(header).encode() + b"\n")
            for number, source in enumerate(sources):
                for row, text in source.documents():
                    grams = b"".join(sorted(set(gram_digests(text, salt))))
                    packed = base64.b64encode(grams).decode()
                    whole = whole_digest(text, salt)
                    line = {"source": number, "row": row, "grams": packed, "whole": whole}
                    file.write(json.dumps(line).encode() + b"\n")
                    documents += 1
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return documents


def read_hashed(path: Path) -> tuple[bytes, Iterator[HashedPrompt]]:
    """(salt, documents). Raises DataError where it is damaged, also while they are read."""
    try:
        salt, documents = parse_hashed(_lines(path))
    except HashedError as error:
        raise DataError(f"{path} {error}: hash the prompts again") from error
    return salt, _documents(documents, path)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            yield from file
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from error


def _documents(documents: Iterator[HashedPrompt], path: Path) -> Iterator[HashedPrompt]:
    try:
        yield from documents
    except HashedError as error:
        raise DataError(f"{path} {error}: fetch it again") from error


def scan_hashed(items: Sequence[Item], path: Path, rule: Rule | None = None) -> Scan:
    """Looks for items in hashed prompts, by the rule that serves plain text.

    A source is called `NAME of the file: NUMBER`. Of each pair the deciding n-grams are counted.
    """
    rule = rule or Rule()
    salt, documents = read_hashed(path)
    index = ItemIndex([item.text for item in items], WordHasher(), rule)
    index.tables = [table for table in index.tables if table.n == DECIDING]
    known = _known(items, index, salt)
    matches: list[Match] = []
    places: list[tuple[int, int]] = []
    while batch := list(itertools.islice(documents, _BATCH)):
        hits = [
            (len(places) + number, gram)
            for number, document in enumerate(batch)
            for gram in sorted(known[g] for g in document.grams & known.keys())
        ]
        places += [(document.source, document.row) for document in batch]
        both: Ints = np.array(hits, dtype=np.int64).reshape(-1, 2)
        matches.append(index.match_hits([(both[:, 0], both[:, 1])] * len(index.tables)))
    rows = Match(*(np.concatenate(columns) for columns in zip(*matches, strict=True)))
    decided, largest = decide(index, rows)
    wanted = {int(document): places[int(document)] for document in decided.document}
    held = _held(path, set(wanted.values()))
    pairs = []
    for document, item, weighted, evidence, _, is_sure in zip(*decided, strict=True):
        place, own = wanted[int(document)], items[int(item)]
        exact = counted(gram_digests(own.text, salt), held[place], DECIDING)
        kind = kind_of(rule, exact, bool(is_sure))
        if kind is not None:
            pairs.append(
                Pair(
                    source=f"{path.name}: {place[0]}",
                    row=place[1],
                    item=own,
                    kind=kind,
                    weighted=round(float(weighted), 4),
                    evidence=round(float(evidence), 2),
                    exact=(exact,),
                )
            )
    return Scan(
        rule=rule,
        items=items,
        too_short=int((index.lengths < DECIDING).sum()),
        sources=(SourceCount(name=path.name, documents=len(places), characters=0),),
        pairs=tuple(pairs),
        coverages=tuple(round(float(value), 4) for value in largest),
    )


def _known(items: Sequence[Item], index: ItemIndex, salt: bytes) -> dict[bytes, int]:
    """Keyed hash -> index of the n-gram, for those that are no stock phrases."""
    at: dict[int, bytes] = {}
    for first, item in zip(index.first, items, strict=False):
        at.update(enumerate(gram_digests(item.text, salt), start=int(first)))
    return {
        at[int(place)]: gram
        for table in index.tables
        for gram, place in enumerate(table.where[table.start])
    }


def _held(
    path: Path, wanted: Collection[tuple[int, int]]
) -> dict[tuple[int, int], frozenset[bytes]]:
    """The hashes of the documents that are wanted."""
    documents = read_hashed(path)[1]
    return {(d.source, d.row): d.grams for d in documents if (d.source, d.row) in wanted}
