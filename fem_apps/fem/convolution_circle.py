"""Kernels with a kink or a pole on a circle: as even periodic functions of arc length.

On a curve in the plane a kernel sees the chord, and a mollifier of the plane would shift the
potential of a pole by O(spacing). On a circle of radius R the kernel is
f(s) = W(2 R sin(|s| / 2R)) of the arc length s, the convolution is one-dimensional and periodic,
and its eigenvalues are the Fourier coefficients of f, whose signs give the sign class exactly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fem_apps.fem.convolution_nodes import Nodes
from fem_apps.fem.convolution_symbols import Symbol, graded_rule, singular_exponent
from fem_apps.fem.kernels import Kernel, radial


def unrolled(nodes: Nodes) -> Nodes:
    """Nodes of a circle by arc length: one-dimensional, with the circumference as period."""
    R = nodes.sphere
    s = R * np.arctan2(nodes.x[:, 1], nodes.x[:, 0])[:, None]
    half = np.array([np.pi * R])
    period = np.array([[2 * np.pi * R]])
    return replace(nodes, x=s, low=-half, high=half, lattice=period, sphere=0.0, circle=R)


def circle_symbol(kernel: Kernel, R: float, k_max: float) -> Symbol:
    """2 int_0^(pi R) W(2 R sin(s / 2R)) cos(k s) ds at k = n / R, n = 0, 1, ..., up to k_max."""
    import finufft

    top = int(np.ceil(k_max * R)) + 1
    s, weight = graded_rule(1, np.pi * R, np.pi * R / max(top, 8), singular_exponent(kernel))
    values = weight * radial(kernel, 2)(2 * R * np.sin(s / (2 * R)))
    modes = finufft.nufft1d1(s / R, values.astype(complex), 2 * top + 1, eps=1e-14, isign=-1)
    table = 2 * modes.real[top:]
    return lambda k: table[np.minimum(np.rint(np.asarray(k) * R).astype(int), top)]
