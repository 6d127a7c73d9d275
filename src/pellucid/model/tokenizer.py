"""Text to token ids and back, over the `tokenizers` library, and the tokenizer files of a folder.

The tokenizer adds nothing by itself: a beginning-of-text token, where a model wants one, is written
by its chat template or by the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from pellucid.errors import ModelError
from pellucid.model.chat import render_chat

SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


class TextTokenizer:
    """A `tokenizers` pipeline with the model's end-of-turn tokens and chat template.

    Example: TextTokenizer.from_folder(folder).encode("2 + 2 =") == [34, 417, 28, 216, 34, 446]
    """

    eos_ids: tuple[int, ...]
    """Every token that ends a turn, the tokenizer's own first; no duplicates."""
    chat_template: str | None
    """Jinja source, None where the model has none."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_ids: Iterable[int] = (),
        chat_template: str | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """`settings`: what `tokenizer_config.json` holds, written back unchanged by `save`.

        Its `bos_token`, `eos_token`, … name the special tokens. Truncation and padding that a
        tokenizer.json may ask for are switched off: a prompt is never cut silently.
        """
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.settings = dict(settings or {})
        self.chat_template = chat_template
        own = self.token_id(self.eos_token) if self.eos_token else None
        ids = [own] if own is not None else []
        self.eos_ids = tuple(dict.fromkeys([*ids, *eos_ids]))

    @classmethod
    def from_folder(cls, folder: Path) -> TextTokenizer:
        """Reads tokenizer.json and its companions of a Hugging Face folder.

        End-of-turn tokens are those that generation_config.json, config.json and
        tokenizer_config.json name together. Raises ModelError where tokenizer.json is missing
        or damaged.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{folder} has no tokenizer.json: only fast tokenizers can be loaded")
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for any damage
            raise ModelError(f"{path} cannot be read as a tokenizer: {_one_line(error)}") from error
        settings = read_json(folder / "tokenizer_config.json")
        for role, token in read_json(folder / "special_tokens_map.json").items():
            settings.setdefault(role, token)
        eos = [*_eos_ids(folder / "generation_config.json"), *_eos_ids(folder / "config.json")]
        template = _folder_template(folder, settings)
        return cls(backend, eos_ids=eos, chat_template=template, settings=settings)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; a model's embedding may have more rows."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def bos_token(self) -> str:
        """Beginning-of-text token as text, empty where there is none (what chat templates get)."""
        return _token_text(self.settings.get("bos_token"))

    @property
    def eos_token(self) -> str:
        """The tokenizer's own end token as text, empty where there is none."""
        return _token_text(self.settings.get("eos_token"))

    def encode(self, text: str) -> list[int]:
        """Token ids; special tokens written in the text are recognised, none are added."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens; ids beyond the vocabulary give nothing."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """`decode` of each row, on all cores."""
        return self.backend.decode_batch([list(ids) for ids in rows], skip_special_tokens=True)

    def token_bytes(self) -> list[bytes] | None:
        """The bytes of every token, by id; decoded text is those of its tokens side by side.

        b"" for special tokens, which `decode` leaves out, and for ids without a token. None where
        the tokenizer is not byte-level, so that a token's text depends on its neighbours.
        """
        if not isinstance(self.backend.decoder, tokenizers.decoders.ByteLevel):
            return None
        added = self.backend.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special}
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        result = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for token, index in vocabulary.items():
            if token not in special:
                result[index] = _shown_bytes(token)
        return result

    def token_id(self, token: str) -> int | None:
        """Id of one whole token, None where the vocabulary lacks it."""
        return self.backend.token_to_id(token)

    def chat(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Messages (`role`, `content`) under the model's chat template, which must be set."""
        assert self.chat_template is not None, "callers check that there is a chat template"
        return render_chat(
            self.chat_template,
            [dict(message) for message in messages],
            add_generation_prompt=add_generation_prompt,
            bos_token=self.bos_token or "",
            eos_token=self.eos_token or "",
        )

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, the chat template inside it."""
        self.backend.save(str(folder / "tokenizer.json"))
        settings = {k: v for k, v in self.settings.items() if k != "chat_template"}
        # The generic class takes tokenizer.json as it is; a model's own class rebuilds parts.
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        settings.setdefault("clean_up_tokenization_spaces", False)
        if self.chat_template is not None:
            settings["chat_template"] = self.chat_template
        text = json.dumps(settings, ensure_ascii=False, indent=2)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


class _ByteCharacters(dict[int, str]):
    """Character of a byte-level vocabulary -> the byte it stands for, as a Latin-1 character.

    GPT-2's table: printable Latin-1 stands for itself, the other 68 bytes are U+0100 and on.
    """

    def __init__(self) -> None:
        ranges = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))
        printable = [byte for some in ranges for byte in some]
        others = sorted(set(range(256)) - set(printable))
        super().__init__({byte: chr(byte) for byte in printable})
        self.update({0x100 + i: chr(byte) for i, byte in enumerate(others)})

    def __missing__(self, character: int) -> str:
        raise _NotByteLevel


class _NotByteLevel(Exception):
    """A token was added as plain text and is shown as it is written."""


_BYTE_CHARACTERS = _ByteCharacters()


def _shown_bytes(token: str) -> bytes:
    try:
        return token.translate(_BYTE_CHARACTERS).encode("latin-1")
    except _NotByteLevel:
        return token.encode()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where the file is missing. Damaged: ModelError."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"{path} is not valid JSON ({_one_line(error)}): fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} should hold a JSON object, not a {type(value).__name__}")
    return value


def _eos_ids(path: Path) -> list[int]:
    value = read_json(path).get("eos_token_id")
    if value is None:
        return []
    return [int(v) for v in value] if isinstance(value, list) else [int(value)]


def _folder_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """chat_template.jinja wins over the JSON files, as in transformers."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = read_json(folder / "chat_template.json").get("chat_template")
    template = template or settings.get("chat_template")
    if isinstance(template, list):  # several named templates
        named = {entry["name"]: entry["template"] for entry in template}
        return named.get("default")
    return template


def _token_text(token: Any) -> str:
    """A special token is written as text or as an AddedToken object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
