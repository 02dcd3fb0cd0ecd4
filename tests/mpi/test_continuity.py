"""The same transport on any number of ranks: densities, mass, limiters, periodic sides, adjoint."""

import numpy as np
import pytest
from mpi4py import MPI
from transport import BODIES, ROTATION, Outcome, mesh_of, time

from fem_apps.fem.expressions import parse
from fem_apps.problems.continuity import DG, P1, Galerkin, Problem, Side
from fem_apps.problems.continuity_adjoint import Transport
from fem_apps.problems.continuity_dg import DGSolver
from fem_apps.problems.continuity_velocity import double_precision, expressions

WORLD = MPI.COMM_WORLD


def both(geometry, parameters, problem, f, end, scheme, jumps=False):
    """Mass, extremes and errors on this rank alone, and on all."""
    out = []
    e = parse(f)
    for comm in (MPI.COMM_SELF, WORLD):
        done = Outcome(mesh_of(geometry, comm, **parameters), problem, f, end, scheme)
        l1, l2 = done.errors(lambda x: e.numpy(x, 0.0), jumps)
        out.append([done.step.mass, done.low, done.high, l1, l2, done.outflow])
    return np.array(out)


SCHEMES = {
    "dg0": DG(degree=0, limiter="none"),
    "dg1": DG(degree=1),
    "dg2": DG(degree=2, limiter="range"),
    "fct": P1(),
    "supg": Galerkin(type="galerkin"),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_rotation(name):
    problem = Problem(ROTATION, {"default": Side(type="fixed")})
    mesh = ("structured_rectangle", {"h": 0.125})
    a, b = both(*mesh, problem, BODIES, time(0.3, dt=0.02), SCHEMES[name], True)
    assert np.abs(a - b).max() < 1e-10


@pytest.mark.parametrize("name", ["dg0", "dg1", "fct"])
@pytest.mark.parametrize(
    ("geometry", "v", "f"),
    [
        ("torus_square", ["1", "0.5"], "2 + sin(2*pi*x)*cos(2*pi*y)"),
        ("torus_box", ["1", "1", "0.5"], "2 + sin(2*pi*x)*cos(2*pi*z)"),
        ("sphere", ["-y", "x", "0"], "1 + x*z"),
    ],
)
def test_closed(name, geometry, v, f):
    """Periodic sides across ranks, surfaces: the same, and mass to rounding."""
    a, b = both(geometry, {"h": 0.3}, Problem(v), f, time(0.1), SCHEMES[name])
    assert np.abs(a - b).max() < 1e-11
    assert a[5] == b[5] == 0.0


def test_velocity_of_the_density():
    """v[rho] by the measure of all ranks."""

    def v(x, t, rho):
        y, mass = rho.everywhere
        return mass @ y / mass.sum() - x

    a, b = both(
        "disc", {"h": 0.3}, Problem(v), "exp(-4*(x-.2)**2 - 4*y**2)", time(0.2), SCHEMES["dg1"]
    )
    assert np.abs(a - b).max() < 1e-11


def test_adjoint():
    """The gradient of a function of rho(T) in the velocity's parameters."""
    gradients = []
    for comm in (MPI.COMM_SELF, WORLD):
        data = mesh_of("disc", comm, h=0.3)
        s = DGSolver(data, expressions(["0", "0"]), {}, DG(degree=1, limiter="none"))
        with double_precision():
            import jax.numpy as jnp

            transport = Transport(s, lambda p, x, t: jnp.sin(x @ p) + 0.2, np.linspace(0, 0.2, 6))
            theta = jnp.array([[0.3, -0.5], [0.8, 0.2]])
            u0 = s.project(lambda x: np.exp(-(x[0] ** 2)), False)
            states = transport.forward(theta, u0)
            bar = (states[-1] @ s.cells.phi.T) * s.cells.weights @ s.cells.phi
            gradients.append(np.asarray(transport.gradient(theta, states, bar)))
    assert np.abs(gradients[0] - gradients[1]).max() < 1e-12
    assert np.abs(gradients[0]).max() > 1e-3
