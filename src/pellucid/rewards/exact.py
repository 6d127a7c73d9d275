"""Exact comparison of two mathematical answers: floating point never makes two numbers equal.

Policies, where usage is not unanimous (docs/graders.md gives the reasons):
- a decimal is the rational it writes: 0.3333333 is not 1/3; a dot never separates thousands;
- a decimal is the rational it writes: 0.3333333 is not 1/3; no dot separates thousands;
- `50%` equals 50 and 0.5; money signs are dropped;
- bare lists and sets have no order, tuples have; `1, 2` and `(1, 2)` are equal in order only;
- `(0, 1)`, `0 < x < 1` and `x in (0, 1)` are equal; so are equations that differ by a factor;
- `x = 5` equals 5; expressions equal as functions are equal, factored or not;
- a number too large to be evaluated only equals one written alike.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from pellucid.rewards import algebra
from pellucid.rewards.algebra import ContradictionError, TooBigError, UndecidedError, Value
from pellucid.rewards.latex import split_unit, strip_prefix, tidy
from pellucid.rewards.read import read_shape
from pellucid.rewards.regions import as_region, same_region
from pellucid.rewards.shapes import (
    Assignment,
    Matrix,
    Number,
    Region,
    Relation,
    Sequence,
    Shape,
    Word,
)

MAX_CHARS = 1000
"""Longer answers are wrong unread, unless the gold is as long."""
_PLAIN = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+|(?P<above>\d+)\s*/\s*(?P<below>\d+)"
    r"|\\[dt]?frac\s*\{(?P<over>\d+)\}\s*\{(?P<under>\d+)\})"
)
_FREE_SPACE = re.compile(r"\s+(?!\d)|(?<!\d)\s+")
"""Spaces that do not part two numbers."""
_INTEGER = re.compile(r"-?\d{1,300}")
_LONE_GROUP = re.compile(r"\{(\w)\}")
_BASED = re.compile(r"(-?[0-9A-Za-z]+)_\{?(\d+)\}?")
_WORDS = re.compile(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{4,}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{\w+\}(?:\{[lcr|]+\})?|\\[a-zA-Z]+")
_MATH_WORDS = frozenset(
    ("sqrt", "infinity", "infty", "real", "reals", "numbers", "arcsin", "arccos", "arctan")
)
_LOOSE = re.compile(
    r"\\(?:[lcd]?dots[cbm]?|implies|iff|(?:Long|long)?[Rr]ightarrow|to|[bp]?mod|equiv|sim)(?![a-zA-Z])"
    r"|\.\.\.|[?#@]|(?<=\d)'"
)
"""Signs of reasoning or hedging, which math-verify reads over: `8 \\Rightarrow 7` is not 7."""
_COMMA_GROUPS = re.compile(r"\d,\d{3}(?!\d)")


def compare(gold: str, answer: str) -> bool | None:
    """True and False are certain; None where exact comparison cannot decide."""
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(answer):
        return int(gold) == int(answer)
    if len(answer) > max(MAX_CHARS, 2 * len(gold)):
        return False
    verdict = _compare_once(gold, answer, join_thousands=True)
    if verdict is not True and _COMMA_GROUPS.search(gold):
        # `100,200` may have been meant as a list: accepted where the answer is that list.
        return _compare_once(gold, answer, join_thousands=False) is True or verdict
    return verdict


def _compare_once(gold: str, answer: str, *, join_thousands: bool) -> bool | None:
    gold = strip_prefix(tidy(gold, join_thousands=join_thousands))
    answer = strip_prefix(tidy(answer, join_thousands=join_thousands))
    if _squashed(gold) == _squashed(answer):
        return True
    one, other = _plain_fraction(gold), _plain_fraction(answer)
    if one is not None and other is not None:
        return one == other
    if (verdict := _compare_based(gold, answer)) is not None:
        return verdict
    gold_body, gold_unit = split_unit(gold)
    answer_body, answer_unit = split_unit(answer, variables=gold_body)
    if gold_unit and answer_unit and gold_unit != answer_unit:
        return False
    if _has_prose(answer_body, gold) or (_LOOSE.search(answer) and not _LOOSE.search(gold)):
        return False
    try:
        gold_shape = _shape_of(gold_body)
    except (UndecidedError, RecursionError) as error:
        return False if isinstance(error, TooBigError) else None
    try:
        return same_shape(gold_shape, _shape_of(answer_body))
    except (TooBigError, ContradictionError):
        return False
    except (UndecidedError, RecursionError):  # deeply nested text is nothing that a person wrote
        return None


def can_read(gold: str) -> bool:
    """Whether exact comparison understands this answer."""
    gold = strip_prefix(tidy(gold))
    if _BASED.fullmatch(_squashed(gold)):
        return True
    try:
        read_shape(split_unit(gold).body)
    except (UndecidedError, RecursionError):
        return False
    return True


def _squashed(text: str) -> str:
    return _LONE_GROUP.sub(r"\1", _FREE_SPACE.sub("", text).rstrip("."))


def _plain_fraction(text: str) -> Fraction | None:
    """A decimal, or a quotient of two integers, without the parser: most answers are one."""
    if len(text) > 400 or not (match := _PLAIN.fullmatch(text)):
        return None
    above, below = match["above"] or match["over"], match["below"] or match["under"]
    if above is None:
        return Fraction(text)
    if int(below) == 0:
        return None
    return Fraction(int(above), int(below)) * (-1 if text[0] == "-" else 1)


@functools.lru_cache(maxsize=4096)
def _shape_of(text: str) -> Shape:
    """The same gold is read for each sample of a group, and the same answers recur."""
    return read_shape(text)


def _compare_based(gold: str, answer: str) -> bool | None:
    """`2516_8` equals itself and, as is usual, `2516`; another base is another answer."""
    one, other = (
        match.groups() if (match := _BASED.fullmatch(_squashed(text))) else None
        for text in (gold, answer)
    )
    if not (one or other) or not any(char.isdigit() for char in (one or other)[0]):
        return None
    if one and other:
        return one == other
    if based := one or other:
        plain = _squashed(answer if one else gold)
        return based[0] == plain if plain.lstrip("-").isalnum() else None
    return None


def _has_prose(answer: str, gold: str) -> bool:
    """Whether the answer holds words of which the gold knows nothing: `I don't know 7` is not 7."""
    words = set(_WORDS.findall(_ENVIRONMENT.sub(" ", answer).casefold()))
    words -= _MATH_WORDS
    return (
        bool(words) and not words <= set(_WORDS.findall(gold.casefold())) and not _is_word(answer)
    )


def _is_word(answer: str) -> bool:
    return not re.search(r"[\d\\=<>]", answer)


def same_shape(gold: Shape, answer: Shape) -> bool | None:
    """Whether two shapes are the same answer."""
    if isinstance(gold, Assignment) or isinstance(answer, Assignment):
        return _same_assigned(gold, answer)
    gold, answer = _single(gold), _single(answer)
    match gold, answer:
        case Number(), Number():
            return _same_number(gold, answer)
        case Matrix(), Matrix():
            return _same_matrix(gold, answer)
        case (Matrix(), Sequence()) | (Sequence(), Matrix()):
            return _same_vector(gold, answer)
        case Sequence(), Sequence():
            return _same_sequence(gold, answer)
        case (Sequence(brackets=":"), Number()) | (Number(), Sequence(brackets=":")):
            return _same_ratio(gold, answer)
        case Relation(), Relation() if gold.op == "=" or answer.op == "=":
            return _same_equation(gold, answer)
    one, other = as_region(gold), as_region(answer)
    if one and other:
        return same_region(one, other)
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _same_inequality(gold, answer)
    if isinstance(gold, Relation | Region) and isinstance(answer, Relation | Region):
        return None
    if isinstance(gold, Word) != isinstance(answer, Word) and isinstance(gold, Word | Number):
        return False
    return gold == answer


def _single(shape: Shape) -> Shape:
    is_single = isinstance(shape, Sequence) and shape.brackets == "{}" and len(shape.items) == 1
    return shape.items[0] if is_single else shape


def _same_number(gold: Number, answer: Number) -> bool | None:
    verdict = algebra.equal(gold.value, answer.value)
    if verdict is False and gold.is_percent != answer.is_percent:
        percent, plain = (gold, answer) if gold.is_percent else (answer, gold)
        hundredth = algebra.divide(percent.value, algebra.rational(100))
        return algebra.equal(hundredth, plain.value)
    return verdict


def _same_assigned(gold: Shape, answer: Shape) -> bool | None:
    """`x = 5` and `5`; `y = 2x + 3` and `2x - y + 3 = 0`."""
    if isinstance(gold, Assignment) and isinstance(answer, Assignment):
        if gold.name.lstrip("\\") == answer.name.lstrip("\\"):
            return same_shape(gold.shape, answer.shape)
    elif isinstance(gold, Assignment) and not isinstance(answer, Relation):
        return same_shape(gold.shape, answer)
    elif isinstance(answer, Assignment) and not isinstance(gold, Relation):
        return same_shape(gold, answer.shape)
    one, other = _as_equation(gold), _as_equation(answer)
    return _same_equation(one, other) if one and other else False


def _as_equation(shape: Shape) -> Relation | None:
    if isinstance(shape, Assignment) and isinstance(shape.shape, Number) and len(shape.name) == 1:
        return Relation(algebra.symbol(shape.name), "=", shape.shape.value)
    return shape if isinstance(shape, Relation) else None


def _same_equation(gold: Relation, answer: Relation) -> bool | None:
    if gold.op != answer.op:
        return False
    return None if (factor := _factor(gold, answer)) is None else factor != 0


def _same_inequality(gold: Relation, answer: Relation) -> bool | None:
    factor = _factor(gold, answer) if gold.op == answer.op else None
    return True if factor and factor > 0 else None


def _factor(gold: Relation, answer: Relation) -> Fraction | None:
    """k where gold's difference of sides is k times the answer's; 0 for none; None if undecided."""
    one, other = (algebra.add(r.right, algebra.negate(r.left)) for r in (gold, answer))
    if not one.num or not other.num:
        return None
    monomial, coefficient = next(iter(one.num.items()))
    if monomial not in other.num:
        is_opaque = any(a[0] == algebra.OPAQUE for v in (one, other) for a in algebra.atoms_of(v))
        return None if is_opaque or other.den != one.den else Fraction(0)
    factor = coefficient / other.num[monomial]
    scaled = Value({m: factor * c for m, c in other.num.items()}, other.den)
    verdict = algebra.equal(one, scaled)
    return None if verdict is None else factor if verdict else Fraction(0)


def _same_ratio(gold: Shape, answer: Shape) -> bool | None:
    ratio, number = (gold, answer) if isinstance(gold, Sequence) else (answer, gold)
    parts = [item.value for item in ratio.items if isinstance(item, Number)]
    if len(parts) != 2 or not isinstance(number, Number):
        return False
    return algebra.equal(algebra.divide(*parts), number.value)


def _same_matrix(gold: Matrix, answer: Matrix) -> bool | None:
    if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
        return False
    pairs = [
        (a, b)
        for one, other in zip(gold.rows, answer.rows, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    return _all([same_shape(a, b) for a, b in pairs])


def _same_vector(gold: Shape, answer: Shape) -> bool | None:
    """A column or a row written as a tuple is the same vector."""
    matrix, sequence = (gold, answer) if isinstance(gold, Matrix) else (answer, gold)
    cells = [cell for row in matrix.rows for cell in row]
    is_vector = len(matrix.rows) == 1 or all(len(row) == 1 for row in matrix.rows)
    if not is_vector or sequence.brackets not in ("()", "[]") or len(cells) != len(sequence.items):
        return False
    return _all([same_shape(a, b) for a, b in zip(cells, sequence.items, strict=True)])


def _same_sequence(gold: Sequence, answer: Sequence) -> bool | None:
    if len(gold.items) != len(answer.items):
        return False
    kinds = {"" if s.brackets == "±" else s.brackets for s in (gold, answer)}
    if kinds <= {"", "{}"}:
        return _same_unordered(gold.items, answer.items)
    if len(kinds) > 1 and "" not in kinds:
        return False
    return _all([same_shape(a, b) for a, b in zip(gold.items, answer.items, strict=True)])


def _same_unordered(gold: tuple[Shape, ...], answer: tuple[Shape, ...]) -> bool | None:
    left, is_unsure = list(answer), False
    for item in gold:
        verdicts = [same_shape(item, other) for other in left]
        if True in verdicts:
            del left[verdicts.index(True)]
        elif None in verdicts:
            is_unsure = True
        else:
            return False
    return None if is_unsure else True


def _all(verdicts: list[bool | None]) -> bool | None:
    if False in verdicts:
        return False
    return None if None in verdicts else True
