"""Asks a model behind an OpenAI-compatible endpoint, and keeps every answer as it comes.

    requests ── already in the file? ── threads ── POST …/chat/completions ──► teacher.jsonl
                                        (again after 429, 5xx, lost connections)

A killed job asks nothing twice: an answer is looked up by the digest of the very request. What
failed is recorded as well, and asked again on the next run. Left out: streaming, tools, images.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from pellucid.artifacts import sha256_json
from pellucid.config_curate import TeacherConfig
from pellucid.errors import ConfigError, EndpointError, Interrupted
from pellucid.jsonl import JsonlWriter, read_jsonl

FIRST_WAIT_S = 0.5
"""Before the first repeated attempt; doubled each time, or as long as the server asks for."""
LONGEST_WAIT_S = 30.0
MAX_ANSWER_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**16
_POLL_S = 0.2
"""How often a wish to stop is looked at."""
_REFUSALS = {401: "key_env", 403: "key_env", 404: "base_url or model"}
"""Statuses that every request would get, and which setting to correct."""
_HOPELESS = 10
"""So many failures without a single answer between them, and the rest is not asked."""
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request. Example: Ask(id="gsm8k/train/7#2 summarise", messages=({"role": "user", …},))"""

    id: str
    """What it is for, in words: only for the record."""
    messages: tuple[Mapping[str, str], ...]
    seed: int | None = None
    """Tells apart requests that are otherwise the same, such as repeated judgments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a request: a text, or why there is none."""

    text: str | None
    """None where it failed for good."""
    is_cut: bool = False
    """It ended at `max_tokens`."""
    failure: str = ""


class _Failed(Exception):
    """One attempt did not give an answer."""

    def __init__(
        self,
        reason: str,
        *,
        again: bool = True,
        wait_s: float = 0.0,
        remedy: str = "",
    ) -> None:
        super().__init__(reason)
        self.again = again
        """Another attempt may go better."""
        self.wait_s = wait_s
        self.remedy = remedy
        """Where every request would fail like this one: what to do."""


class ChatEndpoint:
    """A client of one model at one address.

    Example:
        with ChatEndpoint(config, stage.root / "teacher.jsonl") as teacher:
            answers = teacher.ask_all([Ask(id="1", messages=({"role": "user", "content": "Hi"},))])
    """

    def __init__(self, config: TeacherConfig, record: Path, *, what: str = "teacher") -> None:
        """`record`: the file of answers; those already there are not asked for again. `what`: how
        messages call the model. Raises ConfigError where the key's variable is not set.
        """
        self.config = config
        self.what = what
        self._url = f"{config.base_url}/chat/completions"
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if config.key_env is not None:
            key = os.environ.get(config.key_env, "").strip()
            if not key:
                raise ConfigError(
                    f"the {what}'s key_env names {config.key_env}, which is not set: export the "
                    "key, then run the same command"
                )
            self._headers["Authorization"] = f"Bearer {key}"
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._record = JsonlWriter(record)
        self._answers = _read_answers(record)
        self._halt = threading.Event()
        self.num_asked = 0
        """Requests sent by this object; attempts after the first are not counted."""

    def __enter__(self) -> ChatEndpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._record.close()

    def ask_all(
        self,
        asks: Sequence[Ask],
        *,
        progress: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Answer]:
        """Answers in the order of `asks`, at most `concurrency` requests under way.

        Raises EndpointError where no server answers, where it refuses (key, address), and under
        `on_failure = "stop"` where requests failed for good; Interrupted where `should_stop`. What
        was answered until then is kept, and the same call again asks only for the rest.
        """
        bodies = [self._body(ask) for ask in asks]
        digests = [sha256_json(body) for body in bodies]
        missing = {
            digest: (ask, body)
            for digest, ask, body in zip(digests, asks, bodies, strict=True)
            if digest not in self._answers
        }
        done = [len(asks) - len(missing)]

        def keep(digest: str, answer: Answer) -> None:
            self._keep(digest, missing[digest][0].id, answer)
            done[0] += 1
            if progress is not None:
                progress(done[0], len(asks))

        failures = self._ask_missing(missing, keep, should_stop)
        if failures and self.config.on_failure == "stop":
            first = next(iter(failures.values()))
            raise EndpointError(
                f"{len(failures)} of {len(asks)} requests to the {self.what} failed "
                f"({first.failure}): run the same command to ask for those alone, or set its "
                'on_failure to "drop"'
            )
        return [self._answers.get(digest) or failures[digest] for digest in digests]

    def _ask_missing(
        self,
        missing: Mapping[str, tuple[Ask, dict[str, Any]]],
        keep: Callable[[str, Answer], None],
        should_stop: Callable[[], bool],
    ) -> dict[str, Answer]:
        """Asks on threads, records here; returns what failed for good."""
        failures: dict[str, Answer] = {}
        waiting = iter(missing.items())
        running: dict[Future[Answer], str] = {}
        num_answered = 0
        self._halt.clear()
        with ThreadPoolExecutor(max_workers=self.config.concurrency) as pool:
            try:
                while True:
                    self._fill(pool, running, waiting)
                    if not running:
                        return failures
                    ready, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                    for future in ready:
                        digest = running.pop(future)
                        answer = self._outcome(future, digest, missing)
                        keep(digest, answer)
                        if answer.text is None:
                            failures[digest] = answer
                        else:
                            num_answered += 1
                    if len(failures) >= _HOPELESS and not num_answered:
                        raise self._give_up(answer.failure, f"look at the {self.what}'s server")
                    if should_stop():
                        raise Interrupted(f"while asking the {self.what}")
            finally:
                self._halt.set()  # ends the pauses of what still runs
                for future, digest in running.items():
                    self._keep_late(future, digest, missing[digest][0].id)

    def _fill(
        self,
        pool: ThreadPoolExecutor,
        running: dict[Future[Answer], str],
        waiting: Iterator[tuple[str, tuple[Ask, dict[str, Any]]]],
    ) -> None:
        while len(running) < self.config.concurrency:
            found = next(waiting, None)
            if found is None:
                return
            self.num_asked += 1
            running[pool.submit(self._ask, found[1][1])] = found[0]

    def _outcome(
        self, future: Future[Answer], digest: str, missing: Mapping[str, tuple[Ask, Any]]
    ) -> Answer:
        """The answer, or a recorded failure. Raises EndpointError where all others would fail."""
        try:
            return future.result()
        except _Failed as failed:
            answer = Answer(text=None, failure=str(failed))
            if not failed.remedy:
                return answer
            self._keep(digest, missing[digest][0].id, answer)
            raise self._give_up(str(failed), failed.remedy) from None

    def _give_up(self, reason: str, remedy: str) -> EndpointError:
        return EndpointError(
            f"the {self.what} at {self._url} gives no answer ({reason}): {remedy}, then run the "
            f"same command; {len(self._answers)} answers are kept"
        )

    def _keep_late(self, future: Future[Answer], digest: str, name: str) -> None:
        """An answer that comes while all is given up is paid for: it is kept too."""
        if future.cancel():
            return
        try:
            self._keep(digest, name, future.result())
        except _Failed as failed:
            self._keep(digest, name, Answer(text=None, failure=str(failed)))

    def _keep(self, digest: str, name: str, answer: Answer) -> None:
        line = {"request": digest, "id": name, "text": answer.text, "is_cut": answer.is_cut}
        self._record.append(line | {"failure": answer.failure})
        if answer.text is not None:
            self._answers[digest] = answer

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": [dict(m) for m in ask.messages],
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
        }
        return body if ask.seed is None else body | {"seed": ask.seed}

    def _ask(self, body: Mapping[str, Any]) -> Answer:
        """One request with its attempts. Raises _Failed after the last."""
        pause = FIRST_WAIT_S
        for left in range(self.config.retries, -1, -1):
            try:
                return self._attempt(body)
            except _Failed as failed:
                if not left or not failed.again:
                    raise
                self._halt.wait(min(max(pause, failed.wait_s), LONGEST_WAIT_S))
                if self._halt.is_set():
                    raise
                pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, body: Mapping[str, Any]) -> Answer:
        request = urllib.request.Request(
            self._url, data=json.dumps(body).encode(), headers=self._headers, method="POST"
        )
        deadline = time.monotonic() + self.config.timeout_s
        try:
            with self._opener.open(request, timeout=self.config.timeout_s) as response:
                return _parse(_read_all(response, deadline))
        except urllib.error.HTTPError as error:
            with error:
                raise _status_failure(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise _connection_failure(error) from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: object) -> None:
        return None


