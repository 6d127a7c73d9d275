"""Reads one expression, in LaTeX or plain text, into an exact `Value`. Recursive descent, no eval.

Implicit products bind like `*` and `/`, from the left: `1/2x` is x/2. A plain exponent of several
digits is read whole (`2^10`); a LaTeX argument without braces is one digit (`\\frac12`).
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable
from fractions import Fraction

from pellucid.rewards import algebra
from pellucid.rewards.algebra import (
    ContradictionError,
    TooBigError,
    UndecidedError,
    Value,
    rational,
)

MAX_CHARS = 2000
MAX_DEPTH = 40
MAX_FACTORIAL = 1000

_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": lambda z: 1 / cmath.tan(z),
    "sec": lambda z: 1 / cmath.cos(z),
    "csc": lambda z: 1 / cmath.sin(z),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "exp": cmath.exp,
    "ln": cmath.log,
    "log": cmath.log10,
}
_SPECIAL = (1, 2, 3, 4, 6)
"""Denominators of the multiples of pi whose sine is a radical of a rational."""
_GREEK = re.compile(
    r"\\(?:alpha|beta|gamma|delta|(?:var)?epsilon|theta|lambda|mu|nu|rho|sigma|tau|(?:var)?phi"
    r"|omega|psi|xi|eta|kappa|ell)"
)
_WORDS = (*_FUNCTIONS, "sqrt", "pi")
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<command>\\(?:[a-zA-Z]+|.))"
    rf"|(?P<word>{'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![a-zA-Z])"
    r"|(?P<letter>[a-zA-Z])(?![a-zA-Z]{2})(?<![a-zA-Z]{3})"
    r"|(?P<mark>\*\*|[-+*/^!()\[\]{}|_'])"
    r")"
)
_SIGNS = {r"\cdot": "*", r"\times": "*", r"\ast": "*", r"\div": "/", "**": "^"}
_ALIASES = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\lvert": "|", r"\rvert": "|",
    r"\vert": "|", r"\mid": "|", r"\lbrack": "[", r"\rbrack": "]", r"\dbinom": r"\binom",
    r"\tbinom": r"\binom", r"\mathrm": "", r"\lg": r"\log",
}  # fmt: skip
_STOP = frozenset(["", "+", "-", ")", "]", "}", "|"])


def parse(text: str) -> Value:
    """Raises UndecidedError where the text is not one expression that can be held exactly."""
    if len(text) > MAX_CHARS:
        raise UndecidedError("too long")
    parser = _Parser(_tokens(text))
    value = parser.sum()
    if parser.peek():
        raise UndecidedError(f"unexpected {parser.peek()!r}")
    return value


def _tokens(text: str) -> list[str]:
    tokens, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UndecidedError(f"cannot read {text[at : at + 20]!r}")
        token = match[match.lastgroup or 0]
        token = _ALIASES.get(token, token)
        tokens.append(_SIGNS.get(token, token))
        at = match.end()
    return tokens


def read_number(token: str) -> Fraction:
    """A decimal literal, exactly."""
    mantissa, _, exponent = token.lower().partition("e")
    if len(mantissa) > 4000 or abs(int(exponent or 0)) > 4000:
        raise TooBigError("number too large to evaluate")
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)


class _Parser:
    """One pass over the tokens. Grammar: sum > product > power > atom."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._open_bars = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise UndecidedError(f"missing {token!r}")

    def sum(self) -> Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UndecidedError("nested too deeply")
        total = self._product()
        while self.peek() in ("+", "-"):
            sign = self._take()
            term = self._product()
            total = algebra.add(total, term if sign == "+" else algebra.negate(term))
        self._depth -= 1
        return total

    def _product(self) -> Value:
        if self.peek() in ("+", "-"):
            sign = self._take()
            value = self._product()
            return algebra.negate(value) if sign == "-" else value
        result = self._power()
        while True:
            token = self.peek()
            if token in ("*", "/"):
                self._take()
                factor = self._signed_power()
                result = (algebra.multiply if token == "*" else algebra.divide)(result, factor)
            elif token in _STOP and not (token == "|" and self._open_bars == 0):
                return result
            elif token[0] in "0123456789." and self._tokens[self._at - 1] not in (")", "]", "}"):
                raise ContradictionError("two numbers side by side")
            else:
                result = algebra.multiply(result, self._power())

    def _signed_power(self) -> Value:
        if self.peek() in ("+", "-"):
            sign = self._take()
            value = self._signed_power()
            return algebra.negate(value) if sign == "-" else value
        return self._power()

    def _power(self) -> Value:
        before = self.peek()
        value = self._atom()
        while self.peek() == "!":
            self._take()
            value = _factorial(value)
        if self.peek() == "^":
            self._take()
            is_degrees = self._take_degrees()
            value = _degrees(value) if is_degrees else algebra.power(value, self._exponent())
        if before.isdigit() and self.peek() == r"\frac":
            return self._mixed(value)
        return value

    def _take_degrees(self) -> bool:
        """Whether `\\circ` is the exponent, as in `\\sin 30^\\circ`."""
        for form in ([r"\circ"], ["{", r"\circ", "}"]):
            if self._tokens[self._at : self._at + len(form)] == form:
                self._at += len(form)
                return True
        return False

    def _exponent(self) -> Value:
        """Right-associative, and with an own sign: `2^-3^2`."""
        if self.peek() in ("+", "-"):
            sign = self._take()
            value = self._exponent()
            return algebra.negate(value) if sign == "-" else value
        value = self._atom()
        if self.peek() == "^":
            self._take()
            value = algebra.power(value, self._exponent())
        return value

    def _mixed(self, whole: Value) -> Value:
        """`1\\frac{2}{3}` is 1 + 2/3; `2\\frac{x}{3}` and `2\\frac{5}{3}` are products."""
        start = self._at
        fraction = self._atom()
        number = algebra.as_fraction(fraction)
        literals = [token for token in self._tokens[start + 1 : self._at] if token not in "{}"]
        is_proper = number is not None and 0 < number < 1
        if is_proper and all(token.isdigit() for token in literals) and len(literals) <= 2:
            return algebra.add(whole, fraction)
        return algebra.multiply(whole, fraction)

    def _atom(self) -> Value:
        token = self._take()
        if token[:1].isdigit() or token[:1] == ".":
            return rational(read_number(token))
        if token in ("(", "[", "{"):
            value = self.sum()
            self._expect({"(": ")", "[": "]", "{": "}"}[token])
            return value
        if token == "|":
            return self._absolute()
        if token.isalpha() and len(token) == 1:
            return self._variable(token)
        name = token.lstrip("\\")
        if name == "pi":
            return algebra.PI
        if _GREEK.fullmatch(token):
            return self._variable(name)
        if name in _FUNCTIONS:
            return self._function(name)
        if name == "sqrt":
            return self._sqrt()
        if token == r"\frac":
            return algebra.divide(self._argument(), self._argument())
        if token == r"\binom":
            return _binomial(self._argument(), self._argument())
        raise UndecidedError(f"unexpected {token!r}")

    def _variable(self, name: str) -> Value:
        if self.peek() == "_":
            self._take()
            name += "_" + "".join(self._raw_argument())
        while self.peek() == "'":
            name += self._take()
        return algebra.symbol(name)

    def _raw_argument(self) -> list[str]:
        if self.peek() != "{":
            return [self._take()]
        self._take()
        taken = []
        while self.peek() not in ("}", ""):
            taken.append(self._take())
        self._expect("}")
        return taken

    def _argument(self) -> Value:
        """A LaTeX argument: a group, or one digit, letter or command."""
        token = self.peek()
        if token.isdigit() and len(token) > 1:
            self._tokens[self._at : self._at + 1] = [token[0], token[1:]]
        return self._atom()

    def _sqrt(self) -> Value:
        degree = 2
        if self.peek() == "[":
            self._take()
            index = algebra.as_fraction(self.sum())
            self._expect("]")
            if index is None or index.denominator != 1 or not 1 < index < 100:
                raise UndecidedError("odd root index")
            degree = int(index)
        return algebra.root(self._atom(), degree)

    def _absolute(self) -> Value:
        self._open_bars += 1
        value = self.sum()
        self._expect("|")
        self._open_bars -= 1
        number = algebra.numeric(value)
        if number is None:
            return algebra.opaque("abs", value, value=None)
        if not value.num:
            return value
        if abs(number.imag) > algebra.APART * abs(number) or abs(number) < algebra.APART:
            raise UndecidedError("absolute value of a number that is not surely real")
        return algebra.negate(value) if number.real < 0 else value

    def _function(self, name: str) -> Value:
        base = None
        if self.peek() == "_":
            self._take()
            base = self._argument()
        exponent = None
        if self.peek() == "^":
            self._take()
            exponent = self._exponent()
        value = _apply(name, self._function_argument(), base)
        return value if exponent is None else algebra.power(value, exponent)

    def _function_argument(self) -> Value:
        """A bracketed group, or the product that follows up to the next sign or function."""
        if self.peek() in ("(", "{", "["):
            return self._atom()
        value = self._signed_power()
        while (token := self.peek()) not in _STOP and token not in ("*", "/", "(", "["):
            if token.lstrip("\\") in _FUNCTIONS:
                break
            value = algebra.multiply(value, self._power())
        return value


