"""Set-ups that the tests of aggregation-diffusion share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from scipy.special import beta

from fem_apps.fem.time_stepping import StepControl, march
from fem_apps.meshing import MeshCase, build
from fem_apps.problems import aggregation_diffusion as ad

SELF = MPI.COMM_SELF


@dataclass(frozen=True)
class Outcome:
    """A run's last state, and the invariants over all of its steps."""

    setting: ad.Setting
    state: ad.State
    times: np.ndarray
    steps: int
    mass_drift: float
    energy_increase: float
    min_density: float

    @property
    def graph(self):
        return self.setting.graph

    def keeps_the_structure(self):
        return (
            self.mass_drift <= 1e-12 and self.min_density >= 0.0 and self.energy_increase <= 1e-10
        )


def mesh_of(geometry, comm=SELF, **parameters):
    return build(comm, MeshCase(geometry=geometry, parameters=parameters))


def advance(setting, control, *, t0=0.0, dt=None, watch=None, outputs=()):
    """March a setting to the end; `watch(state)` sees every state."""
    solver, graph = setting.solver, setting.graph
    state = solver.start(t0, setting.rho0)
    if watch is not None:
        watch(state)
    mass, energy = graph.integral(state.rho), state.energy
    drift, rise, low, times = 0.0, -np.inf, float(state.rho.min()), [t0]
    first = dt or ad.first_step(solver, state, control)
    steps = 0
    for step in march(state, solver.attempt, control, dt=first, outputs=outputs):
        state, steps = step.state, step.number
        drift = max(drift, abs(graph.integral(state.rho) - mass) / mass)
        rise = max(rise, (state.energy.total - energy.total) / max(state.energy.magnitude, 1e-300))
        energy, low = state.energy, min(low, float(state.rho.min()))
        times.append(state.t)
        if watch is not None:
            watch(state)
    low = graph.comm.allreduce(low, op=MPI.MIN)
    return Outcome(setting, state, np.array(times), steps, drift, rise, low)


def evolve(data, problem, rho0, end, *, tolerance=1e-4, scheme=None, dt=None, watch=None):
    setting = ad.set_up(data, problem, rho0, scheme=scheme, tolerance=tolerance)
    control = StepControl(end=end, tolerance=tolerance, dt=dt)
    return advance(setting, control, watch=watch)


def orders(errors):
    """log2 of the ratios of errors that follow each other."""
    e = np.asarray(errors)
    return np.log2(e[:-1] / e[1:])


def barenblatt(x, t, m, mass=1.0):
    """The Barenblatt solution of d_t rho = Laplace rho^m at points (n, d); its front's radius."""
    d, p = x.shape[1], 1 / (m - 1)
    a = d / (d * (m - 1) + 2)
    b, k = a / d, a * (m - 1) / (2 * m * d)
    sphere = {1: 2.0, 2: 2 * np.pi, 3: 4 * np.pi}[d]
    C = (mass / (k ** (-d / 2) * sphere / 2 * beta(d / 2, p + 1))) ** (1 / (p + d / 2))
    rho = t**-a * np.maximum(C - k * (x**2).sum(axis=1) * t ** (-2 * b), 0.0) ** p
    return rho, float(np.sqrt(C / k) * t**b)
