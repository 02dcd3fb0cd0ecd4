"""What every reconstruction is compared with: LMMSE and total variation; PSNR, SSIM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import uniform_filter
from scipy.sparse.linalg import svds

WINDOW = 7  # of SSIM, pixels


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """20 log10(range/RMSE) of each flat image in dB, range = max - min of the clean image."""
    size = np.ptp(truth, axis=-1)
    rmse = np.sqrt(((images - truth) ** 2).mean(axis=-1))
    return 20 * np.log10(size / np.maximum(rmse, 1e-300))


def ssim(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al., 2004) of flat square images, 7 x 7 uniform windows."""
    n = round(truth.shape[-1] ** 0.5)
    out = []
    for a, b in zip(images.reshape(-1, n, n), truth.reshape(-1, n, n), strict=True):
        c1, c2 = (0.01 * np.ptp(b)) ** 2, (0.03 * np.ptp(b)) ** 2
        size = min(WINDOW, n)
        ma, mb = uniform_filter(a, size), uniform_filter(b, size)
        va = uniform_filter(a * a, size) - ma**2
        vb = uniform_filter(b * b, size) - mb**2
        vab = uniform_filter(a * b, size) - ma * mb
        s = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
        out.append(s.mean())
    return np.array(out)


@dataclass(frozen=True)
class Lmmse:
    """The best affine estimator from the mean and covariance of training images.

    x = mu + C A^T (A C A^T + Sigma)^-1 (y - A mu); also the posterior mean of the Gaussian prior.

    Attributes:
        A: shape (m, n).
        mean: shape (n,).
        gain: shape (n, m).
        std: posterior standard deviation, shape (n,).
    """

    A: np.ndarray
    mean: np.ndarray
    gain: np.ndarray
    std: np.ndarray

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Shapes (batch, m) -> (batch, n)."""
        return self.mean + (y - self.A @ self.mean) @ self.gain.T


def lmmse(A: np.ndarray, images: np.ndarray, noise: np.ndarray | float) -> Lmmse:
    """The estimator of flat training images; noise: covariance, or a standard deviation."""
    mean = images.mean(axis=0)
    C = np.cov(images.T) + 1e-9 * np.eye(images.shape[1])
    AC = A @ C
    Sigma = noise**2 * np.eye(len(A)) if np.ndim(noise) == 0 else np.asarray(noise)
    gain = np.linalg.solve(AC @ A.T + Sigma, AC).T
    variance = np.diag(C) - np.einsum("nm,mn->n", gain, AC)
    return Lmmse(A, mean, gain, np.sqrt(np.maximum(variance, 0.0)))


def total_variation(A: Any, y: np.ndarray, weight: float, *, iterations: int = 200) -> np.ndarray:
    """The minimiser of |A x - y|^2/2 + weight int |grad x|, isotropic differences.

    Alternating directions with an exact solve for x and over-relaxation (Boyd et al., 2011): the
    condition of A does not slow it, as it does first-order methods.

    Shapes (batch, m) -> (batch, n), square images, A dense or sparse.
    """
    n = round(A.shape[1] ** 0.5)
    normal = (A.T @ A).toarray() if sp.issparse(A) else A.T @ A
    one = sp.diags([-1.0, 1.0], [0, 1], shape=(n, n)).tolil()
    one[-1] = 0
    second = sp.kron(one.T @ one, sp.eye(n)) + sp.kron(sp.eye(n), one.T @ one)
    # the step of |grad x|: a tenth of the constant image that the data would come from
    step = 0.1 * np.linalg.norm(y) / (np.linalg.norm(A @ np.ones(n * n)) * len(y) ** 0.5 or 1.0)
    step = step or 1.0  # data that are all zero
    factor = cho_factor(normal + (weight / step) * second.toarray())
    right = (A.T @ y.T).T
    q = p = np.zeros((2, len(y), n, n))
    x = right
    for _ in range(iterations):
        b = right + (weight / step) * _gradient_transposed(q - p).reshape(x.shape)
        x = cho_solve(factor, b.T).T
        v = 1.7 * _gradient(x.reshape(-1, n, n)) - 0.7 * q + p
        length = np.sqrt((v**2).sum(axis=0))
        q = v * np.maximum(0.0, 1 - step / np.maximum(length, step))
        p = v - q
    return x


def largest_singular_value(A: Any) -> float:
    """|A| in the spectral norm; A dense or sparse."""
    return float(svds(sp.csr_matrix(A), k=1, return_singular_vectors=False, random_state=0)[0])


def _gradient(u: np.ndarray) -> np.ndarray:
    out = np.zeros((2, *u.shape))
    out[0, :, :-1] = np.diff(u, axis=1)
    out[1, :, :, :-1] = np.diff(u, axis=2)
    return out


def _gradient_transposed(q: np.ndarray) -> np.ndarray:
    out = np.zeros(q.shape[1:])
    out[:, :-1] -= q[0, :, :-1]
    out[:, 1:] += q[0, :, :-1]
    out[:, :, :-1] -= q[1, :, :, :-1]
    out[:, :, 1:] += q[1, :, :, :-1]
    return out


def best_total_variation(
    A: Any, y: np.ndarray, noise: float, truth: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """TV with the weight of each row by discrepancy (|A x - y|^2 nearest m noise^2), and by truth.

    Args:
        A: shape (m, n).
        y: shape (batch, m).
        noise: standard deviation of a datum.
        truth: shape (batch, n): the oracle's.
        weights: tried; seven, about the size of noise |A|, where left out.

    Returns:
        The two reconstructions, each of shape (batch, n).
    """
    if weights is None:
        weights = noise * largest_singular_value(A) * np.geomspace(3e-3, 1.0, 7)
    found = np.stack([total_variation(A, y, w) for w in weights])
    residual = ((np.stack([(A @ f.T).T for f in found]) - y) ** 2).mean(axis=-1) / noise**2
    rows = np.arange(len(y))
    fair = np.abs(np.log(np.maximum(residual, 1e-300))).argmin(axis=0)
    oracle = np.stack([psnr(f, truth) for f in found]).argmax(axis=0)
    return found[fair, rows], found[oracle, rows]
