"""The tail condition: what a Gaussian cannot be taken to in relative entropy is refused."""

from __future__ import annotations

import numpy as np

from fem_apps.control.normalizing_flow_targets import Student, Target
from fem_apps.errors import CaseError

# radii, in units of the target's size, between which tails are read off a density
FAR = (1e4, 1e5)


def refuse_heavy_tails(target: Target, samples: np.ndarray | None, seed: int = 0) -> float:
    """The tail index alpha, P(|x| > r) ~ r^-alpha, estimated; inf for light tails.

    The flow is affine at infinity, so that with a Gaussian base KL(rho_* | rho_N) is finite only
    where rho_* has a finite second moment, alpha > 2 (the relative tail decay of
    Alvarez-Lopez et al., 2025).

    Args:
        target: its density is read at large radii.
        samples: of a target that is known by samples, shape (n, d): Hill's estimator then.
        seed: of directions.

    Raises:
        CaseError: alpha <= 2.
    """
    if samples is not None:
        alpha, error = hill(samples)
        how = f"Hill's estimator on the {len(samples)} samples: {alpha:.2f} +- {error:.2f}"
    else:
        rng = np.random.default_rng(seed)
        direction = rng.standard_normal((64, target.dim))
        direction /= np.linalg.norm(direction, axis=1)[:, None]
        size = float(np.abs(target.box()).max()) if not isinstance(target, Student) else 1.0
        logs = [target.log_density(r * size * direction) for r in FAR]
        finite = np.isfinite(logs[1])
        alpha = np.inf
        if finite.any():
            slope = (logs[1] - logs[0])[finite] / np.log(FAR[1] / FAR[0])
            alpha = float(-slope.max() - target.dim)
        how = f"its density at radii {FAR[0] * size:.3g} to {FAR[1] * size:.3g}"
    if alpha <= 2.0:
        raise CaseError(
            "target: its tails are too heavy: P(|x| > r) falls like r^-alpha with alpha = "
            f"{alpha:.3g} <= 2 (from {how}). The flow is affine at infinity: with a Gaussian base "
            "the relative entropy is infinite whatever the controls. Remedy: cut or transform the "
            "target, or start from a heavier-tailed base"
        )
    return alpha


def hill(samples: np.ndarray) -> tuple[float, float]:
    """Hill's estimate of the tail index from the sqrt(n) largest radii, and its standard error."""
    r = np.sort(np.linalg.norm(samples - np.median(samples, axis=0), axis=1))[::-1]
    k = max(10, int(np.sqrt(len(r))))
    if len(r) <= k + 1 or r[k] <= 0:
        return np.inf, np.inf
    mean = float(np.log(r[:k] / r[k]).mean())
    alpha = 1 / mean if mean > 0 else np.inf
    return alpha, alpha / np.sqrt(k)
