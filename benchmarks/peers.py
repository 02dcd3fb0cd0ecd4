"""Clusters form by Gaussian attraction against porous-medium pressure: ours against py-pde and FiPy.

    ./run_mpi.sh python3 benchmarks/peers.py [--small]

    d_t rho = div(rho grad(3/2 sigma rho^2 + W * rho)) on [-3, 3]^2, no flux,   sigma = 1/15,
    W = -0.45 exp(-r^2 / 0.18),   rho(0) = 1/4 + waves,   up to t = 5

The peers get W * rho by FFT (scipy.signal.fftconvolve), as their users would write it. py-pde: uniform
grid, div(rho grad mu) by its Laplace operator, adaptive Runge-Kutta. FiPy: uniform grid, implicit
diffusion (three sweeps a step), power-law convection with W * rho of the step before, its default solver. Ours: gmsh triangles,
adaptive BDF2. The error is the mean of |rho - reference| on 3,600 points at the end, the reference ours
on a fine mesh. Against each peer ours takes the coarsest mesh whose error is at most the peer's.
"""

from measure import arguments, interleaved, report  # isort: skip  sets the thread counts

import logging
import warnings

import numpy as np
from mpi4py import MPI
from scipy.interpolate import LinearNDInterpolator, RegularGridInterpolator
from scipy.signal import fftconvolve

from fem_apps.fem.kernels import Gaussian
from fem_apps.fem.time_stepping import StepControl, march
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.aggregation_diffusion import Problem, first_step, set_up
from fem_apps.problems.free_energy import Diffusion

SIGMA, STRENGTH, WIDTH, HALF = 1 / 15, -0.45, 0.3, 3.0
P = (np.arange(60) + 0.5) / 60 * 2 * HALF - HALF
POINTS = np.stack(np.meshgrid(P, P, indexing="ij"), axis=-1).reshape(-1, 2)


def start(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The initial density."""
    return 0.25 + 0.05 * np.cos(2.1 * x + 0.3) * np.cos(1.7 * y) + 0.03 * np.sin(x + 2 * y)


class Ours:
    """The vertex-centred scheme on a gmsh square of mesh size h."""

    def __init__(self, h: float, tolerance: float, end: float) -> None:
        box = {"width": 2 * HALF, "height": 2 * HALF, "x0": -HALF, "y0": -HALF, "h": h}
        data = build(MPI.COMM_SELF, MeshCase(geometry="rectangle", parameters=box))
        problem = Problem(
            [Diffusion(exponent=3, coefficient=SIGMA)], [Gaussian(width=WIDTH, strength=STRENGTH)]
        )
        self.setting = s = set_up(data, problem, "1", tolerance=tolerance)
        self.control = StepControl(end=end, tolerance=tolerance)
        s.rho0[:] = start(*s.graph.x.T)
        s.solver.mass = s.graph.integral(s.rho0)
        self.size = f"{s.graph.n} nodes"

    def __call__(self) -> np.ndarray:
        s = self.setting
        state = s.solver.start(0.0, s.rho0)
        dt = first_step(s.solver, state, self.control)
        for step in march(state, s.solver.attempt, self.control, dt=dt):
            self.steps = step.number
        return LinearNDInterpolator(s.graph.x, step.state.rho)(POINTS)


class Grid:
    """A uniform grid of n x n cells with W * rho by FFT."""

    def __init__(self, n: int) -> None:
        self.h, self.size = 2 * HALF / n, f"{n} x {n} cells"
        self.x = (np.arange(n) + 0.5) * self.h - HALF
        z = np.arange(1 - n, n) * self.h
        self.kernel = STRENGTH * np.exp(-(z[:, None] ** 2 + z**2) / 2 / WIDTH**2) * self.h**2
        self.first = start(*np.meshgrid(self.x, self.x, indexing="ij"))

    def convolve(self, rho: np.ndarray) -> np.ndarray:
        return fftconvolve(rho, self.kernel, mode="valid")

    def at_points(self, rho: np.ndarray) -> np.ndarray:
        find = RegularGridInterpolator((self.x, self.x), rho, bounds_error=False, fill_value=None)
        return find(POINTS)


class PyPde(Grid):
    """py-pde; 2 div(rho grad mu) = Lap(rho mu) + rho Lap mu - mu Lap rho."""

    def __init__(self, n: int, end: float) -> None:
        import pde

        super().__init__(n)
        me, neumann = self, {"derivative": 0}

        class Clusters(pde.PDEBase):
            def evolution_rate(self, state, t=0):  # type: ignore[no-untyped-def]
                rho = state.data
                mu = 1.5 * SIGMA * rho**2 + me.convolve(rho)
                laplace = state.grid.make_operator("laplace", bc=neumann)
                rate = laplace(rho * mu) + rho * laplace(mu) - mu * laplace(rho)
                return pde.ScalarField(state.grid, rate / 2)

        grid = pde.CartesianGrid([[-HALF, HALF]] * 2, n)
        self.field, self.end = pde.ScalarField(grid, self.first), end
        self.solver = pde.RungeKuttaSolver(
            Clusters(), backend="numpy", adaptive=True, tolerance=1e-5
        )

    def __call__(self) -> np.ndarray:
        field = self.field.copy()
        self.solver.make_stepper(field, dt=1e-3)(field, 0.0, self.end)
        self.steps = self.solver.info["steps"]
        return self.at_points(field.data)


class FiPy(Grid):
    """FiPy: backward Euler, as many steps as make its error that of the grid, three sweeps in each."""

    def __init__(self, n: int, end: float) -> None:
        import fipy

        super().__init__(n)
        mesh = fipy.Grid2D(nx=n, ny=n, dx=self.h, dy=self.h)
        self.rho = fipy.CellVariable(mesh=mesh, hasOld=True)
        self.w = fipy.CellVariable(mesh=mesh)
        self.steps, self.dt = 4 * n, end / (4 * n)
        self.equation = fipy.TransientTerm() + fipy.PowerLawConvectionTerm(
            coeff=-self.w.faceGrad
        ) == fipy.DiffusionTerm(coeff=3 * SIGMA * self.rho**2)

    def __call__(self) -> np.ndarray:
        n = len(self.x)
        self.rho.setValue(self.first.T.ravel())
        for _ in range(self.steps):
            self.rho.updateOld()
            field = np.asarray(self.rho).reshape(n, n)
            self.w.setValue(self.convolve(field).ravel())
            for _ in range(3):
                self.equation.sweep(var=self.rho, dt=self.dt)
        return self.at_points(np.asarray(self.rho).reshape(n, n).T)


if __name__ == "__main__":
    given = arguments(__doc__)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    end = 2.0 if given.small else 5.0
    reference = Ours(0.1 if given.small else 0.025, 1e-5, end)()
    for peer_class in (PyPde, FiPy):
        for n in (24,) if given.small else (48, 96):
            peer = peer_class(n, end)
            theirs = np.abs(peer() - reference).mean()
            h, mine = 0.5, np.inf
            while mine > theirs:  # halving areas
                h /= np.sqrt(2)
                ours = Ours(h, min(1e-3, 0.05 * theirs), end)
                mine = np.abs(ours() - reference).mean()
            report(
                "A2",
                f"{ours.size}, {ours.steps} steps against {peer.size}, {peer.steps} steps",
                interleaved(1 if given.small else 2, ours=ours, peer=peer),
                ours="ours",
                peer="peer",
                agreement=f"{peer_class.__name__}: errors {mine:.1e} and {theirs:.1e}",
            )
