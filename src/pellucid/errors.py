"""The exception tree.

PellucidError
├── UserError          the user can mend it: one line that says what and what to do, exit code 2
│   ├── ConfigError    unknown key, wrong type, value out of range
│   ├── ModelError     missing, unsupported or damaged model
│   ├── DataError      missing, altered or unusable data
│   ├── RunError       run folder damaged, unwritable, or of another recipe
│   ├── ReviewError    a referee's file that cannot be read, or a point that may not be closed
│   └── EndpointError  a model behind an endpoint that cannot be reached, or refuses
├── NumericsError      NaN or infinity in logits, loss or gradient: names the tensor, exit code 3
└── Interrupted        asked to stop (SIGTERM), state saved: the same command continues
"""


class PellucidError(Exception):
    """Base of all errors that Pellucid raises on purpose."""


class UserError(PellucidError):
    """Something the user can mend. The message is one line: what is wrong, and what to do."""


class ConfigError(UserError):
    """A recipe or `--set` that names an unknown key, a wrong type or a value out of range."""


class ModelError(UserError):
    """A model that is missing, damaged or of an unsupported architecture."""


class DataError(UserError):
    """Data that is missing, whose digest differs, or that no grader can use."""


class RunError(UserError):
    """A run folder that cannot be written, is damaged, or belongs to another recipe."""


class ReviewError(UserError):
    """A review round's file that cannot be read, or a step that its rules forbid."""


class EndpointError(UserError):
    """A teacher or judge that cannot be reached, refuses, or failed for good on some requests."""


class NumericsError(PellucidError):
    """NaN or infinity where training cannot go on. Names the step and the tensor."""


class Interrupted(PellucidError):
    """The run was asked to stop and has saved its state; the same command continues it."""
