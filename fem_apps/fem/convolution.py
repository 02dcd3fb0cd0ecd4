"""The interaction potential W * rho on unstructured nodes as one symmetric linear operator.

Given nodal masses b_j (m_j rho_j, or the integrals of rho against the basis functions), the
operator returns (W * mu)_i = sum_j W(x_i, x_j) b_j at the same nodes, in O(N log N) or less. The
same operator serves the energy 1/2 b.W b and the velocity; it is symmetric to rounding, which the
discrete energy laws need (Bailo, Carrillo & Hu 2020, arXiv:1811.11502). Three routes:

* non-uniform FFT (`convolution_nufft`), one transform pair for all of its kernels: Gaussian, power,
  log, exponential, Yukawa, Morse, table; in the arc length on a circle (`convolution_circle`);
* low rank (`convolution_low_rank`), exact: r^2, r^4, polynomial, cosine; on the unit circle and
  sphere von Mises and wide Gaussians;
* PDE (`convolution_pde`): screened Poisson and Poisson on the mesh itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from mpi4py import MPI

from fem_apps.fem.convolution_circle import unrolled
from fem_apps.fem.convolution_low_rank import Features, as_gaussian, features, low_rank_pass
from fem_apps.fem.convolution_nodes import survey
from fem_apps.fem.convolution_nufft import fourier_pass
from fem_apps.fem.convolution_pde import merge, pde_pass
from fem_apps.fem.kernels import Gaussian, Kernel, Poisson, ScreenedPoisson, VonMises, radial
from fem_apps.mpi import same_error

Sign = Literal["negative", "positive", "indefinite"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Convolution:
    """b -> W b, symmetric; made by `make_convolution`.

    Attributes:
        sign: of b.W b on functions of zero mass: "negative" (attraction: W * rho may be explicit),
            "positive" (implicit), "indefinite" (midpoint). From the kernel's Fourier symbol, the
            eigenvalues of the core matrix, the strength of a Green's function; where kernels of
            several routes differ in sign, "indefinite". No kernel at all is "negative".
        route: how it is evaluated, one line for the log.
        size: number of owned nodes.
    """

    sign: Sign
    route: str
    size: int
    passes: tuple[Callable[[np.ndarray], np.ndarray], ...]

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Potentials at the owned nodes from the masses at the owned nodes. Collective.

        Args:
            b: (n_owned,), real.

        Returns:
            (n_owned,).
        """
        b = np.ascontiguousarray(b, dtype=float)
        if b.shape != (self.size,):
            raise ValueError(f"masses of shape {b.shape} for {self.size} owned nodes")
        out = np.zeros(self.size)
        for one in self.passes:
            out += one(b)
        return out

    def destroy(self) -> None:
        """Free PETSc's factors; the operator cannot be called afterwards."""
        for one in self.passes:
            if hasattr(one, "destroy"):
                one.destroy()


def make_convolution(
    comm: MPI.Comm,
    kernels: Sequence[Kernel],
    x: np.ndarray,
    *,
    spacing: float,
    lattice: Sequence[Sequence[float]] | np.ndarray = (),
    stiffness: Any = None,
    mass: np.ndarray | None = None,
    tol: float = 1e-10,
    threads: int = 1,
) -> Convolution:
    """Plans, tables and factors of W * rho, made once. Collective.

    Args:
        comm: communicator.
        kernels: entries of `[[interaction]]`, tables read (`read_tables`); their sum is the kernel.
        x: owned nodes, (n_owned, dim), dim 1 to 3.
        spacing: typical node spacing; kernels with a kink or a pole are resolved to this scale.
        lattice: period vectors of a flat torus in rows; empty in free space.
        stiffness: PETSc Mat (grad u, grad v) of P1 functions, for the PDE kernels.
        mass: owned lumped masses, for the PDE kernels.
        tol: accuracy of the transforms and expansions relative to max|W| sum|b|; not below 1e-9
            for kernels with a kink or a pole, which are mollified anyway.
        threads: OpenMP threads of the transforms on each rank.

    Returns:
        the operator.

    Raises:
        CaseError: a kernel that does not fit the nodes: not integrable in this dimension, von Mises
            off the unit sphere, a polynomial or a wrong mode on a torus, a table that is too short,
            a PDE kernel without its matrix, more modes or a higher rank than memory holds.
    """
    nodes = survey(comm, x, spacing, lattice)
    fourier: list[Kernel] = []
    finite: list[Features] = []
    pde: list[ScreenedPoisson | Poisson] = []
    with same_error(comm):
        for kernel in kernels:
            if kernel.strength == 0:
                continue
            if isinstance(kernel, ScreenedPoisson | Poisson):
                pde.append(kernel)
            elif (found := features(nodes, kernel, tol)) is not None:
                finite.append(found)
            else:
                fourier.append(as_gaussian(kernel) if isinstance(kernel, VonMises) else kernel)
    passes: list[Any] = []
    if fourier:
        rough = [k for k in fourier if not isinstance(k, Gaussian)]
        if rough and nodes.dim == 2 and nodes.sphere and not len(nodes.lattice):
            passes.append(fourier_pass(unrolled(nodes), rough, tol, threads))
            fourier = [k for k in fourier if isinstance(k, Gaussian)]
    if fourier:
        passes.append(fourier_pass(nodes, fourier, tol, threads))
    if finite:
        passes.append(low_rank_pass(nodes, finite))
    passes += [pde_pass(comm, k, nodes.count, stiffness, mass) for k in merge(pde)]
    route = "; ".join(p.route for p in passes) or "no interaction"
    if comm.rank == 0:
        logger.info("interaction: %s", route)
    sign = _sign(frozenset().union(*(p.signs for p in passes)))
    return Convolution(sign, route, len(nodes.x), tuple(passes))


def _sign(signs: frozenset[int]) -> Sign:
    if signs == {1}:
        return "positive"
    return "indefinite" if 1 in signs else "negative"


def dense_sum(
    kernel: Kernel, x: np.ndarray, b: np.ndarray, targets: np.ndarray | None = None
) -> np.ndarray:
    """sum_j W(|x_i - x_j|) b_j by all pairs: the reference of tests and benchmarks.

    Args:
        kernel: a kernel of the distance.
        x: all nodes, (n, dim), on this rank.
        b: masses, (n,).
        targets: indices i to evaluate at; all if None.

    Returns:
        (n,) or (len(targets),).
    """
    W = radial(kernel, x.shape[1])
    rows = x if targets is None else x[targets]
    step = max(1, 2**22 // len(x))  # 32 MB of distances at a time
    blocks = (rows[i : i + step] for i in range(0, len(rows), step))
    return np.concatenate([W(_distances(part, x)) @ b for part in blocks])


def _distances(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    squares = np.zeros((len(a), len(x)))
    for i in range(x.shape[1]):
        squares += np.subtract.outer(a[:, i], x[:, i]) ** 2
    return np.sqrt(squares)
