"""The online stage of a reduced basis: dense, batched, in numpy or JAX, without the mesh.

For parameters mu of shape (..., P):

    u_N = (sum_q theta_q(mu) A_q)^-1 sum_i phi_i(mu) b_i,
    Delta_N = ( |G (phi; -theta x u_N)| + gap |u_N| ) / alpha_LB,

gap = 0 where the problem is affine.

Pass `xp=jax.numpy` (in float64) to differentiate or compile; `compiled` does the latter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.output.files import npz, write_whole

CHUNK = 1 << 22  # entries of the matrices that are solved at a time


class Theta(Protocol):
    """Functions of the parameters, for numpy or jax.numpy."""

    def __call__(self, mu: Any, xp: ModuleType = np) -> Any:
        """Values, shape (..., number) or (...)."""


def within(
    ranges: dict[str, tuple[float, float]], mu: np.ndarray, *, extrapolate: bool = False
) -> np.ndarray:
    """The parameters as an array, shape (..., P), if a model was trained for them.

    Raises:
        CaseError: another number of parameters, or one outside its range.
    """
    mu = np.asarray(mu, dtype=float)
    if mu.shape[-1:] != (len(ranges),):
        raise CaseError(
            f"parameters of shape {mu.shape}: the last axis has to be {len(ranges)} "
            f"({', '.join(ranges)})"
        )
    if extrapolate:
        return mu
    for k, (name, (low, high)) in enumerate(ranges.items()):
        slack = 1e-12 * max(abs(low), abs(high))
        bad = ~((mu[..., k] >= low - slack) & (mu[..., k] <= high + slack))
        if bad.any():
            raise CaseError(
                f"{name} = {mu[..., k][bad].flat[0]:g} lies outside the trained range "
                f"[{low:g}, {high:g}]; ask for extrapolation if that is meant"
            )
    return mu


def check_size(n: int, size: int) -> None:
    """Raise CaseError if a basis of `size` vectors has no n of them."""
    if not 0 < n <= size:
        raise CaseError(f"N = {n}: the reduced basis has {size} vectors (1 to {size})")


@dataclass(frozen=True)
class ReducedModel:
    """A reduced model of size N, and of every smaller size.

    Attributes:
        theta, theta_load, bound: theta_q, phi_i and alpha_LB.
        ranges: of each parameter, where the model was trained.
        operators: A_q in the basis, shape (Q, N, N); loads: b_i, shape (F, N).
        residual: G, shape (M, F + Q N): columns of b_i, then of A_q phi_1, A_q phi_2, ...
        outputs: quantities of interest, shape (number, N).
        gap: bound of (A(mu) - A_N(mu)) u in X' relative to |u|_X, if the A_q are approximations.
    """

    theta: Theta
    theta_load: Theta
    bound: Theta
    ranges: dict[str, tuple[float, float]]
    operators: np.ndarray
    loads: np.ndarray
    residual: np.ndarray
    outputs: np.ndarray
    gap: Theta | None = None

    @property
    def size(self) -> int:
        """N."""
        return self.operators.shape[1]

    def of_size(self, n: int) -> ReducedModel:
        """The model of the first n basis vectors.

        Raises:
            CaseError: n is larger than the basis, or not positive.
        """
        check_size(n, self.size)
        F, Q = len(self.loads), len(self.operators)
        return replace(
            self,
            operators=self.operators[:, :n, :n],
            loads=self.loads[:, :n],
            residual=self.residual[:, : F + Q * n],
            outputs=self.outputs[:, :n],
        )

    def check(self, mu: np.ndarray, *, extrapolate: bool = False) -> np.ndarray:
        """See `within`."""
        return within(self.ranges, mu, extrapolate=extrapolate)

    def coefficients(self, mu: Any, xp: ModuleType = np) -> Any:
        """u_N in the basis, shape (..., N)."""
        if xp is np and np.ndim(mu) == 2 and len(mu) * self.size**2 > CHUNK:
            step = max(1, CHUNK // self.size**2)
            return np.concatenate(
                [self.coefficients(mu[i : i + step]) for i in range(0, len(mu), step)]
            )
        A = xp.tensordot(self.theta(mu, xp), xp.asarray(self.operators), axes=1)
        b = self.theta_load(mu, xp) @ xp.asarray(self.loads)
        return xp.linalg.solve(A, b[..., None])[..., 0]

    def residual_norm(self, mu: Any, u: Any, xp: ModuleType = np) -> Any:
        """|r(mu)| in the dual norm of X, shape (...)."""
        theta, phi = self.theta(mu, xp), self.theta_load(mu, xp)
        tail = (-u[..., :, None] * theta[..., None, :]).reshape(*u.shape[:-1], -1)
        r = xp.concatenate([phi, tail], axis=-1) @ xp.asarray(self.residual).T
        return xp.sqrt((r**2).sum(axis=-1))

    def error_bound(
        self, mu: Any, u: Any = None, xp: ModuleType = np, *, relative: bool = False
    ) -> Any:
        """Delta_N, shape (...); divided by |u_N|_X if `relative`."""
        if u is None:
            u = self.coefficients(mu, xp)
        size = xp.sqrt((u**2).sum(axis=-1))
        delta = self.residual_norm(mu, u, xp)
        if self.gap is not None:
            delta = delta + self.gap(mu, xp) * size
        alpha = self.bound(mu, xp)
        delta = xp.where(alpha > 0, delta / xp.where(alpha > 0, alpha, 1.0), xp.inf)
        return delta / size if relative and self.size else delta

    def quantities(self, mu: Any, xp: ModuleType = np) -> Any:
        """Quantities of interest of u_0 (without u_g), shape (..., number)."""
        return self.coefficients(mu, xp) @ xp.asarray(self.outputs).T

    def compiled(self) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """Jitted mu -> u_N and mu -> Delta_N, in float64, for batches of shape (n, P)."""
        import jax
        import jax.numpy as jnp

        with jax.enable_x64(True):
            solve = jax.jit(lambda mu: self.coefficients(mu, jnp))
            bound = jax.jit(lambda mu: self.error_bound(mu, xp=jnp))

        def in_double(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def call(mu: Any) -> Any:
                with jax.enable_x64(True):
                    return f(jnp.asarray(mu, dtype=jnp.float64))

            return call

        return in_double(solve), in_double(bound)


ARRAYS = ("operators", "loads", "residual", "outputs")


def save(model: ReducedModel, path: Path, functions: dict[str, Any]) -> None:
    """Write a model; `functions` are the JSON values from which theta can be made again."""
    head = json.dumps({"ranges": model.ranges, "functions": functions})
    arrays = {name: getattr(model, name) for name in ARRAYS}
    write_whole(path, npz({**arrays, "head": np.frombuffer(head.encode(), dtype=np.uint8)}))


def load(path: Path, functions: Callable[[dict[str, Any]], dict[str, Any]]) -> ReducedModel:
    """Read what `save` wrote.

    Args:
        path: the file.
        functions: makes theta, theta_load, bound and gap of the JSON values.

    Raises:
        CaseError: no such file, or no reduced model in it.
    """
    try:
        with np.load(path, allow_pickle=False) as f:
            arrays = {name: f[name] for name in ARRAYS}
            head = json.loads(f["head"].tobytes())
    except (OSError, ValueError, KeyError) as e:
        raise CaseError(f"{path} holds no reduced model: {e}") from None
    ranges = {k: (float(a), float(b)) for k, (a, b) in head["ranges"].items()}
    return ReducedModel(**functions(head["functions"]), ranges=ranges, **arrays)
