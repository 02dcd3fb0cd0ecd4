"""Energy landscape of layer-normalised attention: E(mu) = iint e^{x.Dy} dmu dmu on S^(d-1).

D = Q^T K symmetric, beta absorbed; attention with V = D climbs E, with V = -D descends it. Which
measures are extreme follows from the eigenvalues of D; where D > 0 the minimiser is one measure,
and a convex quadratic programme finds it. Source: Burger, Kabri, Korolev, Roith, Weigand
(arXiv 2501.03096, Phil. Trans. R. Soc. A 383:20240233).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, nnls
from scipy.special import iv, ive

from fem_apps.attention.funk_hecke import eigenvalues
from fem_apps.errors import CaseError, SolveError


@dataclass(frozen=True)
class Extremiser:
    """A global extremiser of E.

    kind: "dirac", "antipodal pair", "uniform", "on the kernel of D", or "density" (D > 0: unique,
    energy by `minimiser`). energy: nan for "density". proved: whether the type is a theorem;
    for an indefinite D with the pair ahead it is the better of the two candidates.
    """

    kind: str
    energy: float
    direction: tuple[float, ...]
    proved: bool = True


def _spectrum(D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    D = np.asarray(D, dtype=float)
    if D.ndim != 2 or D.shape[0] != D.shape[1] or not np.allclose(D, D.T, atol=1e-12):
        raise CaseError("D: a symmetric matrix is needed (a matrix that is not has no energy)")
    return np.linalg.eigh(D)


def maximiser(D: np.ndarray) -> Extremiser:
    """Global maximiser: a Dirac, e^{lambda_max}, or an antipodal pair, cosh(lambda_min)."""
    values, vectors = _spectrum(D)
    low, top = values[0], values[-1]
    if top >= abs(low):
        return Extremiser("dirac", float(np.exp(top)), tuple(vectors[:, -1]))
    if top <= 0:
        return Extremiser("antipodal pair", float(np.cosh(low)), tuple(vectors[:, 0]))
    if np.exp(top) >= np.cosh(low):
        return Extremiser("dirac", float(np.exp(top)), tuple(vectors[:, -1]), False)
    return Extremiser("antipodal pair", float(np.cosh(low)), tuple(vectors[:, 0]), False)


def minimiser_kind(D: np.ndarray) -> Extremiser:
    """Global minimiser by the spectrum of D."""
    values, vectors = _spectrum(D)
    low, top = values[0], values[-1]
    scale = max(1.0, abs(top))
    if low < -1e-14 * scale:
        return Extremiser("dirac", float(np.exp(low)), tuple(vectors[:, 0]))
    if low <= 1e-14 * scale:
        return Extremiser("on the kernel of D", 1.0, tuple(vectors[:, 0]))
    if top - low <= 1e-14 * scale:
        energy = eigenvalues(float(top), len(values), 1)[0] * np.exp(top)
        return Extremiser("uniform", float(energy), ())
    return Extremiser("density", float("nan"), tuple(vectors[:, 0]))


def antipodal_stable(D: np.ndarray) -> bool:
    """Whether (delta_v + delta_-v)/2, v the top eigenvector, is a strict local maximiser.

    For moves of the two masses: lambda_2 < lambda_1 tanh(lambda_1). An eigenvalue that v shares is
    a rotation, and never strict.
    """
    values, _ = _spectrum(D)
    return bool(values[-2] < values[-1] * np.tanh(values[-1]))


def collective_hessian(D: np.ndarray) -> np.ndarray:
    """Second-order change of E at the pair along the top eigenvector, sorted, (2 (d-1),).

    Both masses move along another eigenvector, of eigenvalue l. With L = lambda_1 the energy
    changes by s^2 (l sinh L - L sinh L) if they turn by s together, and by
    s^2 (l cosh L - L sinh L) if they turn by s and -s.
    """
    values, _ = _spectrum(D)
    L, rest = values[-1], values[:-1]
    return np.sort(np.r_[rest * np.cosh(L) - L * np.sinh(L), rest * np.sinh(L) - L * np.sinh(L)])


def four_particles(d1: float, d2: float) -> float:
    """b^2 of the minimiser (+-a e_1, +-b e_2), a^2 + b^2 = 1: d1 tanh(d1 a^2) = d2 tanh(d2 b^2)."""
    return float(
        brentq(lambda s: d1 * np.tanh(d1 * (1 - s)) - d2 * np.tanh(d2 * s), 0.0, 1.0, xtol=1e-14)
    )


@dataclass(frozen=True)
class Minimiser:
    """The minimiser of E on given points: weights (sum 1), energy, KKT gap (relative)."""

    points: np.ndarray
    weights: np.ndarray
    energy: float
    gap: float

    def moment(self, values: np.ndarray) -> float:
        """Int values dmu."""
        return float(self.weights @ values)


def minimise(kernel: np.ndarray, points: np.ndarray) -> Minimiser:
    """Min w.Kw over w >= 0, sum w = 1, K positive semi-definite, by non-negative least squares.

    Args:
        kernel: K, (n, n).
        points: what the weights belong to, (n, ...).

    Raises:
        SolveError: the optimality conditions are not met.
    """
    values, vectors = np.linalg.eigh(kernel)
    keep = values > 1e-15 * values[-1]
    factor = np.sqrt(values[keep])[:, None] * vectors[:, keep].T
    # |factor w|^2 + big (sum w - 1)^2: the minimiser is a multiple of the constrained one
    big = np.sqrt(values[-1])
    rows = np.vstack([factor, np.full(len(kernel), big)])
    w, _ = nnls(rows, np.r_[np.zeros(keep.sum()), big], maxiter=50 * len(kernel))
    w = w / w.sum()
    slope = kernel @ w
    energy = float(w @ slope)
    gap = float(energy - slope.min()) / energy
    if gap > 1e-6:
        raise SolveError("minimiser of the attention energy", f"KKT gap {gap:.1e}")
    return Minimiser(points, w, energy, gap)


def minimise_on_sphere(D: np.ndarray, n: int = 360) -> Minimiser:
    """The minimiser on S^(d-1), d = 2 or 3, for D >= 0, on n even (d = 2) or spiral points.

    On the circle the even points lose nothing; on S^2 the energy is that of atoms at the points.

    Raises:
        CaseError: d > 3, or D not symmetric.
    """
    _spectrum(D)
    i = np.arange(n)
    if len(D) == 2:
        phi = 2 * np.pi * i / n
        x = np.stack([np.cos(phi), np.sin(phi)], axis=1)
    elif len(D) == 3:
        z = 1 - (2 * i + 1) / n
        turn = np.pi * (1 + 5**0.5) * i
        r = np.sqrt(1 - z * z)
        x = np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1)
    else:
        raise CaseError(f"landscape.D is {len(D)} x {len(D)}: a density is found for d = 2 and 3")
    return minimise(np.exp(x @ D @ x.T), x)


def minimise_axisymmetric(a: float, b: float, n: int = 200) -> Minimiser:
    """The minimiser on S^2 for D = diag(a, a, b) >= 0, rings at heights t along the axis of b.

    Two rings interact by e^{b t s} I_0(a sqrt((1-t^2)(1-s^2))).
    """
    inner = np.cos(np.pi * (np.arange(n) + 0.5) / n)
    t = np.concatenate([[1.0], inner, [-1.0]])
    root = np.sqrt(np.maximum(np.outer(1 - t**2, 1 - t**2), 0.0))
    return minimise(np.exp(b * np.outer(t, t) + a * root) * ive(0, a * root), t)


def circle_density(
    d1: float, d2: float, n: int = 512, modes: int = 14
) -> tuple[np.ndarray, np.ndarray]:
    """The measure with constant potential K*rho on S^1, D = diag(d1, d2) > 0: angles, density.

    Where it is positive, it is the minimiser, of full support.

    In Fourier modes the kernel is I_((k+l)/2)(p) I_((k-l)/2)(q), p, q = (d1 +- d2)/2, to full
    relative accuracy, which the fast decay of its diagonal needs.

    Args:
        d1: eigenvalue along phi = 0.
        d2: eigenvalue along phi = pi/2.
        n: number of angles.
        modes: of cos(2 j phi), j = 0, ..., modes - 1.
    """
    p, q = (d1 + d2) / 2, (d1 - d2) / 2
    k = 2 * np.arange(modes)
    K, L = np.meshgrid(k, k, indexing="ij")
    plus, minus = (K + L) // 2, np.abs(K - L) // 2
    A = iv(plus, p) * iv(minus, q) + iv(minus, p) * iv(plus, q)
    A, b = A[1:, 1:], -A[1:, 0] / 2
    scale = 1 / np.sqrt(np.diag(A))
    c = scale * np.linalg.solve(scale[:, None] * A * scale, scale * b)
    phi = 2 * np.pi * np.arange(n) / n
    return phi, 1 + 2 * c @ np.cos(np.outer(k[1:], phi))


def first_order_amplitude(d: int, beta: float = 1.0) -> float:
    """Slope s of the minimiser 1 - eps s (x.Mx - tr M/d) for D = I + eps M: lambda_1/lambda_2."""
    lam = eigenvalues(beta, d, 3)
    return float(lam[1] / lam[2])
