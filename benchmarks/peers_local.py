"""Porous medium without interaction to equal accuracy: ours against py-pde compiled by numba.

    ./run_mpi.sh python3 benchmarks/peers_local.py [--small]

    d_t rho = Laplace(rho^2) on [-3, 3]^2, no flux, Barenblatt's solution from t = 1 to 2

The problem that suits the peer best: a uniform grid, one compiled expression, a short time. The error
is int |rho - exact| dx at the end; ours takes the coarsest mesh whose error is at most the peer's.
Set-up and compilation are left out on both sides.
"""

from measure import arguments, interleaved, report  # isort: skip  sets the thread counts

import logging
import warnings
from collections import deque

import numpy as np
from mpi4py import MPI

from fem_apps.fem.time_stepping import StepControl, march
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.aggregation_diffusion import Problem, first_step, set_up
from fem_apps.problems.free_energy import Diffusion

HALF = 3.0


def exact(r2: np.ndarray, t: float) -> np.ndarray:
    """Barenblatt, m = 2, mass 1."""
    return np.maximum(1 / np.sqrt(8 * np.pi) - r2 / 16 / np.sqrt(t), 0.0) / np.sqrt(t)


class Ours:
    """The vertex-centred scheme on a gmsh square of mesh size h."""

    def __init__(self, h: float, tolerance: float) -> None:
        box = {"width": 2 * HALF, "height": 2 * HALF, "x0": -HALF, "y0": -HALF, "h": h}
        data = build(MPI.COMM_SELF, MeshCase(geometry="rectangle", parameters=box))
        self.setting = s = set_up(data, Problem([Diffusion(exponent=2)]), "1", tolerance=tolerance)
        self.control = StepControl(end=1.0, tolerance=tolerance)
        self.r2 = (s.graph.x**2).sum(axis=1)
        s.rho0[:] = exact(self.r2, 1.0)
        s.solver.mass = s.graph.integral(s.rho0)

    def __call__(self) -> float:
        s = self.setting
        state = s.solver.start(0.0, s.rho0)
        dt = first_step(s.solver, state, self.control)
        last = deque(march(state, s.solver.attempt, self.control, dt=dt), maxlen=1)[0]
        return s.graph.integral(np.abs(last.state.rho - exact(self.r2, 2.0)))


class PyPde:
    """py-pde with the expression laplace(c**2), adaptive Runge-Kutta."""

    def __init__(self, n: int) -> None:
        import pde

        grid = pde.CartesianGrid([[-HALF, HALF]] * 2, n)
        self.r2, self.area = (grid.cell_coords**2).sum(axis=-1), (2 * HALF / n) ** 2
        self.first = pde.ScalarField(grid, exact(self.r2, 1.0))
        equation = pde.PDE({"c": "laplace(c**2)"}, bc={"derivative": 0})
        solver = pde.RungeKuttaSolver(equation, backend="numba", adaptive=True, tolerance=1e-6)
        self.stepper = solver.make_stepper(self.first, dt=1e-4)

    def __call__(self) -> float:
        field = self.first.copy()
        self.stepper(field, 0.0, 1.0)
        return float(np.abs(field.data - exact(self.r2, 2.0)).sum() * self.area)


if __name__ == "__main__":
    given = arguments(__doc__)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for n in (24,) if given.small else (24, 48, 96, 192):
        peer = PyPde(n)
        theirs, h, mine = peer(), 0.5 * np.sqrt(2), np.inf
        while mine > theirs:  # halving areas
            h /= np.sqrt(2)
            ours = Ours(h, 0.1 * theirs)
            mine = ours()
        report(
            "A2",
            f"{ours.setting.graph.n} nodes against {n} x {n} cells",
            interleaved(min(given.rounds, 5), ours=ours, peer=peer),
            ours="ours",
            peer="peer",
            agreement=f"py-pde: errors {mine:.1e} and {theirs:.1e}",
        )
