"""Stop strings as a table of states and tokens, so that a device can follow them.

An Aho-Corasick automaton over the bytes of all stop strings, lifted to tokens: a token may hold a
stop string in its middle or complete one that other tokens began. Bytes find what the decoded text
shows, because the UTF-8 of a string never begins inside another character.

Shapes: S states, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pellucid.protocols import Tokenizer

START = 0
"""State of a completion without tokens."""


class StopTable(NamedTuple):
    """States of a completion with respect to its stop strings.

    Example: table = StopTable.build(tokenizer, V, ("</answer>",)); state = START; then for each
    token: state = table.next_state[state, token]; the completion ends when state == table.matched.
    """

    next_state: NDArray[np.int16]
    """[S, V]; the last state is that of completions that hold a stop string, and is never left."""

    @property
    def matched(self) -> int:
        return len(self.next_state) - 1

    @classmethod
    def build(cls, tokenizer: Tokenizer, vocab_size: int, stops: Sequence[str]) -> StopTable | None:
        """Table over the `vocab_size` ids of a model; half a second for 150,000: keep it.

        None where it could differ from what the decoded text shows: the tokenizer's text is not
        the bytes of its tokens side by side, or a stop string holds U+FFFD, which stands in the
        text for broken bytes. None as well for stop strings of more than 32 kB together.
        """
        assert stops, "without stop strings there is nothing to follow"
        assert all(stops), "an empty stop string would end every completion"
        token_bytes = getattr(tokenizer, "token_bytes", lambda: None)()
        patterns = [stop.encode() for stop in stops]
        if token_bytes is None or any("\ufffd" in stop for stop in stops):
            return None
        if sum(map(len, patterns)) + 2 > np.iinfo(np.int16).max:
            return None
        return cls(lift(automaton(patterns), token_bytes[:vocab_size], vocab_size))


def automaton(patterns: Sequence[bytes]) -> NDArray[np.int16]:
    """State after a byte, [S, 256]: 0 is the start, the last state has seen a pattern.

    Aho and Corasick, "Efficient string matching", CACM 1975; what follows a match is cut off.
    """
    children: list[dict[int, int]] = [{}]
    is_match = [False]
    for pattern in patterns:
        node = 0
        for byte in pattern:
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
                is_match.append(False)
            node = children[node][byte]
        is_match[node] = True
    follow = np.zeros((len(children), 256), dtype=np.int64)
    failure = [0] * len(children)
    order = []
    queue = deque([0])
    while queue:
        node = queue.popleft()
        order.append(node)
        # A proper suffix of what was read may be a whole pattern.
        is_match[node] = is_match[node] or is_match[failure[node]]
        follow[node] = follow[failure[node]]
        for byte, child in children[node].items():
            failure[child] = 0 if node == 0 else int(follow[failure[node], byte])
            follow[node, byte] = child
            queue.append(child)
    return _numbered(follow, is_match, order)


def _numbered(
    follow: NDArray[np.int64], is_match: list[bool], order: list[int]
) -> NDArray[np.int16]:
    """All matching nodes become one last state."""
    open_nodes = [node for node in order if not is_match[node]]
    number = np.full(len(follow), len(open_nodes), dtype=np.int16)
    number[open_nodes] = np.arange(len(open_nodes))
    table = np.full((len(open_nodes) + 1, 256), len(open_nodes), dtype=np.int16)
    table[:-1] = number[follow[open_nodes]]
    return table


def lift(
    byte_table: NDArray[np.int16], token_bytes: Sequence[bytes], vocab_size: int
) -> NDArray[np.int16]:
    """State after a token, [S, V]; ids behind `token_bytes` have no bytes and change nothing."""
    states = np.arange(len(byte_table), dtype=np.int16)
    lengths = np.array([len(text) for text in token_bytes], dtype=np.int64)
    # Longest first: the tokens that have a byte at a position are the first columns.
    order = np.argsort(-lengths, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[order]
    text = np.frombuffer(b"".join(token_bytes), dtype=np.uint8)
    current = np.repeat(states[:, None], len(order), axis=1)
    for position in range(int(lengths.max(initial=0))):
        count = int((lengths > position).sum())
        column = text[starts[:count] + position]
        current[:, :count] = byte_table[current[:, :count], column]
    table = np.repeat(states[:, None], vocab_size, axis=1)
    table[:, order] = current
    return table