def _degrees(value: Value) -> Value:
    return algebra.multiply(value, algebra.divide(algebra.PI, rational(180)))


def _apply(name: str, argument: Value, base: Value | None) -> Value:
    if name == "exp":
        return algebra.power(algebra.symbol("e"), argument)
    turns = algebra.as_fraction(algebra.divide(argument, algebra.PI))
    if name in ("sin", "cos", "tan") and turns is not None and turns.denominator in _SPECIAL:
        return _special_angle(name, turns)
    number = algebra.numeric(argument)
    try:
        result = None if number is None else _FUNCTIONS[name](number)
        if base is not None:
            return _logarithm(argument, base)
        if name == "log":  # to base 10 or e, as the author's field has it
            result = None
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise UndecidedError(f"{name} is not defined there") from error
    return algebra.opaque(name, argument, value=result)


def _special_angle(name: str, turns: Fraction) -> Value:
    """Sine, cosine or tangent of a multiple of pi/6 or pi/4, exactly."""
    if name == "tan":
        return algebra.divide(_special_angle("sin", turns), _special_angle("cos", turns))
    turns = (turns + Fraction(1, 2) if name == "cos" else turns) % 2
    sign = -1 if turns > 1 else 1
    turns = turns % 1
    quarter = min(turns, 1 - turns)  # in [0, 1/2]
    square = {0: 0, 2: Fraction(1, 4), 3: Fraction(1, 2), 4: Fraction(3, 4), 6: 1}[
        int(quarter * 12)
    ]
    value = algebra.root(rational(square), 2)
    return algebra.negate(value) if sign < 0 else value


def _logarithm(argument: Value, base: Value) -> Value:
    """Exact where it is an integer."""
    a, b = algebra.numeric(argument), algebra.numeric(base)
    number, radix = algebra.as_fraction(argument), algebra.as_fraction(base)
    value = None if a is None or b is None else cmath.log(a) / cmath.log(b)
    if value is not None and number is not None and radix is not None and radix > 0:
        power = round(value.real)
        if abs(power) < 4000 and radix**power == number:
            return rational(power)
    return algebra.opaque("log", argument, base, value=value)


def _factorial(value: Value) -> Value:
    number = algebra.as_fraction(value)
    if number is None or number.denominator != 1 or number < 0:
        return algebra.opaque("factorial", value, value=None)
    if number > MAX_FACTORIAL:
        raise TooBigError("number too large to evaluate")
    return rational(math.factorial(int(number)))


def _binomial(above: Value, below: Value) -> Value:
    n, k = algebra.as_fraction(above), algebra.as_fraction(below)
    if n is None or k is None or n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
        return algebra.opaque("binom", above, below, value=None)
    if n > MAX_FACTORIAL:
        raise TooBigError("number too large to evaluate")
    return rational(math.comb(int(n), int(k)))
