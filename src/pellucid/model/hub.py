"""Fetches a model folder from the Hugging Face hub at a pinned revision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pellucid.errors import ModelError

FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja")
"""What a model folder needs; other formats of the same weights stay on the hub."""
DESCRIPTION = ("*.json", "*.jinja")
"""Of these, what says how the model is built and how text becomes tokens."""
SKIPPED = ("*/*",)
"""Folders inside a repository hold other formats (onnx/, original/)."""
NEEDED = ("config.json", "tokenizer.json")
"""Of a description, what planning reads."""
PROBE_S = 5.0
"""The hub's own client would try for half a minute, and print every try."""


class UnreachableError(ModelError):
    """The hub does not answer, or something on the way does not let through."""


def fetch(
    id: str,
    revision: str | None,
    *,
    endpoint: str | None = None,
    cache: Path | None = None,
    patterns: Sequence[str] = FILES,
) -> Path:
    """The local folder of hub model `id` (`owner/name`) at `revision`, downloaded where needed.

    Only files that match `patterns` are fetched. Without the network, what the cache holds of that
    revision is used. `endpoint` and `cache`
    default to huggingface_hub's own (HF_ENDPOINT, HF_HOME).
    Raises ModelError where the revision is not pinned or unknown, UnreachableError where it cannot
    be fetched.
    """
    revision = _pinned(id, revision)
    import huggingface_hub
    from huggingface_hub import errors

    http_error = errors.HfHubHTTPError.__mro__[1]  # requests' or httpx's base, by hub version
    try:
        folder = huggingface_hub.snapshot_download(
            id,
            revision=revision,
            endpoint=endpoint,
            cache_dir=cache,
            allow_patterns=list(patterns),
            ignore_patterns=list(SKIPPED),
        )
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"model {id} has no revision {revision} on the hub") from error
    except errors.GatedRepoError as error:
        raise ModelError(
            f"model {id} is gated: accept its terms on the hub and log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no model {id}: check owner/name, or log in") from error
    except (http_error, OSError, ValueError) as error:
        # The hub's own text of a failed snapshot wraps the reason and ends in an empty name.
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise UnreachableError(
            f"cannot fetch model {id}: {reason}; check the network or give a local model.path"
        ) from error
    return Path(folder)


def describe(
    id: str, revision: str | None, *, endpoint: str | None = None, cache: Path | None = None
) -> Path:
    """A folder with the config.json of a hub model and, where it is to be had, its tokenizer.

    What the cache holds is taken from there without asking the network. `endpoint` and `cache` as
    for `fetch`. Raises ModelError as `fetch` does.
    """
    revision = _pinned(id, revision)
    import huggingface_hub

    cached = [
        huggingface_hub.try_to_load_from_cache(id, name, cache_dir=cache, revision=revision)
        for name in NEEDED
    ]
    there = [Path(path).parent for path in cached if isinstance(path, str)]
    if len(there) == len(NEEDED):
        return there[0]
    try:
        _probe(id, endpoint)
        return fetch(id, revision, endpoint=endpoint, cache=cache, patterns=DESCRIPTION)
    except UnreachableError:
        if isinstance(cached[0], str):
            return there[0]
        raise


def _probe(id: str, endpoint: str | None) -> None:
    """Raises UnreachableError where nothing answers at the hub's address; any answer will do."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import get_session

    http_error = errors.HfHubHTTPError.__mro__[1]
    try:
        get_session().head(endpoint or constants.ENDPOINT, timeout=PROBE_S)
    except (http_error, OSError) as error:
        raise UnreachableError(f"cannot reach the hub for model {id}: {error}") from error


def _pinned(id: str, revision: str | None) -> str:
    if revision:
        return revision
    raise ModelError(
        f"there is no folder {id}, and hub model {id} needs a pinned revision: set "
        "model.revision (--revision) to a commit of its repository"
    )
