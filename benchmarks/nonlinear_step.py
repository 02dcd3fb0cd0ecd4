"""A whole implicit step of aggregation-diffusion: ours against a straightforward DOLFINx script.

    ./run_mpi.sh python3 benchmarks/nonlinear_step.py [--small]

    d_t rho = div(rho grad(sigma 2 rho + W * rho)),   W = -exp(-r^2 / 2 s^2), unit square, gmsh

The script: backward Euler for P1 in UFL with lumped mass, forms compiled before, dolfinx's NewtonSolver
(assembles and factorises by MUMPS in each iteration), W * rho at the old density (as dissipative as ours
for this W) by a dense numpy sum. Ours: `attempt` with order 1, with its energy, error estimate and check
of positivity. Both to the same residual. The dense sum runs over some rows and is scaled by rows. Lines:
the whole step, the step without W, and the step of order 2 that ours takes by default.
"""

from measure import arguments, ceilings, interleaved, report  # isort: skip  sets the thread counts

import dolfinx
import numpy as np
import petsc4py
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from dolfinx.nls.petsc import NewtonSolver
from mpi4py import MPI
from petsc4py import PETSc

from fem_apps.fem.convolution import dense_sum
from fem_apps.fem.kernels import Gaussian
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.aggregation_diffusion import Problem, set_up
from fem_apps.problems.edge_scheme import EdgeScheme
from fem_apps.problems.free_energy import Diffusion

SIGMA, KERNEL, RHO0 = 0.1, Gaussian(width=0.2, strength=-1.0), "1 + 0.5*cos(9*x)*cos(7*y)"
TOLERANCE = (
    1e-10  # of int |residual| dx (ours), of the Euclidean norm relative to the first (the script)
)


class Script:
    """The straightforward script; `step` returns the nodal values after a step."""

    def __init__(self, V: fem.FunctionSpace, rho0: np.ndarray, dt: float) -> None:
        self.rho, self.old, self.phi = (fem.Function(V) for _ in range(3))
        self.old.x.array[:] = rho0
        v = ufl.TestFunction(V)
        lumped = ufl.dx(metadata={"quadrature_rule": "vertex", "quadrature_degree": 1})
        step = fem.Constant(V.mesh, PETSc.ScalarType(dt))
        flux = self.rho * ufl.grad(2 * SIGMA * self.rho + self.phi)
        F = (self.rho - self.old) / step * v * lumped + ufl.inner(flux, ufl.grad(v)) * ufl.dx
        problem = fem_petsc.NonlinearProblem(F, self.rho)
        self.solver = NewtonSolver(V.mesh.comm, problem)
        self.solver.rtol, self.solver.atol = TOLERANCE, 1e-14
        ksp = self.solver.krylov_solver
        ksp.setType("preonly")
        ksp.pc.setType("lu")
        ksp.pc.setFactorSolverType("mumps")

    def step(self, w: np.ndarray) -> np.ndarray:
        """A step with the potential w = W * rho of the old density."""
        self.phi.x.array[:] = w
        self.rho.x.array[:] = self.old.x.array
        self.iterations, converged = self.solver.solve(self.rho)
        assert converged
        return self.rho.x.array


def compare(h: float, dt: float, rounds: int, small: bool) -> None:
    """Print the lines of one mesh."""
    data = build(MPI.COMM_SELF, MeshCase(geometry="rectangle", parameters={"h": h}))
    diffusion, settings = (
        (Diffusion(exponent=2, coefficient=SIGMA),),
        {"newton_tolerance": TOLERANCE},
    )
    first = EdgeScheme(order=1, **settings)
    ours = set_up(data, Problem(diffusion, (KERNEL,)), RHO0, scheme=first)
    local = set_up(data, Problem(diffusion), RHO0, scheme=first)
    second = set_up(data, Problem(diffusion, (KERNEL,)), RHO0, scheme=EdgeScheme(**settings))
    graph, rho0 = ours.graph, ours.rho0
    state, alone, past = (
        ours.solver.start(0.0, rho0),
        local.solver.start(0.0, rho0),
        second.solver.start(0.0, rho0),
    )
    past = second.solver.attempt(past, dt).state
    script = Script(graph.V, rho0, dt)
    some = np.random.default_rng(0).choice(
        graph.n, max(8, min(graph.n, 4_000_000 // graph.n)), replace=False
    )
    masses = graph.mass * rho0
    error_w = np.abs(dense_sum(KERNEL, graph.x, masses, some) - state.w[some]).max()
    zero = np.zeros(graph.n)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return graph.integral(np.abs(a - b)) / graph.integral(np.abs(b - rho0))

    done = ours.solver.attempt(state, dt)
    whole = distance(done.state.rho, script.step(state.w))
    iterations = f"Newton {done.iterations} and {script.iterations}"
    part = distance(local.solver.attempt(alone, dt).state.rho, script.step(zero))
    # two schemes of second order: their difference is the error of the mesh
    assert max(whole, part) < 0.1 and error_w < 1e-7, (whole, part, error_w)
    tasks, machine = ceilings(small)
    times = interleaved(
        rounds,
        ours=lambda: ours.solver.attempt(state, dt),
        ours_local=lambda: local.solver.attempt(alone, dt),
        ours_order_2=lambda: second.solver.attempt(past, dt),
        script_local=lambda: script.step(zero),
        dense=lambda: dense_sum(KERNEL, graph.x, masses, some),
        **tasks,
    )
    scale = graph.n / len(some)
    times["script"] = tuple(
        a + scale * b for a, b in zip(times["script_local"], times["dense"], strict=True)
    )
    versions = f"DOLFINx {dolfinx.__version__}, PETSc {'.'.join(map(str, petsc4py.PETSc.Sys.getVersion()))}"
    common = {"machine": machine(times), "versions": versions}
    size = f"rectangle {graph.n} nodes dt {dt:g}"
    rows = f"{iterations}, W*rho of {len(some)} rows scaled, difference {error_w:.0e}"
    L1 = "L1 difference of the increments"
    report(
        "A2",
        size,
        times,
        ours="ours",
        peer="script",
        agreement=f"{L1} {whole:.1e}, {rows}",
        **common,
    )
    report(
        "A2",
        size,
        times,
        ours="ours_local",
        peer="script_local",
        agreement=f"{L1} {part:.1e}, no W",
        **common,
    )
    report(
        "A2",
        size,
        times,
        ours="ours_order_2",
        peer="script",
        agreement="ours of second order in time",
        **common,
    )


if __name__ == "__main__":
    given = arguments(__doc__)
    if given.small:
        compare(0.05, 1e-3, 2, True)
    else:
        for spacing in (0.0085, 0.0042):
            for step in (1e-3, 1e-2):
                compare(spacing, step, given.rounds, False)
