"""The quadratic error functional of gradient flows, free of time derivatives, on P1 nodes.

For d_t mu = div(mu grad(H'(mu) + V + W*mu)) and a free energy sum_k c_k e_k(mu) with potentials
Phi_k = delta e_k / delta mu,

    E(c) = (1/T) iint phi |sum_k c_k grad Phi_k - grad Phi|^2 dmu dt = const + c.A c - 2 b.c,
    A_kl = (1/T) iint phi mu grad Phi_k . grad Phi_l,
    b_k  = -(1/T) { [phi e_k]_0^T - int phi' e_k dt + iint phi (grad P(mu) + mu grad V).grad Phi_k
    },

because <d_t mu, Phi_k> = d/dt e_k(mu); P and V are what is known of the flow. Terms e_k are
interaction 1/2 <mu, psi*mu>, external potential <mu, V_k> and diffusion int H_k(mu). The window phi
is 1 ("ends": the time term sees only the first and the last snapshot) or (4 t (T - t) / T^2)^2
("bump": it sees all). (Carrillo, Estrada-Rodriguez, Mikolas & Tang 2024, arXiv:2402.06355; Lang &
Lu
2020, arXiv:2010.15694; windows after self-test losses, Gao, Lang & Lu 2024, arXiv:2412.03506.)

Discretisation: masses m_a rho_a at the nodes, psi*mu by `fem.convolution`'s transforms or, for few
nodes, by the exact sum; gradients by lumped L2 projection onto P1, (grad q)_a = int phi_a grad q /
m_a, which is second order on regular meshes; Simpson's rule in time. A is a Gram matrix.

Noise rho_a -> rho_a + delta_a, independent, of variance v_a, biases A and b, as the same value
stands in several factors. With `noise` (v = s^2 rho^2 / (1 + s^2)) the expectation is removed: P by
P - P'' v / 2, and, where the sum is exact (`DenseBank`), the self-correlations of rho_a with
psi*mu in all three terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import scipy.sparse as sp
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from mpi4py import MPI
from scipy.integrate import simpson

from fem_apps.errors import CaseError
from fem_apps.fem.convolution import make_convolution
from fem_apps.fem.convolution_low_rank import features
from fem_apps.fem.convolution_nodes import survey
from fem_apps.fem.convolution_nufft import fourier_bank
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.inverse.interaction_kernels_atoms import Atom
from fem_apps.inverse.interaction_kernels_data import Snapshots
from fem_apps.mpi import total
from fem_apps.problems.free_energy import Diffusion, Internal

Window = Literal["ends", "bump"]

# Nodes up to which psi*mu is the exact sum, by a matrix for each atom.
DENSE = 1000
# Of the transforms, relative.
TOLERANCE = 1e-9
# Densities below this part of the maximum do not divide.
FLOOR = 1e-3


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
    """O(N log N): exact passes of low rank for some atoms, one bank of transforms for others."""

    passes: tuple[tuple[int, Any], ...]
    rest: tuple[int, ...]
    bank: Any

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Owned masses (n,) to potentials (n, atoms)."""
        out = np.empty((len(b), len(self.passes) + len(self.rest)))
        for j, one in self.passes:
            out[:, j] = one(b)
        if self.rest:
            out[:, self.rest] = self.bank(b)
        return out


@dataclass(frozen=True)
class Setting:
    """What is made once for a mesh and a hypothesis space.

    Attributes:
        graph: nodes.
        atoms: interaction potentials.
        bank: psi_j * mu.
        gradient: one sparse matrix a direction, (n owned, n owned + ghosts).
        external: nodal values of further potentials V_k to be estimated, (n owned, count).
        diffusion: terms of H to be estimated, of coefficient 1.
    """

    graph: NodeGraph
    atoms: tuple[Atom, ...]
    bank: Bank
    gradient: tuple[sp.csr_matrix, ...]
    external: np.ndarray
    diffusion: tuple[Diffusion, ...] = ()

    @property
    def size(self) -> int:
        """Number of columns: atoms, external potentials, diffusion terms."""
        return len(self.atoms) + self.external.shape[1] + len(self.diffusion)

    def grad(self, q: np.ndarray) -> np.ndarray:
        """Nodal gradients of owned nodal values, (n, k) -> (n, dim, k). Collective."""
        if not q.shape[1]:
            return np.zeros((self.graph.n, len(self.gradient), 0))
        if self.graph.comm.size > 1:
            q = np.stack([self.graph.with_ghosts(np.ascontiguousarray(c)) for c in q.T], axis=1)
        return np.stack([G @ q for G in self.gradient], axis=1)


