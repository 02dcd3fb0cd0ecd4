"""W * rho for kernels of finite rank: W(x, y) = phi(x)^T C phi(y), exact and O(N rank).

* polynomials in r^2: phi = the monomials of the centred and scaled coordinates (moments);
* cosines: phi = cos and sin of one wave;
* zonal kernels f(x.y) on the unit circle and sphere: phi = Fourier modes or spherical harmonics, C
  diagonal with the eigenvalues of f (Funk 1915, Hecke 1917): on S^1 a_k = int f(cos t) cos(k t) dt,
  on S^2 a_l = 2 pi int f(t) P_l(t) dt. exp(beta x.y) is zonal, and so is a Gaussian, as
  |x - y|^2 = 2 - 2 x.y; their a_l fall faster than any exponential, and the degree follows from
  the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import comb, factorial
from typing import Any

import numpy as np
from mpi4py import MPI
from scipy.sparse import block_diag
from scipy.special import eval_legendre, sph_harm_y_all

from fem_apps.errors import CaseError
from fem_apps.fem.convolution_nodes import ON_SPHERE, Nodes
from fem_apps.fem.kernels import Cosine, Gaussian, Kernel, Polynomial, Power, VonMises

# Bytes of phi on one rank, and the highest degrees on the circle and on the sphere.
MAX_BYTES = 2 * 2**30
MAX_DEGREE = {2: 600, 3: 60}
# Where a transform can do the same (a Gaussian of the chord), low rank is taken up to that size.
CHEAP_DEGREE, CHEAP_BYTES = {2: 600, 3: 24}, 2**29


@dataclass(frozen=True)
class Features:
    """One kernel as phi C phi^T.

    Attributes:
        phi: function of nothing, gives (n_owned, rank); called once.
        core: C, symmetric, (rank, rank).
        constant: index of the constant feature, which is zero at zero mass, or -1.
        name: for the log.
    """

    phi: Callable[[], np.ndarray]
    core: np.ndarray
    constant: int
    name: str

    def signs(self) -> frozenset[int]:
        """Signs of the eigenvalues of C without its constant feature."""
        keep = np.arange(len(self.core)) != self.constant
        C = self.core[np.ix_(keep, keep)]
        diagonal = np.count_nonzero(C) == np.count_nonzero(np.diag(C))
        values = np.diag(C) if diagonal else np.linalg.eigvalsh(C)
        scale = np.abs(values).max(initial=0.0)
        return frozenset(int(s) for s in np.unique(np.sign(values[np.abs(values) > 1e-13 * scale])))


@dataclass(frozen=True)
class LowRankPass:
    """All kernels of finite rank in one pass; call it with owned masses. Collective."""

    comm: MPI.Comm
    phi: np.ndarray
    core: Any
    signs: frozenset[int]
    route: str

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Owned masses (n_owned,) to owned potentials (n_owned,)."""
        moments = self.phi.T @ b
        self.comm.Allreduce(MPI.IN_PLACE, moments, op=MPI.SUM)
        return self.phi @ (self.core @ moments)


def low_rank_pass(nodes: Nodes, parts: Sequence[Features]) -> LowRankPass:
    """Stack the features of several kernels. Collective.

    Raises:
        CaseError: phi would not fit into memory.
    """
    rank = sum(len(p.core) for p in parts)
    owned = nodes.comm.allreduce(len(nodes.x), op=MPI.MAX)
    if 8 * owned * rank > MAX_BYTES:
        raise CaseError(
            f"interaction: rank {rank} on {owned} nodes a rank needs {8e-9 * owned * rank:.1f} "
            "GB, above "
            f"{MAX_BYTES / 1e9:.1f}; use a smaller beta, a coarser mesh or more ranks"
        )
    phi = np.ascontiguousarray(np.hstack([p.phi() for p in parts]))
    signs = frozenset().union(*(p.signs() for p in parts))
    route = " + ".join(p.name for p in parts) + f": low rank {rank}"
    return LowRankPass(
        nodes.comm, phi, block_diag([p.core for p in parts], format="csr"), signs, route
    )


