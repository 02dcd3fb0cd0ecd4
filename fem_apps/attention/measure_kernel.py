"""The kernel exp(x.Dy) on the nodes of a sphere mesh: K mu(x) = int exp(x.Dy) dmu(y), O(N rank).

For D = beta I it is the von Mises kernel of `fem.convolution` (Funk, Hecke). For a general
symmetric D the kernel is smooth on S x S and is projected on the modes of the circle or the
harmonics of the sphere in both variables, exp(x.Dy) = phi(x)^T C phi(y), with C by quadrature: its
entries fall faster than exponentially with the degree.
"""

from __future__ import annotations

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.fem.convolution import Convolution, make_convolution
from fem_apps.fem.convolution_low_rank import Features, low_rank_pass, real_harmonics
from fem_apps.fem.convolution_nodes import survey
from fem_apps.fem.kernels import VonMises
from fem_apps.fem.node_graph import NodeGraph

MAX_DEGREE = {2: 300, 3: 45}
TOLERANCE = 1e-12


def kernel_on_nodes(graph: NodeGraph, D: np.ndarray, strength: float) -> Convolution:
    """B -> strength int exp(x.Dy) dmu at the nodes, mu = sum b_j delta_{x_j}. Collective.

    Args:
        graph: nodes of a mesh of the unit circle or sphere.
        D: symmetric, d x d.
        strength: factor of the kernel; its sign decides what may be explicit.

    Raises:
        CaseError: nodes off the unit sphere, or D too large for the highest degree.
    """
    d = len(D)
    beta = D[0, 0]
    if np.allclose(D, beta * np.eye(d), atol=1e-14 * max(1.0, abs(beta))) and beta != 0:
        kernel = VonMises(type="von-mises", beta=float(beta), strength=strength)
        return make_convolution(graph.comm, [kernel], graph.x, spacing=graph.spacing)
    nodes = survey(graph.comm, graph.x, graph.spacing, ())
    if not nodes.on_unit_sphere:
        raise CaseError("mesh: attention with layer normalisation needs the unit circle or sphere")
    degree = degree_of(D)
    core = strength * _core(D, degree)
    part = Features(lambda: _modes(graph.x, degree), core, 0, f"exp(x.Dy) (degree {degree})")
    done = low_rank_pass(nodes, [part])
    sign = "positive" if done.signs == {1} else "indefinite" if 1 in done.signs else "negative"
    return Convolution(sign, done.route, graph.n, (done,))  # type: ignore[arg-type]


def degree_of(D: np.ndarray) -> int:
    """Degree beyond which exp(x.Dy) has nothing above rounding: that of exp(|D| x.y).

    Raises:
        CaseError: above the highest degree.
    """
    from fem_apps.attention.funk_hecke import eigenvalues

    d, size = len(D), float(np.abs(np.linalg.eigvalsh(D)).max())
    lam = eigenvalues(size, d, MAX_DEGREE[d] + 2)
    small = np.flatnonzero(lam < TOLERANCE * lam[0])
    if not len(small):
        raise CaseError(
            f"attention: |D| = {size:g} needs harmonics of a degree above {MAX_DEGREE[d]}; take a "
            "smaller beta"
        )
    return int(small[0])


def _modes(x: np.ndarray, degree: int) -> np.ndarray:
    if x.shape[1] == 3:
        return real_harmonics(x, degree)
    z = np.multiply.outer(np.arctan2(x[:, 1], x[:, 0]), np.arange(1, degree + 1))
    return np.hstack([np.ones((len(x), 1)), np.cos(z), np.sin(z)])


def _core(D: np.ndarray, degree: int) -> np.ndarray:
    """C with exp(x.Dy) = phi(x)^T C phi(y), by quadrature that is exact for products of modes."""
    if len(D) == 2:
        n = 4 * degree + 8
        phi = 2 * np.pi * np.arange(n) / n
        x = np.stack([np.cos(phi), np.sin(phi)], axis=1)
        w = np.repeat(2 * np.pi / n, n)
        norm = np.r_[2 * np.pi, np.full(2 * degree, np.pi)]
    else:
        t, wt = np.polynomial.legendre.leggauss(degree + 12)
        n = 2 * degree + 24
        phi = 2 * np.pi * np.arange(n) / n
        r = np.sqrt(1 - t * t)
        x = np.stack(
            [np.outer(r, np.cos(phi)), np.outer(r, np.sin(phi)), np.outer(t, np.ones(n))], axis=-1
        ).reshape(-1, 3)
        w = np.repeat(wt, n) * 2 * np.pi / n
        norm = np.ones((degree + 1) ** 2)
    basis = _modes(x, degree) * w[:, None]
    C = basis.T @ np.exp(x @ D @ x.T) @ basis / np.outer(norm, norm)
    return (C + C.T) / 2