def set_up(
    graph: NodeGraph,
    atoms: Sequence[Atom],
    *,
    external: np.ndarray | None = None,
    diffusion: Sequence[Diffusion] = (),
    dense: int = DENSE,
) -> Setting:
    """Operators of the functional. Collective.

    Args:
        graph: nodes of a mesh without periods.
        atoms: the hypothesis space.
        external: potentials V_k to be estimated, (n owned, count).
        diffusion: terms of H to be estimated.
        dense: number of nodes up to which psi*mu is the exact sum.

    Raises:
        CaseError: the mesh is periodic, or an atom does not fit it.
    """
    if len(graph.lattice):
        raise CaseError("kernel inference needs a domain without periods: distances are Euclidean")
    comm = graph.comm
    bank: Bank
    if graph.size <= dense:
        every = np.concatenate(comm.allgather(graph.x))
        r = np.linalg.norm(graph.x[:, None, :] - every[None, :, :], axis=2)
        bank = DenseBank(comm, np.array([a.psi(r) for a in atoms]).reshape(len(atoms), *r.shape))
    else:
        bank = _fast(graph, atoms)
    none = np.zeros((graph.n, 0))
    return Setting(
        graph,
        tuple(atoms),
        bank,
        _gradient(graph),
        none if external is None else external,
        tuple(diffusion),
    )


def _fast(graph: NodeGraph, atoms: Sequence[Atom]) -> FastBank:
    nodes = survey(graph.comm, graph.x, graph.spacing, ())
    kernels = [a.kernel(1.0, graph.x.shape[1], diameter(graph)) for a in atoms]
    exact = [
        (j, make_convolution(graph.comm, [k], graph.x, spacing=graph.spacing))
        for j, k in enumerate(kernels)
        if features(nodes, k, TOLERANCE) is not None
    ]
    rest = tuple(j for j in range(len(atoms)) if j not in {i for i, _ in exact})
    bank = fourier_bank(nodes, [kernels[j] for j in rest], TOLERANCE) if rest else None
    return FastBank(tuple(exact), rest, bank)


def diameter(graph: NodeGraph) -> float:
    """Diagonal of the bounding box of all nodes. Collective."""
    low, high = graph.x.min(axis=0, initial=np.inf), graph.x.max(axis=0, initial=-np.inf)
    comm = graph.comm
    box = [comm.allreduce(float(h), MPI.MAX) for h in high]
    return float(
        np.linalg.norm(np.array(box) - np.array([comm.allreduce(float(l), MPI.MIN) for l in low]))
    )


def _gradient(graph: NodeGraph) -> tuple[sp.csr_matrix, ...]:
    """Lumped L2 projections of the derivatives of a P1 function, owned rows, local columns."""
    V = graph.V
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    out = []
    for d in range(V.mesh.geometry.dim):
        C = fem_petsc.assemble_matrix(fem.form(u.dx(d) * v * ufl.dx))
        C.assemble()
        indptr, columns, values = C.getValuesCSR()
        first = graph.offset
        away = (columns < first) | (columns >= first + graph.n)
        local = np.where(away, graph.n + np.searchsorted(graph.ghosts, columns), columns - first)
        shape = (graph.n, graph.n + len(graph.ghosts))
        out.append(sp.diags(1 / graph.mass) @ sp.csr_matrix((values, local, indptr), shape=shape))
        C.destroy()
    return tuple(sp.csr_matrix(G) for G in out)


