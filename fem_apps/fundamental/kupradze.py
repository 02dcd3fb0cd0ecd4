"""Kupradze's tensor: the radiating fundamental solution of the Navier-Lame equation.

    Phi(x, y) = A I + B e e^T,   r = |x - y|,  e = (x - y)/r,
    mu Lap Phi + (lambda + mu) grad div Phi + rho omega^2 Phi = -delta I,
    A = g_s/mu + F'/r,  B = F'' - F'/r,  g_k = exp(ikr)/(4 pi r),  F = (g_s - g_p)/(rho omega^2).

For k_s r below `SERIES` F is summed as a power series, in which rho omega^2 cancels: stable down to
omega = 0, where Phi is Kelvin's tensor. (Kupradze, Three-Dimensional Problems of the Mathematical
Theory of Elasticity, 1979; arXiv 2508.00515.)
"""

from __future__ import annotations

import math

import numba
import numpy as np

from fem_apps.fundamental.medium import Medium

# below this k_s r the series is taken: the closed form loses (k_s r)^-3 of its digits
SERIES, TERMS = 0.7, 24
TILE = 128
# no reassociation: it would undo the exact range reduction of sine and cosine
FAST = {"contract", "nnan", "ninf", "nsz", "arcp"}


def series(medium: Medium) -> np.ndarray:
    """Coefficients c_n of F = sum_n c_n r^(n-1), complex, (TERMS,); finite at omega = 0."""
    c = np.zeros(TERMS, dtype=complex)
    for n in range(2, TERMS):
        powers = medium.lame_mu ** (-n / 2) - medium.p_modulus ** (-n / 2)
        c[n] = 1j**n * medium.rho_omega2 ** (n / 2 - 1) * powers / (math.factorial(n) * 4 * math.pi)
    return c


@numba.njit(inline="always", fastmath=FAST)
def _sincos(x):  # type: ignore[no-untyped-def]
    """Sine and cosine of 0 <= x < 1e6 without branches, so that loops vectorise (Cephes)."""
    q = math.floor(x * 0.6366197723675814 + 0.5)
    y = ((x - q * 1.570796251296997) - q * 7.549789415861596e-8) - q * 5.390302858158119e-15
    z = y * y
    s = y + y * z * (
        -1.66666666666666307295e-1
        + z
        * (
            8.33333333332211858878e-3
            + z
            * (
                -1.98412698295895385996e-4
                + z
                * (
                    2.75573136213857245213e-6
                    + z * (-2.50507477628578072866e-8 + z * 1.58962301576546568060e-10)
                )
            )
        )
    )
    c = (
        1.0
        - 0.5 * z
        + z
        * z
        * (
            4.16666666666665929218e-2
            + z
            * (
                -1.38888888888730564116e-3
                + z
                * (
                    2.48015872888517045348e-5
                    + z
                    * (
                        -2.75573141792967388112e-7
                        + z * (2.08757008419747316778e-9 - z * 1.13585365213876817300e-11)
                    )
                )
            )
        )
    )
    half = math.floor(0.5 * q)
    odd = q - 2.0 * half
    sign = 1.0 - 2.0 * (half - 2.0 * math.floor(0.5 * half))
    return sign * (s + odd * (c - s)), sign * (c - odd * (c + s))


