"""Exact arithmetic for answers: quotients of polynomials over radicals, pi, i, e and variables.

A polynomial is a map from monomials to rationals; a monomial is a sorted tuple of (atom, exponent).
Radicals are atoms of primes with exponents in [0, 1), which are linearly independent over the
rationals, so two polynomials without opaque atoms are equal exactly if their maps are.
Opaque atoms (sines, nested roots) carry their numeric value: enough to tell apart, never to equate.
"""

from __future__ import annotations

import cmath
import math
from fractions import Fraction
from typing import NamedTuple

MAX_BITS = 1 << 16
"""Numbers beyond this size are never evaluated: `9^9^9^9` must cost nothing."""
MAX_TERMS = 400
MAX_POWER = 64
"""Largest power of a sum that is multiplied out."""
APART = 1e-9
"""Relative distance from which two numeric values are surely different (double precision)."""

PRIME, IMAGINARY, CONSTANT, VARIABLE, OPAQUE = range(5)
Atom = tuple[int, object, complex | None]
"""(kind, payload, numeric value or None). Atoms of equal kind and payload have equal values."""
Monomial = tuple[tuple[Atom, Fraction], ...]
Poly = dict[Monomial, Fraction]


class UndecidedError(Exception):
    """The expression is outside what can be compared exactly."""


class TooBigError(UndecidedError):
    """A number too large to be evaluated."""


class ContradictionError(UndecidedError):
    """The text is surely no answer: it claims that `7 = 5`, or puts two numbers side by side."""


class Value(NamedTuple):
    """The quotient of two polynomials; a denominator of one term is folded into the numerator."""

    num: Poly
    den: Poly


ONE: Poly = {(): Fraction(1)}


def rational(number: Fraction | int) -> Value:
    return Value({(): Fraction(number)} if number else {}, ONE)


def symbol(name: str) -> Value:
    """A variable, `e`, or `i`, which is always the imaginary unit."""
    if name == "i":
        atom: Atom = (IMAGINARY, "i", 1j)
    elif name == "e":
        atom = (CONSTANT, "e", complex(math.e))
    else:
        atom = (VARIABLE, name, None)
    return Value({((atom, Fraction(1)),): Fraction(1)}, ONE)


PI = Value({(((CONSTANT, "pi", complex(math.pi)), Fraction(1)),): Fraction(1)}, ONE)


def opaque(label: str, *args: Value, value: complex | None) -> Value:
    """A function value known only by name, arguments and, if all are constant, its number."""
    if value is not None and not cmath.isfinite(value):
        raise UndecidedError(f"{label} is not finite")
    payload = f"{label}({';'.join(canonical(arg) for arg in args)})"
    return Value({(((OPAQUE, payload, value), Fraction(1)),): Fraction(1)}, ONE)


def canonical(value: Value) -> str:
    """Text that is equal for equal polynomials."""
    return "/".join(str(sorted(part.items(), key=str)) for part in value)


def as_fraction(value: Value) -> Fraction | None:
    """The rational number that it is, or None."""
    if value.den != ONE:
        return None
    if not value.num:
        return Fraction(0)
    return value.num.get(()) if len(value.num) == 1 else None


def as_variable(value: Value) -> str | None:
    """Name of the variable that it is, or None."""
    if value.den == ONE and len(value.num) == 1:
        ((monomial, coefficient),) = value.num.items()
        if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1:
            kind, name, _ = monomial[0][0]
            return str(name) if kind == VARIABLE else None
    return None


def atoms_of(value: Value) -> set[Atom]:
    return {atom for part in value for monomial in part for atom, _ in monomial}


def add(a: Value, b: Value) -> Value:
    if a.den == b.den:
        return _tidied(_sum(a.num, b.num), a.den)
    return _tidied(_sum(_product(a.num, b.den), _product(b.num, a.den)), _product(a.den, b.den))


def negate(a: Value) -> Value:
    return Value({monomial: -c for monomial, c in a.num.items()}, a.den)