@dataclass(frozen=True)
class Quadratic:
    """E(c) = const + c.A c - 2 b.c, A (n, n), b (n,)."""

    A: np.ndarray
    b: np.ndarray

    def __add__(self, other: Quadratic) -> Quadratic:
        return Quadratic(self.A + other.A, self.b + other.b)


@dataclass(frozen=True)
class Known:
    """What is known of the flow: diffusion terms and nodal values of V (n owned,)."""

    diffusion: tuple[Diffusion, ...] = ()
    V: np.ndarray | None = None


def time_weights(t: np.ndarray) -> np.ndarray:
    """Weights of Simpson's rule (trapezoidal for two times), (n,)."""
    if len(t) == 2:
        return np.full(2, (t[1] - t[0]) / 2)
    return simpson(np.eye(len(t)), x=t, axis=1)


def window(t: np.ndarray, kind: Window) -> tuple[np.ndarray, np.ndarray]:
    """Phi and phi' at the times, (n,) each."""
    if kind == "ends":
        return np.ones_like(t), np.zeros_like(t)
    T = t[-1] - t[0]
    u = 4 * (t - t[0]) * (t[-1] - t) / T**2
    return u**2, 2 * u * 4 * (t[-1] + t[0] - 2 * t) / T**2


def assemble(
    s: Setting, data: Snapshots, known: Known, *, kind: Window = "bump", noise: float = 0.0
) -> Quadratic:
    """A and b of one data set. Collective.

    Args:
        s: operators.
        data: densities of mass 1 on the setting's nodes.
        known: the known part of the flow.
        kind: of the window in time.
        noise: relative standard deviation whose bias is removed; 0: none.
    """
    m, t = s.graph.mass, data.t
    T = t[-1] - t[0]
    phi, rate = window(t, kind)
    weights = time_weights(t)
    internal, terms = Internal(known.diffusion), [Internal((d,)) for d in s.diffusion]
    K = len(s.atoms)
    gV = s.grad(s.external)
    g0 = s.grad(known.V[:, None])[..., 0] if known.V is not None else 0.0
    A, b = np.zeros((s.size, s.size)), np.zeros(s.size)
    energies = np.zeros((len(t), s.size))
    correct = _Correction(s, noise) if noise > 0 else None
    for n, rho in enumerate(data.rho):
        w = phi[n] * weights[n]
        v = noise**2 * rho**2 / (1 + noise**2)
        plus = np.maximum(rho, 0.0)
        mu = m * rho
        Q = s.bank(mu)
        energies[n] = np.concatenate(
            [mu @ Q / 2, mu @ s.external, [m @ i.density(plus) for i in terms]]
        )
        if correct is not None:
            energies[n, :K] -= correct.energy(m * m * v)
        if w == 0:
            continue
        P, _, P1 = internal.fields(plus)
        P = P - _second(known.diffusion, plus) * v / 2
        F = np.concatenate([s.grad(Q), gV], axis=2)
        D = s.grad(np.stack([i.fields(plus)[0] for i in terms], axis=1)) if terms else None
        gP = s.grad(P[:, None])[..., 0]
        force = m[:, None] * (gP + plus[:, None] * g0)
        X = np.sqrt(w * m * plus)[:, None, None] * F
        X = X.reshape(-1, X.shape[2])
        k = X.shape[1]
        A[:k, :k] += X.T @ X
        b[:k] -= w * np.tensordot(force, F, axes=([0, 1], [0, 1]))
        if correct is not None:
            correct.add(w, m * plus, m * m * v)
            b[:K] += w * correct.diffusion(m * v * P1)
        if D is not None:
            inverse = 1 / np.maximum(plus, FLOOR * s.graph.comm.allreduce(plus.max(), MPI.MAX))
            A[:k, k:] += w * np.tensordot(m[:, None, None] * F, D, axes=([0, 1], [0, 1]))
            A[k:, k:] += w * np.tensordot((m * inverse)[:, None, None] * D, D, ([0, 1], [0, 1]))
            b[k:] -= w * np.tensordot(force * inverse[:, None], D, axes=([0, 1], [0, 1]))
    A[len(A) - len(s.diffusion) :, : len(A) - len(s.diffusion)] = A[
        : len(A) - len(s.diffusion), len(A) - len(s.diffusion) :
    ].T
    if correct is not None:
        A[:K, :K] -= correct.gram()
    b -= phi[-1] * energies[-1] - phi[0] * energies[0] - (rate * weights) @ energies
    both = total(s.graph.comm, np.vstack([A, b[None]])) / T
    return Quadratic((both[:-1] + both[:-1].T) / 2, both[-1])