@numba.njit(inline="always", fastmath=FAST)
def _closed(r, k_p, k_s, mu, rw2, slopes):  # type: ignore[no-untyped-def]
    """Real and imaginary parts of A, B, A', B' (the last two only if `slopes`)."""
    ri = 1.0 / r
    ss, cs = _sincos(k_s * r)
    sp, cp = _sincos(k_p * r)
    g = 0.07957747154594767 * ri
    gsr, gsi, gpr, gpi = g * cs, g * ss, g * cp, g * sp
    # g'/r = (ik - 1/r) g / r and g'' = (-k^2 - 2ik/r + 2/r^2) g, real and imaginary part
    w = 1.0 / rw2
    fr = w * ri * ((-ri * gsr - k_s * gsi) - (-ri * gpr - k_p * gpi))
    fi = w * ri * ((-ri * gsi + k_s * gsr) - (-ri * gpi + k_p * gpr))
    a_s, a_p = 2 * ri * ri - k_s * k_s, 2 * ri * ri - k_p * k_p
    b_s, b_p = -2 * k_s * ri, -2 * k_p * ri
    er = w * ((a_s * gsr - b_s * gsi) - (a_p * gpr - b_p * gpi))
    ei = w * ((a_s * gsi + b_s * gsr) - (a_p * gpi + b_p * gpr))
    ar, ai, br, bi = gsr / mu + fr, gsi / mu + fi, er - fr, ei - fi
    if not slopes:
        return ar, ai, br, bi, 0.0, 0.0, 0.0, 0.0
    # g''' = (-ik^3 + 3k^2/r + 6ik/r^2 - 6/r^3) g; (F'/r)' = (F'' - F'/r)/r
    c_s, c_p = 3 * k_s * k_s * ri - 6 * ri**3, 3 * k_p * k_p * ri - 6 * ri**3
    d_s, d_p = 6 * k_s * ri * ri - k_s**3, 6 * k_p * ri * ri - k_p**3
    hr = w * ((c_s * gsr - d_s * gsi) - (c_p * gpr - d_p * gpi))
    hi = w * ((c_s * gsi + d_s * gsr) - (c_p * gpi + d_p * gpr))
    qr, qi = br * ri, bi * ri
    adr, adi = (-ri * gsr - k_s * gsi) / mu + qr, (-ri * gsi + k_s * gsr) / mu + qi
    return ar, ai, br, bi, adr, adi, hr - qr, hi - qi


@numba.njit
def _summed(r, k_s, mu, c):  # type: ignore[no-untyped-def]
    """The same by the series in r."""
    f = e = q = h = 0.0j
    for n in range(len(c) - 1, 1, -1):
        t = c[n] * (n - 1)
        f = f * r + t
        e = e * r + t * (n - 2)
        q = q * r + t * (n - 3)
        h = h * r + t * (n - 2) * (n - 3)
    # the sums are those of r^(n-2): F'/r and F'' have one power of r less, their slopes two
    f, e, q, h = f / r, e / r, q / r**2, h / r**2
    g = np.exp(1j * k_s * r) / (4 * math.pi * r)
    a, b = g / mu + f, e - f
    ad, bd = (1j * k_s - 1 / r) * g / mu + q, h - q
    return a.real, a.imag, b.real, b.imag, ad.real, ad.imag, bd.real, bd.imag


