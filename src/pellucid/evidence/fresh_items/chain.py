"""The tiny world's own family: chains whose sequence of operations no training problem has.

The same structures and numbers as the suite `chain/test`, so what a claim says of that suite can be
held against them directly.
"""

from __future__ import annotations

from pellucid.evidence.draw import Draw
from pellucid.evidence.fresh_items.item import Item
from pellucid.tasks.chain import WORDINGS, draw_chain, sequences, tell


def draw_item(draw: Draw, level: int) -> Item:
    """A chain of three or four steps; all levels are alike, as in the suite."""
    sequence, wording = draw.choice(sequences("test")), draw.choice(WORDINGS)
    chain = draw_chain(sequence, draw)
    return Item(
        question=tell(chain, wording, draw),
        gold=str(chain.values[-1]),
        structure="-".join(sequence) + "/" + wording.name,
    )
