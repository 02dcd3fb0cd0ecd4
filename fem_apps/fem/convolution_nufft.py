"""W * rho through non-uniform Fourier transforms: radial kernels, free space or torus.

Potential = Re F^H diag(symbol / box volume) F b, with F the type 1 transform of FINUFFT (Barnett,
Magland & af Klinteberg, SIAM J. Sci. Comput. 41, 2019, arXiv:1808.06736) and F^H its exact adjoint
(one plan), so the operator is symmetric to rounding. b is real, so half of the modes serve: those
with first index >= 0, shifted by a phase.

Free space. The box is the nodes' bounding box plus the reach of the kernel, so that periodic images
do not overlap. Kernels that decay within it enter by their closed symbol; the others are multiplied
by a smooth window that is 1 up to the diameter of the nodes (`convolution_symbols`).

Torus. The modes are those of the lattice and the kernel is the sum over its images. Where that sum
diverges (log r, r^p), the closed symbol without its mode 0 is the sum against a neutralising
background (Ewald's convention), which changes the potential by a constant.

Resolution. The Gaussian is taken to where its symbol is below 1e-2 of the tolerance, and the
result is the lumped sum to the tolerance. The symbol of a kernel with a kink or a pole decays
algebraically; cut off sharply it rings. It is multiplied by M(k) = (1 + x) exp(-x),
x = (eps k)^2/2, eps = 1.5 spacing:

* M > 0, so the sign class of the kernel stays;
* M = 1 + O((eps k)^4): the change of the potential, O(spacing^4 Lap^2 W*rho), is below the
  O(spacing^2) of lumping;
* M = 1e-7 at k = 4.1/spacing, where the modes end: below 2 pi/spacing, where the sum over regular
  nodes would alias, and 2.6 modes a node and direction;
* W is smooth over eps, so the lumped sum resolves it near the singularity, where the bare sum has
  no self-interaction or a wrong one. Observed orders on randomly perturbed nodes: 2 or more for
  exp(-r) and |r| on the line, log r, K0 and exp(-r) in the plane, 1/r in space. Of a kernel with
  W'' not integrable over the plane of the nodes (log r on the line, 1/r in the plane) lumping on
  random nodes leaves an error of order 1 with a small factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.fem.convolution_circle import circle_symbol
from fem_apps.fem.convolution_nodes import Nodes
from fem_apps.fem.convolution_symbols import (
    Symbol,
    mollifier,
    reach,
    whole_space,
    windowed,
    windowed_kernel,
)
from fem_apps.fem.kernels import Gaussian, Kernel, Power, Tabulated, check_integrable, radial

# Mollifier's length and end of the modes, in node spacings.
EPSILON, K_END = 1.5, 4.1
# Width of the window: at least that many spacings, to be resolved, and that part of the diameter.
WINDOW_SPACINGS, WINDOW_PART = 28.0, 0.1
# Half modes: 1.2 GB of symbol and mode arrays a rank, and as much again or more in FINUFFT.
MAX_MODES = 5 * 10**7
# A component of a numerical symbol below this part of its maximum is quadrature noise.
NOISE = 1e-7


@dataclass(frozen=True)
class FourierPass:
    """One pair of transforms for any number of kernels; call it with owned masses. Collective."""

    comm: MPI.Comm
    plan: Any
    phase: np.ndarray
    symbol: np.ndarray
    signs: frozenset[int]
    route: str

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Owned masses (n_owned,) to owned potentials (n_owned,)."""
        if len(b):
            modes = self.plan.execute(b * self.phase).reshape(self.symbol.shape)
        else:
            modes = np.zeros(self.symbol.shape, dtype=complex)
        if self.comm.size > 1:
            modes = np.ascontiguousarray(modes)
            self.comm.Allreduce(MPI.IN_PLACE, modes.view(float), op=MPI.SUM)
        modes *= self.symbol
        if not len(b):
            return np.zeros(0)
        back = self.plan.execute_adjoint(modes)
        return self.phase.real * back.real + self.phase.imag * back.imag


