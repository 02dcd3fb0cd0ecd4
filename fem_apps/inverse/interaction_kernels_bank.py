"""psi_j * mu for every atom of a hypothesis space at the nodes: what the error functional costs.

Few nodes: the exact sum, a matrix for each atom. Many: O(N log N). Even powers are exact passes
of low rank. The others go through non-uniform Fourier transforms, in groups whose symbols end
together, so that smooth atoms do not pay for the modes of kinks: one transform of the masses a
group, one back an atom. Ranks share atoms and not nodes: the FFT, which is most of the work, does
not get smaller with the nodes of a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from mpi4py import MPI

from fem_apps.fem.convolution import make_convolution
from fem_apps.fem.convolution_low_rank import features
from fem_apps.fem.convolution_nodes import survey
from fem_apps.fem.convolution_nufft import FourierBank, fourier_bank
from fem_apps.fem.kernels import Gaussian, Kernel, Tabulated
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.inverse.interaction_kernels_atoms import Atom

# Of the transforms, relative.
TOLERANCE = 1e-9


class Bank(Protocol):
    """psi_j * mu for every atom j: owned masses (n,) -> (n, atoms). Collective."""

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """The potentials at the owned nodes."""


@dataclass(frozen=True)
class DenseBank:
    """The exact sum, psi_j(|x_a - x_b|) as a matrix (atoms, n owned, nodes)."""

    comm: MPI.Comm
    table: np.ndarray

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Owned masses (n,) to potentials (n, atoms)."""
        return (self.table @ np.concatenate(self.comm.allgather(b))).T


@dataclass(frozen=True)
class FastBank:
    """O(N log N).

    Attributes:
        comm: communicator.
        passes: atoms with an exact pass of low rank, and the pass.
        groups: this rank's transforms of all nodes, and the atoms that they serve.
        shares: the atoms of every rank, in the order of its groups.
        first: first node of every rank, and their number.
    """

    comm: MPI.Comm
    passes: tuple[tuple[int, Any], ...]
    groups: tuple[FourierBank, ...]
    shares: tuple[tuple[int, ...], ...]
    first: np.ndarray

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Owned masses (n,) to potentials (n, atoms)."""
        out = np.empty((len(b), len(self.passes) + sum(map(len, self.shares))))
        for j, one in self.passes:
            out[:, j] = one(b)
        every = np.concatenate(self.comm.allgather(b))
        mine = np.concatenate(
            [g(every) for g in self.groups] or [np.zeros((len(every), 0))], axis=1
        )
        rows = [mine[p:q] for p, q in zip(self.first[:-1], self.first[1:], strict=True)]
        for atoms, part in zip(self.shares, self.comm.alltoall(rows), strict=True):
            out[:, atoms] = part
        return out


def make_bank(graph: NodeGraph, atoms: Sequence[Atom], reach: float, dense: int) -> Bank:
    """The bank of a hypothesis space. Collective.

    Args:
        graph: nodes of a mesh without periods.
        atoms: the hypothesis space.
        reach: greatest distance of two nodes.
        dense: number of nodes up to which it is the exact sum.

    Raises:
        CaseError: an atom does not fit the mesh.
    """
    comm = graph.comm
    parts = comm.allgather(graph.x)
    every = np.concatenate(parts)
    if len(every) <= dense:
        r = np.linalg.norm(graph.x[:, None, :] - every[None, :, :], axis=2)
        return DenseBank(comm, np.array([a.psi(r) for a in atoms]).reshape(len(atoms), *r.shape))
    nodes = survey(comm, graph.x, graph.spacing, ())
    alone = survey(MPI.COMM_SELF, every, graph.spacing, ())
    kernels = [a.kernel(1.0, graph.x.shape[1], reach) for a in atoms]
    low = [j for j, k in enumerate(kernels) if features(nodes, k, TOLERANCE) is not None]
    passes = [
        (j, make_convolution(comm, [kernels[j]], graph.x, spacing=graph.spacing)) for j in low
    ]
    groups: dict[str, list[int]] = {}
    for j in sorted(set(range(len(atoms))) - set(low)):
        groups.setdefault(_smoothness(kernels[j]), []).append(j)
    shares = tuple(
        tuple(j for g in groups.values() for j in g[rank :: comm.size]) for rank in range(comm.size)
    )
    mine = [g[comm.rank :: comm.size] for g in groups.values()]
    banks = tuple(fourier_bank(alone, [kernels[j] for j in g], TOLERANCE) for g in mine if g)
    first = np.concatenate([[0], np.cumsum([len(p) for p in parts])])
    return FastBank(comm, tuple(passes), banks, shares, first)


def _smoothness(kernel: Kernel) -> str:
    """Groups of atoms whose symbols die out at similar wave numbers."""
    if isinstance(kernel, Gaussian):
        return "gaussian"
    return "table" if isinstance(kernel, Tabulated) else "kink"
