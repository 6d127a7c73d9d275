"""Whether a student can learn from its teacher, looked up before anything costs time."""

from __future__ import annotations

from pathlib import Path

from pellucid.artifacts import sha256_json
from pellucid.config_stages import DistillConfig, PipelineConfig
from pellucid.errors import ConfigError
from pellucid.model.load import read_outline, resolve
from pellucid.model.tokenizer import TextTokenizer
from pellucid.pipeline.workbench import trained_or_given
from pellucid.tasks.templates import get_template


def check_student(recipe: PipelineConfig, config: DistillConfig, teacher: Path) -> None:
    """`teacher` is a model with the teacher's tokenizer: the base, before the teacher is trained.

    Raises ConfigError where the student cannot be asked with its template, or an arm compares the
    two token by token and a token is not the same to both.
    """
    found = resolve(trained_or_given(config.student), has_weights=False)
    student = read_outline(found).tokenizer()
    name = recipe.template_of(config.name)
    if get_template(name).is_chat and student.chat_template is None:
        raise ConfigError(
            f"stages.{config.name}: template {name!r} needs a chat template and the student "
            f"{config.student.id} has none: choose another student, or another template of "
            f"stages.{config.data_from}"
        )
    if "on-policy" not in config.arms:
        return
    other = read_outline(teacher).tokenizer()
    if vocabulary_digest(student) != vocabulary_digest(other):
        raise ConfigError(
            f"stages.{config.name}: student {config.student.id} has another tokenizer than its "
            f"teacher ({difference(student, other)}), and on-policy distillation compares them "
            'token by token: choose a student of the same family, or take "on-policy" out of '
            f"stages.{config.name}.arms"
        )


def vocabulary_digest(tokenizer: TextTokenizer) -> str:
    """Digest of which text every id stands for."""
    return sha256_json(_vocabulary(tokenizer))


def difference(first: TextTokenizer, second: TextTokenizer) -> str:
    """How two vocabularies differ, in a few words."""
    mine, theirs = _vocabulary(first), _vocabulary(second)
    if len(mine) != len(theirs):
        return f"{len(mine)} tokens against {len(theirs)}"
    token = min(t for t in mine.keys() | theirs.keys() if mine.get(t) != theirs.get(t))
    return f"token {token!r} is {mine.get(token)} to the one and {theirs.get(token)} to the other"


def _vocabulary(tokenizer: TextTokenizer) -> dict[str, int]:
    return dict(tokenizer.backend.get_vocab(with_added_tokens=True))
