"""Decision rules such as `low > 0 and p_adj < 0.05`: names, numbers, comparisons, and / or / not.

A parser of its own, because a rule comes from a stranger: nothing is evaluated but this grammar.

    rule       = all {"or" all}
    all        = test {"and" test}
    test       = "not" test | "(" rule ")" | operand ("<" | "<=" | ">" | ">=" | "==" | "!=") operand
    operand    = number | name            (a name may have dots; its value is looked up)
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import NoReturn

MAX_RULE_CHARS = 500
MAX_NESTING = 50
"""Brackets and `not` in one rule: each is a level of the parser's own stack."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_.]*)|(?P<sign><=|>=|==|!=|<|>|\(|\)))",
    re.ASCII,
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_WORDS = ("and", "or", "not")


class RuleError(ValueError):
    """A rule outside the grammar, or one that names what has no value."""


def evaluate_rule(rule: str, values: Mapping[str, float | None]) -> bool:
    """Whether the rule holds of the values. Raises RuleError."""
    parser = _Parser(rule, values)
    result = parser.any_of()
    if parser.at < len(parser.tokens):
        raise RuleError(f"{rule[:80]!r}: cannot read from {parser.tokens[parser.at]!r} on")
    return result


def rule_names(rule: str) -> set[str]:
    """The names that a rule looks up. Raises RuleError on what is no token."""
    return {t for t in _tokens(rule) if t[0].isalpha() or t[0] == "_"} - set(_WORDS)


def _tokens(rule: str) -> list[str]:
    if len(rule) > MAX_RULE_CHARS:
        raise RuleError(f"a rule of {len(rule)} characters")
    tokens, at, end = [], 0, len(rule.rstrip())
    while at < end:
        match = _TOKEN.match(rule, at)
        if match is None:
            raise RuleError(f"{rule[:80]!r}: cannot read {rule[at : at + 10]!r}")
        tokens.append(match[match.lastgroup or 0])
        at = match.end()
    if tokens.count("(") + tokens.count("not") > MAX_NESTING:
        raise RuleError(f"{rule[:80]!r}: nested too deeply")
    return tokens


class _Parser:
    """Recursive descent; both sides of `and` and `or` are always looked at, so errors show."""

    def __init__(self, rule: str, values: Mapping[str, float | None]) -> None:
        self.tokens, self.at = _tokens(rule), 0
        self._rule, self._values = rule, values

    def any_of(self) -> bool:
        result = self._all_of()
        while self._take("or"):
            result |= self._all_of()
        return result

    def _all_of(self) -> bool:
        result = self._test()
        while self._take("and"):
            result &= self._test()
        return result

    def _test(self) -> bool:
        if self._take("not"):
            return not self._test()
        if self._take("("):
            result = self.any_of()
            if not self._take(")"):
                self._fail("a bracket is not closed")
            return result
        left = self._operand()
        sign = self._next()
        if sign not in _COMPARE:
            self._fail(f"{sign!r} is no comparison")
        return _COMPARE[sign](left, self._operand())

    def _operand(self) -> float:
        token = self._next()
        if token[0].isdigit() or token[0] in "+-.":
            return float(token)
        value = self._values.get(token)
        if token in _WORDS or token in "()" or value is None:
            self._fail(f"{token!r} has no value here")
        return value

    def _take(self, token: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def _next(self) -> str:
        if self.at == len(self.tokens):
            self._fail("it ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def _fail(self, why: str) -> NoReturn:
        raise RuleError(f"{self._rule[:80]!r}: {why}")
