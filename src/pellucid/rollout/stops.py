"""When a completion ends: end-of-sequence tokens, stop strings, length.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pellucid.protocols import Tokenizer
from pellucid.records import SamplingParams, StopReason

UNKNOWN, HARMLESS, SUSPECT = 0, 1, 2


class StopRule:
    """Decides cheaply, for a whole batch, which rows need a closer look, and looks closely at
    those.

    A token is suspect if its text holds the last character of a stop string (or part of a
    character): only such a token can complete one. The texts of tokens are looked up when a token
    is first seen.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, params: SamplingParams) -> None:
        self.tokenizer = tokenizer
        self.params = params
        self._is_eos = np.zeros(vocab_size, dtype=bool)
        self._is_eos[[i for i in tokenizer.eos_ids if i < vocab_size]] = True
        self._kind = np.full(vocab_size, UNKNOWN if params.stop else HARMLESS, dtype=np.int8)
        self._last_characters = {s[-1] for s in params.stop}
        # A stop string of n bytes spans at most n tokens with text; a few more give the decoder its
        # context.
        self._tail = max((len(s.encode()) for s in params.stop), default=0) + 4
        # Some decoders strip a space from the first token: texts are read after an ordinary one.
        self._anchor = tokenizer.encode("a")[-1:] if params.stop else []
        self._anchor_text = tokenizer.decode(self._anchor)

    def suspects(
        self,
        tokens: NDArray[np.int64],
        num_generated: NDArray[np.int64],
        limits: NDArray[np.int64],
    ) -> NDArray[np.intp]:
        """Rows of a step that may have ended: newest `tokens` [B], completion lengths [B] with
        them, and the most tokens each may have [B]."""
        kinds = self._kind[tokens]
        if self.params.stop and (kinds == UNKNOWN).any():
            for token in np.unique(tokens[kinds == UNKNOWN]):
                self._kind[token] = SUSPECT if self._may_complete(int(token)) else HARMLESS
            kinds = self._kind[tokens]
        is_full = num_generated >= limits
        return np.nonzero(self._is_eos[tokens] | (kinds == SUSPECT) | is_full)[0]

    def reason(self, token_ids: Sequence[int], limit: int) -> StopReason | None:
        """Why the completion ends with its newest token, None if it goes on."""
        if self._is_eos[token_ids[-1]]:
            return StopReason.EOS
        if self._kind[token_ids[-1]] == SUSPECT and self._has_stop(token_ids):
            return StopReason.STOP_STRING
        return StopReason.LENGTH if len(token_ids) >= limit else None

    def text(self, token_ids: Sequence[int], reason: StopReason) -> str:
        """The completion's text, without the end token, cut right after its stop string."""
        if reason is StopReason.EOS:
            return self.tokenizer.decode(token_ids[:-1])
        text = self.tokenizer.decode(token_ids)
        return text[: self._stop_end(text)] if reason is StopReason.STOP_STRING else text

    def texts(self, rows: Sequence[Sequence[int]], reasons: Sequence[StopReason]) -> list[str]:
        """`text` of many completions, decoded together."""
        is_eos = [reason is StopReason.EOS for reason in reasons]
        kept = [row[:-1] if ends else row for row, ends in zip(rows, is_eos, strict=True)]
        texts = self.tokenizer.decode_batch(kept)
        return [
            text[: self._stop_end(text)] if reason is StopReason.STOP_STRING else text
            for text, reason in zip(texts, reasons, strict=True)
        ]

    def _has_stop(self, token_ids: Sequence[int]) -> bool:
        # The whole text is read only when the tail looks right: the tail's first character may be
        # torn.
        tail = self.tokenizer.decode(token_ids[-self._tail :])
        if self._stop_end(tail) is None:
            return False
        return self._stop_end(self.tokenizer.decode(token_ids)) is not None

    def _stop_end(self, text: str) -> int | None:
        """Index after the stop string that is completed first."""
        ends = [text.find(s) + len(s) for s in self.params.stop if s in text]
        return min(ends, default=None)

    def _may_complete(self, token: int) -> bool:
        text = self.tokenizer.decode([*self._anchor, token])
        if not text.startswith(self._anchor_text):
            return True
        text = text[len(self._anchor_text) :]
        return "\ufffd" in text or not self._last_characters.isdisjoint(text)
