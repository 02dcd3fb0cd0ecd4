"""Reduced models of elliptic problems from a file: theta, bounds and gap, without a mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fem_apps.problems.elliptic_bounds import box_bound, coercivity_bound
from fem_apps.problems.elliptic_coefficients import LogNormal, One
from fem_apps.problems.elliptic_equation import Equation
from fem_apps.surrogates.empirical_interpolation import Interpolation
from fem_apps.surrogates.reduced_basis_online import ReducedModel, load


def load_reduced(path: str | Path) -> ReducedModel:
    """The reduced model that a run of kind parametric-elliptic left in `reduced.npz`.

    Raises:
        CaseError: no such file, or no reduced model in it.
    """
    return load(Path(path), model_functions)


def model_functions(stored: dict[str, Any]) -> dict[str, Any]:
    """Theta, theta_load, bound and gap of the JSON values of `EllipticModel.functions`."""
    equation = Equation.model_validate(stored["equation"])
    boxes = (np.array(stored["boxes"][0]), np.array(stored["boxes"][1]))
    extra = None if stored["extra"] is None else np.array(stored["extra"])
    coefficient: Any = equation.diffusion if equation.diffusion.affine else One()
    inter: Interpolation | None = None
    if stored["interpolation"] is not None:
        arrays = {k: np.array(v) for k, v in stored["interpolation"].items()}
        inter = coefficient = Interpolation(equation.diffusion.at, **arrays)

    reach = stored.get("reach") and np.array(stored["reach"])

    modes = stored["feature_boxes"] and [np.array(b) for b in stored["feature_boxes"]]

    def theta(mu: Any, xp: Any = np) -> Any:
        of_a = coefficient.theta(equation.named(mu), xp)
        return xp.concatenate([of_a, equation.theta_operator(mu, xp)], axis=-1)

    def theta_load(mu: Any, xp: Any = np) -> Any:
        phi = equation.theta_load(mu, xp)
        return xp.concatenate([phi, theta(mu, xp)], axis=-1) if stored["lifts"] else phi

    def gap(mu: Any, xp: Any = np) -> Any:
        assert inter is not None
        return inter.gap(equation.named(mu), xp) / stored["least"]

    def bound(mu: Any, xp: Any = np) -> Any:
        low = coercivity_bound(theta(mu, xp), stored["terms"], boxes, extra, xp, reach)
        if inter is None:
            return low
        low = low - gap(mu, xp)
        if stored["product"] == "energy":
            return low
        known = equation.diffusion.lower(equation.named(mu), xp)
        if modes is not None and isinstance(equation.diffusion, LogNormal):
            d = equation.diffusion
            known = xp.exp(d.mean + box_bound(modes[0], modes[1], mu[..., -d.terms :], xp))
        return xp.maximum(low, known)

    return {
        "theta": theta,
        "theta_load": theta_load,
        "bound": bound,
        "gap": None if inter is None else gap,
    }
