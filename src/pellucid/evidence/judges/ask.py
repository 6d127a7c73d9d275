"""Who can judge an answer: a program of ours, a command, or a model behind an endpoint.

A judge says yes or no, or nothing: a failure, a refusal or two verdicts at once are no verdict.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import ValidationError

from pellucid.config_curate import TeacherConfig
from pellucid.endpoint import Answer, Ask, ChatEndpoint
from pellucid.errors import ConfigError, RunError
from pellucid.evidence.core.judged import REFERENCE, SYSTEM, USER
from pellucid.rewards.extract import THINK_CLOSE
from pellucid.rewards.smalltalk_judge import HELPFUL, quality

ASKED = "Is the answer right, and does it help who asked?"

PROGRAMS: dict[str, Callable[[str, str], bool]] = {
    "smalltalk": lambda prompt, answer: quality(prompt, answer) >= HELPFUL
}
"""Judges that need nothing: (prompt, answer) -> verdict."""
COMMAND_TIMEOUT_S = 3600.0
NOT_CLEAR = "no clear verdict"
_VERDICT = re.compile(r"\[\[\s*(yes|no)\s*\]\]", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", re.A)


class Question(NamedTuple):
    """One answer to judge."""

    id: str
    """For the record."""
    prompt: str
    gold: str
    """Empty: there is none."""
    answer: str
    turn: int
    """Tells apart questions that are otherwise the same."""


class Verdict(NamedTuple):
    """What came of a question."""

    is_yes: bool | None
    error: str = ""
    """Why there is no verdict."""


class AnswerJudge(Protocol):
    """Judges answers."""

    name: str
    kind: str
    model: str

    def judge(self, questions: Sequence[Question], asked: str) -> list[Verdict]:
        """A verdict for each, in their order."""
        ...


class ProgramJudge:
    """One of `PROGRAMS`."""

    kind = "program"

    def __init__(self, name: str) -> None:
        self.name = self.model = name
        self._accepts = PROGRAMS[name]

    def judge(self, questions: Sequence[Question], asked: str) -> list[Verdict]:
        return [Verdict(self._accepts(q.prompt, q.answer)) for q in questions]


class CommandJudge:
    """A command that reads a JSON line for each question, and writes one: {"id", "verdict"}."""

    kind = "command"

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name, self.model = name, " ".join(command)
        self._command = list(command)

    def judge(self, questions: Sequence[Question], asked: str) -> list[Verdict]:
        """Raises RunError where the command cannot run, or fails as a whole."""
        lines = [
            {"id": n, "asked": asked, "prompt": q.prompt, "gold": q.gold, "answer": q.answer}
            for n, q in enumerate(questions)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        try:
            done = subprocess.run(
                self._command, input=text, text=True, capture_output=True, check=False,
                timeout=COMMAND_TIMEOUT_S,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(
                f"the judge {self.name} cannot run ({error}): mend its command"
            ) from None
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise RunError(f"the judge {self.name} failed, and said {said[:120]!r}: mend it")
        found = _command_verdicts(done.stdout)
        return [found.get(n, Verdict(None, "the command said nothing")) for n in range(len(lines))]


def _command_verdicts(text: str) -> dict[int, Verdict]:
    found: dict[int, Verdict] = {}
    for line in text.splitlines():
        try:
            row: Any = json.loads(line)
            number, said = row["id"], row["verdict"]
        except (ValueError, KeyError, TypeError):
            continue
        if type(number) is int:
            is_clear = said in ("yes", "no") and number not in found
            found[number] = Verdict(said == "yes") if is_clear else Verdict(None, NOT_CLEAR)
    return found


class Asker(Protocol):
    """What is needed of a model's client (`endpoint.ChatEndpoint`)."""

    def ask_all(self, asks: Sequence[Ask]) -> list[Answer]: ...


class ModelJudge:
    """A model that is asked."""

    kind = "endpoint"

    def __init__(self, name: str, model: str, asker: Asker) -> None:
        self.name, self.model = name, model
        self._asker = asker

    def judge(self, questions: Sequence[Question], asked: str) -> list[Verdict]:
        """Raises what the client raises: EndpointError."""
        asks = [Ask(id=q.id, messages=messages(q, asked), seed=q.turn) for q in questions]
        return [_read_answer(answer) for answer in self._asker.ask_all(asks)]


def messages(question: Question, asked: str) -> tuple[dict[str, str], ...]:
    """What a model is told."""
    user = USER.format(prompt=question.prompt, answer=question.answer)
    if question.gold:
        user += REFERENCE.format(gold=question.gold)
    return (
        {"role": "system", "content": SYSTEM.format(asked=asked)},
        {"role": "user", "content": user},
    )


def _read_answer(answer: Answer) -> Verdict:
    if answer.text is None:
        return Verdict(None, answer.failure[:120] or "no answer came")
    said = {v.lower() for v in _VERDICT.findall(answer.text.rpartition(THINK_CLOSE)[2])}
    return Verdict(said == {"yes"}) if len(said) == 1 else Verdict(None, NOT_CLEAR)


@contextmanager
def open_judge(wanted: str, record: Path) -> Iterator[AnswerJudge]:
    """The judge that `wanted` names: a program, or a TOML file with `endpoint` or `command`.

    `record`: the folder where an endpoint's words are kept, so that nothing is asked twice. Raises
    ConfigError.
    """
    if wanted in PROGRAMS:
        yield ProgramJudge(wanted)
        return
    path = Path(wanted)
    given = _read_toml(path)
    name = given.pop("name", path.stem)
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigError(f"{path}: name: letters, digits, dots, - and _, at most 60 of them")
    if given.keys() == {"command"}:
        command = given["command"]
        if not isinstance(command, list) or not command or any(type(c) is not str for c in command):
            raise ConfigError(f'{path}: command takes a list of words, as ["python", "judge.py"]')
        yield CommandJudge(name, command)
        return
    if given.keys() != {"endpoint"} or not isinstance(given["endpoint"], dict):
        raise ConfigError(f"{path}: give either endpoint, a table, or command, a list of words")
    try:
        config = TeacherConfig(**({"on_failure": "drop"} | given["endpoint"]))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: endpoint.{where}: {first['msg']}") from None
    record.mkdir(parents=True, exist_ok=True)
    with ChatEndpoint(config, record / f"{name}.jsonl", what="judge") as endpoint:
        yield ModelJudge(name, config.model, endpoint)


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        known = ", ".join(PROGRAMS)
        raise ConfigError(f"no judge {path}: name a program ({known}), or a file with a judge")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no TOML file ({error}): correct it") from None