@numba.njit(fastmath=FAST)
def _radial(x, y, k_p, k_s, mu, rw2, c, slopes, e, out):  # type: ignore[no-untyped-def]
    """Unit vectors and r in e (4, n); A, B, A', B' in out (8, n); of points x and one y."""
    n = len(x)
    for i in range(n):
        dx, dy, dz = x[i, 0] - y[0], x[i, 1] - y[1], x[i, 2] - y[2]
        r = math.sqrt(dx * dx + dy * dy + dz * dz)
        ri = 1.0 / r
        e[0, i], e[1, i], e[2, i], e[3, i] = dx * ri, dy * ri, dz * ri, r
    if rw2 > 0:
        if slopes:
            for i in range(n):
                a = _closed(e[3, i], k_p, k_s, mu, rw2, True)
                out[0, i], out[1, i], out[2, i], out[3, i] = a[0], a[1], a[2], a[3]
                out[4, i], out[5, i], out[6, i], out[7, i] = a[4], a[5], a[6], a[7]
        else:
            for i in range(n):
                a = _closed(e[3, i], k_p, k_s, mu, rw2, False)
                out[0, i], out[1, i], out[2, i], out[3, i] = a[0], a[1], a[2], a[3]
    for i in range(n):
        if k_s * e[3, i] < SERIES:
            a = _summed(e[3, i], k_s, mu, c)
            for m in range(8):
                out[m, i] = a[m]


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _fill_displacement(x, y, k_p, k_s, mu, rw2, c, columns):  # type: ignore[no-untyped-def]
    """Columns[j, b, 3i + a] = Phi_ab(x_i, y_j)."""
    for j in numba.prange(len(y)):
        e, f = np.empty((4, TILE)), np.empty((8, TILE))
        for start in range(0, len(x), TILE):
            n = min(TILE, len(x) - start)
            _radial(x[start : start + n], y[j], k_p, k_s, mu, rw2, c, False, e, f)
            for i in range(n):
                a, b = complex(f[0, i], f[1, i]), complex(f[2, i], f[3, i])
                k = 3 * (start + i)
                b0, b1, b2 = b * e[0, i], b * e[1, i], b * e[2, i]
                p, q, s = b0 * e[1, i], b0 * e[2, i], b1 * e[2, i]
                columns[j, 0, k] = a + b0 * e[0, i]
                columns[j, 0, k + 1] = p
                columns[j, 0, k + 2] = q
                columns[j, 1, k] = p
                columns[j, 1, k + 1] = a + b1 * e[1, i]
                columns[j, 1, k + 2] = s
                columns[j, 2, k] = q
                columns[j, 2, k + 1] = s
                columns[j, 2, k + 2] = a + b2 * e[2, i]


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _fill_traction(x, normal, y, k_p, k_s, lam, mu, rw2, c, columns):  # type: ignore[no-untyped-def]
    """Columns[j, b, 3i + a]: component a of the traction at x_i of the unit force b at y_j."""
    for j in numba.prange(len(y)):
        e, f = np.empty((4, TILE)), np.empty((8, TILE))
        for start in range(0, len(x), TILE):
            n = min(TILE, len(x) - start)
            _radial(x[start : start + n], y[j], k_p, k_s, mu, rw2, c, True, e, f)
            for i in range(n):
                b = complex(f[2, i], f[3, i])
                ad, bd = complex(f[4, i], f[5, i]), complex(f[6, i], f[7, i])
                br = b / e[3, i]
                t1 = lam * (ad + bd + 2 * br) + 2 * mu * br
                t2 = mu * (ad + br)
                t3 = 2 * mu * (bd - 2 * br)
                k = start + i
                en = e[0, i] * normal[k, 0] + e[1, i] * normal[k, 1] + e[2, i] * normal[k, 2]
                for d in range(3):
                    for a in range(3):
                        value = (
                            t1 * (e[d, i] * normal[k, a])
                            + t2 * (normal[k, d] * e[a, i])
                            + t3 * (en * e[d, i] * e[a, i])
                        )
                        if a == d:
                            value += t2 * en
                        columns[j, d, 3 * k + a] = value


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _apply_displacement(x, y, force, k_p, k_s, mu, rw2, c, out):  # type: ignore[no-untyped-def]
    """Out[i] = sum_j Phi(x_i, y_j) force_j, without a matrix; source and target change roles."""
    for i in numba.prange(len(x)):
        e, f = np.empty((4, TILE)), np.empty((8, TILE))
        s0 = s1 = s2 = 0.0j
        for start in range(0, len(y), TILE):
            n = min(TILE, len(y) - start)
            _radial(y[start : start + n], x[i], k_p, k_s, mu, rw2, c, False, e, f)
            for j in range(n):
                p = force[start + j]
                a, b = complex(f[0, j], f[1, j]), complex(f[2, j], f[3, j])
                be = b * (e[0, j] * p[0] + e[1, j] * p[1] + e[2, j] * p[2])
                s0 += a * p[0] + be * e[0, j]
                s1 += a * p[1] + be * e[1, j]
                s2 += a * p[2] + be * e[2, j]
        out[i, 0], out[i, 1], out[i, 2] = s0, s1, s2


def _points(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(x, dtype=np.float64).reshape(-1, 3))


