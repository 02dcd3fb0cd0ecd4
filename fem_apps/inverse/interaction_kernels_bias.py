"""What independent noise at the nodes adds to A and b of the error functional, to be removed.

A noisy value rho_a + delta_a of variance v_a stands in several factors of each term: in both
densities of <mu, psi*mu>, in P(rho) and psi*mu, and twice in the two potentials of A. Their
expectations need psi between the nodes as a matrix (`DenseBank`). With transforms (more nodes)
they are left in: each is smaller by the mass of a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
from mpi4py import MPI

from fem_apps.fem.node_graph import NodeGraph
from fem_apps.inverse.interaction_kernels_bank import Bank, DenseBank
from fem_apps.mpi import total


class SelfCorrelation:
    """Expectations of products of the same node's noise, for one bank of atoms.

    Args:
        graph: nodes.
        bank: psi_j * mu.
        gradient: one sparse matrix a direction.
        grad: nodal gradients of nodal values, (n, k) -> (n, dim, k). Collective.
    """

    def __init__(
        self,
        graph: NodeGraph,
        bank: Bank,
        gradient: Sequence[sp.csr_matrix],
        grad: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.comm = graph.comm
        self.exact = isinstance(bank, DenseBank)
        if not isinstance(bank, DenseBank):
            return
        comm, n, table = graph.comm, graph.n, bank.table
        sizes = comm.allgather(n)
        first = sum(sizes[: comm.rank])
        # grad_a psi_j(|x_a - x_b|): (atoms, n, dim, nodes)
        self.GK = np.array([grad(np.ascontiguousarray(t)) for t in table])
        self_term = np.zeros((len(table), sum(sizes)))
        place = np.concatenate([np.arange(first, first + n), _places(comm, graph, sizes)])
        for d, matrix in enumerate(gradient):
            coo = matrix.tocoo()
            at = place[coo.col]
            for j in range(len(table)):
                weight = graph.mass[coo.row] * coo.data * self.GK[j][coo.row, d, at]
                np.add.at(self_term[j], at, weight)
        own = slice(first, first + n)
        self.self_term = total(comm, self_term)[:, own]
        self.diagonal = table[:, np.arange(n), own.start + np.arange(n)]
        self.R = np.zeros((n, table.shape[2]))

    def begin(self) -> None:
        """Forget the snapshots collected for A."""
        if self.exact:
            self.R = np.zeros_like(self.R)

    def energy(self, variance: np.ndarray) -> np.ndarray | float:
        """Of <mu, psi*mu>/2, the rank's part."""
        return self.diagonal @ variance / 2 if self.exact else 0.0

    def diffusion(self, variance: np.ndarray) -> np.ndarray | float:
        """Of int grad P . grad psi*mu: owned P' v m to (atoms,), the rank's part."""
        return self.self_term @ variance if self.exact else 0.0

    def add(self, w: float, weight: np.ndarray, variance: np.ndarray) -> None:
        """Collect A's part of one snapshot. Collective."""
        if self.exact:
            every = np.concatenate(self.comm.allgather(variance))
            self.R += w * np.multiply.outer(weight, every)

    def gram(self) -> np.ndarray | float:
        """Of A, the rank's part."""
        if not self.exact:
            return 0.0
        K = len(self.GK)
        flat, out = self.GK.reshape(K, -1), np.empty((K, K))
        for i in range(K):
            out[i] = flat @ (self.GK[i] * self.R[:, None, :]).ravel()
        return out


def _places(comm: MPI.Comm, graph: NodeGraph, sizes: Sequence[int]) -> np.ndarray:
    """Columns of the dense table that the ghosts have: global numbers are by rank already."""
    offsets = comm.allgather(graph.offset)
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    owner = np.searchsorted(offsets, graph.ghosts, side="right") - 1
    return graph.ghosts - np.array(offsets)[owner] + starts[owner]
