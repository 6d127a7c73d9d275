"""Reads a whole answer into its shape."""

from __future__ import annotations

import itertools
import re

from pellucid.rewards import algebra
from pellucid.rewards.algebra import ContradictionError, UndecidedError, Value
from pellucid.rewards.parse import parse
from pellucid.rewards.regions import REALS, as_region, union
from pellucid.rewards.shapes import (
    Assignment,
    Infinite,
    Interval,
    Matrix,
    Number,
    Region,
    Relation,
    Sequence,
    Shape,
    Word,
)

_NUMBER_WORDS = dict(
    zip(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
        range(11),
        strict=True,
    )
)
_WORD = re.compile(r"\(?[A-Za-z][A-Za-z' -]*\)?")
_REALS = re.compile(r"\\mathbb\s*\{?\s*R\s*\}?|(?:all )?reals?(?: numbers?)?", re.IGNORECASE)
_INFINITY = re.compile(r"([+-]?)\s*(?:\\infty|\\infin|infinity|infty|inf|oo)", re.IGNORECASE)
_OPEN, _CLOSE = "([{", ")]}"
_OPS = re.compile(
    r"(?P<ne>\\neq?(?![a-zA-Z])|!=)"
    r"|(?P<le>\\le(?:q|qslant)?(?![a-zA-Z])|<=)|(?P<ge>\\ge(?:q|qslant)?(?![a-zA-Z])|>=)"
    r"|(?P<lt>\\lt(?![a-zA-Z])|<)|(?P<gt>\\gt(?![a-zA-Z])|>)|(?P<eq>=)"
)
_OP_NAMES = {"ne": "!=", "le": "<=", "ge": ">=", "lt": "<", "gt": ">", "eq": "="}
_CONNECTIVE = re.compile(
    r"\s*(?<![a-zA-Z])(?P<and>and|\\land|\\wedge)(?![a-zA-Z])\s*"
    r"|\s*(?<![a-zA-Z])(?:or|\\lor|\\vee)(?![a-zA-Z])\s*"
)
_CUP = re.compile(r"\\(?:big)?cup(?![a-zA-Z])|(?<=[)\]])\s*U\s*(?=[(\[])")
_MEMBER = re.compile(r"\s*[a-zA-Z]\s*\\in(?![a-zA-Z])")
_SUCH_THAT = re.compile(r"\s*[a-zA-Z]\s*(?:\\in\s*\\mathbb\s*\{?\s*R\s*\}?)?\s*(?:\||:|\\mid)")
_MATRIX = re.compile(
    r"[(\[]?\s*\\begin\s*\{([pbvB]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\s*\{\1\}\s*[)\]]?",
    re.DOTALL,
)
_NAME = re.compile(r"\\?[a-zA-Z]+(?:_\{?\w+\}?)?'*")
_FUNCTION_HEAD = re.compile(
    r"([a-zA-Z](?:\^\{?-1\}?)?)\s*\(\s*[a-z](?:\s*,\s*[a-z])*\s*\)"
)  # f(x), g(x, y)
_RATIO = re.compile(r"\d+(?:\.\d+)?(?:\s*:\s*\d+(?:\.\d+)?)+")
_BRACE_NAMES = {
    r"\{": "{", r"\}": "}", r"\lbrace": "{", r"\rbrace": "}", r"\langle": "(", r"\rangle": ")",
    r"\lparen": "(", r"\rparen": ")", r"\lbrack": "[", r"\rbrack": "]",
}  # fmt: skip


def read_shape(text: str) -> Shape:
    """Raises UndecidedError where the text has no shape that is known here."""
    for name, bracket in _BRACE_NAMES.items():
        text = text.replace(name, bracket)
    return _read(text)


def _read(text: str) -> Shape:
    text = text.strip().rstrip(".,;").strip()
    if not text:
        raise UndecidedError("empty")
    readers = (
        _read_word,
        _read_alternatives,
        _read_union,
        _read_relation,
        _read_list,
        _read_matrix,
        _read_bracketed,
        _read_plus_minus,
    )
    for reader in readers:
        if (shape := reader(text)) is not None:
            return shape
    if text.endswith("%"):
        return Number(parse(text.rstrip("%").rstrip("\\")), is_percent=True)
    return Number(parse(text))


