"""Noisier2Inverse with linear f, in closed form: what a trained network is checked against.

Zero means, P = A C A^T, C = Cov(x), noise covariance Sigma, recorruption of strength alpha:

    data space    noisier2inverse  W = P (P + (1 + alpha^2) Sigma)^-1
                  supervised(y)    P (P + Sigma)^-1
                  naive            (P + Sigma)(P + (1 + alpha^2) Sigma)^-1
    image space   V = C A^T (P + (1 + alpha^2) Sigma)^-1,  A V = W;   LMMSE(y): C A^T (P + Sigma)^-1
    wrong eta, of covariance S' instead of Sigma (alpha = 1): (P + Sigma - S')(P + Sigma + S')^-1

The error of a map W on data with noise N: RMSE^2 = tr((I - W) P (I - W)^T + W N W^T)/m.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class LinearProblem:
    """y = A x + eps.

    Attributes:
        A: shape (m, n).
        C: covariance of x, shape (n, n).
        Sigma: covariance of eps, shape (m, m).
        alpha: strength of the recorruption z = y + alpha w.
    """

    A: np.ndarray
    C: np.ndarray
    Sigma: np.ndarray
    alpha: float = 1.0

    @cached_property
    def P(self) -> np.ndarray:
        """A C A^T."""
        return self.A @ self.C @ self.A.T

    @property
    def noise_z(self) -> np.ndarray:
        """The noise's covariance in z."""
        return (1 + self.alpha**2) * self.Sigma

    def noisier2inverse(self) -> np.ndarray:
        """W, also that of training with clean data at z, and of the corrected two-step method."""
        return _right(self.P, self.P + self.noise_z)

    def supervised(self) -> np.ndarray:
        """The best map of y."""
        return _right(self.P, self.P + self.Sigma)

    def naive(self) -> np.ndarray:
        """The map of z that fits y."""
        return _right(self.P + self.Sigma, self.P + self.noise_z)

    def mistaken(self, assumed: np.ndarray) -> np.ndarray:
        """W where eta has another covariance than eps."""
        return _right(self.P + self.Sigma - assumed, self.P + self.Sigma + assumed)

    def image_noisier2inverse(self) -> np.ndarray:
        """V, shape (n, m): the LMMSE estimator for the noise of z."""
        return _right(self.C @ self.A.T, self.P + self.noise_z)

    def image_lmmse(self) -> np.ndarray:
        """The LMMSE estimator for the noise of y."""
        return _right(self.C @ self.A.T, self.P + self.Sigma)

    def data_rmse(self, W: np.ndarray, noise: np.ndarray) -> float:
        """Error of W applied to A x + noise, against A x."""
        D = np.eye(len(W)) - W
        return float(np.sqrt((np.trace(D @ self.P @ D.T) + np.trace(W @ noise @ W.T)) / len(W)))

    def image_rmse(self, V: np.ndarray, noise: np.ndarray) -> float:
        """Error of V applied to A x + noise, against x."""
        D = np.eye(len(V)) - V @ self.A
        return float(np.sqrt((np.trace(D @ self.C @ D.T) + np.trace(V @ noise @ V.T)) / len(V)))

    def table(self, draws: int = 16) -> dict[str, float]:
        """The errors by method and input, as docs/noisier2inverse.md prints them."""
        z, y = self.noise_z, self.Sigma
        W, V = self.noisier2inverse(), self.image_noisier2inverse()
        mean = self.Sigma * (1 + self.alpha**2 / draws)
        eye = np.eye(len(W))
        return {
            "clean": float(np.sqrt(np.trace(self.P) / len(W))),
            "y": self.data_rmse(eye, y),
            "z": self.data_rmse(eye, z),
            "N2I(z)": self.data_rmse(W, z),
            f"N2I, mean of {draws}": self.data_rmse(W, mean),
            "N2I(y)": self.data_rmse(W, y),
            "supervised(y)": self.data_rmse(self.supervised(), y),
            "naive(z)": self.data_rmse(self.naive(), z),
            "naive map on y": self.data_rmse(self.naive(), y),
            "image N2I(z)": self.image_rmse(V, z),
            "image N2I(y)": self.image_rmse(V, y),
            "image LMMSE(y)": self.image_rmse(self.image_lmmse(), y),
        }


def split_errors(problem: LinearProblem) -> tuple[float, float]:
    """Errors of predicting odd data from even ones, least squares: noisy and clean targets."""
    M = problem.P + problem.Sigma
    even, odd = np.arange(0, len(M), 2), np.arange(1, len(M), 2)
    inner = M[np.ix_(even, even)]
    cross_clean = problem.P[np.ix_(odd, even)]
    clean_odd = np.trace(problem.P[np.ix_(odd, odd)])
    out = []
    for cross in (M[np.ix_(odd, even)], cross_clean):
        W = _right(cross, inner)
        square = clean_odd - 2 * np.trace(W @ cross_clean.T) + np.trace(W @ inner @ W.T)
        out.append(float(np.sqrt(square / len(odd))))
    return out[0], out[1]


def _right(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product a b^-1 for symmetric b."""
    return np.linalg.solve(b, a.T).T
