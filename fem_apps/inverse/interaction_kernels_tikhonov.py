"""Tikhonov's regularisation of the error functional: penalties, and rules for lambda.

c minimises c.A c - 2 b.c + lambda |c|^2 with one of the squares

    identity  sum c_j^2
    L2        int W'^2 d rho_bar,   rho_bar the measure of the data's pair distances
    H1        int W''^2 dr, over all radii of the splines: where no pair is, W' goes on smoothly
    RKHS      <W', L^-1 W'>_{L2(rho_bar)},  <L W', W'>_{L2(rho_bar)} = c.A c

The last is the norm of the data-adaptive reproducing kernel Hilbert space, whose closure holds
all that the data identify (Lang & Lu 2021, arXiv:2106.05565; Lu, Lang & An 2022,
arXiv:2203.03791): directions that the data do not see cost infinitely much and stay 0, while the
L2 norm lets their noise in.

All of them in the generalised eigenvectors A v = Lambda B v, v.B v = 1 (B = L2's matrix for the
RKHS), where c = sum y_k v_k, y_k = beta_k / (Lambda_k + lambda w_k), beta = v.b, w = 1, or
1 / Lambda_k for the RKHS. Rules for lambda, none of which is told the noise:

* l-curve: largest signed curvature of (log |Phi c - u|, log |c|), Phi^T Phi = A, Phi^T u = b
  (Hansen 1992; as Lang & Lu 2020, arXiv:2010.15694, do);
* gcv: generalised cross-validation (Golub, Heath & Wahba 1979), least sum (1 - f_k)^2 beta_k^2 /
  Lambda_k over (sum 1 - f_k)^2, f_k = Lambda_k / (Lambda_k + lambda w_k): u's noise taken as
  white;
* quasi-optimal: least |lambda dc/dlambda| (Tikhonov & Glasko 1965).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import eigh

from fem_apps.inverse.interaction_kernels_atoms import Atom

Seminorm = Literal["identity", "L2", "H1", "RKHS"]
Rule = Literal["l-curve", "gcv", "quasi-optimal"]

# Eigenvalues below this part of the greatest are rounding; a penalty's matrix is made definite by
# that part of its trace.
CUT, DEFINITE = 1e-13, 1e-12
# Eigenvalues above so many times the mean are directions that the penalty does not see.
UNSEEN = 1e6
# Points of the quadrature in r, and bins of rho_bar.
POINTS, BINS = 4001, 200


@dataclass(frozen=True)
class Penalty:
    """A square |c|^2.

    Attributes:
        B: its matrix, or that of L2(rho_bar) for the RKHS, (n, n).
        adaptive: whether it is the RKHS.
    """

    B: np.ndarray
    adaptive: bool = False


def penalty(kind: Seminorm, atoms: Sequence[Atom], distances: np.ndarray, further: int) -> Penalty:
    """The penalty on W; other columns are penalised by a trace of it.

    Args:
        kind: which.
        atoms: the hypothesis space.
        distances: samples of rho_bar.
        further: number of columns besides the atoms.
    """
    n = len(atoms) + further
    B = np.eye(n)
    if kind != "identity":
        reach = float(distances.max())
        if kind == "H1":
            reach = max(reach, *(a.end for a in atoms))
        edges = np.linspace(0, reach, POINTS)
        r = (edges[1:] + edges[:-1]) / 2
        f = np.array([a.slope(r) for a in atoms])
        weight = np.full(len(r), r[1] - r[0])
        if kind == "H1":
            f = np.gradient(f, r, axis=1)
        else:
            count, bins = np.histogram(distances[distances > 0], BINS, (0, reach), density=True)
            weight *= count[np.minimum(np.searchsorted(bins, r) - 1, BINS - 1)]
        B = np.zeros((n, n))
        B[: len(atoms), : len(atoms)] = (f * weight) @ f.T
        B += 1e-6 * np.trace(B) / n * np.diag(np.arange(n) >= len(atoms)).astype(float)
    return Penalty(B + DEFINITE * np.trace(B) / n * np.eye(n), kind == "RKHS")


@dataclass(frozen=True)
class Spectrum:
    """A form in the generalised eigenvectors of a penalty.

    Attributes:
        values: Lambda, (n,), rising, 0 where they are rounding.
        V: eigenvectors in columns.
        beta: V^T b.
        adaptive: whether the penalty is the RKHS.
    """

    values: np.ndarray
    V: np.ndarray
    beta: np.ndarray
    adaptive: bool

    @property
    def weights(self) -> np.ndarray:
        """W of the seen directions; infinite for others in the RKHS."""
        with np.errstate(divide="ignore"):
            return 1 / self.values if self.adaptive else np.ones(len(self.values))

    def y(self, lam: float) -> np.ndarray:
        """Coefficients in the eigenvectors."""
        if self.adaptive:
            return self.values * self.beta / (self.values**2 + lam)
        return self.beta / (self.values + lam)


def spectrum(A: np.ndarray, b: np.ndarray, p: Penalty) -> Spectrum:
    """The generalised eigenproblem of a form and a penalty."""
    values, V = eigh(A, p.B)
    values = np.where(values > CUT * values[-1], values, 0.0)
    return Spectrum(values, V, V.T @ b, p.adaptive)


def tikhonov(
    A: np.ndarray, b: np.ndarray, p: Penalty, rule: Rule = "l-curve", count: int = 80
) -> tuple[np.ndarray, float]:
    """The regularised minimiser and its lambda.

    Args:
        A: (n, n).
        b: (n,).
        p: the penalty.
        rule: for lambda.
        count: number of lambdas tried.
    """
    s = spectrum(A, b, p)
    top = float(np.trace(A) / np.trace(p.B))
    # what the penalty does not see (constants of a seminorm) has no size to trade
    seen = (s.values > 0) & (s.values < UNSEEN * top)
    power = 2 if p.adaptive else 1
    least = float(s.values[seen].min(initial=top))
    grid = np.geomspace(max(least, 1e-10 * top) ** power, top**power, count)
    lam = float(grid[_place(s, grid, seen, rule)])
    return s.V @ s.y(lam), lam


def solve(A: np.ndarray, b: np.ndarray, p: Penalty, lam: float) -> np.ndarray:
    """The regularised minimiser at a given lambda."""
    s = spectrum(A, b, p)
    return s.V @ s.y(lam)


def _place(s: Spectrum, grid: np.ndarray, seen: np.ndarray, rule: Rule) -> int:
    values, beta, w = s.values[seen], s.beta[seen], s.weights[seen]
    ys = np.array([s.y(lam)[seen] for lam in grid])
    rest = grid[:, None] * w / (values + grid[:, None] * w)  # 1 - f
    residual = (rest**2 * beta**2 / values).sum(axis=1)
    if rule == "gcv":
        return int(np.argmin(residual / np.maximum(rest.sum(axis=1), 1e-8) ** 2))
    if rule == "quasi-optimal":
        moved = (w * (rest * ys) ** 2).sum(axis=1)
        inner = np.flatnonzero((moved[1:-1] < moved[:-2]) & (moved[1:-1] <= moved[2:])) + 1
        # towards lambda = 0 the change always dies out: only a minimum with a rise below counts
        return int(inner[np.argmin(moved[inner])]) if len(inner) else int(np.argmin(moved))
    x = np.log(np.maximum(residual, 1e-300)) / 2
    z = np.log(np.maximum((w * ys**2).sum(axis=1), 1e-300)) / 2
    u = np.log(grid)
    dx, dz = np.gradient(x, u), np.gradient(z, u)
    curve = (dx * np.gradient(dz, u) - dz * np.gradient(dx, u)) / (dx**2 + dz**2 + 1e-12) ** 1.5
    return int(np.argmax(curve[2:-2])) + 2
