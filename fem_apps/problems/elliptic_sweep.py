"""Full solves for many parameters: recombined matrices, started from the reduced solution.

With a reduced basis of a few dozen vectors the start is so near that its residual is often below
the tolerance at once; where it is not, a few CG steps are left. Every solution is one of the full
problem: what is returned has a residual of at most rtol |b|.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fem_apps.mpi import total
from fem_apps.problems.elliptic import Discretisation
from fem_apps.surrogates.reduced_basis_batch import BatchSolver
from fem_apps.surrogates.reduced_basis_online import ReducedModel

BATCH = 64


def sweep(
    D: Discretisation, reduced: ReducedModel, basis: np.ndarray, mus: np.ndarray, rtol: float
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and u_0 of every parameter, the most similar ones one after another. Collective.

    Args:
        D: an affine problem.
        reduced: its reduced model, trained where mus lie.
        basis: of the model, shape (n, N).
        mus: parameters, shape (S, P).
        rtol: of the full residual.

    Raises:
        CaseError: a parameter outside the trained ranges.
        SolveError: CG did not converge.
    """
    reduced.check(mus)
    online, loads = BatchSolver(reduced), D.right_sides
    order = path(mus)
    u: Any = None
    residual: Any = None
    for first in range(0, len(mus), BATCH):
        here = order[first : first + BATCH]
        starts = online.coefficients(mus[here]) @ basis.T
        theta, phi = D.theta(mus[here]), D.theta_load(mus[here])
        sides = phi @ loads
        sizes = np.sqrt(total(D.space.comm, (sides**2).sum(axis=1)))
        for k, number in enumerate(here):
            A = D.matrix.combine(theta[k])
            if residual is None:
                u, residual = A.createVecs()
            u.array_w[:] = starts[k]
            A.mult(u, residual)
            residual.array_w[:] -= sides[k]
            done = residual.norm() <= rtol * sizes[k]
            yield (
                int(number),
                # a near start needs few steps, so any preconditioner of the sweep will do
                starts[k] if done else D.solver.solve(A, sides[k], starts[k], rtol),
            )
    for v in (u, residual):
        if v is not None:
            v.destroy()


def path(mus: np.ndarray) -> np.ndarray:
    """An order of the parameters in which neighbours are similar.

    Parameters are halved along their widest logarithmic axis, again and again, the second half
    reversed, so that a preconditioner serves many in a row.
    """
    x = np.log(np.abs(mus) + 1e-12)

    def halve(index: np.ndarray) -> np.ndarray:
        if len(index) <= 2:
            return index
        axis = int(np.ptp(x[index], axis=0).argmax())
        index = index[np.argsort(x[index, axis], kind="stable")]
        middle = len(index) // 2
        return np.concatenate([halve(index[:middle]), halve(index[middle:])[::-1]])

    return halve(np.arange(len(mus)))
