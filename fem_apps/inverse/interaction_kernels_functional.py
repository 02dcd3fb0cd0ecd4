"""The quadratic error functional of gradient flows, free of time derivatives, on P1 nodes.

For d_t mu = div(mu grad(H'(mu) + V + W*mu)) and a free energy sum_k c_k e_k(mu) with potentials
Phi_k = delta e_k / delta mu,

    E(c) = (1/T) iint phi |sum_k c_k grad Phi_k - grad Phi|^2 dmu dt = const + c.A c - 2 b.c,
    A_kl = (1/T) iint phi mu grad Phi_k . grad Phi_l,
    b_k  = -(1/T) { [phi e_k]_0^T - int phi' e_k dt + iint phi (grad P + mu grad V).grad Phi_k },

because <d_t mu, Phi_k> = d/dt e_k(mu); P and V are what is known of the flow. Terms e_k are
interaction 1/2 <mu, psi*mu>, external potential <mu, V_k> and diffusion int H_k(mu). The window
phi is 1 ("ends": the time term sees only the first and the last snapshot) or (4 t (T - t) /
T^2)^2 ("bump": it sees all). (Carrillo, Estrada-Rodriguez, Mikolas & Tang 2024, arXiv:2402.06355;
Lang & Lu 2020, arXiv:2010.15694; windows after self-test losses, Gao, Lang & Lu 2024,
arXiv:2412.03506.)

Discretisation: masses m_a rho_a at the nodes; psi*mu by the exact sum or by transforms
(`interaction_kernels_bank`); gradients by lumped L2 projection onto P1, (grad q)_a = int phi_a
grad q / m_a, which is second order on regular meshes; Simpson's rule in time. A is a Gram matrix.

Noise rho_a -> rho_a + delta_a, independent, of variance v_a, biases A and b, as the same value
stands in several factors. With `noise` (v = s^2 rho^2 / (1 + s^2)) the expectation is removed: P
by P - P'' v / 2, and the self-correlations of rho_a with psi*mu (`interaction_kernels_bias`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.sparse as sp
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from mpi4py import MPI
from scipy.integrate import simpson

from fem_apps.errors import CaseError
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.inverse.interaction_kernels_atoms import Atom
from fem_apps.inverse.interaction_kernels_bank import Bank, make_bank
from fem_apps.inverse.interaction_kernels_bias import SelfCorrelation
from fem_apps.inverse.interaction_kernels_data import Snapshots
from fem_apps.mpi import total
from fem_apps.problems.free_energy import Diffusion, Internal

Window = Literal["ends", "bump"]

# Nodes up to which psi*mu is the exact sum, by a matrix for each atom.
DENSE = 1000
# Densities below this part of the maximum do not divide.
FLOOR = 1e-3


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

    @cached_property
    def self_correlation(self) -> SelfCorrelation:
        """Of noise at the nodes. Collective at first."""
        return SelfCorrelation(self.graph, self.bank, self.gradient, self.grad)

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
    none = np.zeros((graph.n, 0))
    return Setting(
        graph,
        tuple(atoms),
        make_bank(graph, atoms, diameter(graph), dense),
        _gradient(graph),
        none if external is None else external,
        tuple(diffusion),
    )


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
    correct = s.self_correlation if noise > 0 else None
    if correct is not None:
        correct.begin()
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