def multiply(a: Value, b: Value) -> Value:
    return _tidied(_product(a.num, b.num), _product(a.den, b.den))


def divide(a: Value, b: Value) -> Value:
    if not b.num:
        raise UndecidedError("division by zero")
    return _tidied(_product(a.num, b.den), _product(a.den, b.num))


def power(base: Value, exponent: Value) -> Value:
    """Exact for integer exponents, and for fractions over a positive number or a variable."""
    index = as_fraction(exponent)
    if index is None:
        return opaque("pow", base, exponent, value=_numeric_power(base, exponent))
    if index.denominator != 1:
        return _root_power(base, index)
    number = as_fraction(base)
    if number is not None:
        return rational(_bounded_power(number, int(index)))
    if index < 0:
        return divide(rational(1), power(base, rational(-index)))
    if len(base.num) == 1 and base.den == ONE:
        ((monomial, coefficient),) = base.num.items()
        return _from_monomial(
            [(atom, e * index) for atom, e in monomial], _bounded_power(coefficient, int(index))
        )
    if index > MAX_POWER:
        raise UndecidedError("a high power of a sum")
    result = rational(1)
    for _ in range(int(index)):
        result = multiply(result, base)
    return result


def root(base: Value, degree: int) -> Value:
    return power(base, rational(Fraction(1, degree)))


def numeric(value: Value) -> complex | None:
    """Its number in double precision, or None where variables occur."""
    parts = [_numeric_sum(part) for part in value]
    if parts[0] is None or parts[1] is None or parts[1][0] == 0:
        return None
    return parts[0][0] / parts[1][0]


def equal(a: Value, b: Value) -> bool | None:
    """True and False are certain. None: opaque parts that numbers cannot tell apart."""
    left, right = _product(a.num, b.den), _product(b.num, a.den)
    difference = _sum(left, {monomial: -c for monomial, c in right.items()})
    if not difference:
        return True
    if all(atom[0] != OPAQUE for monomial in difference for atom, _ in monomial):
        return False
    sized = _numeric_sum(difference)
    if sized is None:
        return None
    return False if abs(sized[0]) > APART * sized[1] else None


def _numeric_sum(poly: Poly) -> tuple[complex, float] | None:
    """Its number and the sum of its terms' sizes, or None where variables occur."""
    total, size = 0j, 0.0
    try:
        for monomial, coefficient in poly.items():
            term = complex(coefficient)
            for (kind, payload, number), exponent in monomial:
                base = complex(payload) if kind == PRIME else number  # type: ignore[arg-type]
                if base is None:
                    return None
                term *= base ** float(exponent)
            total += term
            size += abs(term)
    except (OverflowError, ZeroDivisionError):
        return None
    return total, size


def _numeric_power(base: Value, exponent: Value) -> complex | None:
    b, e = numeric(base), numeric(exponent)
    if b is None or e is None:
        return None
    try:
        return b**e
    except (OverflowError, ZeroDivisionError) as error:
        raise TooBigError("power out of range") from error


def _bounded_power(base: Fraction, exponent: int) -> Fraction:
    if base == 0 and exponent < 0:
        raise UndecidedError("division by zero")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) != 1 and size * abs(exponent) > MAX_BITS:
        raise TooBigError("number too large to evaluate")
    return base**exponent if abs(base) != 1 else base ** (exponent % 2)


def _root_power(base: Value, index: Fraction) -> Value:
    number = as_fraction(base)
    if number is not None:
        if number == 0:
            return rational(0)
        if number > 0:
            return _radical(number, index)
        if index.denominator == 2:
            half_turns = symbol("i") if index.numerator % 4 == 1 else negate(symbol("i"))
            return multiply(half_turns, _radical(-number, index))
        if index.denominator % 2:  # the real root, as school mathematics has it
            result = _radical(-number, index)
            return negate(result) if index.numerator % 2 else result
    elif len(base.num) == 1 and base.den == ONE:
        ((monomial, coefficient),) = base.num.items()
        is_plain = all(e == 1 and atom[0] in (CONSTANT, VARIABLE) for atom, e in monomial)
        if is_plain and coefficient > 0:
            rooted = _from_monomial([(atom, e * index) for atom, e in monomial], Fraction(1))
            return multiply(_radical(coefficient, index), rooted)
    return opaque("pow", base, rational(index), value=_numeric_power(base, rational(index)))