def displacement(medium: Medium, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The matrix of Phi(x_i, y_j), (3 points, 3 sources), in Fortran order as LAPACK wants it.

    Args:
        medium: of the waves; omega = 0 gives Kelvin's tensor.
        x: points (M, 3).
        y: sources (N, 3), at none of the points.
    """
    x, y = _points(x), _points(y)
    columns = np.empty((len(y), 3, 3 * len(x)), dtype=complex)
    m = medium
    _fill_displacement(x, y, m.k_p, m.k_s, m.lame_mu, m.rho_omega2, series(m), columns)
    return columns.reshape(3 * len(y), 3 * len(x)).T


def traction(medium: Medium, x: np.ndarray, normals: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The matrix of the tractions sigma(Phi(., y_j) e_b)(x_i) n_i, (3 points, 3 sources).

    Args:
        medium: of the waves.
        x: points (M, 3).
        normals: unit normals at them (M, 3).
        y: sources (N, 3), at none of the points.
    """
    x, y, normals = _points(x), _points(y), _points(normals)
    columns = np.empty((len(y), 3, 3 * len(x)), dtype=complex)
    m = medium
    _fill_traction(
        x, normals, y, m.k_p, m.k_s, m.lame_lambda, m.lame_mu, m.rho_omega2, series(m), columns
    )
    return columns.reshape(3 * len(y), 3 * len(x)).T


def double_layer(medium: Medium, x: np.ndarray, y: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """The matrix of D(x_i, y_j) = (T_y Phi(y_j, x_i))^T, (3 points, 3 sources); normals at y."""
    return np.asfortranarray(traction(medium, y, normals, x).T)


def apply(medium: Medium, x: np.ndarray, y: np.ndarray, force: np.ndarray) -> np.ndarray:
    """Sum_j Phi(x_i, y_j) force_j without a matrix: tiles in cache, O(1) memory; (M, 3).

    Args:
        medium: of the waves.
        x: points (M, 3).
        y: sources (N, 3).
        force: complex amplitudes (N, 3).
    """
    x, y = _points(x), _points(y)
    out = np.empty((len(x), 3), dtype=complex)
    m = medium
    force = np.ascontiguousarray(force.reshape(-1, 3), dtype=complex)
    _apply_displacement(x, y, force, m.k_p, m.k_s, m.lame_mu, m.rho_omega2, series(m), out)
    return out


def gradient(medium: Medium, x: np.ndarray, y: np.ndarray, force: np.ndarray) -> np.ndarray:
    """Gradient d_b u_a of u = sum_j Phi(., y_j) force_j at points x; (M, 3, 3).

    From the tractions on the three coordinate planes: sigma determines the strain, and the rotation
    is that of the shear waves, curl u = sum_j grad g_s(x - y_j) x force_j / mu.
    """
    x, y = _points(x), _points(y)
    force = np.asarray(force, dtype=complex).reshape(-1, 3)
    planes = [np.tile(np.eye(3)[b], (len(x), 1)) for b in range(3)]
    sigma = np.stack(
        [(traction(medium, x, n, y) @ force.ravel()).reshape(-1, 3) for n in planes], axis=-1
    )
    trace = np.trace(sigma, axis1=1, axis2=2) / (3 * medium.lame_lambda + 2 * medium.lame_mu)
    strain = (sigma - medium.lame_lambda * trace[:, None, None] * np.eye(3)) / (2 * medium.lame_mu)
    curl = np.zeros((len(x), 3), dtype=complex)
    for yj, fj in zip(y, force, strict=True):
        d = x - yj
        r = np.linalg.norm(d, axis=1)
        g = np.exp(1j * medium.k_s * r) / (4 * np.pi * r) * (1j * medium.k_s - 1 / r) / r
        curl += np.cross(g[:, None] * d, fj) / medium.lame_mu
    w = np.zeros_like(strain)  # d_b u_a - d_a u_b = -eps_abc curl_c
    w[:, 0, 1], w[:, 0, 2], w[:, 1, 2] = -curl[:, 2], curl[:, 1], -curl[:, 0]
    return strain + 0.5 * (w - np.swapaxes(w, 1, 2))


def far_field(
    medium: Medium, directions: np.ndarray, y: np.ndarray, force: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Far fields u_p, u_s of sum_j Phi(., y_j) force_j: u ~ e^(i k_p r)/r u_p + e^(i k_s r)/r u_s.

    Args:
        medium: of the waves.
        directions: unit vectors (M, 3).
        y: sources (N, 3).
        force: amplitudes (N, 3).

    Returns:
        Two complex arrays (M, 3).
    """
    p, s = far_field_matrices(medium, directions, y)
    f = np.asarray(force, dtype=complex).ravel()
    return (p @ f).reshape(-1, 3), (s @ f).reshape(-1, 3)


def far_field_matrices(
    medium: Medium, directions: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (3 directions, 3 sources) that take forces to the far fields u_p and u_s."""
    d = _points(directions)
    phase = d @ _points(y).T
    along = np.einsum("ia,ib->iab", d, d)
    p = np.exp(-1j * medium.k_p * phase) / (4 * np.pi * medium.p_modulus)
    s = np.exp(-1j * medium.k_s * phase) / (4 * np.pi * medium.lame_mu)
    shape = (3 * len(d), 3 * phase.shape[1])
    return (
        np.einsum("ij,iab->iajb", p, along).reshape(shape),
        np.einsum("ij,iab->iajb", s, np.eye(3) - along).reshape(shape),
    )
