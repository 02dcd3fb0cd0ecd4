"""Expressions in a case, such as "exp(-x**2 - y**2)", turned into numpy values or UFL.

The grammar is fixed and closed, so nothing in a case can run Python:

* numbers, and the constants `pi` and `e`;
* names: the coordinates `x`, `y`, `z`, the time `t`, and the parameters that a field declares
  (there is no built-in radius: `r` is free for radial kernels, elsewhere write sqrt(x**2 + y**2));
* `+  -  *  /  **`, unary signs, parentheses;
* sin cos tan asin acos atan atan2 sinh cosh tanh exp log sqrt abs sign erf, min and max of two or
  more arguments, and where(condition, if_true, if_false);
* conditions, as the first argument of `where` alone: `< <= > >= == !=` (chains such as 0 < x < 1
  too), `and`, `or`, `not`.

`floor` and `%` are left out because UFL has no counterpart. Everything is evaluated in float64, so
a tower of powers overflows at once instead of hanging; a constant part that is not finite, such as
1/0, is refused when the expression is read. So is a polynomial degree above 40, as the quadrature
that UFL chooses grows with it.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from fem_apps.errors import CaseError
from fem_apps.fem.expression_backends import (
    ARITHMETIC,
    COMPARISONS,
    MAX_EXACT_POWER,
    SIGNS,
    VARIADIC,
    as_float,
    evaluate,
    jax_functions,
    numpy_functions,
    ufl_functions,
    ufl_number,
)

COORDINATES = ("x", "y", "z")
CONSTANTS = {"pi": math.pi, "e": math.e}
ARITY = {
    **dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"), 1),
    **dict.fromkeys(("exp", "log", "sqrt", "abs", "sign", "erf"), 1),
    "atan2": 2,
    "where": 3,
}
FUNCTIONS = (*ARITY, *VARIADIC)

MAX_LENGTH, MAX_DEPTH, MAX_DEGREE = 2000, 200, 40

_HINTS: dict[type, str] = {
    ast.BitXor: "write ** for a power",
    ast.BitAnd: "write 'and' between conditions, inside where",
    ast.BitOr: "write 'or' between conditions, inside where",
    ast.IfExp: "write where(condition, if_true, if_false)",
}


@dataclass(frozen=True)
class Expression:
    """A real-valued expression of space, time and parameters; made by `parse`.

    Attributes:
        text: what was parsed.
        names: names that occur in it ("t" in names: it depends on time).
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr = field(repr=False, compare=False)

    def numpy(self, x: np.ndarray, t: float = 0.0, **parameters: float) -> np.ndarray:
        """Values at points.

        Args:
            x: coordinates, shape (gdim, n).
            t: time.
            parameters: value of each named parameter.

        Returns:
            Values, shape (n,), also of a constant.

        Raises:
            CaseError: a coordinate beyond gdim, or a parameter without a value.
        """
        x = np.asarray(x, dtype=np.float64)
        names = self._names(x.shape[0], list(x), t, parameters)
        with np.errstate(all="ignore"):
            values = evaluate(self._tree, names, numpy_functions(), np.float64)
        return np.array(np.broadcast_to(values, x.shape[1:]), dtype=np.float64)

    def jax(self, x: Any, t: Any = 0.0, **parameters: Any) -> Any:
        """As `numpy`, traceable by JAX; parameters may be arrays that broadcast with (n,)."""
        import jax.numpy as jnp

        names = self._names(len(x), list(x), t, parameters)
        return evaluate(self._tree, names, jax_functions(), jnp.asarray)

    def ufl(self, mesh: Any, t: Any = 0.0, parameters: Mapping[str, Any] | None = None) -> Any:
        """The UFL expression on a mesh.

        Args:
            mesh: its spatial coordinate is (x, y, z).
            t: time, a `fem.Constant` where it will change.
            parameters: a `fem.Constant` (or number) for each named parameter.

        Raises:
            CaseError: a coordinate beyond the mesh's dimension, or a parameter without a value.
        """
        import ufl

        X = ufl.SpatialCoordinate(mesh)
        gdim = mesh.geometry.dim
        names = self._names(gdim, [X[i] for i in range(gdim)], t, parameters or {})
        try:
            return ufl.as_ufl(evaluate(self._tree, names, ufl_functions(), ufl_number))
        except (ValueError, ArithmeticError) as e:  # UFL computes with the numbers that it is given
            raise CaseError(f"expression {self.text!r} is not finite here: {e}") from None

    def _names(
        self, gdim: int, X: Sequence[Any], t: Any, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        names = dict(zip(COORDINATES, X, strict=False))
        known = {**CONSTANTS, **names, "t": t, **parameters}
        for name in sorted(self.names):
            if name in known:
                continue
            if name in COORDINATES:
                raise CaseError(f"expression {self.text!r} uses {name!r} on a mesh in {gdim}D")
            raise CaseError(f"expression {self.text!r}: the parameter {name!r} has no value")
        return known


def parse(text: str | float, variables: Sequence[str] = (*COORDINATES, "t")) -> Expression:
    """Read an expression.

    Args:
        text: the expression; a number is the constant expression.
        variables: names that may occur besides `pi` and `e`.

    Raises:
        CaseError: not in the grammar; names the position and what is allowed.
    """
    try:
        return _parse(text, tuple(variables))
    except _Refused as e:
        raise CaseError(f"expression {text!r}: {e}") from None


def checker(*variables: str) -> Callable[[Any], str]:
    """Validator of a pydantic field that holds an expression of these variables, as text.

    Use: `Annotated[str, BeforeValidator(checker("r"))]` for a radial kernel.
    """

    def check(value: Any) -> str:
        return _parse(value, variables).text

    return check


ExpressionText = Annotated[str, BeforeValidator(checker(*COORDINATES, "t"))]
"""Pydantic type of an expression of x, y, z and t: text or a number in a case, then text."""


class _Refused(ValueError):
    """Not in the grammar. A ValueError, so that pydantic adds the key and the value."""


def _parse(text: Any, variables: tuple[str, ...]) -> Expression:
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = repr(float(text)) if math.isfinite(text) else "inf"
    if not isinstance(text, str):
        raise _Refused("give an expression as text, or a number")
    text = " ".join(text.split())
    if not text:
        raise _Refused("the expression is empty")
    if len(text) > MAX_LENGTH:
        raise _Refused(f"longer than {MAX_LENGTH} characters")
    if not text.isascii():
        i = next(i for i, c in enumerate(text) if not c.isascii())
        raise _Refused(f"character {text[i]!r} at position {i + 1}: only plain ASCII is allowed")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as e:
        at = f" at position {e.offset}" if isinstance(e, SyntaxError) and e.offset else ""
        reason = e.msg if isinstance(e, SyntaxError) else "nested too deeply"
        raise _Refused(f"not an expression{at}: {reason}") from None
    check = _Check(text, variables)
    degree = check.number(tree, 0)
    if degree > MAX_DEGREE:
        raise _Refused(f"polynomial degree {degree} is above {MAX_DEGREE}")
    return Expression(text, frozenset(check.names), tree)


@dataclass
class _Check:
    """Walks the tree against the grammar; `number` returns the degree that quadrature will see."""

    text: str
    variables: tuple[str, ...]
    names: set[str] = field(default_factory=set)

    def source(self, node: ast.AST) -> str:
        return (ast.get_source_segment(self.text, node) or "")[:40]

    def refuse(self, node: ast.AST, message: str) -> _Refused:
        return _Refused(f"{message} (position {getattr(node, 'col_offset', 0) + 1})")

    def number(self, node: ast.expr, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise self.refuse(node, f"nested more than {MAX_DEPTH} deep")
        outer, self.names = self.names, set()
        degree = self._number(node, depth + 1)
        if not self.names:
            self._finite(node)
        self.names |= outer
        return degree

    def _finite(self, node: ast.expr) -> None:
        """Refuses a constant part that is not a finite number."""
        with np.errstate(all="ignore"):
            value = evaluate(node, CONSTANTS, numpy_functions(), np.float64)
        if not np.isfinite(value):
            raise self.refuse(node, f"the constant {self.source(node)!r} is not a finite number")

    def _number(self, node: ast.expr, depth: int) -> int:
        match node:
            case ast.Constant(value=v) if type(v) in (int, float):
                if not math.isfinite(as_float(v)):  # type: ignore[arg-type]
                    raise self.refuse(node, "the number is too large")
                return 0
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.UnaryOp(op=op, operand=a) if type(op) in SIGNS:
                return self.number(a, depth)
            case ast.BinOp(left=a, op=op, right=b) if type(op) in ARITHMETIC:
                p, q = self.number(a, depth), self.number(b, depth)
                if isinstance(op, ast.Add | ast.Sub):
                    return max(p, q)
                if isinstance(op, ast.Mult | ast.Div):
                    return p + q
                n = _exponent(b)
                return n * p if n is not None else p + 2
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._call(node, name, arguments, depth)
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                raise self.refuse(node, "a condition stands only as the first argument of where")
        hint = _HINTS.get(type(getattr(node, "op", node)))
        raise self.refuse(
            node,
            f"{self.source(node)!r} is not allowed; {hint or 'use ' + _allowed(self.variables)}",
        )

    def _name(self, node: ast.AST, name: str) -> int:
        if name in self.variables:
            self.names.add(name)
            return 1 if name in COORDINATES else 0
        if name in CONSTANTS:
            return 0
        if name in FUNCTIONS:
            raise self.refuse(node, f"{name!r} is a function: write {name}(...)")
        raise self.refuse(node, f"unknown name {name!r}; use {_allowed(self.variables)}")

    def _call(self, node: ast.AST, name: str, arguments: list[ast.expr], depth: int) -> int:
        if name not in FUNCTIONS:
            raise self.refuse(node, f"unknown function {name!r}; functions: {', '.join(FUNCTIONS)}")
        n = len(arguments)
        if (name in VARIADIC and n < 2) or (name in ARITY and n != ARITY[name]):
            wanted = "2 or more arguments" if name in VARIADIC else f"{ARITY[name]} argument(s)"
            raise self.refuse(node, f"{name} takes {wanted}, not {n}")
        if name == "where":
            self.condition(arguments[0], depth)
            return max(self.number(a, depth) for a in arguments[1:])
        return max(self.number(a, depth) for a in arguments) + 2

    def condition(self, node: ast.expr, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self.refuse(node, f"nested more than {MAX_DEPTH} deep")
        match node:
            case ast.Compare(left=a, ops=ops, comparators=rest) if all(
                type(op) in COMPARISONS for op in ops
            ):
                for b in (a, *rest):
                    self.number(b, depth + 1)
            case ast.BoolOp(values=values):
                for b in values:
                    self.condition(b, depth + 1)
            case ast.UnaryOp(op=ast.Not(), operand=a):
                self.condition(a, depth + 1)
            case _:
                raise self.refuse(node, "where takes a condition first, such as x > 0")


def _allowed(variables: Sequence[str]) -> str:
    return f"{', '.join((*variables, *CONSTANTS))}, numbers, + - * / ** and {', '.join(FUNCTIONS)}"


def _exponent(node: ast.expr) -> int | None:
    """A small whole exponent, whose power is a polynomial; else None."""
    n: Any = node.value if isinstance(node, ast.Constant) else None
    return int(n) if n is not None and 0 <= n <= MAX_EXACT_POWER and n == int(n) else None