def features(nodes: Nodes, kernel: Kernel, tol: float) -> Features | None:
    """The kernel as phi C phi^T on these nodes, or None if it has no such form of small rank.

    Raises:
        CaseError: a mode that does not fit the torus or needs a circle, nodes off the unit sphere,
            a polynomial on a torus, a von Mises kernel of too high degree.
    """
    match kernel:
        case Polynomial(coefficients=c):
            return _polynomial(nodes, kernel.strength * np.array(c), "polynomial")
        case Power(exponent=p) if p > 0 and p % 2 == 0:
            return _polynomial(nodes, np.r_[np.zeros(int(p) // 2), kernel.strength / p], f"r^{p:g}")
        case Cosine():
            return _cosine(nodes, kernel)
        case VonMises(beta=beta):
            return _von_mises(nodes, kernel.strength, beta, tol)
        case Gaussian(width=s) if nodes.on_unit_sphere:
            shape = lambda t: kernel.strength * np.exp((t - 1) / s**2)  # noqa: E731
            return _zonal(nodes, shape, _cheap_degree(nodes), tol, "gaussian")
    return None


def _polynomial(nodes: Nodes, c: np.ndarray, name: str) -> Features:
    """sum_k c_k |x - y|^(2k) by the binomial expansion in each coordinate."""
    if len(nodes.lattice):
        raise CaseError(
            f"interaction of type {name!r} is not periodic; on a torus use type = 'cosine' or a "
            "kernel that decays"
        )
    dim = nodes.dim
    scale = nodes.diameter / 2
    core: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    for k, c_k in enumerate(c):
        if c_k == 0:
            continue
        for gamma in product(range(k + 1), repeat=dim):
            if sum(gamma) != k:
                continue
            front = (
                c_k
                * scale ** (2 * k)
                * factorial(k)
                / np.prod([float(factorial(g)) for g in gamma])
            )
            for alpha in product(*(range(2 * g + 1) for g in gamma)):
                beta = tuple(2 * g - a for g, a in zip(gamma, alpha, strict=True))
                term = front * np.prod(
                    [comb(2 * g, a) * (-1.0) ** a for g, a in zip(gamma, alpha, strict=True)]
                )
                core[alpha, beta] = core.get((alpha, beta), 0.0) + float(term)
    used = sorted({a for a, _ in core} | {(0,) * dim}, key=lambda a: (sum(a), a))
    index = {a: i for i, a in enumerate(used)}
    C = np.zeros((len(used), len(used)))
    for (a, b), value in core.items():
        C[index[a], index[b]] = value

    def phi() -> np.ndarray:
        u = (nodes.x - (nodes.low + nodes.high) / 2) / scale
        powers = u[:, :, None] ** np.arange(max(map(max, used)) + 1)
        return np.stack(
            [np.prod([powers[:, i, a[i]] for i in range(dim)], axis=0) for a in used], axis=1
        )

    return Features(phi, C, 0, name)


def _cosine(nodes: Nodes, kernel: Cosine) -> Features:
    waves = _wave_vectors(nodes, kernel)
    if waves is None:
        n = kernel.mode[0]
        phase = n * np.arctan2(nodes.x[:, 1], nodes.x[:, 0])[:, None]
        still = n == 0
        count = 1
    else:
        phase = nodes.x @ waves.T
        still = bool(np.all(waves == 0))
        count = len(waves)
    core = np.zeros((2 * count, 2 * count)) if still else kernel.strength * np.eye(2 * count)
    core[:1, :1] = kernel.strength * count if still else kernel.strength
    return Features(
        lambda: np.hstack([np.cos(phase), np.sin(phase)]), core, 0 if still else -1, "cosine"
    )


def _wave_vectors(nodes: Nodes, kernel: Cosine) -> np.ndarray | None:
    """Wave vectors in rows, (waves, dim); None for a mode of the circle."""
    periods, dim, n = nodes.lattice, nodes.dim, kernel.mode
    if not n:
        k = np.array(kernel.wave_vector)
        if len(k) != dim:
            raise CaseError(
                f"interaction.wave_vector = {list(k)}: {dim} entries are needed, one a dimension"
            )
        turns = periods @ k / (2 * np.pi)
        if np.any(np.abs(turns - np.round(turns)) > 1e-9 * (1 + np.abs(turns))):
            raise CaseError(
                f"interaction.wave_vector = {list(k)} does not fit the torus (k.a/2pi = "
                f"{turns.tolist()}); give mode"
            )
        return k[None, :]
    if len(periods):
        dual = 2 * np.pi * np.linalg.pinv(periods).T  # rows: a_i . dual_j = 2 pi delta_ij
        if len(n) == 1:
            return n[0] * dual
        if len(n) != len(periods):
            raise CaseError(
                f"interaction.mode = {list(n)}: one integer, or one for each of {len(periods)} "
                "periods"
            )
        return (np.array(n) @ dual)[None, :]
    if dim != 2 or not nodes.sphere or len(n) != 1:
        raise CaseError(
            f"interaction.mode = {list(n)} needs a torus, or one integer on a circle about the "
            "origin; give wave_vector"
        )
    return None


def _cheap_degree(nodes: Nodes) -> int:
    rank = CHEAP_BYTES / (8 * nodes.count)
    fitting = rank / 2 if nodes.dim == 2 else rank**0.5
    return max(2, min(CHEAP_DEGREE[nodes.dim], int(fitting) - 1))


def _von_mises(nodes: Nodes, strength: float, beta: float, tol: float) -> Features | None:
    if not nodes.on_unit_sphere:
        where = (
            f"radius {nodes.sphere:g}"
            if nodes.sphere
            else "not on a circle or sphere about the origin"
        )
        raise CaseError(
            "interaction.type = 'von-mises' needs all nodes on the unit circle or sphere to "
            f"{ON_SPHERE:g}; they are {where}"
        )
    limit = _cheap_degree(nodes) if beta > 0 else MAX_DEGREE[nodes.dim]
    found = _zonal(nodes, lambda t: strength * np.exp(beta * t), limit, tol, "von-mises")
    if found is None and beta < 0:
        raise CaseError(
            f"interaction.beta = {beta:g} needs a degree above {MAX_DEGREE[nodes.dim]} on the "
            "sphere; use a smaller |beta|"
        )
    return found


def as_gaussian(kernel: VonMises) -> Gaussian:
    """exp(beta x.y), beta > 0, as a Gaussian of the chord: exp(beta) exp(-beta |x - y|^2 / 2)."""
    return Gaussian(strength=kernel.strength * float(np.exp(kernel.beta)), width=kernel.beta**-0.5)


def _zonal(
    nodes: Nodes, f: Callable[[np.ndarray], np.ndarray], limit: int, tol: float, name: str
) -> Features | None:
    """f(x.y) on the unit circle or sphere; None if the tolerance needs more than the limit."""
    a, weight = (
        _circle_coefficients(f, limit + 3) if nodes.dim == 2 else _sphere_coefficients(f, limit + 3)
    )
    # terms fall faster than any geometric series: the last one above the tolerance counts
    scale = np.abs(f(np.linspace(-1, 1, 101))).max()
    degree = max(1, int(np.flatnonzero(np.abs(a) * weight > 1e-2 * tol * scale)[-1]))
    if degree > limit:
        return None
    a = a[: degree + 1]
    if nodes.dim == 2:
        angle = np.arctan2(nodes.x[:, 1], nodes.x[:, 0])
        core = np.r_[a[0], 2 * a[1:], 2 * a[1:]] / (2 * np.pi)

        def phi() -> np.ndarray:
            z = np.multiply.outer(angle, np.arange(1, degree + 1))
            return np.hstack([np.ones((len(angle), 1)), np.cos(z), np.sin(z)])
    else:
        core = np.repeat(a, 2 * np.arange(degree + 1) + 1)

        def phi() -> np.ndarray:
            return real_harmonics(nodes.x, degree)

    return Features(phi, np.diag(core), 0, f"{name} (degree {degree})")


def _circle_coefficients(
    f: Callable[[np.ndarray], np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """a_k = int_0^2pi f(cos t) cos(k t) dt, k < count, and the sup norm of a term over a_k."""
    n = 4 * count
    a = np.fft.rfft(f(np.cos(2 * np.pi * np.arange(n) / n))).real[:count] * 2 * np.pi / n
    return a, np.r_[1.0, np.full(count - 1, 2.0)] / (2 * np.pi)


def _sphere_coefficients(
    f: Callable[[np.ndarray], np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """a_l = 2 pi int_-1^1 f(t) P_l(t) dt, l < count, and the sup norm of a term over a_l."""
    t, w = np.polynomial.legendre.leggauss(2 * count + 20)
    l = np.arange(count)
    return 2 * np.pi * eval_legendre(l[:, None], t) @ (w * f(t)), (2 * l + 1) / (4 * np.pi)


def real_harmonics(x: np.ndarray, degree: int) -> np.ndarray:
    """Real orthonormal spherical harmonics of degrees 0 to `degree` at points of the unit sphere.

    Args:
        x: points, (n, 3).
        degree: the highest.

    Returns:
        (n, (degree + 1)^2), by degree and within one by order: 0, then cosine and sine of 1, 2, ...
    """
    out = np.empty((len(x), (degree + 1) ** 2))
    for start in range(0, len(x), 512):  # blocks: the complex table is four times as large
        part = x[start : start + 512]
        theta = np.arccos(np.clip(part[:, 2] / np.linalg.norm(part, axis=1), -1, 1))
        Y = sph_harm_y_all(degree, degree, theta, np.arctan2(part[:, 1], part[:, 0]))
        for l in range(degree + 1):
            block = out[start : start + 512, l**2 : (l + 1) ** 2]
            block[:, 0] = Y[l, 0].real
            block[:, 1::2] = np.sqrt(2) * Y[l, 1 : l + 1].real.T
            block[:, 2::2] = np.sqrt(2) * Y[l, 1 : l + 1].imag.T
    return out
