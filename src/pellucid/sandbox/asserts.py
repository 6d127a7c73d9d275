"""Takes tests apart: what the program must compute, and what is compared outside of it.

`assert sorted(f(x)) == [1, 2]` becomes the call `f(x)`, evaluated by the program, and the check
`sorted(_hole_0) == [1, 2]`, evaluated where the program never was. The program so learns its
inputs, but neither the expected values nor the comparison. A test that cannot be cut like this (a
loop, a call that needs a loop's variable, state between calls) is kept whole and is weaker.
"""

from __future__ import annotations

import ast
import builtins
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HOLE = "_hole_"
_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One assert without its calls. Example: Check(text="_hole_0 == 3", source="assert f(2) == 3",
    calls=(0,), expected=3, is_equality=True)
    """

    source: str
    """The test as written, for messages."""
    text: str
    """Expression over `_hole_i`."""
    calls: tuple[int, ...]
    """Which calls it needs."""
    is_equality: bool = False
    """The check is `_hole_i == expected` with a literal, and needs no interpreter."""
    expected: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Tests taken apart."""

    setup: str
    """Imports and definitions of the tests, run on both sides."""
    calls: tuple[str, ...]
    checks: tuple[Check, ...]
    weak: str
    """Statements that can only run in the program's own process."""
    num_weak: int

    @property
    def num_tests(self) -> int:
        return len(self.checks) + self.num_weak


@functools.lru_cache(maxsize=10_000)
def take_apart(tests: Sequence[str], setup: str = "") -> Plan:
    """`tests`: a tuple of sources. Raises ValueError where one is no Python or there is none."""
    checks: list[Check] = []
    calls: list[str] = []
    imports, weak = ([], [setup]) if _needs_program(setup) else ([setup], [])
    known = _bound_names(_parse(setup))
    num_weak, is_weak_from_here = 0, bool(weak)
    for test in tests:
        for node in _parse(test).body:
            if isinstance(node, ast.Import | ast.ImportFrom) and not is_weak_from_here:
                imports.append(ast.unparse(node))
                known |= _bound_names(node)
                continue
            check = None
            if isinstance(node, ast.Assert) and not is_weak_from_here:
                check = _cut(node, known, calls)
            if check is not None:
                checks.append(check)
                continue
            # Any other statement may change what later asserts see: they stay beside it.
            is_weak_from_here |= not isinstance(node, ast.Assert)
            num_weak += isinstance(node, ast.Assert) or not _is_definition(node)
            weak.append(ast.unparse(node))
    if not checks and not num_weak:
        raise ValueError("no test")
    return Plan(
        setup="\n".join(imports),
        calls=tuple(calls),
        checks=tuple(checks),
        weak="\n".join(weak),
        num_weak=num_weak,
    )


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"test is no Python: {error}") from error


def _needs_program(setup: str) -> bool:
    """Whether the setup uses names that only the program can bring, such as its classes."""
    tree = _parse(setup)
    bound = _bound_names(tree) | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return any(name not in bound and not hasattr(builtins, name) for name in used)


def _is_definition(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.FunctionDef)


def _bound_names(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _cut(node: ast.Assert, known: set[str], calls: list[str]) -> Check | None:
    """The check, its calls appended to `calls`; None where the test cannot be cut."""
    source = ast.unparse(node)
    cutter = _Cutter(known, first=len(calls))
    try:
        test = cutter.visit(ast.parse(ast.unparse(node.test), mode="eval").body)
    except _UncuttableError:
        return None
    if not cutter.calls:
        return None  # `assert pow(2, 3) == 8`: which pow is meant only the program's process knows
    used = tuple(range(len(calls), len(calls) + len(cutter.calls)))
    calls += cutter.calls
    expected = _expected(test)
    text = ast.unparse(ast.fix_missing_locations(test))
    modules = sorted(cutter.modules)
    if modules:
        text = _with_modules(text, modules)
    is_equality = expected is not _MISSING
    return Check(
        source=source,
        text=text,
        calls=used,
        is_equality=is_equality,
        expected=expected if is_equality else None,
    )


def _with_modules(text: str, modules: Sequence[str]) -> str:
    """A lambda that is given the standard modules which the test relies on the program for."""
    given = ", ".join(f"__import__({name!r})" for name in modules)
    return f"(lambda {', '.join(modules)}: {text})({given})"


def _expected(test: ast.expr) -> Any:
    """The literal that the one hole must equal."""
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        for one, other in ((test.left, test.comparators[0]), (test.comparators[0], test.left)):
            if isinstance(one, ast.Name) and one.id.startswith(HOLE):
                try:
                    return ast.literal_eval(other)
                except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                    continue
    return _MISSING


class _UncuttableError(Exception):
    pass


class _Cutter(ast.NodeTransformer):
    """Replaces every largest expression that starts at one of the program's names by a hole."""

    def __init__(self, known: set[str], *, first: int) -> None:
        self._known = known
        self._first = first
        self._local: list[set[str]] = []
        self.calls: list[str] = []
        self.modules: set[str] = set()

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
            raise _UncuttableError
        if isinstance(node, ast.Call | ast.Attribute | ast.Subscript | ast.Name):
            return self._visit_chain(node)
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            return self._visit_comprehension(node)
        if isinstance(node, ast.Lambda):
            names = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
            return self._inside(node, names)
        return self.generic_visit(node)

    def _visit_chain(self, node: ast.expr) -> ast.AST:
        root, path = node, []
        while not isinstance(root, ast.Name):
            path.append(root)
            if isinstance(root, ast.Call):
                root = root.func
            elif isinstance(root, ast.Attribute | ast.Subscript):
                root = root.value
            else:
                return self.generic_visit(node)
        name = root.id
        if name in self._known or any(name in names for names in self._local):
            return self.generic_visit(node)
        if name in sys.stdlib_module_names and path and isinstance(path[-1], ast.Attribute):
            self.modules.add(name)
            return self.generic_visit(node)
        if hasattr(builtins, name) or name in self.modules:
            return self.generic_visit(node)
        if self._local:
            raise _UncuttableError  # it may need the loop's variables
        if any(isinstance(part, ast.NamedExpr) for part in ast.walk(node)):
            raise _UncuttableError
        self.calls.append(ast.unparse(node))
        return ast.Name(id=f"{HOLE}{self._first + len(self.calls) - 1}", ctx=ast.Load())

    def _visit_comprehension(self, node: Any) -> ast.AST:
        # The first iterable is evaluated outside of the comprehension's scope, once.
        node.generators[0].iter = first = self.visit(node.generators[0].iter)
        names = set().union(*(_bound_names(gen.target) for gen in node.generators))
        node.generators[0].iter = ast.Constant(value=None)
        result = self._inside(node, names)
        result.generators[0].iter = first
        return result

    def _inside(self, node: ast.AST, names: set[str]) -> Any:
        self._local.append(names)
        try:
            return self.generic_visit(node)
        finally:
            self._local.pop()
