"""Reduced bases with the exact operator, where a is not affine and is not interpolated.

    (Phi^T A(mu) Phi) c = Phi^T b(mu),     |u - Phi c|_X <= |b - A(mu) Phi c|_X' / alpha(mu),

with A(mu) assembled for every mu and alpha(mu) the least a(x; mu)/a_bar(x), x a node (P1) or a cell
(degree 0), which bounds the interpolant of a from below everywhere. Nothing is estimated, so the
bound is rigorous; but the online stage costs an assembly, N products and a Riesz representative, as
many operations as the mesh asks for. For jumps that move, which no short interpolation follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fem_apps.mpi import extremes, total
from fem_apps.problems.elliptic_reduced import EllipticModel
from fem_apps.surrogates.reduced_basis import Offline, Span
from fem_apps.surrogates.reduced_basis_online import check_size, within


@dataclass(frozen=True)
class ExactReduced:
    """Galerkin in the span of `vectors`, with the methods of `ReducedModel` that runs need.

    Attributes:
        model: the full model; `vectors`: basis, X-orthonormal, shape (n, N).
        outputs: quantities of interest, shape (number, N).
    """

    model: EllipticModel
    vectors: np.ndarray = field(repr=False)
    outputs: np.ndarray
    _seen: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """N."""
        return self.vectors.shape[1]

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Of each parameter."""
        return self.model.ranges

    def of_size(self, n: int) -> ExactReduced:
        """The model of the first n basis vectors. Raises CaseError: there are not so many."""
        check_size(n, self.size)
        return replace(self, vectors=self.vectors[:, :n], outputs=self.outputs[:, :n])

    def check(self, mu: np.ndarray, *, extrapolate: bool = False) -> np.ndarray:
        """See `within`."""
        return within(self.ranges, mu, extrapolate=extrapolate)

    def coefficients(self, mus: np.ndarray) -> np.ndarray:
        """u_N in the basis, shape (S, N), of parameters of shape (S, P). Collective."""
        n = self.size
        out = np.empty((len(mus), n))
        for k, mu in enumerate(np.asarray(mus, dtype=float)):
            known = self._seen.get(mu.tobytes())
            # that of the largest model so far: smaller ones are its corners
            if known is None or len(known[1]) < n:
                known = self._seen[mu.tobytes()] = self._project(mu)
            out[k] = np.linalg.solve(known[0][:n, :n], known[1][:n])
        return out

    def _project(self, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.model.exact is not None
        _, b = self.model.exact.assemble(mu)
        A = self.model.exact.operator.mat
        x, y = A.createVecs()
        S = np.empty((self.size, self.size))
        for k, phi in enumerate(self.vectors.T):
            x.array_w[:] = phi
            A.mult(x, y)
            S[:, k] = self.vectors.T @ y.array_r
        both = total(self.model.comm, np.column_stack([S, self.vectors.T @ b]))
        x.destroy()
        y.destroy()
        return both[:, :-1], both[:, -1]

    def error_bound(
        self, mus: np.ndarray, u: np.ndarray | None = None, *, relative: bool = False
    ) -> np.ndarray:
        """Delta_N, shape (S,); divided by |u_N|_X if `relative`. Collective."""
        mus = np.asarray(mus, dtype=float)
        if u is None:
            u = self.coefficients(mus)
        m = self.model
        assert m.exact is not None
        out = np.empty(len(mus))
        for k, mu in enumerate(mus):
            a, r = m.exact.assemble(mu)
            A = m.exact.operator.mat
            x, y = A.createVecs()
            x.array_w[:] = self.vectors @ u[k]
            A.mult(x, y)
            r = r - y.array_r
            r[m.D.space.fixed] = 0.0
            size = float(np.sqrt(max(total(m.comm, float(r @ m.riesz(r))), 0.0)))
            out[k] = size / self._alpha(a)
            x.destroy()
            y.destroy()
        return out / np.linalg.norm(u, axis=1) if relative and self.size else out

    def _alpha(self, a: np.ndarray) -> float:
        """Lower bound of coercivity: reaction and Robin terms are the product's own, or >= 0."""
        low = extremes(self.model.comm, a / self.model.weight)[0]
        return low if self.model.product == "seminorm" else min(low, 1.0)


class ExactOffline(Offline):
    """A basis that grows, without the online tensors of an affine operator."""

    model: EllipticModel

    def __init__(self, model: EllipticModel) -> None:
        self.model = model
        self.basis = Span(model, model.right_sides.shape[1])

    def extend(self, u: np.ndarray) -> bool:
        """Add a snapshot; False if it was in the span already. Collective."""
        before = self.size
        self.basis.add(u)
        return self.size > before

    def reduced(self) -> Any:
        """An `ExactReduced` of what there is so far. Collective."""
        Phi = self.basis.vectors
        outputs = total(self.model.comm, self.model.outputs @ Phi)
        return ExactReduced(self.model, Phi.copy(), outputs)