def split_top(text: str, separators: str) -> list[str]:
    """Split at separators outside all brackets; a bracket of any kind closes any: `[0, 1)`."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth -= 1
        elif depth == 0 and char in separators:
            parts.append(text[start:at])
            start = at + 1
    return [part for part in (*parts, text[start:]) if part.strip()]


def _read_word(text: str) -> Shape | None:
    if _REALS.fullmatch(text):
        return REALS
    if match := _INFINITY.fullmatch(text):
        return Infinite(-1 if match[1] == "-" else 1)
    if not _WORD.fullmatch(text) or _CONNECTIVE.search(text):
        return None
    word = text.strip("() ").casefold()
    if word in _NUMBER_WORDS:
        return Number(algebra.rational(_NUMBER_WORDS[word]))
    return Word(word) if max(map(len, word.split())) > 2 and "sqrt" not in word else None


def _read_alternatives(text: str) -> Shape | None:
    """`1 and 2`, `x = 1 or x = 2`, `x < 1 or x > 2`."""
    ands = [match["and"] for match in _CONNECTIVE.finditer(text)]
    if not ands:
        return None
    parts = [match.start() for match in _CONNECTIVE.finditer(text)]
    ends = [match.end() for match in _CONNECTIVE.finditer(text)]
    pieces = [text[a:b] for a, b in zip([0, *ends], [*parts, len(text)], strict=True)]
    shapes = [_read(item) for piece in pieces for item in split_top(piece, ",;")]
    if any(isinstance(shape, Relation | Region) for shape in shapes):
        regions = [region for shape in shapes if (region := as_region(shape))]
        if any(ands) or len(regions) < len(shapes):
            raise UndecidedError("conjunction of conditions")
        return union(regions)
    return Sequence(tuple(shapes), "")


def _read_union(text: str) -> Shape | None:
    parts = _CUP.split(text)
    if len(parts) < 2:
        return None
    parts[0] = _MEMBER.sub("", parts[0], count=1)
    regions = [region for part in parts if (region := as_region(_read(part)))]
    if len(regions) < len(parts):
        raise UndecidedError("union of something else than intervals")
    return union(regions)


def _read_relation(text: str) -> Shape | None:
    if member := _MEMBER.match(text):
        shape = _read(text[member.end() :])
        return as_region(shape) or shape
    found = [match for match in _OPS.finditer(text) if _is_outside(text, match.start())]
    if not found or len(split_top(text, ",;")) > 1:
        return None
    edges = [0, *(edge for match in found for edge in match.span()), len(text)]
    sides = [text[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True)]
    ops = [_OP_NAMES[match.lastgroup or ""] for match in found]
    return _read_equation(sides) if set(ops) == {"="} else _read_inequality(sides, ops)


def _is_outside(text: str, at: int) -> bool:
    before = text[:at]
    return sum(map(before.count, _OPEN)) == sum(map(before.count, _CLOSE))


def _read_equation(sides: list[str]) -> Shape:
    head = sides[0]
    function = _FUNCTION_HEAD.fullmatch(head)
    if function or _NAME.fullmatch(head):
        shapes = [_read(side) for side in sides[1:]]
        _check_equal(shapes)
        return Assignment(function[1] if function else head, shapes[-1])
    shapes = [_read(side) for side in sides]
    values = [shape.value for shape in shapes if isinstance(shape, Number)]
    has_variables = any(
        atom[0] == algebra.VARIABLE for value in values for atom in algebra.atoms_of(value)
    )
    if len(values) == len(shapes) == 2 and has_variables:
        return Relation(values[0], "=", values[1])
    _check_equal(shapes)
    return shapes[-1]


def _check_equal(shapes: list[Shape]) -> None:
    """Raises where a chain `a = b = c` does not surely hold."""
    for a, b in itertools.pairwise(shapes):
        if not isinstance(a, Number) or not isinstance(b, Number):
            raise UndecidedError("an equation of something else than numbers")
        verdict = algebra.equal(_plain_value(a), _plain_value(b))
        if verdict is False:
            raise ContradictionError("sides differ")
        if verdict is None:
            raise UndecidedError("sides that may differ")


def _plain_value(number: Number) -> Value:
    hundred = algebra.rational(100)
    return algebra.divide(number.value, hundred) if number.is_percent else number.value


def _read_inequality(sides: list[str], ops: list[str]) -> Shape:
    if len(ops) == 1:
        left, right = (parse(side) for side in sides)
        if ops[0].startswith(">"):
            return Relation(right, ops[0].replace(">", "<"), left)
        return Relation(left, ops[0], right)
    if ops[0].startswith(">"):
        sides, ops = sides[::-1], [op.replace(">", "<") for op in ops[::-1]]
    if len(ops) != 2 or not set(ops) <= {"<", "<="}:
        raise UndecidedError("mixed chain of relations")
    is_function = _FUNCTION_HEAD.fullmatch(sides[1])
    if not is_function and algebra.as_variable(parse(sides[1])) is None:
        raise UndecidedError("chain around an expression")
    low, high = (None if _INFINITY.fullmatch(side) else parse(side) for side in sides[::2])
    has_low, has_high = ops[0] == "<=" and low is not None, ops[1] == "<=" and high is not None
    return Region((Interval(low, has_low, high, has_high),))


def _read_list(text: str) -> Shape | None:
    parts = split_top(text, ",;")
    return Sequence(_flattened(parts), "") if len(parts) > 1 else None


def _flattened(parts: list[str]) -> tuple[Shape, ...]:
    """Items, where `1 \\pm a` counts as two."""
    items: list[Shape] = []
    for part in parts:
        shape = _read(part)
        is_double = isinstance(shape, Sequence) and shape.brackets == "±"
        items.extend(shape.items if is_double else [shape])
    return tuple(items)


def _read_bracketed(text: str) -> Shape | None:
    if text[0] not in _OPEN or text[-1] not in _CLOSE or not _is_one_group(text):
        return None
    brackets, inner = text[0] + text[-1], text[1:-1]
    if brackets == "{}" and (condition := _SUCH_THAT.match(inner)):
        shape = _read(inner[condition.end() :])
        return as_region(shape) or shape
    parts = split_top(inner, ",;")
    if len(parts) == 1 and brackets != "{}":
        return None
    return Sequence(_flattened(parts), brackets)


def _is_one_group(text: str) -> bool:
    depth = 0
    for at, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if depth == 0:
            return at == len(text) - 1
    return False


def _read_matrix(text: str) -> Shape | None:
    match = _MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [row for row in match[2].split(r"\\") if row.strip()]
    return Matrix(tuple(tuple(_read(cell) for cell in row.split("&")) for row in rows))


def _read_plus_minus(text: str) -> Shape | None:
    if _RATIO.fullmatch(text):
        return Sequence(tuple(_read(part) for part in text.split(":")), ":")
    if r"\pm" not in text and r"\mp" not in text:
        return None
    signs = (("+", "-"), ("-", "+"))
    values = [parse(text.replace(r"\pm", up).replace(r"\mp", down)) for up, down in signs]
    return Sequence(tuple(Number(value) for value in values), "±")
