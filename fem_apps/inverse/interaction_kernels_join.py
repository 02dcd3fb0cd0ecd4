"""The error functional's and the trajectories' estimate of a support joined into one.

Trajectories have the smaller variance, but on cells that do not resolve a flow the data's scheme
and the flow's err differently, and the coefficients move by more than noise moves them. How far is
known: by shift = F^-1 S^T W delta, were the data wrong by what the extrapolation corrects. The
functional errs otherwise. From two estimates with variances v_f, v_t and the square of their
distance d^2, whose expectation is v_f + v_t + 2 tau^2, the variance tau^2 of what is no noise
follows, and the weights of both are the inverse variances with tau^2 (random effects; DerSimonian &
Laird 1986). Trajectories' tau^2 is no more than the square of their shift; what is left of d^2 is
the functional's. Squares are those of the error functional, c.A c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fem_apps.inverse.interaction_kernels_functional import Quadratic
from fem_apps.inverse.interaction_kernels_selection import Selected
from fem_apps.inverse.interaction_kernels_sparse import Fit, refit

# Standard deviations of the noise by which the discretisation must move the trajectories' estimate.
MOVED = 2.0


def joined(
    chosen: Selected,
    form: Quadratic,
    shift: np.ndarray,
    again: Callable[[], Sequence[Quadratic]],
) -> Selected:
    """The trajectories' choice, both estimates of its coefficients in one. Collective by `again`.

    Args:
        chosen: of the trajectories, with resamples.
        form: the error functional of the data.
        shift: how far the discretisation moves the trajectories' coefficients, on the support.
        again: forms of the data with as much noise again, only made where they are needed.
    """
    at = list(chosen.fit.support)
    A = form.A[np.ix_(at, at)]

    def square(v: np.ndarray) -> np.ndarray:
        return np.einsum("...i,ij,...j", v[..., at], A, v[..., at])

    if len(chosen.samples) < 2:
        return chosen
    by_path = chosen.samples - chosen.samples.mean(axis=0)
    v_t = float(square(by_path).mean())
    moved = float(square(shift))
    if not moved > MOVED**2 * v_t:
        return chosen
    samples = np.array([refit(q.A, q.b, at).c for q in again()])
    by_form = samples - samples.mean(axis=0)
    v_f = float(square(by_form).sum() / (len(samples) - 1))
    c_t, c_f = chosen.fit.c, refit(form.A, form.b, at).c
    gap = float(square(c_f - c_t))
    V_t = v_t + min(max(gap - v_f - v_t, 0.0) / 2, moved)
    V_f = v_f + max(gap - v_f - V_t, 0.0)
    part = V_t / (V_t + V_f)
    c = (1 - part) * c_t + part * c_f
    # the band holds what is no noise as well
    wider = ((1 - part) ** 2 * V_t + part**2 * V_f) / ((1 - part) ** 2 * v_t + part**2 * v_f)
    other = by_form[np.arange(len(by_path)) % len(by_form)]
    spread = np.sqrt(wider) * ((1 - part) * by_path + part * other)
    return replace(chosen, fit=Fit(chosen.fit.support, c, chosen.fit.cost), samples=c + spread)
