"""Attention on a density by the edge scheme: gradient fields and non-local mobility.

With z(x) = int exp(x.Dy) dmu(y) the field of unnormalised attention with V = c D is c grad z, that
of softmax c grad log z: the same potential, and its logarithm. So both are

    d_t rho = div( rho grad(H'(rho) + Phi) ),   Phi = -c z   or   Phi = -c log z,

and the implicit edge scheme of `problems.edge_scheme` keeps mass and positivity for either. Without
noise softmax attention is the gradient flow of -(c/2) iint exp(x.Dy) in a metric with mobility
rho/z (Burger et al., arXiv 2501.03096). The scheme keeps its energy law: a flux has the sign of a
difference of log z, which is that of z. For c > 0 (z of positive type, Phi explicit) it holds for
every step of order 1; for c < 0 a step that would break it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fem_apps.fem.convolution import Convolution
from fem_apps.fem.time_stepping import Attempt
from fem_apps.problems.edge_scheme import ENERGY_SLACK, EdgeSolver, State
from fem_apps.problems.free_energy import Energy

TOO_LARGE = 50.0  # an error that march cuts


@dataclass(frozen=True)
class LogPotential:
    """b -> -c log z, in the place of the linear potential W * rho; explicit in time.

    Attributes:
        z: b -> int exp(x.Dy) dmu at the nodes.
        c: factor of the field.
    """

    z: Convolution
    c: float
    sign: str = "negative"

    @property
    def route(self) -> str:
        """For the log."""
        return f"log of {self.z.route}"

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Potentials at the owned nodes. Collective."""
        return -self.c * np.log(self.z(b))


class SoftmaxSolver(EdgeSolver):
    """The edge scheme with Phi = -c log z; `convolution` is a `LogPotential`.

    The energy of a state is -(c/2) iint exp(x.Dy) without diffusion; with it the equation has no
    free energy that is known, and no step is judged by one.
    """

    def start(self, t: float, rho: np.ndarray) -> State:
        """The state of a density with no past. Collective."""
        return self._with_energy(super().start(t, rho))

    def attempt(self, state: State, dt: float) -> Attempt[State]:
        """One step; far too large an error where the energy would rise. Collective."""
        done = super().attempt(state, dt)
        if self._rises(state, done.state):
            return replace(done, error=TOO_LARGE)
        return done

    def _finish(self, state: State, t: float, rho: np.ndarray, tau: float, order: int) -> State:
        return self._with_energy(super()._finish(state, t, rho, tau, order))

    def _with_energy(self, state: State) -> State:
        assert isinstance(self.convolution, LogPotential)
        assert state.w is not None
        c = self.convolution.c
        z = np.exp(-state.w / c)
        interaction = -0.5 * c * self.graph.integral(state.rho * z)
        return replace(state, energy=Energy(0.0, 0.0, interaction))

    def _rises(self, old: State, new: State) -> bool:
        if self.H.terms:
            return False
        return new.energy.total - old.energy.total > ENERGY_SLACK * old.energy.magnitude