@dataclass(frozen=True)
class FourierBank:
    """Several kernels apart with one transform of the masses. Collective when called.

    `passes` have the modes of the greatest of them; `symbols` (kernels, modes) are theirs.
    """

    whole: FourierPass
    symbols: tuple[np.ndarray, ...]

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Owned masses (n_owned,) to owned potentials (n_owned, kernels)."""
        one = self.whole
        out = np.empty((len(b), len(self.symbols)))
        if len(b):
            modes = one.plan.execute(b * one.phase).reshape(one.symbol.shape)
        else:
            modes = np.zeros(one.symbol.shape, dtype=complex)
        if one.comm.size > 1:
            modes = np.ascontiguousarray(modes)
            one.comm.Allreduce(MPI.IN_PLACE, modes.view(float), op=MPI.SUM)
        for k, symbol in enumerate(self.symbols if len(b) else ()):
            back = one.plan.execute_adjoint(modes * symbol)
            out[:, k] = one.phase.real * back.real + one.phase.imag * back.imag
        return out


@dataclass(frozen=True)
class _Component:
    symbol: Symbol  # what multiplies the modes, 0 <= |k| <= k_max
    sign_symbol: Symbol  # the same away from k = 0, free of the window
    k_end: float
    noise: float = 0.0


def fourier_bank(
    nodes: Nodes, kernels: Sequence[Kernel], tol: float, threads: int = 1
) -> FourierBank:
    """The kernels apart, on common modes: see `fourier_pass`. Collective."""
    symbols: list[np.ndarray] = []
    return FourierBank(fourier_pass(nodes, kernels, tol, threads, symbols), tuple(symbols))


def fourier_pass(
    nodes: Nodes,
    kernels: Sequence[Kernel],
    tol: float,
    threads: int,
    symbols: list[np.ndarray] | None = None,
) -> FourierPass:
    """Plans, phases and symbol of the sum of some radial kernels. Collective.

    Args:
        nodes: where the masses sit.
        kernels: Gaussian, power, log, exponential, Yukawa, Morse or tabulated.
        tol: relative accuracy of the transforms.
        threads: OpenMP threads of FINUFFT on this rank.
        symbols: if given, every kernel's own symbol is appended.

    Raises:
        CaseError: a kernel that is not integrable or does not fit the torus; too many modes.
    """
    import finufft

    dim = nodes.dim
    for kernel in kernels:
        check_integrable(kernel, dim - (nodes.sphere > 0))
    box, window = _box(nodes, kernels, tol * 1e-2)
    parts = [_component(nodes, k, window, tol * 1e-2) for k in kernels]
    k_max = max(p.k_end for p in parts)
    lengths = np.linalg.norm(box, axis=1)
    top = np.maximum(np.ceil(k_max * lengths / (2 * np.pi)).astype(int), 1)
    shape = (int(top[0]) + 1, *(2 * int(t) + 1 for t in top[1:]))
    if np.prod(shape, dtype=float) > MAX_MODES:
        raise CaseError(
            f"interaction: {' x '.join(map(str, shape))} Fourier modes are needed to resolve it, "
            f"above {MAX_MODES:.0e}; "
            f"use a wider kernel or a coarser mesh (spacing {nodes.spacing:g}, box "
            f"{', '.join(f'{s:.3g}' for s in lengths)})"
        )
    k = _wave_numbers(box, shape)
    symbol = np.zeros(shape)
    for part in parts:
        symbol += part.symbol(k)
    if symbols is not None:
        scale = np.full(shape[:1] + (1,) * (dim - 1), 2 / abs(np.linalg.det(box)))
        scale[0] /= 2
        symbols += [scale * part.symbol(k) for part in parts]
    if len(nodes.lattice) == dim:
        away = np.unique(k[k > 0])
    else:
        away = np.geomspace(1e-3 / max(nodes.diameter, nodes.spacing), k_max, 2000)
    signs = _signs(parts, away)
    if len(nodes.lattice) < dim and any(isinstance(k, Power) and k.exponent > 2 for k in kernels):
        # r^p with p > 2 also acts on first moments, by a part at k = 0 of the other sign
        signs = frozenset({-1, 1})
    symbol *= 2 / abs(np.linalg.det(box))  # 2: the half of the modes that is left out
    symbol[0] /= 2
    angles = 2 * np.pi * np.linalg.solve(box.T, (nodes.x - (nodes.low + nodes.high) / 2).T)
    angles -= 2 * np.pi * np.round(angles / (2 * np.pi))
    # Where the modes outnumber the nodes the FFT is the cost: upsampled by 1.25 instead of 2 it is
    # 1.4 to 3.5 times faster and good to 1e-8, far below what a mollified kernel is worth.
    fast = all(map(_rough, kernels)) and np.prod(shape) > 2 * nodes.count
    options = {"eps": max(tol, 1e-9), "upsampfac": 1.25} if fast else {"eps": tol}
    plan = finufft.Plan(1, shape, isign=-1, nthreads=threads, **options)
    if len(nodes.x):
        plan.setpts(*(np.ascontiguousarray(a) for a in angles))
    phase = np.exp(-1j * (shape[0] // 2) * angles[0])
    names = " + ".join(getattr(one, "type", "?") for one in kernels)
    space = "circle" if nodes.circle else "torus" if len(nodes.lattice) else "free space"
    route = f"{names}: NUFFT, {space}, {' x '.join(map(str, shape))} half modes"
    return FourierPass(nodes.comm, plan, phase, symbol, signs, route)


def _box(
    nodes: Nodes, kernels: Sequence[Kernel], tol: float
) -> tuple[np.ndarray, tuple[float, float]]:
    """Periods of the transform in rows, and (inner, width) of the window."""
    inner = nodes.diameter
    width = max(WINDOW_SPACINGS * nodes.spacing, WINDOW_PART * inner)
    periods, dim = nodes.lattice, nodes.dim
    if len(periods) == dim:
        return periods, (inner, width)
    # a mollified kernel reaches further by its mollifier
    ranges = [
        _range(k, inner, width, tol) + 12 * EPSILON * nodes.spacing * _rough(k) for k in kernels
    ]
    if len(periods):
        far = [k for k in kernels if not _decays(k, inner, width, tol)]
        if far:
            raise CaseError(
                f"interaction.type = {getattr(far[0], 'type', '?')!r} reaches too far for a "
                "domain that is periodic in "
                f"{len(periods)} of {dim} directions; it works without periods or with all of them"
            )
    free = np.linalg.svd(periods)[2][len(periods) :] if len(periods) else np.eye(dim)
    corners = np.array(np.meshgrid(*np.c_[nodes.low, nodes.high])).reshape(dim, -1)
    lengths = np.ptp(free @ corners, axis=1) + max(ranges)
    return np.vstack([periods, free * lengths[:, None]]), (inner, width)


def _decays(kernel: Kernel, inner: float, width: float, tol: float) -> bool:
    # every width of a Gaussian is cheap by its closed symbol: wide in space is narrow in k
    return isinstance(kernel, Gaussian) or reach(kernel, tol) <= inner + width


def _range(kernel: Kernel, inner: float, width: float, tol: float) -> float:
    return reach(kernel, tol) if _decays(kernel, inner, width, tol) else inner + width


def _rough(kernel: Kernel) -> bool:
    return not isinstance(kernel, Gaussian)


def _component(nodes: Nodes, kernel: Kernel, window: tuple[float, float], tol: float) -> _Component:
    dim, torus = nodes.dim, len(nodes.lattice) == nodes.dim
    if nodes.circle:
        return _on_circle(nodes, kernel)
    closed = whole_space(kernel, dim)
    if isinstance(kernel, Gaussian):
        assert closed is not None
        return _Component(closed, closed, float(np.sqrt(2 * np.log(1 / tol))) / kernel.width)
    k_end = K_END / nodes.spacing
    smooth = mollifier(EPSILON * nodes.spacing)
    if isinstance(kernel, Tabulated):
        return _tabulated(nodes, kernel, window, k_end, smooth)
    assert closed is not None
    exact = closed
    if _decays(kernel, *window, tol) or (torus and np.isfinite(reach(kernel, tol))):
        symbol = exact
    elif torus:
        symbol = lambda k: np.where(k > 0, exact(np.where(k > 0, k, 1.0)), 0.0)  # noqa: E731
    else:
        # the corners of the box of modes lie beyond k_end
        symbol = windowed_kernel(kernel, dim, *window, 2 * k_end)
    return _Component(lambda k: smooth(k) * symbol(k), lambda k: smooth(k) * exact(k), k_end)


def _on_circle(nodes: Nodes, kernel: Kernel) -> _Component:
    if isinstance(kernel, Tabulated):
        _check_covers(nodes, kernel, 2 * nodes.circle)
    k_end = K_END / nodes.spacing
    raw, smooth = circle_symbol(kernel, nodes.circle, k_end), mollifier(EPSILON * nodes.spacing)

    def symbol(k: np.ndarray) -> np.ndarray:
        return smooth(k) * raw(k)

    return _Component(symbol, symbol, k_end, 1e-13 * float(np.abs(raw(np.arange(99))).max()))


def _check_covers(nodes: Nodes, kernel: Tabulated, diameter: float) -> None:
    if kernel.r[0] > nodes.spacing:
        raise CaseError(
            f"interaction: the table starts at r = {kernel.r[0]:g}, "
            f"above the node spacing {nodes.spacing:g}"
        )
    if kernel.r[-1] < diameter * (1 - 1e-12):
        raise CaseError(
            f"interaction: the table ends at r = {kernel.r[-1]:g}, "
            f"below the diameter {diameter:g} of the nodes"
        )


def _tabulated(
    nodes: Nodes, kernel: Tabulated, window: tuple[float, float], k_end: float, smooth: Symbol
) -> _Component:
    W, end = radial(kernel, nodes.dim), kernel.r[-1]
    inner, width = window
    _check_covers(nodes, kernel, 0.0 if len(nodes.lattice) else inner)
    if len(nodes.lattice):
        if abs(kernel.W[-1]) > 1e-3 * max(map(abs, kernel.W)):
            raise CaseError(
                "interaction: on a torus the table must have died out at its end, but "
                f"W({end:g}) = {kernel.W[-1]:g}"
            )
        inner, width = 0.9 * end, 0.1 * end
    k_table = k_end * np.sqrt(nodes.dim) * 1.3
    raw = windowed(W, nodes.dim, inner, width, k_table, fine=12)
    # a table of a smooth kernel needs no mollifier: its symbol has died out before the modes end
    k = np.linspace(0, k_end, 4000)
    size = np.abs(raw(k)) * k**nodes.dim
    alive = k[size > NOISE * size.max()]
    if len(alive) and alive[-1] < 0.8 * k_end:
        smooth, k_end = np.ones_like, float(alive[-1]) * 1.2

    def symbol(k: np.ndarray) -> np.ndarray:
        return smooth(k) * raw(np.minimum(k, k_table)) * (k <= k_table)

    return _Component(symbol, symbol, k_end, NOISE * float(np.abs(raw(k)).max()))


def _wave_numbers(box: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """|k| of the half modes: index 0, 1, ... first, then -m to m."""
    dual = 2 * np.pi * np.linalg.inv(box)  # columns: k = dual n
    ranges = [np.arange(shape[0]), *(np.arange(n) - n // 2 for n in shape[1:])]
    squares = np.zeros(shape)
    for row in dual:
        component = np.zeros(shape)
        for axis, (entry, n) in enumerate(zip(row, ranges, strict=True)):
            if entry:
                component += entry * n.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        squares += component**2
    return np.sqrt(squares)


def _signs(parts: Sequence[_Component], k: np.ndarray) -> frozenset[int]:
    """Signs that the sum of the symbols takes at wave numbers k > 0, rounding aside."""
    values = np.array([p.sign_symbol(k) for p in parts])
    for p, v in zip(parts, values, strict=True):
        v[np.abs(v) <= p.noise] = 0
    sums, sizes = values.sum(axis=0), np.abs(values).sum(axis=0)
    seen = sums[np.abs(sums) > 1e-12 * sizes]
    return frozenset(int(s) for s in np.unique(np.sign(seen)))
