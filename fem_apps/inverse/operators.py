"""Forward operators: y = A x + n for linear A, y = F(x) + n otherwise; x and y are rows of batches.

Every operator gives `apply` (JAX sees it and its derivative); a linear one also its exact adjoint
and, where its matrix is of a size for it, the singular value decomposition with the pseudo-inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from fem_apps.errors import CaseError

jax.config.update("jax_enable_x64", True)

# relative: singular values under it belong to the null space (a CT matrix is rank-deficient)
RANK_TOLERANCE = 1e-6
LARGEST_SVD, LARGEST_DENSE = 5000, 2 * 10**7


@dataclass(frozen=True)
class Spectrum:
    """A = U diag(s) Vt without what is numerically zero, and all of the row space's complement.

    Attributes:
        U: shape (m, r).
        s: singular values, shape (r,), descending.
        Vt: shape (r, n).
    """

    U: np.ndarray
    s: np.ndarray
    Vt: np.ndarray


@dataclass(frozen=True)
class Operator:
    """A forward operator from n unknowns to m data.

    Attributes:
        name: for messages.
        shape: (m, n).
        apply: (batch, n) -> (batch, m), differentiable by JAX.
        adjoint: (batch, m) -> (batch, n), the exact transpose; None for a nonlinear operator.
        matrix: A, dense or sparse, where it is known.
        jacobian: (batch, n) -> (batch, m, n), F'(x) of a nonlinear operator, where it is known.
    """

    name: str
    shape: tuple[int, int]
    apply: Callable[[jax.Array], jax.Array]
    adjoint: Callable[[jax.Array], jax.Array] | None = None
    matrix: Any = None
    jacobian: Callable[[jax.Array], jax.Array] | None = None

    @property
    def linear(self) -> bool:
        """Whether it has an adjoint."""
        return self.adjoint is not None

    @cached_property
    def dense(self) -> np.ndarray:
        """The matrix A, shape (m, n), column by column where it is not known.

        Raises:
            CaseError: not linear.
        """
        if self.adjoint is None:
            raise CaseError(f"the operator {self.name!r} is not linear: it has no matrix")
        if self.matrix is None:
            return np.asarray(self.adjoint(jnp.eye(self.shape[0])))
        return self.matrix.toarray() if sp.issparse(self.matrix) else np.asarray(self.matrix)

    @cached_property
    def spectrum(self) -> Spectrum:
        """The singular value decomposition.

        Raises:
            CaseError: not linear, or too large for it.
        """
        if min(self.shape) > LARGEST_SVD:
            raise CaseError(
                f"the operator {self.name!r} has shape {self.shape}: too large for a singular "
                f"value decomposition (limit {LARGEST_SVD}); use a sampler without it (dps, "
                "moment-matching)"
            )
        U, s, Vt = np.linalg.svd(self.dense, full_matrices=False)
        r = int(np.count_nonzero(s > RANK_TOLERANCE * s[0]))
        return Spectrum(U[:, :r], s[:r], Vt[:r])

    def pseudo_inverse(self, y: jax.Array) -> jax.Array:
        """A^+ y, shapes (batch, m) -> (batch, n). Raises CaseError as `spectrum`."""
        S = self.spectrum
        return (y @ S.U / S.s) @ S.Vt


def from_matrix(name: str, matrix: Any) -> Operator:
    """The operator of a dense or sparse matrix."""
    if sp.issparse(matrix) and np.prod(matrix.shape) > LARGEST_DENSE:
        from jax.experimental import sparse

        A = sparse.BCOO.from_scipy_sparse(sp.csr_matrix(matrix))
        At = A.T
        return Operator(
            name, matrix.shape, lambda x: (A @ x.T).T, lambda y: (At @ y.T).T, matrix=matrix
        )
    D = jnp.asarray(matrix.toarray() if sp.issparse(matrix) else matrix, jnp.float64)
    return Operator(name, matrix.shape, lambda x: x @ D.T, lambda y: y @ D, matrix=matrix)


def _host(function: Callable[..., np.ndarray], *shape: int) -> Callable[..., jax.Array]:
    """A host function of batches (the last axis is transformed) as JAX sees it."""

    def call(*arguments: np.ndarray) -> np.ndarray:
        rows = [np.asarray(a, np.float64).reshape(-1, a.shape[-1]) for a in arguments]
        out = np.stack([function(*r) for r in zip(*rows, strict=True)])
        return out.reshape(*arguments[0].shape[:-1], *shape)

    def traced(*arguments: jax.Array) -> jax.Array:
        return jax.pure_callback(
            call,
            jax.ShapeDtypeStruct((*arguments[0].shape[:-1], *shape), jnp.float64),
            *arguments,
            vmap_method="broadcast_all",
        )

    return traced


def from_solver(
    name: str,
    shape: tuple[int, int],
    apply: Callable[[np.ndarray], np.ndarray],
    adjoint: Callable[[np.ndarray], np.ndarray],
) -> Operator:
    """A linear operator that a solver on the host applies: one solve forth, one adjoint solve back.

    Args:
        name: for messages.
        shape: (m, n).
        apply: (n,) -> (m,), numpy.
        adjoint: (m,) -> (n,), its exact transpose.
    """
    m, n = shape
    forth, back = _host(apply, m), _host(adjoint, n)

    def derivative(a: Callable[..., jax.Array], b: Callable[..., jax.Array]) -> Any:
        f = jax.custom_vjp(a)
        f.defvjp(lambda x: (a(x), None), lambda _, w: (b(w),))
        return f

    return Operator(name, shape, derivative(forth, back), derivative(back, forth))


def from_model(
    name: str,
    shape: tuple[int, int],
    forward: Callable[[np.ndarray], np.ndarray],
    vjp: Callable[[np.ndarray, np.ndarray], np.ndarray],
    jacobian: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Operator:
    """A nonlinear operator that a solver on the host applies.

    Args:
        name: for messages.
        shape: (m, n).
        forward: x -> F(x), numpy.
        vjp: (x, w) -> F'(x)^T w, one adjoint solve; it may reuse the factorisation that
            `forward` left, since the two are called with the same rows of x in turn.
        jacobian: x -> F'(x), shape (m, n), for samplers that invert it.
    """
    m, n = shape
    forth, back = _host(forward, m), _host(vjp, n)
    f = jax.custom_vjp(forth)
    f.defvjp(lambda x: (forth(x), x), lambda x, w: (back(x, w),))
    J = None if jacobian is None else _host(jacobian, m, n)
    return Operator(name, shape, f, jacobian=J)


def whitened(
    operator: Operator, y: np.ndarray, covariance: np.ndarray
) -> tuple[Operator, np.ndarray]:
    """L^-1 A and L^-1 y, L L^T = covariance: linear data whose noise is N(0, I)."""
    L = np.linalg.cholesky(covariance)
    A = np.linalg.solve(L, operator.dense)
    return from_matrix(f"{operator.name}, whitened", A), np.linalg.solve(L, y)


def _gaussian_taps(width: float) -> tuple[np.ndarray, np.ndarray]:
    reach = max(1, int(4 * width + 0.5))
    k = np.arange(-reach, reach + 1)
    g = np.exp(-((k / width) ** 2) / 2)
    return k, g / g.sum()


def blur(size: int, width: float) -> Operator:
    """Periodic Gaussian blur of size x size images; standard deviation in pixels."""
    k, g = _gaussian_taps(width)
    rows = np.repeat(np.arange(size), len(k))
    one = sp.csr_matrix(
        (np.tile(g, size), (rows, (rows + np.tile(k, size)) % size)), shape=(size, size)
    )
    return from_matrix("blur", sp.kron(one, one, format="csr"))


def downsampling(size: int, factor: int) -> Operator:
    """Means over factor x factor pixels (super-resolution).

    Raises:
        CaseError: the factor does not divide the size.
    """
    if size % factor:
        raise CaseError(f"operator.factor = {factor} does not divide the size {size}")
    small = size // factor
    one = sp.kron(sp.eye(small), np.full((1, factor), 1.0 / factor), format="csr")
    return from_matrix("downsampling", sp.kron(one, one, format="csr"))


def masking(size: int, share: float, seed: int) -> Operator:
    """Keeps a share of the pixels, chosen at random."""
    kept = np.random.default_rng(seed).permutation(size * size)[: round(share * size * size)]
    return from_matrix("masking", sp.eye(size * size, format="csr")[np.sort(kept)])
