"""Lower bounds of coercivity from bounds of a: the values of (a_1, ..., a_Q) enclosed in boxes.

    a(x; mu) >= min_c sum_q ( theta_q^+ lo_cq - theta_q^- hi_cq ),   (a_1(x), ..., a_Q(x)) in box c,

which is exact where a takes few values, as on blocks, and costs O(boxes Q) whatever the mesh.
Divided by the a_bar of the inner product X this bounds the coercivity constant in X. A reaction or
Robin term that is negative, theta_q (c_q u, u) with c_q >= 0, takes at most |theta_q| lambda_q from
it, lambda_q the largest eigenvalue of (c_q u, v) = lambda (u, v)_X: equations that are coercive
though not term by term. No DOLFINx.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BOXES = 512


def enclosing_boxes(values: np.ndarray, most: int = BOXES) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [lo, hi], each of shape (boxes, Q), that contain all rows of `values`.

    Rows that differ in rounding alone are one; more than `most` different ones are halved along
    their widest axis until that many boxes are there.
    """
    size = np.abs(values).max(axis=0) + 1e-300
    _, first = np.unique(np.round(values / size, 12), axis=0, return_index=True)
    if len(first) <= most:
        rows = values[first]
        eps = 1e-12 * size
        return rows - eps * (rows != 0), rows + eps * (rows != 0)
    groups = [values[first]]
    while len(groups) < most:
        k = max(range(len(groups)), key=lambda i: float(np.ptp(groups[i] / size, axis=0).max()))
        g = groups.pop(k)
        axis = int(np.ptp(g / size, axis=0).argmax())
        g = g[np.argsort(g[:, axis], kind="stable")]
        groups += [g[: len(g) // 2], g[len(g) // 2 :]]
    eps = 1e-12 * size
    return (
        np.array([g.min(axis=0) for g in groups]) - eps,
        np.array([g.max(axis=0) for g in groups]) + eps,
    )


def box_bound(lo: np.ndarray, hi: np.ndarray, theta: Any, xp: Any = np) -> Any:
    """min_c sum_q ( theta_q^+ lo_cq - theta_q^- hi_cq ), shape (...), of theta (..., Q)."""
    plus, minus = xp.maximum(theta, 0.0), xp.minimum(theta, 0.0)
    return (plus @ xp.asarray(lo).T + minus @ xp.asarray(hi).T).min(axis=-1)


def coercivity_bound(
    theta: Any,
    Q: int,
    boxes: tuple[np.ndarray, np.ndarray],
    extra: np.ndarray | None,
    xp: Any = np,
    reach: np.ndarray | None = None,
) -> Any:
    """alpha_LB, shape (...); where it is not positive nothing is certified.

    Args:
        theta: of all terms, shape (..., Q'), those of a first.
        Q: number of terms of a.
        boxes: of a / a_bar.
        extra: theta of the other terms in the product; None for the seminorm, which has none.
        xp: numpy or jax.numpy.
        reach: lambda_q of the other terms, where they may be negative.
    """
    low = box_bound(*boxes, theta[..., :Q], xp)
    rest = theta[..., Q:]
    if extra is None:
        # terms that the seminorm does not see help where they are not negative
        if reach is not None:
            return low + xp.minimum(rest, 0.0) @ xp.asarray(reach)
        negative = (rest < 0).any(axis=-1) if rest.shape[-1] else xp.zeros(low.shape, bool)
        return xp.where(negative, 0.0, low)
    seen = np.flatnonzero(extra > 0)
    for q in seen:
        low = xp.minimum(low, rest[..., q] / extra[q])
    return low
