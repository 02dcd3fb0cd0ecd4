"""Values of checked expression trees: with numpy, JAX or UFL."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np

VARIADIC = ("min", "max")
# Above this, a power counts for quadrature as exp does: degree of the base + 2.
MAX_EXACT_POWER = 10

ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
SIGNS: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
COMPARISONS = {
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Eq: "eq",
    ast.NotEq: "ne",
}


def as_float(v: float) -> float:
    """A float; infinity for an integer beyond its range."""
    try:
        return float(v)
    except OverflowError:
        return math.inf


def evaluate(
    node: ast.expr,
    names: Mapping[str, Any],
    functions: Mapping[str, Any],
    number: Callable[..., Any],
) -> Any:
    """The value of a checked tree with the functions of one backend."""

    def value(a: ast.expr) -> Any:
        return evaluate(a, names, functions, number)

    match node:
        case ast.Constant(value=v):
            return number(as_float(v))  # type: ignore[arg-type]
        case ast.Name(id=name):
            v = names[name]
            return number(v) if isinstance(v, int | float) else v
        case ast.UnaryOp(op=ast.Not(), operand=a):
            return functions["not"](value(a))
        case ast.UnaryOp(op=op, operand=a):
            return SIGNS[type(op)](value(a))
        case ast.BinOp(left=a, op=op, right=b):
            return ARITHMETIC[type(op)](value(a), value(b))
        case ast.BoolOp(op=op, values=values):
            join = functions["and" if isinstance(op, ast.And) else "or"]
            return reduce(join, [value(a) for a in values])
        case ast.Compare(left=a, ops=ops, comparators=rest):
            terms = [value(b) for b in (a, *rest)]
            links = [
                functions[COMPARISONS[type(op)]](terms[i], terms[i + 1]) for i, op in enumerate(ops)
            ]
            return reduce(functions["and"], links)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            terms = [value(a) for a in arguments]
            f = functions[name]
            return reduce(f, terms) if name in VARIADIC else f(*terms)
    raise AssertionError(ast.dump(node))


def numpy_functions() -> dict[str, Any]:
    """Functions and conditions of numpy by name."""
    from scipy.special import erf

    return {
        **{name: getattr(np, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
        **{name: getattr(np, name) for name in ("exp", "log", "sqrt", "abs", "sign", "where")},
        "asin": np.arcsin,
        "acos": np.arccos,
        "atan": np.arctan,
        "atan2": np.arctan2,
        "erf": erf,
        "min": np.minimum,
        "max": np.maximum,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "eq": np.equal,
        "ne": np.not_equal,
        "and": np.logical_and,
        "or": np.logical_or,
        "not": np.logical_not,
    }


def jax_functions() -> dict[str, Any]:
    """Functions and conditions of JAX by name."""
    import jax.numpy as jnp
    from jax.scipy.special import erf

    same = {
        name: getattr(jnp, f.__name__) for name, f in numpy_functions().items() if name != "erf"
    }
    return {**same, "erf": erf}


def ufl_functions() -> dict[str, Any]:
    """Functions and conditions of UFL by name."""
    import ufl

    def of_real(f: Callable[..., Any]) -> Callable[..., Any]:
        # Complex builds take constants for complex numbers, and those have no order.
        return lambda *arguments: f(*(ufl.real(a) for a in arguments))

    return {
        **{name: getattr(ufl, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan")},
        **{name: getattr(ufl, name) for name in ("sinh", "cosh", "tanh", "exp", "sqrt")},
        "log": ufl.ln,
        "abs": abs,
        "where": ufl.conditional,
        "min": of_real(ufl.min_value),
        "max": of_real(ufl.max_value),
        **{name: of_real(getattr(ufl, name)) for name in ("sign", "erf", "atan2")},
        **{name: of_real(getattr(ufl, name)) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
        "and": ufl.And,
        "or": ufl.Or,
        "not": ufl.Not,
    }


def ufl_number(v: float) -> Any:
    """A UFL number; whole ones as integers, whose powers UFL knows to be polynomials."""
    import ufl

    whole = float(v).is_integer() and abs(v) <= MAX_EXACT_POWER
    return ufl.as_ufl(int(v) if whole else float(v))
