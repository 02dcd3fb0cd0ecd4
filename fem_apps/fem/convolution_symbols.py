"""Fourier symbols W^(k) = int W(|x|) exp(-i k.x) dx of radial kernels, in 1, 2 and 3 dimensions.

Two sorts, both functions of |k| with strength included:

* on the whole space, in closed form (Gelfand & Shilov, Generalized Functions 1, 1964); of log r and
  r^p it is the symbol away from k = 0, which is what acts on functions of zero mass;
* of the kernel times a smooth window that is 1 up to the diameter of the nodes and falls to zero
  beyond (after Vico, Greengard & Ferrando, J. Comput. Phys. 323, 2016, arXiv:1604.03155, whose
  window is sharp): by quadrature for small |k|. W (1 - window) is smooth, so above some |k| the
  two agree to rounding and the closed form serves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.special import erfc, gamma, j0, roots_jacobi

from fem_apps.fem.kernels import (
    Exponential,
    Gaussian,
    Kernel,
    Log,
    Morse,
    Power,
    Radial,
    Tabulated,
    Yukawa,
    radial,
)

Symbol = Callable[[np.ndarray], np.ndarray]

# The window falls as erfc over +-EDGE: its steps at both ends are below 1e-12.
EDGE = 5.04
# Times the window's width, the |k| above which the window is not seen (1e-12).
WINDOW_K = 114.0


def whole_space(kernel: Kernel, dim: int) -> Symbol | None:
    """Closed symbol for k > 0 (and at 0 where the kernel is integrable); None for a table."""
    if isinstance(kernel, Tabulated):
        return None
    shape = _closed_form(kernel, dim)
    return lambda k: kernel.strength * shape(np.asarray(k, dtype=float))


def _closed_form(kernel: Kernel, dim: int) -> Symbol:
    match kernel:
        case Gaussian(width=s):
            return lambda k: (2 * np.pi * s**2) ** (dim / 2) * np.exp(-((s * k) ** 2) / 2)
        case Power(exponent=p):
            c = 2 ** (p + dim) * np.pi ** (dim / 2) * gamma((dim + p) / 2) / gamma(-p / 2) / p
            return lambda k: c * k ** -(p + dim)
        case Log():
            c = -(2 ** (dim - 1)) * np.pi ** (dim / 2) * gamma(dim / 2)
            return lambda k: c * k**-dim
        case Exponential(length=length):
            return _exponential(length, dim)
        case Yukawa(kappa=kappa):
            return lambda k: 1 / (kappa**2 + k**2)
        case Morse(C_r=C_r, l_r=l_r, C_a=C_a, l_a=l_a):
            near, far = _exponential(l_r, dim), _exponential(l_a, dim)
            return lambda k: C_r * near(k) - C_a * far(k)
    raise AssertionError(f"{kernel!r} has no Fourier symbol")


def _exponential(length: float, dim: int) -> Symbol:
    c = 2**dim * np.pi ** ((dim - 1) / 2) * gamma((dim + 1) / 2) * length**dim
    return lambda k: c / (1 + (length * k) ** 2) ** ((dim + 1) / 2)


def reach(kernel: Kernel, tol: float) -> float:
    """Distance beyond which the kernel is below `tol` of its scale; infinite without decay."""
    decades = np.log(1 / tol)
    match kernel:
        case Gaussian(width=s):
            return s * float(np.sqrt(2 * decades))
        case Exponential(length=length):
            return length * float(decades)
        case Yukawa(kappa=kappa):
            return float(decades) / kappa
        case Morse(l_r=l_r, l_a=l_a):
            return max(l_r, l_a) * float(decades)
    return np.inf


def windowed(
    W: Radial,
    dim: int,
    inner: float,
    width: float,
    k_max: float,
    exponent: float = 0.0,
    fine: int = 32,
) -> Symbol:
    """Symbol of W times the window that is 1 on [0, inner] and 0 from inner + width on.

    Graded Gauss-Legendre quadrature of int W(r) window(r) K(k r) r^(dim-1) dr, with K = 2 cos,
    2 pi J0, 4 pi sinc in 1, 2, 3 dimensions, on a table of k, then a spline of degree 7.

    Args:
        W: kernel, at most algebraically or logarithmically singular at 0.
        dim: 1, 2 or 3.
        inner: the window is 1 up to here.
        width: length over which it falls.
        k_max: end of the table.
        exponent: W = r^exponent times a smooth function near 0.
        fine: table points a period of the fastest oscillation; 32 gives 1e-12, 12 gives 1e-8.

    Returns:
        |k| in [0, k_max] -> symbol.
    """
    outer = inner + width
    r, weight = graded_rule(dim, outer, min(2 * np.pi / k_max, outer / 8, width / 2), exponent)
    values = weight * W(r) * erfc(EDGE * (2 * (r - inner) / width - 1)) / 2
    step = 2 * np.pi / outer / fine
    k = step * np.arange(int(np.ceil(k_max / step)) + 12)
    table = np.empty_like(k)
    for i in range(0, len(k), 256):  # blocks bound the memory
        table[i : i + 256] = _transform(dim, np.multiply.outer(k[i : i + 256], r)) @ values
    # even in k: mirrored, so that the spline has no end at 0
    return make_interp_spline(np.r_[-k[10:0:-1], k], np.r_[table[10:0:-1], table], k=7)


def _transform(dim: int, kr: np.ndarray) -> np.ndarray:
    if dim == 1:
        return 2 * np.cos(kr)
    if dim == 2:
        return 2 * np.pi * j0(kr)
    return 4 * np.pi * np.sinc(kr / np.pi)


def graded_rule(
    dim: int, outer: float, panel: float, exponent: float
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of int_0^outer f(r) r^(dim-1) dr for f = r^exponent (or log r) x smooth."""
    t, w = np.polynomial.legendre.leggauss(16)
    edges = np.linspace(0, outer, int(np.ceil(outer / panel)) + 1)
    if exponent != 0:
        # the first panel by the Gauss rule of r^(exponent + dim - 1)
        s, v = roots_jacobi(24, 0.0, exponent + dim - 1)
        first = edges[1] * (s + 1) / 2
        first_weight = v * (edges[1] / 2) ** (exponent + dim) * first**-exponent
        low, high = edges[1:-1], edges[2:]
    else:
        first, first_weight = np.empty(0), np.empty(0)
        dyadic = edges[1] * 2.0 ** -np.arange(56, 0, -1)
        low, high = np.r_[0.0, dyadic, edges[1:-1]], np.r_[dyadic, edges[1], edges[2:]]
    half = (high - low)[:, None] / 2
    r = ((high + low)[:, None] / 2 + half * t).ravel()
    return np.r_[first, r], np.r_[first_weight, (half * w).ravel() * r ** (dim - 1)]