def _read_all(response: http.client.HTTPResponse | IO[bytes], deadline: float) -> bytes:
    """The whole body. A server that drips bytes must not outlive the time limit."""
    parts, size = [], 0
    read = getattr(response, "read1", response.read)
    while chunk := read(_CHUNK_BYTES):
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise _Failed(f"an answer of more than {MAX_ANSWER_BYTES} bytes", again=False)
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    return b"".join(parts)


def _parse(payload: bytes) -> Answer:
    """The first choice. Servers under load send error pages as answers: worth another attempt."""
    try:
        choice = json.loads(payload)["choices"][0]
        text = choice["message"]["content"]
        is_cut = choice.get("finish_reason") == "length"
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise _Failed("the answer is no chat completion") from None
    if not isinstance(text, str):
        raise _Failed("the answer holds no text")
    return Answer(text=text, is_cut=is_cut)


def _status_failure(error: urllib.error.HTTPError) -> _Failed:
    reason = f"HTTP {error.code}"
    if error.code in _REFUSALS:
        return _Failed(reason, again=False, remedy=f"correct {_REFUSALS[error.code]}")
    return _Failed(reason, again=error.code in _RETRIED, wait_s=_retry_after(error.headers))


def _connection_failure(error: OSError | http.client.HTTPException) -> _Failed:
    """A server that was there and broke off may come back; one that is not there does not."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return _Failed("timed out")
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if isinstance(cause, http.client.HTTPException | ConnectionResetError | BrokenPipeError):
        return _Failed(f"connection lost: {str(reason).lower()}")
    return _Failed(str(reason).lower(), remedy="start it or correct base_url")


def _retry_after(headers: Message) -> float:
    """Seconds that the server asks to wait; 0 where it says nothing, or names a date."""
    try:
        return max(0.0, float(headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def _read_answers(path: Path) -> dict[str, Answer]:
    """Answers by the digest of their request. Failures are not among them."""
    return {
        line["request"]: Answer(text=line["text"], is_cut=line["is_cut"])
        for line in read_jsonl(path)
        if line["text"] is not None
    }
