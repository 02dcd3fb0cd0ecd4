"""Conjugate gradients and Lanczos for a Gramian, in the inner product of a Riesz map.

Both solve Lambda e = b between a space and its dual: Lambda takes data to functionals, the Riesz
map P takes functionals to data. Vectors are arrays of any shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

Map = Callable[[np.ndarray], np.ndarray]
Dot = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Iterate:
    """A step of conjugate gradients; what the next one needs.

    Attributes:
        number: steps done.
        x: the solution so far.
        r: residual b - Lambda x, a functional.
        d: search direction.
        rz: r . P r, the square of the residual's norm.
        curvature: d . Lambda d of the last step; nan at the start.
    """

    number: int
    x: np.ndarray
    r: np.ndarray
    d: np.ndarray
    rz: float
    curvature: float = np.nan


def conjugate_gradients(
    apply: Map, riesz: Map, dot: Dot, b: np.ndarray, start: Iterate | None = None
) -> Iterator[Iterate]:
    """Yield the iterates, the start first; ends where Lambda is not positive any more.

    Args:
        apply: Lambda, symmetric.
        riesz: P, symmetric and non-negative; the iterates stay in its range.
        dot: of all entries of all ranks.
        b: right side.
        start: an iterate to continue from.
    """
    if start is None:
        z = riesz(b)
        start = Iterate(0, np.zeros_like(z), b, z, dot(b, z))
    state = start
    yield state
    while state.rz > 0:
        q = apply(state.d)
        curvature = dot(state.d, q)
        if not curvature > 0:
            return
        alpha = state.rz / curvature
        x, r = state.x + alpha * state.d, state.r - alpha * q
        z = riesz(r)
        rz = dot(r, z)
        d = z + (rz / state.rz) * state.d
        state = Iterate(state.number + 1, x, r, d, rz, curvature)
        yield state


@dataclass(frozen=True)
class Extremes:
    """Extreme Ritz values of P Lambda, and the Lanczos steps that they took.

    Attributes:
        low: an upper bound of the smallest eigenvalue: the observability constant.
        high: a lower bound of the largest one.
        steps: Lanczos steps.
        residual: of `low`, relative to `high`: how far it may still be.
    """

    low: float
    high: float
    steps: int
    residual: float


def lanczos(
    apply: Map, riesz: Map, dot: Dot, start: np.ndarray, steps: int, tolerance: float = 1e-3
) -> Extremes:
    """Extreme eigenvalues of P Lambda by Lanczos with full reorthogonalisation.

    Args:
        apply: Lambda.
        riesz: P.
        dot: of a functional and an element.
        start: a functional with a part in every direction.
        steps: most steps; ends when the smallest Ritz value's residual is below `tolerance` times
            that value.
        tolerance: see `steps`.
    """
    p, z = start, riesz(start)
    size = np.sqrt(dot(p, z))
    P, Z = [p / size], [z / size]
    alpha: list[float] = []
    beta: list[float] = []
    low = high = residual = np.nan
    for k in range(steps):
        q = apply(Z[k])
        alpha.append(dot(q, Z[k]))
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            for a, c in zip(P, Z, strict=True):
                q = q - dot(q, c) * a
        T = np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1)
        values, vectors = np.linalg.eigh(T)
        z = riesz(q)
        size = np.sqrt(max(dot(q, z), 0.0))
        low, high = float(values[0]), float(values[-1])
        residual = float(size * abs(vectors[-1, 0]) / high)
        if size <= 1e-13 * high or residual * high <= tolerance * low:
            break
        beta.append(size)
        P.append(q / size)
        Z.append(z / size)
    return Extremes(low, high, len(alpha), residual)
