"""How far a likelihood's own assumptions are met: the errors of a fit against those it claims.

A likelihood takes its residuals as independent, with the variances given. Of residuals that have a
cause in common (a wall elsewhere, a front that another scheme puts elsewhere) the score grows by
blocks of neighbouring times and places. Its sum over a block, s_b, gives the covariance of the
whole score as it is, J = sum s_b s_b^T, against F that the likelihood says it is (the sandwich
estimator, Huber 1967, White 1982, by clusters, Liang & Zeger 1986); on a support S of n columns

    misfit = trace(F_SS^-1 J_SS) / n,

1 where the assumptions hold. Costs and Fisher information are divided by it before a criterion
reads them (Burnham & Anderson 2002: QAIC; Varin & Vidoni 2005 for composite likelihoods).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Blocks of a data set in time and in space: so many that a few coefficients leave the sum of
# squares as it is, and so long that causes in common stay within one.
IN_TIME, IN_SPACE = 4, 8


def blocks(
    S: np.ndarray, r: np.ndarray, columns: np.ndarray, times: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores by blocks, as functions of the coefficients: s_b(c) = h_b - G_b c.

    Args:
        S: sensitivities over standard deviations, nuisances eliminated, (times n, K).
        r: residuals likewise, (times n,), at the coefficients `columns`.
        columns: the coefficients there, (K,).
        times: number of times.

    Returns:
        G (blocks, K, K), h (blocks, K).
    """
    K = S.shape[1]
    S, r = S.reshape(times, -1, K), r.reshape(times, -1)
    G, h = [], []
    for a in np.array_split(np.arange(times), min(IN_TIME, times)):
        for b in np.array_split(np.arange(r.shape[1]), min(IN_SPACE, r.shape[1])):
            part = S[a[0] : a[-1] + 1, b[0] : b[-1] + 1].reshape(-1, K)
            G.append(part.T @ part)
            h.append(part.T @ r[a[0] : a[-1] + 1, b[0] : b[-1] + 1].ravel() + G[-1] @ columns)
    return np.array(G), np.array(h)


def misfit(G: np.ndarray, h: np.ndarray, c: np.ndarray, support: Sequence[int]) -> float:
    """trace(F_SS^-1 J_SS) / n of an estimate.

    Args:
        G: of `blocks`, of all data sets, (blocks, K, K).
        h: likewise, (blocks, K).
        c: the estimate, (K,).
        support: S, at least one column.
    """
    at = list(support)
    s = (h - G @ c)[:, at]
    F = G.sum(axis=0)[np.ix_(at, at)]
    scale = 1 / np.sqrt(np.maximum(np.diag(F), 1e-300))
    s = s * scale
    solved = np.linalg.lstsq(F * np.outer(scale, scale), s.T, rcond=1e-12)[0]
    return float((solved * s.T).sum() / len(at))
