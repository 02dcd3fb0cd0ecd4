"""Sums over all pairs on the circle in O((n + k) log): Fourier modes of the kernel, NUFFT.

exp(beta cos t) = sum_k I_k(beta) e^{ikt}, so that sum_j m_j exp(beta cos(s_i - t_j)) (e^{i t_j},
1) are two trigonometric polynomials in s_i, of degree about beta + 24, whose coefficients come
from the moments of the masses. finufft (Barnett, Magland, af Klinteberg 2019) does both transforms.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ive

# below that share of the greatest possible sum rounding of the transforms is too large
SMALLEST, TOLERANCE, MOST = 1e-2, 1e-14, 2000


def circle_sums(
    a: np.ndarray, y: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """sum_j exp(a_i.y_j + b_j - c) (y_j, 1) and c where |a_i| = beta and |y_j| = 1; else None.

    None also where a sum is below 1e-2 of exp(beta) sum_j exp(b_j), which loses digits here, and
    for a beta of more than 2000 modes.

    Args:
        a: (n, 2).
        y: (k, 2).
        b: (k,).

    Returns:
        sums (n, 3), and c (n,), one number.
    """
    size, norm = np.hypot(a[:, 0], a[:, 1]), np.hypot(y[:, 0], y[:, 1])
    beta = float(size.max())
    if beta == 0 or np.ptp(size) > 1e-13 * beta or np.abs(norm - 1).max() > 1e-13:
        return None
    count = int(24 + beta if beta < 40 else 24 + 8.5 * np.sqrt(beta) + 0.1 * beta)
    if count > MOST:
        return None
    import finufft

    top = float(b.max())
    mass = np.exp(b - top)
    t, s = np.arctan2(y[:, 1], y[:, 0]), np.arctan2(a[:, 1], a[:, 0])
    moments = finufft.nufft1d1(t, mass.astype(complex), 2 * count + 3, eps=TOLERANCE, isign=-1)
    kernel = ive(np.abs(np.arange(-count, count + 1)), beta)
    # sum_j m_j e^{i t_j} e^{-i k t_j} is the moment of k - 1
    both = np.stack([kernel * moments[:-2], kernel * moments[1:-1]])
    values = finufft.nufft1d2(s, both, eps=TOLERANCE, isign=1)
    plain = values[1].real
    if plain.min() < SMALLEST * mass.sum():
        return None
    sums = np.stack([values[0].real, values[0].imag, plain], axis=1)
    return sums, np.full(len(a), beta + top)