def mollifier(epsilon: float) -> Symbol:
    """M = (1 + x) exp(-x), x = (epsilon k)^2 / 2: positive, keeps signs, 1 + O((epsilon k)^4)."""

    def M(k: np.ndarray) -> np.ndarray:
        x = (epsilon * k) ** 2 / 2
        return (1 + x) * np.exp(-x)

    return M


def singular_exponent(kernel: Kernel) -> float:
    """Exponent p where the kernel is r^p near 0 and a graded rule does not resolve it; else 0."""
    return kernel.exponent if isinstance(kernel, Power) else 0.0


def windowed_kernel(kernel: Kernel, dim: int, inner: float, width: float, k_max: float) -> Symbol:
    """Symbol on 0 <= |k| <= k_max of a kernel times its window: table below, closed form above."""
    W, closed = radial(kernel, dim), whole_space(kernel, dim)
    if closed is None:
        return windowed(W, dim, inner, width, k_max, fine=12)
    join = min(WINDOW_K / width, k_max)
    low = windowed(W, dim, inner, width, join, singular_exponent(kernel))

    def symbol(k: np.ndarray) -> np.ndarray:
        k = np.asarray(k, dtype=float)
        out, near = np.empty_like(k), k <= join
        out[near], out[~near] = low(k[near]), closed(k[~near])
        return out

    return symbol
