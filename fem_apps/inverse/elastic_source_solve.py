"""Gauss-Newton for obstacles, variable projection for sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from fem_apps.errors import SolveError
from fem_apps.fundamental.medium import Medium
from fem_apps.inverse.elastic_source_forward import Forward, Receivers


@dataclass(frozen=True)
class Estimate:
    """A minimiser.

    Attributes:
        p: parameters.
        residuals: relative residual at each iteration.
        path: parameters at each iteration.
    """

    p: np.ndarray
    residuals: list[float]
    path: list[np.ndarray]


def gauss_newton(
    forward: Forward,
    data: np.ndarray,
    start: np.ndarray,
    *,
    noise: float,
    penalty: np.ndarray | None = None,
    iterations: int = 30,
    tell: Callable[[int, float], None] | None = None,
) -> Estimate:
    """Minimise |F(p) - data|^2 + |penalty (p - start)|^2 with the domain derivative.

    Steps are shortened until the residual falls. Without a penalty it stops where the step no
    longer matters; with one the penalty shrinks by half each step, and it stops where the residual
    is the noise (discrepancy principle).

    Args:
        forward: the map with its derivative.
        data: measurements (waves, 3 R).
        start: parameters to begin with.
        noise: relative level of the noise.
        penalty: weight of each parameter, relative to the largest singular value of F'; None: none.
        iterations: at most.
        tell: called with iteration and residual.

    Raises:
        SolveError: the residual stays above half the data.
    """
    size = np.linalg.norm(data)
    p = start.copy()
    value, slope = forward.with_derivative(p)
    residuals = [float(np.linalg.norm(value - data) / size)]
    path = [p.copy()]
    alpha = 0.1
    for k in range(iterations):
        J = _real(slope.reshape(-1, forward.star.size))
        f = _real((value - data).ravel())
        if penalty is not None:
            weight = alpha * np.linalg.norm(J, 2) * penalty
            J = np.concatenate([J, np.diag(weight)])
            f = np.concatenate([f, weight * (p - start)])
            alpha *= 0.5
        step = -np.linalg.lstsq(J, f, rcond=None)[0]
        length = 1.0
        while True:
            trial = p + length * step
            new = forward(trial) if np.abs(length * step[3:]).max() < 1.5 else value
            residual = float(np.linalg.norm(new - data) / size)
            if residual < residuals[-1] or length < 1e-3:
                break
            length /= 2
        if residual >= residuals[-1]:
            break
        p = trial
        residuals.append(residual)
        path.append(p.copy())
        if tell is not None:
            tell(k + 1, residual)
        small = residuals[-2] - residual < 1e-5 * residuals[-2]
        if (penalty is None and small) or (penalty is not None and residual <= 1.02 * noise):
            break
        value, slope = forward.with_derivative(p)
    if residuals[-1] > 0.5:
        raise SolveError(
            "Gauss-Newton of the obstacle",
            f"the residual stays at {residuals[-1]:.2g} of the data",
            history=residuals,
            advice="another start (start.centre, start.radius), or a lower frequency first",
        )
    return Estimate(p, residuals, path)


def _real(z: np.ndarray) -> np.ndarray:
    """Real and imaginary parts one under the other."""
    return np.concatenate([z.real, z.imag])


def locate_sources(
    medium: Medium, receivers: Receivers, data: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Positions and forces of point sources from one measurement (3 R,).

    Forces are linear given positions and are eliminated (variable projection, Golub and Pereyra
    1973); positions by Levenberg-Marquardt from a start (N, 3).

    Returns:
        Positions (N, 3), complex forces (N, 3), relative residual.
    """

    def forces(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        M = receivers.matrix(medium, y)
        return M, np.linalg.lstsq(M, data, rcond=None)[0]

    def misfit(y: np.ndarray) -> np.ndarray:
        M, f = forces(y.reshape(-1, 3))
        return _real(M @ f - data)

    found = least_squares(misfit, start.ravel(), method="lm", xtol=1e-12, ftol=1e-12)
    y = found.x.reshape(-1, 3)
    _, f = forces(y)
    residual = float(np.linalg.norm(found.fun) / np.linalg.norm(data))
    return y, f.reshape(-1, 3), residual