def _second(diffusion: Sequence[Diffusion], r: np.ndarray) -> np.ndarray:
    """P''(rho)."""
    out = np.zeros_like(r)
    for d in diffusion:
        e = d.exponent
        if e > 1:
            out += d.coefficient * e * (e - 1) * r ** max(e - 2, 0.0)
    return out


class _Correction:
    """Expectations of products of the same node's noise; exact sums only, else nothing."""

    def __init__(self, s: Setting, noise: float) -> None:
        self.s = s
        self.table = s.bank.table if isinstance(s.bank, DenseBank) else None
        if self.table is None:
            return
        comm, graph, n = s.graph.comm, s.graph, s.graph.n
        if not hasattr(s.bank, "_corrections"):
            sizes = comm.allgather(n)
            first = sum(sizes[: comm.rank])
            G = s.gradient
            # a row of every ghost: its owner's
            rows = [
                s.grad(np.ascontiguousarray(self.table[j])) for j in range(len(s.atoms))
            ]  # (n, dim, nodes) each
            GK = np.array(rows)
            self_term = np.zeros((len(s.atoms), int(np.sum(sizes))))
            ghosts = np.concatenate([np.arange(first, first + n), _places(comm, graph, sizes)])
            for d, matrix in enumerate(G):
                coo = matrix.tocoo()
                at = ghosts[coo.col]
                for j in range(len(s.atoms)):
                    np.add.at(
                        self_term[j], at, graph.mass[coo.row] * coo.data * GK[j][coo.row, d, at]
                    )
            own = slice(first, first + n)
            kept = (
                GK,
                total(comm, self_term)[:, own],
                self.table[:, np.arange(n), own.start + np.arange(n)],
            )
            object.__setattr__(s.bank, "_corrections", kept)
        self.GK, self.self_term, self.diagonal = s.bank._corrections  # type: ignore[attr-defined]
        self.R = np.zeros((n, self.table.shape[2]))

    def energy(self, variance: np.ndarray) -> np.ndarray | float:
        """Of <mu, psi*mu>/2, the rank's part."""
        return self.diagonal @ variance / 2 if self.table is not None else 0.0

    def diffusion(self, variance: np.ndarray) -> np.ndarray | float:
        """Of int grad P . grad psi*mu: owned P' v m to (atoms,), the rank's part."""
        return self.self_term @ variance if self.table is not None else 0.0

    def add(self, w: float, weight: np.ndarray, variance: np.ndarray) -> None:
        """Collect A's part of one snapshot."""
        if self.table is not None:
            every = np.concatenate(self.s.graph.comm.allgather(variance))
            self.R += w * np.multiply.outer(weight, every)

    def gram(self) -> np.ndarray | float:
        """Of A, the rank's part."""
        if self.table is None:
            return 0.0
        K = len(self.s.atoms)
        out = np.empty((K, K))
        for i in range(K):
            weighted = (self.GK[i] * self.R[:, None, :]).ravel()
            out[i] = self.GK.reshape(K, -1) @ weighted
        return out


def _places(comm: MPI.Comm, graph: NodeGraph, sizes: Sequence[int]) -> np.ndarray:
    """Columns of the dense table that the ghosts have: global numbers are by rank already."""
    offsets = comm.allgather(graph.offset)
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    owner = np.searchsorted(offsets, graph.ghosts, side="right") - 1
    return graph.ghosts - np.array(offsets)[owner] + starts[owner]
