"""Short Python programs: what do they print? Level 1 has no branch, level 5 nested loops with one.

A program is drawn as a tree, printed as Python and run by the interpreter below, so that nothing
that was generated is ever executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pellucid.evidence.draw import Draw
from pellucid.evidence.fresh_items.item import Item

_NAMES = ("a", "b", "c")


class _Assign(NamedTuple):
    """`name = (name * factor + other + plus) % modulus`"""

    name: str
    factor: int
    other: str
    plus: int
    modulus: int


class _Repeat(NamedTuple):
    """`for _ in range(times): …`"""

    times: int
    body: tuple[_Statement, ...]


class _Branch(NamedTuple):
    """`if name % divisor == rest: … else: …`"""

    name: str
    divisor: int
    rest: int
    then: tuple[_Statement, ...]
    otherwise: tuple[_Statement, ...]


_Statement = _Assign | _Repeat | _Branch


def draw_item(draw: Draw, level: int) -> Item:
    """A program of `level` 1 … 5 that prints one integer."""
    names = _NAMES[: 2 if level < 3 else 3]
    start = {name: draw.randint(1, 9) for name in names}
    body = _body(draw, level, names)
    shown = draw.choice(sorted(_assigned(body)))
    lines = [f"{name} = {value}" for name, value in start.items()]
    lines += _lines(body, 0)
    lines.append(f"print({shown})")
    _run(body, start)
    question = "What does this Python program print?\n" + "\n".join(lines)
    return Item(question=question, gold=str(start[shown]))


def _body(draw: Draw, level: int, names: Sequence[str]) -> tuple[_Statement, ...]:
    def assign() -> _Assign:
        return _assign(draw, names)

    def branch() -> _Branch:
        divisor = draw.randint(2, 4)
        rest = draw.below(divisor)
        return _Branch(draw.choice(names), divisor, rest, (assign(),), (assign(),))

    if level == 1:
        return assign(), assign()
    if level == 2:
        return _Repeat(draw.randint(2, 3), (assign(),)), assign()
    if level == 3:
        return assign(), _Repeat(draw.randint(2, 3), (branch(),)), assign()
    if level == 4:
        return assign(), _Repeat(draw.randint(3, 5), (assign(), branch())), assign()
    inner = _Repeat(2, (branch(), assign()))
    return assign(), _Repeat(draw.randint(3, 4), (inner, assign())), branch()


def _assign(draw: Draw, names: Sequence[str]) -> _Assign:
    return _Assign(
        draw.choice(names),
        draw.randint(1, 4),
        draw.choice(names),
        draw.randint(1, 9),
        draw.choice((10, 20, 50, 97)),
    )


def _lines(body: Sequence[_Statement], depth: int) -> list[str]:
    """The program as text."""
    indent, lines = "    " * depth, []
    for statement in body:
        if isinstance(statement, _Assign):
            name, factor, other, plus, modulus = statement
            lines.append(f"{indent}{name} = ({name} * {factor} + {other} + {plus}) % {modulus}")
        elif isinstance(statement, _Repeat):
            lines.append(f"{indent}for _ in range({statement.times}):")
            lines += _lines(statement.body, depth + 1)
        else:
            test = f"{statement.name} % {statement.divisor} == {statement.rest}"
            lines.append(f"{indent}if {test}:")
            lines += _lines(statement.then, depth + 1)
            lines.append(f"{indent}else:")
            lines += _lines(statement.otherwise, depth + 1)
    return lines


def _assigned(body: Sequence[_Statement]) -> set[str]:
    """Variables that the program may change: asking for another would need no reading."""
    names: set[str] = set()
    for statement in body:
        if isinstance(statement, _Assign):
            names.add(statement.name)
        elif isinstance(statement, _Repeat):
            names |= _assigned(statement.body)
        else:
            names |= _assigned(statement.then) | _assigned(statement.otherwise)
    return names


def _run(body: Sequence[_Statement], state: dict[str, int]) -> None:
    """Runs the tree; `state` holds the variables, and what becomes of them."""
    for statement in body:
        if isinstance(statement, _Assign):
            name, factor, other, plus, modulus = statement
            state[name] = (state[name] * factor + state[other] + plus) % modulus
        elif isinstance(statement, _Repeat):
            for _ in range(statement.times):
                _run(statement.body, state)
        elif state[statement.name] % statement.divisor == statement.rest:
            _run(statement.then, state)
        else:
            _run(statement.otherwise, state)
