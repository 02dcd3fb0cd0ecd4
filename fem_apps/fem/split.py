"""P1 matrices of an equation with a control, split into free and controlled degrees of freedom.

With y = sum_I y_i phi_i, plus sum_C v_c phi_c where a Dirichlet value v is the control,

    M'y + K y = functionals,   M_ij = int phi_i phi_j,   K_ij = int a grad phi_i . grad phi_j
                                                               + reaction phi_i phi_j.

Controls: `boundary` is y = v on a part of the boundary, v in P1 of it; `interior` is a source
chi v, v in P1, chi >= 0 a weight that is 1 on the control region and 0 elsewhere.

Vectors are plain arrays of what the rank owns: free (n,), control (c,).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from dolfinx.mesh import exterior_facet_indices
from petsc4py import PETSc

from fem_apps.errors import CaseError
from fem_apps.fem.expressions import parse
from fem_apps.fem.solvers import default_options, factorised, set_options, solve
from fem_apps.meshing import MeshData

Mass = Literal["consistent", "lumped", "mixed"]
# Data and coefficients that jump between cells are integrated inside cells, so exactly.
DATA_QUADRATURE = 6
# Up to this size, by dimension, a matrix is factorised by every rank for itself, by PETSc's own
# Cholesky with nested dissection: a solve is one message and a third of the time of MUMPS (8.5 to
# 28 ms of CPU at 88,798 unknowns in 2D), whose factorisation is faster, and pays in 3D.
OWN = {1: 10**7, 2: 200_000, 3: 2000}
QUADRATURE: dict[str, dict[str, Any]] = {
    "consistent": {"quadrature_degree": 2},
    "lumped": {"quadrature_rule": "vertex", "quadrature_degree": 1},
    # the L2 product of the cell means: in 1D (1/4, 1/2, 1/4), a velocity that is constant on cells
    "mixed": {"quadrature_degree": 1},
}


class Matrix:
    """x -> A x and y -> A^T y on plain arrays."""

    def __init__(self, A: PETSc.Mat) -> None:
        self.mat = A
        self._right, self._left = A.createVecs()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """A x."""
        self._right.array[:] = x
        self.mat.mult(self._right, self._left)
        return self._left.array_r.copy()

    def T(self, y: np.ndarray) -> np.ndarray:
        """A^T y."""
        self._left.array[:] = y
        self.mat.multTranspose(self._left, self._right)
        return self._right.array_r.copy()


class Inverse:
    """b -> A^{-1} b on plain arrays: factorised once; a division where A is diagonal.

    A is symmetric, and positive or (`definite` false) quasi-definite: pivots are not needed.
    """

    def __init__(
        self,
        A: PETSc.Mat,
        what: str,
        *,
        diagonal: bool = False,
        own: int = OWN[3],
        definite: bool = True,
    ) -> None:
        self._what, self._b = what, A.createVecLeft()
        self._diagonal: np.ndarray | None = None
        if diagonal:
            self._diagonal = A.getDiagonal().array_r.copy()
        elif A.getSize()[0] <= own:
            self._x = A.createVecRight()
            A.setOption(PETSc.Mat.Option.SPD if definite else PETSc.Mat.Option.SYMMETRIC, True)
            self.ksp = PETSc.KSP().create(A.comm)
            self.ksp.setOperators(A)
            inner = "pc_type" if A.comm.size == 1 else "redundant_pc_type"
            outer = {} if A.comm.size == 1 else {"pc_type": "redundant"}
            with default_options({inner: "cholesky", **outer}, "control_"):
                set_options(self.ksp, {"ksp_type": "preonly"}, "control_")
                self.ksp.setUp()
        else:
            self._x = A.createVecRight()
            self.ksp = factorised(A, spd=definite, prefix="control_")

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """A^{-1} b.

        Raises:
            SolveError: the factorisation failed.
        """
        if self._diagonal is not None:
            return b / self._diagonal
        self._b.array[:] = b
        solve(self.ksp, self._b, self._x, self._what)
        return self._x.array_r.copy()


@dataclass(frozen=True)
class Split:
    """The matrices of a mesh, a control and an equation; made by `split`.

    Attributes:
        V: P1 on the mesh.
        free: owned dofs that are free, their coordinates `x`, shape (n, gdim).
        control: owned dofs of the control, their coordinates `x_control`, shape (c, gdim).
        M, K: mass and stiffness, free x free.
        M_C, K_C: control x free, of a boundary control; None else.
        B: int chi phi_c phi_i, control x free, of an interior control; None else.
        N: mass of the control space: |v|^2 = v . N v.
        mass: how M is integrated.
        h: largest cell diameter.
    """

    V: Any
    free: np.ndarray
    control: np.ndarray
    x: np.ndarray
    x_control: np.ndarray
    M: Matrix
    K: Matrix
    M_C: Matrix | None
    K_C: Matrix | None
    B: Matrix | None
    N: Matrix
    N_inverse: Inverse
    mass: Mass
    h: float
    _inverses: dict[str, Inverse] = field(default_factory=dict, repr=False)

    @property
    def comm(self) -> Any:
        """The communicator."""
        return self.V.mesh.comm

    @property
    def lumped(self) -> bool:
        """Whether M is diagonal."""
        return self.mass == "lumped"

    def sum(self, beta: float, *, control: bool = False) -> Matrix:
        """M + beta K, free x free, or control x free."""
        M, K = (self.M_C, self.K_C) if control else (self.M, self.K)
        assert M is not None
        assert K is not None
        A = M.mat.copy()
        A.axpy(beta, K.mat, PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
        return Matrix(A)

    def factor(self, A: Matrix, what: str, *, diagonal: bool = False) -> Inverse:
        """The inverse of a matrix of this mesh."""
        return Inverse(A.mat, what, diagonal=diagonal, own=OWN[self.V.mesh.topology.dim])

    def inverse(self, name: Literal["M", "K"]) -> Inverse:
        """M^{-1} or K^{-1}, factorised when first asked for."""
        if name not in self._inverses:
            A = self.M if name == "M" else self.K
            self._inverses[name] = self.factor(
                A, f"{name} x = b", diagonal=name == "M" and self.lumped
            )
        return self._inverses[name]

    def dot(self, a: np.ndarray, b: np.ndarray) -> float:
        """Sum of a b over all entries of all ranks. Collective."""
        return float(self.comm.allreduce(float(np.vdot(a, b))))

    def size(self) -> tuple[int, int]:
        """Free and control degrees of freedom of all ranks. Collective."""
        n, c = self.comm.allreduce(np.array([len(self.free), len(self.control)]))
        return int(n), int(c)

    def functional(self, text: str) -> np.ndarray:
        """(f, phi_i) of an expression, for the free dofs, shape (n,). Collective."""
        f = parse(text).ufl(self.V.mesh)
        if isinstance(f, ufl.constantvalue.Zero):  # UFL has no form of it
            return np.zeros(len(self.free))
        dx = ufl.dx(domain=self.V.mesh, metadata={"quadrature_degree": DATA_QUADRATURE})
        form = f * ufl.TestFunction(self.V) * dx
        b = fem_petsc.assemble_vector(fem.form(form))
        b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        out = b.array_r[self.free].copy()
        b.destroy()
        if not np.isfinite(self.comm.allreduce(float(np.abs(out).sum()))):
            raise CaseError(f"expression {text!r} is not finite on the mesh")
        return out

    def to_function(self, y: np.ndarray, v: np.ndarray | None, u: Any) -> None:
        """Write free values, and control values of a boundary control, to a function of V."""
        u.x.array[:] = 0.0
        u.x.array[self.free] = y
        if v is not None and self.K_C is not None:
            u.x.array[self.control] = v
        u.x.scatter_forward()


def split(
    data: MeshData,
    *,
    coefficient: str = "1",
    reaction: str = "0",
    fixed: tuple[str, ...] | None = None,
    boundary: tuple[str, ...] = (),
    interior: str | None = None,
    cells: tuple[str, ...] = (),
    mass: Mass = "consistent",
) -> Split:
    """Assemble and split. Collective.

    Args:
        data: the mesh with its named parts.
        coefficient: a(x), diffusivity or squared speed; positive.
        reaction: coefficient of the term of order zero.
        fixed: names of boundary parts where y = 0; None: the whole boundary but the controlled
            part. Elsewhere the flux is zero.
        boundary: names of the boundary parts that are controlled.
        interior: chi(x); with `cells`, times the indicator of these named cells.
        cells: names of parts of the domain.
        mass: quadrature of the mass matrix.

    Raises:
        CaseError: no such part, an empty control region, a coefficient that is not positive.
    """
    mesh = data.mesh
    V = fem.functionspace(mesh, ("Lagrange", 1))
    tdim, owned = mesh.topology.dim, V.dofmap.index_map.size_local
    u, w = ufl.TrialFunction(V), ufl.TestFunction(V)
    a, r = parse(coefficient).ufl(mesh), parse(reaction).ufl(mesh)
    _require_positive(V, coefficient, "coefficient")
    dx = ufl.dx(domain=mesh, metadata={"quadrature_degree": 4})
    M = _matrix(u * w * ufl.dx(domain=mesh, metadata=QUADRATURE[mass]))
    K = _matrix(a * ufl.inner(ufl.grad(u), ufl.grad(w)) * dx + r * u * w * dx)

    on_control = _boundary_dofs(V, data, boundary)
    if fixed is None:
        mesh.topology.create_connectivity(tdim - 1, tdim)
        facets = exterior_facet_indices(mesh.topology)
        rest = np.setdiff1d(facets, _facets(data, boundary))
        on_fixed = fem.locate_dofs_topological(V, tdim - 1, rest.astype(np.int32))
    else:
        on_fixed = _boundary_dofs(V, data, fixed)
    # where the two meet the value is prescribed: a trace that is free there would jump
    on_control = np.setdiff1d(on_control, on_fixed)
    constrained = np.union1d(on_control, on_fixed)
    free = np.setdiff1d(np.arange(owned), constrained)

    B = None
    if boundary:
        tags = tuple(data.tag(name, tdim - 1) for name in boundary)
        ds = ufl.ds(domain=mesh, subdomain_data=data.facet_tags)
        N = _matrix(u * w * ds(tags))
        control = on_control[on_control < owned]
    else:
        chi = parse(interior or "1").ufl(mesh)
        measure = dx
        if cells:
            measure = ufl.dx(
                domain=mesh, subdomain_data=data.cell_tags, metadata={"quadrature_degree": 4}
            )(tuple(data.tag(name, tdim) for name in cells))
        N = B = _matrix(chi * u * w * measure)
        diagonal = N.getDiagonal().array_r
        if mesh.comm.allreduce(int((diagonal < 0).sum())):
            raise CaseError(f"control.where = {interior!r} is negative somewhere")
        control = free[diagonal[free] > 1e-14 * M.getDiagonal().array_r[free]]
    if mesh.comm.allreduce(len(control)) == 0:
        raise CaseError(
            "the control region is empty: no degree of freedom of the mesh lies in "
            f"{', '.join(boundary or cells) or interior!r}; enlarge it or refine the mesh"
        )
    first = V.dofmap.index_map.local_range[0]
    here = [
        PETSc.IS().createGeneral((first + dofs).astype(PETSc.IntType), comm=mesh.comm)
        for dofs in (free, control)
    ]

    def block(A: PETSc.Mat, rows: int, cols: int) -> Matrix:
        return Matrix(A.createSubMatrix(here[rows], here[cols]))

    x = V.tabulate_dof_coordinates()[:, : mesh.geometry.dim]
    cells_owned = np.arange(mesh.topology.index_map(tdim).size_local, dtype=np.int32)
    h = float(mesh.h(tdim, cells_owned).max(initial=0.0))
    NC = block(N, 1, 1)
    return Split(
        V=V,
        free=free,
        control=control,
        x=x[free],
        x_control=x[control],
        M=block(M, 0, 0),
        K=block(K, 0, 0),
        M_C=block(M, 1, 0) if boundary else None,
        K_C=block(K, 1, 0) if boundary else None,
        B=block(B, 1, 0) if B is not None else None,
        N=NC,
        N_inverse=Inverse(NC.mat, "mass of the control", diagonal=tdim == 1 and bool(boundary)),
        mass=mass,
        h=max(mesh.comm.allgather(h)),
    )


def _matrix(form: Any) -> PETSc.Mat:
    A = fem_petsc.assemble_matrix(fem.form(form))
    A.assemble()
    return A


def _facets(data: MeshData, names: tuple[str, ...]) -> np.ndarray:
    """Local facets of the named boundary parts, ghosts too."""
    dim = data.mesh.topology.dim - 1
    found = [np.empty(0, dtype=np.int32)]
    for name in names:
        tag = data.tag(name, dim)
        if data.facet_tags is None:
            raise CaseError(f"the mesh has no tagged boundary parts; the case names {name!r}")
        found.append(data.facet_tags.find(tag))
    return np.unique(np.concatenate(found))


def _boundary_dofs(V: Any, data: MeshData, names: tuple[str, ...]) -> np.ndarray:
    dim = data.mesh.topology.dim - 1
    data.mesh.topology.create_connectivity(dim, dim + 1)
    return fem.locate_dofs_topological(V, dim, _facets(data, names))


def _require_positive(V: Any, text: str, what: str) -> None:
    values = parse(text).numpy(V.tabulate_dof_coordinates()[:, : V.mesh.geometry.dim].T)
    if V.mesh.comm.allreduce(int(not bool(np.all(values > 0)))):
        raise CaseError(f"{what} = {text!r} is not positive on the whole mesh")
