"""A tokenizer without text, for rollouts on a GPU."""

from collections.abc import Sequence


class Numbers:
    """Tokens are numbers; `eos_ids` end a sample."""

    chat_template = None

    def __init__(self, *eos_ids: int) -> None:
        self.eos_ids = eos_ids

    def encode(self, text: str) -> list[int]:
        return [len(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return ""

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [""] * len(rows)
