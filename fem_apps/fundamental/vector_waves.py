"""Vector waves L, M, N, written with scalar harmonics alone, and the addition theorem of Phi.

    L = grad(z_n(k_p r) Y),  M = s_n curl(x z_n(k_s r) Y),  N = curl M / k_s,  s_n = 1/sqrt(n(n+1)),
    Phi(x, y) = (i k_p/rho omega^2) sum L^h(x) conj(L^j(y))
              + (i k_s/mu) sum [M^h(x) conj(M^j(y)) + N^h(x) conj(N^j(y))],   |x| > |y|.

Each Cartesian component of each wave is a combination of neighbouring scalar waves (`ladder`), so
nothing is singular on the polar axis. (Hansen 1935; arXiv 2508.00515 for scalar harmonics.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from fem_apps.fundamental import scalar_waves as sw
from fem_apps.fundamental.medium import Medium, PlaneWave

Triple = tuple[float, float, float]
CHUNK = 4096  # points whose waves are in memory at a time


@dataclass(frozen=True)
class VectorWaves:
    """All L, M, N of degrees up to n about a centre: 3(n+1)^2 - 2 columns, L, then M, then N.

    Waves are scaled as `scalar_waves` says, with w_n(k_p r0) for L and w_n(k_s r0) for M and N.

    Attributes:
        medium: its frequency must not be 0.
        degree: largest n.
        outgoing: h_n (radiating), else j_n (regular).
        radius: r0, about where the waves are used.
        centre: of the waves.
    """

    medium: Medium
    degree: int
    outgoing: bool
    radius: float = 1.0
    centre: Triple = (0.0, 0.0, 0.0)

    @cached_property
    def parts(self) -> tuple[list[sp.csr_array], list[sp.csr_array]]:
        """Coefficients in scalar waves of degree n + 1, by component: of L; of M and N."""
        n = self.degree
        size = ((n + 2) ** 2, (n + 1) ** 2)
        kp, ks, r0 = self.medium.k_p, self.medium.k_s, self.radius
        L = list(sw.ladder(n, r0, kp * r0, self.outgoing))
        degree = sw.degrees(n)[0]
        s = np.zeros(len(degree))
        s[1:] = 1 / np.sqrt(degree[1:] * (degree[1:] + 1.0))
        grown = [sp.csr_array(-1j * (R * s)) for R in sw.rotations(n)]
        D = sw.ladder(n, r0, ks * r0, self.outgoing)
        N = [
            sp.csr_array(
                (D[(a + 1) % 3] @ grown[(a + 2) % 3] - D[(a + 2) % 3] @ grown[(a + 1) % 3]) / ks
            )
            for a in range(3)
        ]
        MN = []
        for M, Na in zip(grown, N, strict=True):
            M.resize(size)
            MN.append(sp.csr_array(sp.hstack([M[:, 1:], Na[:, 1:]])))
        return L, MN

    @property
    def columns(self) -> int:
        """3(n+1)^2 - 2."""
        return 3 * (self.degree + 1) ** 2 - 2

    def _scalar(self, x: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.asarray(x, dtype=float) - self.centre
        return (
            sw.values(n, self.medium.k_p, x, self.radius, outgoing=self.outgoing),
            sw.values(n, self.medium.k_s, x, self.radius, outgoing=self.outgoing),
        )

    def displacement(self, x: np.ndarray) -> np.ndarray:
        """The matrix (3 points, columns) of the waves at points x (points, 3)."""
        p, s = self._scalar(x, self.degree + 1)
        out = np.empty((len(x), 3, self.columns), dtype=complex)
        split = (self.degree + 1) ** 2
        for a, (L, MN) in enumerate(zip(*self.parts, strict=True)):
            out[:, a, :split] = (L.T @ p.T).T
            out[:, a, split:] = (MN.T @ s.T).T
        return out.reshape(3 * len(x), -1)

    @cached_property
    def _gradients(self) -> tuple[list[list[sp.csr_array]], list[list[sp.csr_array]]]:
        """Coefficients of d_b u_a in scalar waves of degree n + 2, [a][b]: of L, of M and N."""
        r0, n = self.radius, self.degree + 1
        Dp = sw.ladder(n, r0, self.medium.k_p * r0, self.outgoing)
        Ds = sw.ladder(n, r0, self.medium.k_s * r0, self.outgoing)
        L, MN = self.parts
        return (
            [[sp.csr_array(D @ La) for D in Dp] for La in L],
            [[sp.csr_array(D @ Ma) for D in Ds] for Ma in MN],
        )

    def traction(self, x: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """The matrix (3 points, columns) of the waves' tractions; normals (points, 3)."""
        p, s = self._scalar(x, self.degree + 2)
        lam, mu = self.medium.lame_lambda, self.medium.lame_mu
        halves = []
        for scalar, g in zip((p, s), self._gradients, strict=True):
            G = [[(g[a][b].T @ scalar.T).T for b in range(3)] for a in range(3)]
            trace = lam * (G[0][0] + G[1][1] + G[2][2])
            t = [
                normals[:, a : a + 1] * trace
                + mu * sum(normals[:, b : b + 1] * (G[a][b] + G[b][a]) for b in range(3))
                for a in range(3)
            ]
            halves.append(np.stack(t, axis=1))
        return np.concatenate(halves, axis=2).reshape(3 * len(x), -1)

    def field(self, x: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """The field sum_k c_k (wave k) at points x; (points, 3)."""
        split = (self.degree + 1) ** 2
        L, MN = self.parts
        of_p = np.stack([part @ coefficients[:split] for part in L], axis=1)
        of_s = np.stack([part @ coefficients[split:] for part in MN], axis=1)
        out = np.empty((len(x), 3), dtype=complex)
        for start in range(0, len(x), CHUNK):
            p, s = self._scalar(x[start : start + CHUNK], self.degree + 1)
            out[start : start + CHUNK] = p @ of_p + s @ of_s
        return out

    def unscaled(self, coefficients: np.ndarray) -> np.ndarray:
        """Coefficients of the plain waves j_n or h_n from those of the scaled ones."""
        return coefficients * np.exp(-self._log_scale if self.outgoing else self._log_scale)

    @property
    def _log_scale(self) -> np.ndarray:
        n = sw.degrees(self.degree)[0]
        p, s = (
            sw.log_scale(self.degree, k * self.radius)[n]
            for k in (self.medium.k_p, self.medium.k_s)
        )
        return np.concatenate([p, s[1:], s[1:]])

    def far_field(self, directions: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Far fields u_p, u_s (points, 3) of an outgoing sum with coefficients c."""
        c = self.unscaled(c)
        d = np.asarray(directions, dtype=float)
        k = (self.degree + 1) ** 2
        n = sw.degrees(self.degree)[0]
        Y = sw.harmonics(self.degree, d)
        s = 1 / np.sqrt(np.maximum(n * (n + 1.0), 1.0))
        turn = (-1j) ** (n % 4)
        m = np.concatenate([[0], c[k : 2 * k - 1]]) * s * turn * -1j / self.medium.k_s
        e = np.concatenate([[0], c[2 * k - 1 :]]) * s * turn / self.medium.k_s
        rotations = sw.rotations(self.degree)
        X = np.stack([-1j * (Y @ (R @ m)) for R in rotations], axis=1)
        Z = np.stack([-1j * (Y @ (R @ e)) for R in rotations], axis=1)
        phase = d @ np.asarray(self.centre)
        u_p = d * (Y @ (turn * c[:k]) * np.exp(-1j * self.medium.k_p * phase))[:, None]
        u_s = (X + np.cross(d, Z)) * np.exp(-1j * self.medium.k_s * phase)[:, None]
        return u_p, u_s


def source_coefficients(outgoing: VectorWaves, y: np.ndarray) -> np.ndarray:
    """The addition theorem: Phi(., y_j) e_b as a sum of outgoing waves; (columns, 3 sources).

    It converges outside the sphere through the farthest source.
    """
    o, m = outgoing, outgoing.medium
    regular = VectorWaves(m, o.degree, False, o.radius, o.centre)
    k = (o.degree + 1) ** 2
    C = regular.displacement(y).conj().T
    C[:k] *= 1j * m.k_p / m.rho_omega2
    C[k:] *= 1j * m.k_s / m.lame_mu
    return C


def plane_wave_coefficients(regular: VectorWaves, wave: PlaneWave) -> np.ndarray:
    """An incident plane wave as a sum of regular waves about their centre; (columns,).

    P: 4 pi i^n conj(Y(d))/(i k_p) of L. S: 4 pi i^n conj(X).p of M and 4 pi i^(n-1) conj(d x X).p
    of N, where X = s_n (-i L Y)(d) is the vector harmonic of M.
    """
    m, d = regular.medium, wave.d
    n = sw.degrees(regular.degree)[0]
    k = len(n)
    Y = sw.harmonics(regular.degree, d[None])[0]
    c = np.zeros(regular.columns, dtype=complex)
    turn = 4 * np.pi * 1j ** (n % 4)
    if wave.shear:
        s = 1 / np.sqrt(np.maximum(n * (n + 1.0), 1.0))
        X = np.stack([-1j * (R.T @ Y) * s for R in sw.rotations(regular.degree)], axis=1)
        Z = np.cross(np.broadcast_to(d, X.shape), X)
        c[k : 2 * k - 1] = (turn * (X.conj() @ wave.a))[1:]
        c[2 * k - 1 :] = (turn / 1j * (Z.conj() @ wave.a))[1:]
    else:
        c[:k] = turn * Y.conj() / (1j * m.k_p)
    phase = np.exp(1j * wave.wave_number(m) * (d @ np.asarray(regular.centre)))
    return phase * c * np.exp(-regular._log_scale)


def scalar_addition_theorem(
    medium: Medium, x: np.ndarray, y: np.ndarray, degree: int
) -> np.ndarray:
    """Phi(x_i, y_j) for |x_i| > |y_j| by scalar waves and first derivatives of each factor alone.

    Phi_ab = (i k_s/mu) delta_ab sum [hY](x)[j conj Y](y)
           + (i k_p sum d_a[hY](x) d_b[j conj Y](y) at k_p - i k_s (the same at k_s)) / rho omega^2

    Returns:
        Matrix (3 points, 3 sources), as `kupradze.displacement`.
    """
    x, y = np.atleast_2d(x), np.atleast_2d(y)
    r0 = float(
        np.sqrt(np.linalg.norm(x, axis=1).min() * max(np.linalg.norm(y, axis=1).max(), 1e-3))
    )

    def both(k: float, n: int) -> tuple[np.ndarray, np.ndarray]:
        h = sw.values(n, k, x, r0, outgoing=True)
        return h, sw.values(n, k, y, r0, outgoing=False)

    out = np.zeros((len(x), 3, len(y), 3), dtype=complex)
    h, j = both(medium.k_s, degree)
    out += np.einsum("ij,ab->iajb", 1j * medium.k_s / medium.lame_mu * (h @ j.conj().T), np.eye(3))
    for k, sign in ((medium.k_p, 1), (medium.k_s, -1)):
        h, j = both(k, degree + 1)
        dh, dj = (
            [(D.T @ z.T).T for D in sw.ladder(degree, r0, k * r0, o)]
            for z, o in ((h, True), (j, False))
        )
        for a in range(3):
            for b in range(3):
                out[:, a, :, b] += sign * 1j * k / medium.rho_omega2 * (dh[a] @ dj[b].conj().T)
    return out.reshape(3 * len(x), 3 * len(y))


def sphere_rule(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) and weights of a rule on the unit sphere, exact up to a degree of harmonics."""
    k = degree // 2 + 1
    z, w = np.polynomial.legendre.leggauss(k)
    phi = 2 * np.pi * np.arange(2 * k) / (2 * k)
    s = np.sqrt(1 - z * z)
    x = np.stack(
        [np.outer(s, np.cos(phi)), np.outer(s, np.sin(phi)), np.outer(z, np.ones(2 * k))], axis=-1
    )
    return x.reshape(-1, 3), np.repeat(w * np.pi / k, 2 * k)
