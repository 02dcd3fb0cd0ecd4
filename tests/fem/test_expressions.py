"""Expressions: the same values by numpy and by UFL, and nothing else gets in."""

import numpy as np
import pytest
import ufl
from dolfinx import default_scalar_type, fem, mesh
from mpi4py import MPI
from pydantic import Field, ValidationError

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.expressions import ExpressionText, checker, parse
from fem_apps.fem.integrals import integrate, interpolate

VALUES = [
    ("exp(-x**2 - y**2)", lambda x, y, t: np.exp(-(x**2) - y**2)),
    ("where(y > 0.5, 1, 2)", lambda x, y, t: np.where(y > 0.5, 1.0, 2.0)),
    ("sin(pi*x)*t", lambda x, y, t: np.sin(np.pi * x) * t),
    ("where(0.2 < x <= 0.7 and not y < 0.3 or sign(y - 0.45) == 1 or x != x, x, -e)", None),
    (
        "min(x, y, 0.5) + max(x, 1 - y)",
        lambda x, y, t: np.minimum(np.minimum(x, y), 0.5) + np.maximum(x, 1 - y),
    ),
    ("atan2(y, x) + tan(x) + asin(x)*acos(y) + atan(y)", None),
    ("sinh(x) - cosh(y)*tanh(x) + log(1 + x) + sqrt(y) + abs(x - y)", None),
    ("erf(x - y) + sign(x - 0.4) + x**0.5 + 2**y + x**12 - (+y)", None),
    ("a*x**3/(1 + b*y)", lambda x, y, t: 1.5 * x**3 / (1 - 0.25 * y)),
    ("1/3", lambda x, y, t: 1 / 3 + 0 * x),
    ("x/2 - 7/y**-1", lambda x, y, t: x / 2 - 7 * y),
]


@pytest.fixture(scope="module")
def V():
    return fem.functionspace(
        mesh.create_rectangle(MPI.COMM_SELF, [[0.1, 0.1], [0.9, 0.9]], [7, 5]), ("Lagrange", 1)
    )


@pytest.mark.parametrize(("text", "function"), VALUES)
def test_numpy_and_ufl_agree(V, text, function):
    f = parse(text, ("x", "y", "t", "a", "b"))
    msh = V.mesh
    constants = {
        n: fem.Constant(msh, default_scalar_type(v)) for n, v in {"a": 1.5, "b": -0.25}.items()
    }
    t = fem.Constant(msh, default_scalar_type(0.7))
    if np.issubdtype(default_scalar_type, np.complexfloating) and any(
        w in text for w in ("where", "erf")
    ):
        # FFCx compiles an order of coordinates in complex forms, not in complex Expressions
        assert np.isfinite(integrate(f.ufl(msh, t, constants) * ufl.dx))
        return
    by_ufl = interpolate(V, f.ufl(msh, t, constants)).x.array
    x = V.tabulate_dof_coordinates().T
    by_numpy = f.numpy(x[:2], 0.7, a=1.5, b=-0.25)
    assert by_numpy.shape == (x.shape[1],)
    assert np.allclose(by_ufl, by_numpy, rtol=1e-13, atol=1e-14)
    if function is not None:
        assert np.allclose(by_numpy, function(x[0], x[1], 0.7), rtol=1e-14, atol=1e-15)


def test_names_tell_what_it_depends_on():
    assert parse("sin(pi*x)*t").names == {"x", "t"}
    assert parse(2).names == set()


def test_constant_is_broadcast():
    assert parse(2.5).numpy(np.zeros((2, 3))).tolist() == [2.5, 2.5, 2.5]
    assert parse("-1").numpy(np.zeros((1, 0))).shape == (0,)


def test_time_zero_is_no_python_division():
    assert np.isinf(parse("1/t").numpy(np.zeros((2, 1)), 0.0)).all()


def test_polynomials_are_integrated_exactly(V):
    value = integrate(parse("x**9*y").ufl(V.mesh) * ufl.dx)
    assert np.isclose(value, (0.9**10 - 0.1**10) * (0.9**2 - 0.1**2) / 20, rtol=1e-13)


HOSTILE = [
    "__import__('os').system('true')",
    "x.__class__",
    "().__class__",
    "x[0]",
    "[1, 2]",
    "{'a': 1}",
    "lambda: 1",
    "(y := 3)",
    "[x for x in y]",
    "'text'",
    "f'{x}'",
    "True",
    "None",
    "1j",
    "x if y else 1",
    "exp(x=1)",
    "exp(*x)",
    "exp",
    "exp()",
    "min(x)",
    "where(x, 1, 2)",
    "where(x > 0, 1)",
    "where(x > 0, y > 0, 2)",
    "x < 1",
    "not x",
    "x and y",
    "x ^ 2",
    "x & y",
    "x % 2",
    "x // 2",
    "x @ y",
    "~x",
    "x; y",
    "x = 1",
    "import os",
    "q + 1",
    "eval(x)",
    "x is y",
    "where(x in y, 1, 2)",
    "",
    "   ",
    "(",
    "x +",
    "x\x00",
    "\u2212x",
    "9**9**9**9",
    "1e999",
    "1" + "0" * 400,
    "1/0",
    "log(-1)",
    "x**10**10**10",
    "(x**10)**10",
    "x*" * 900 + "x",
    "(" * 900 + "x" + ")" * 900,
    "-" * 1999 + "x",
    "x+" * 5000 + "x",
    "sin(" * 400 + "x" + ")" * 400,
    float("nan"),
    float("inf"),
    True,
    None,
    [1],
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: repr(t)[:30])
def test_nothing_else_gets_in(text):
    with pytest.raises(CaseError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 + foo(x)", "unknown function 'foo'"),
        ("1 + foo(x)", "position 5"),
        ("x + q", "unknown name 'q'; use x, y, z, t, pi, e"),
        ("x ^ 2", "write \\*\\* for a power"),
        ("2 + 1/0", "'1/0' is not a finite number \\(position 5\\)"),
    ],
)
def test_message_says_where_and_what_is_allowed(text, says):
    with pytest.raises(CaseError, match=says):
        parse(text)


def test_sums_as_long_as_a_case_needs():
    assert parse(" + ".join(["x**2"] * 150)).numpy(np.array([[2.0]]))[0] == 600


def test_coordinate_of_a_higher_dimension(V):
    with pytest.raises(CaseError, match="'z' on a mesh in 2D"):
        parse("z").numpy(np.zeros((2, 3)))
    with pytest.raises(CaseError, match="'z' on a mesh in 2D"):
        parse("z").ufl(V.mesh)
    with pytest.raises(CaseError, match="'a' has no value"):
        parse("a", ("a",)).numpy(np.zeros((2, 3)))


class Model(Table):
    rho0: ExpressionText = Field("1", description="initial density")


def test_in_a_case():
    assert Model(rho0=2).rho0 == "2.0"
    assert Model(rho0=" exp(-x**2)\n * 2").rho0 == "exp(-x**2) * 2"
    with pytest.raises(
        ValidationError, match=r"unknown name 'r' \(position 1\)|unknown name 'r'; use"
    ):
        Model(rho0="r")
    assert checker("r")("1/r") == "1/r"
