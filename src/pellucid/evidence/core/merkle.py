"""Merkle tree with RFC 6962's prefixes, built as leaves arrive: memory grows with log2(leaves).

A root fixes every leaf, their order and, with the count beside it, their number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

NODE_PREFIX = b"\x01"


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash [32 bytes] of an inner node."""
    return hashlib.sha256(NODE_PREFIX + left + right).digest()


class MerkleTree:
    """Takes leaf hashes one by one; `root` can be asked at any time.

    Example: tree = MerkleTree(); tree.add(leaf_hash(b"line")); tree.root()
    """

    def __init__(self) -> None:
        self._peaks: list[bytes] = []
        self._count = 0

    def add(self, leaf: bytes) -> None:
        """Append the hash of the next leaf (`canonical.leaf_hash`)."""
        peaks, count = self._peaks, self._count
        self._count = count + 1
        while count & 1:  # two full subtrees of one height become the next
            leaf = node_hash(peaks.pop(), leaf)
            count >>= 1
        peaks.append(leaf)

    def copy(self) -> MerkleTree:
        """A tree that grows on its own from here."""
        other = MerkleTree()
        other._peaks, other._count = list(self._peaks), self._count
        return other

    @property
    def count(self) -> int:
        return self._count

    def root(self) -> str:
        """Hexadecimal root; SHA-256 of nothing for an empty tree (RFC 6962, 2.1)."""
        if not self._peaks:
            return hashlib.sha256().hexdigest()
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root.hex()


class Step(NamedTuple):
    """One step of an inclusion proof, from the leaf upwards."""

    sibling: bytes
    is_left: bool
    """Whether the sibling stands to the left."""


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[Step]:
    """Proof that leaf `index` is in the tree of these leaf hashes. Raises IndexError."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"no leaf {index} among {len(leaves)}")
    steps: list[Step] = []
    low, high = 0, len(leaves)
    while high - low > 1:
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        if index < middle:
            steps.append(Step(_subtree(leaves[middle:high]), is_left=False))
            high = middle
        else:
            steps.append(Step(_subtree(leaves[low:middle]), is_left=True))
            low = middle
    return steps[::-1]


def check_inclusion(leaf: bytes, proof: Sequence[Step], root: str) -> bool:
    """Whether the proof leads from the leaf hash to the root (hexadecimal)."""
    for sibling, is_left in proof:
        leaf = node_hash(sibling, leaf) if is_left else node_hash(leaf, sibling)
    return leaf.hex() == root


def _subtree(leaves: Sequence[bytes]) -> bytes:
    tree = MerkleTree()
    for leaf in leaves:
        tree.add(leaf)
    return bytes.fromhex(tree.root())