def _radical(number: Fraction, index: Fraction) -> Value:
    """A positive rational to a fractional power, as a product of prime radicals."""
    powers: dict[int, int] = {}
    for part, sign in ((number.numerator, 1), (number.denominator, -1)):
        for prime, count in _factor(part).items():
            powers[prime] = powers.get(prime, 0) + sign * count
    atoms = [((PRIME, prime, None), count * index) for prime, count in powers.items()]
    return _from_monomial(atoms, Fraction(1))


def _factor(number: int) -> dict[int, int]:
    factors: dict[int, int] = {}
    divisor = 2
    while divisor * divisor <= number:
        if divisor > 5000:
            raise UndecidedError("radicand too large to factor")
        while number % divisor == 0:
            factors[divisor] = factors.get(divisor, 0) + 1
            number //= divisor
        divisor += 1 if divisor == 2 else 2
    if number > 1:
        factors[number] = factors.get(number, 0) + 1
    return factors


def _from_monomial(atoms: list[tuple[Atom, Fraction]], coefficient: Fraction) -> Value:
    monomial, factor = _normal(dict(atoms))
    return Value({monomial: coefficient * factor}, ONE)


def _normal(exponents: dict[Atom, Fraction]) -> tuple[Monomial, Fraction]:
    """Carry whole powers of primes, and squares of i, into a rational factor."""
    factor, kept = Fraction(1), []
    for atom, exponent in exponents.items():
        kind, payload, _ = atom
        if kind == PRIME:
            whole = exponent.numerator // exponent.denominator
            factor *= _bounded_power(Fraction(payload), whole)  # type: ignore[arg-type]
            exponent -= whole
        elif kind == IMAGINARY and exponent.denominator == 1:
            turns = int(exponent) % 4
            factor *= -1 if turns >= 2 else 1
            exponent = Fraction(turns % 2)
        if exponent:
            kept.append((atom, exponent))
    kept.sort(key=lambda pair: (pair[0][0], str(pair[0][1])))
    return tuple(kept), factor


def _sum(a: Poly, b: Poly) -> Poly:
    result = dict(a)
    for monomial, coefficient in b.items():
        total = result.get(monomial, 0) + coefficient
        if total:
            result[monomial] = Fraction(total)
        else:
            del result[monomial]
    return result


def _product(a: Poly, b: Poly) -> Poly:
    if b == ONE:
        return a
    if a == ONE:
        return b
    if len(a) * len(b) > MAX_TERMS:
        raise UndecidedError("too many terms")
    result: Poly = {}
    for mono_a, coeff_a in a.items():
        for mono_b, coeff_b in b.items():
            exponents = dict(mono_a)
            for atom, exponent in mono_b:
                exponents[atom] = exponents.get(atom, Fraction(0)) + exponent
            monomial, factor = _normal(exponents)
            coefficient = coeff_a * coeff_b * factor
            if coefficient.numerator.bit_length() > MAX_BITS:
                raise TooBigError("number too large to evaluate")
            result[monomial] = result.get(monomial, Fraction(0)) + coefficient
    return {monomial: coefficient for monomial, coefficient in result.items() if coefficient}


def _tidied(num: Poly, den: Poly) -> Value:
    """Fold a denominator of one term into the numerator."""
    if den == ONE or len(den) != 1:
        return Value(num, den)
    ((monomial, coefficient),) = den.items()
    inverse, factor = _normal({atom: -exponent for atom, exponent in monomial})
    return Value(_product(num, {inverse: factor / coefficient}), ONE)
