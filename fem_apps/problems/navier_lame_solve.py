"""The discrete exterior Navier-Lame problem: one matrix, many incident waves."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

from fem_apps.compat import geometry_dofmap
from fem_apps.errors import CaseError
from fem_apps.fem.expressions import parse
from fem_apps.fem.integrals import owned
from fem_apps.fem.solvers import solve
from fem_apps.fundamental.medium import PlaneWave
from fem_apps.meshing import MeshData
from fem_apps.mpi import extremes
from fem_apps.problems import navier_lame_forms as forms
from fem_apps.problems import navier_lame_linear as linear
from fem_apps.problems.navier_lame import Inclusion, Problem, Solver
from fem_apps.problems.navier_lame_dtn import ModalDtN, modal_dtn

log = logging.getLogger(__name__)

MATERIAL = ("lame_lambda", "lame_mu", "density")


class Scatterer:
    """The discrete problem: matrix and solver made once, right sides by incident wave.

    Attributes:
        data: the mesh.
        problem: the equation.
        degree: of the elements.
        V: space of the displacement.
        A: the matrix, complex symmetric.
        ksp: its solver.
        dx, ds, dS: measures with the mesh's tags.
    """

    def __init__(
        self, data: MeshData, problem: Problem, *, degree: int = 2, solver: Solver | None = None
    ) -> None:
        """Assemble and factorise. Collective.

        Raises:
            CaseError: the mesh lacks a part that the problem names, materials that are none.
        """
        if not issubclass(PETSc.ScalarType, complex):  # type: ignore[arg-type]
            raise CaseError("navier-lame needs PETSc with complex scalars")
        mesh = data.mesh
        if mesh.geometry.dim != 3 or mesh.topology.dim != 3:
            raise CaseError("navier-lame needs a mesh of volumes in space")
        self.data, self.problem, self.options = data, problem, solver or Solver()
        self.degree = degree
        rule = {"quadrature_degree": 2 * degree + 2}
        self.dx = ufl.Measure("dx", mesh, subdomain_data=data.cell_tags, metadata=rule)
        self.ds = ufl.Measure("ds", mesh, subdomain_data=data.facet_tags, metadata=rule)
        self.dS = ufl.Measure("dS", mesh, subdomain_data=data.facet_tags, metadata=rule)
        self.V = fem.functionspace(mesh, ("Lagrange", degree, (3,)))
        self.x, self.n = ufl.SpatialCoordinate(mesh), ufl.FacetNormal(mesh)
        self.comm = mesh.comm
        self._tags()
        self._constants()
        a = self._bilinear(1.0)
        self._bc = self._boundary_conditions()
        self._a = fem.form(a)
        self.A = fem_petsc.assemble_matrix(self._a, bcs=self._bc)
        self.A.assemble()
        self.A.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        self._load: dict[str, Any] = {}
        self.iterations = 0
        self.ksp = self._solver()
        self.dtn: ModalDtN | None = None
        if problem.truncation.type == "dtn":
            t, m = problem.truncation, problem.medium
            self.dtn = modal_dtn(
                self.V, self.ds(self.outer), m, t.radius, t.degree,
                (1j * m.k_p * m.p_modulus, 1j * m.k_s * m.lame_mu),
                self._solve_many, self._solve_one,
            )  # fmt: skip

    def _tags(self) -> None:
        data, p = self.data, self.problem
        self.domain = data.tag("domain", 3)
        self.outer = data.tag("outer", 2)
        self.obstacle = None if p.condition == "none" else data.tag("obstacle", 2)
        self.layer = data.tag("layer", 3) if p.truncation.type == "pml" else None
        self.regions = [data.tag(i.region, 3) for i in p.inclusions]
        known = {self.domain, self.layer, *self.regions}
        found = set(np.unique(data.cell_tags.values).tolist())
        everyone = set().union(*self.comm.allgather(found))
        if not everyone <= known:
            names = {t: n for n, (d, t) in data.names.items() if d == 3}
            rest = ", ".join(repr(names.get(t, t)) for t in sorted(everyone - known))
            raise CaseError(
                f"the mesh has cells {rest} that the case does not use: set "
                "truncation.type = 'pml' for a layer, or give [[inclusion]] with that region"
            )
        t = p.truncation
        if t.type in ("pml", "lysmer", "dtn"):
            x = self.data.mesh.geometry.x
            r = np.linalg.norm(x, axis=1)
            _, reach = extremes(self.comm, r)
            wanted = t.radius + (t.thickness if t.type == "pml" else 0.0)
            if abs(reach - wanted) > 0.02 * wanted:
                raise CaseError(
                    f"truncation: the mesh reaches to r = {reach:.4g}, but radius"
                    f"{' + thickness' if t.type == 'pml' else ''} = {wanted:.4g}; "
                    "they must be the same sphere about the origin"
                )

        if t.type == "pml":
            self._check_layer(t.thickness)

    def _check_layer(self, thickness: float) -> None:
        """Warn of a layer one cell thick: it reflects, however strong it is."""
        mesh = self.data.mesh
        cells = self.data.cell_tags.find(self.layer)
        r = np.linalg.norm(mesh.geometry.x[geometry_dofmap(mesh)[cells]], axis=2)
        _, widest = extremes(self.comm, np.ptp(r, axis=1) if len(r) else np.zeros(1))
        if widest > 0.7 * thickness:
            log.warning(
                "the layer has cells %.2g thick of its %.2g: it is not resolved, and refining the "
                "domain alone does not help; take a finer layer, or truncation.type = 'dtn'",
                widest,
                thickness,
            )

    def _constants(self) -> None:
        mesh, m = self.data.mesh, self.problem.medium
        S = PETSc.ScalarType
        self.lam, self.mu = fem.Constant(mesh, S(m.lame_lambda)), fem.Constant(mesh, S(m.lame_mu))
        self.rho_omega2 = fem.Constant(mesh, S(m.rho_omega2))
        self.damping = fem.Constant(mesh, S(1.0))
        self.k = fem.Constant(mesh, S(m.k_p))
        self.d = fem.Constant(mesh, np.array([0, 0, 1], dtype=S))
        self.a = fem.Constant(mesh, np.array([0, 0, 1], dtype=S))

    def _material(self, i: Inclusion) -> tuple[Any, Any, Any]:
        """Lambda, mu, rho omega^2 of an inclusion, checked where its cells have their middles."""
        mesh = self.data.mesh
        region = self.data.tag(i.region, 3)
        cells = self.data.cell_tags.find(region)
        Q = fem.functionspace(mesh, ("DG", 0))
        at = Q.tabulate_dof_coordinates()[Q.dofmap.list[cells].ravel()]
        values = {k: parse(getattr(i, k)).numpy(at.T) for k in MATERIAL}
        values["lambda + 2 mu / 3"] = values.pop("lame_lambda") + 2 / 3 * values["lame_mu"]
        for key, v in values.items():
            least, _ = extremes(self.comm, np.where(np.isfinite(v), v, -np.inf))
            if not least > 0:
                raise CaseError(
                    f"inclusion {i.region!r}: {key} is {least:.4g} somewhere, must be > 0"
                )
        lam, mu, rho = (parse(getattr(i, k)).ufl(mesh) for k in MATERIAL)
        return lam, mu, rho * self.problem.medium.omega**2

    def _bilinear(self, damping: complex) -> Any:
        u, v = ufl.TrialFunction(self.V), ufl.TestFunction(self.V)
        p, m = self.problem, self.problem.medium
        w2 = self.rho_omega2 * self.damping
        a = forms.elastic(u, v, self.lam, self.mu, w2, self.dx(self.domain))
        for i, region in zip(p.inclusions, self.regions, strict=True):
            lam, mu, w = self._material(i)
            a += forms.elastic(u, v, lam, mu, w * self.damping, self.dx(region))
        t = p.truncation
        if t.type == "pml":
            a += forms.layer(u, v, self.x, t, (self.lam, self.mu, w2), self.dx(self.layer))
        elif t.type in ("lysmer", "dtn"):
            n = self.x / ufl.sqrt(ufl.dot(self.x, self.x))
            a -= forms.dashpots(u, v, n, m, t.radius, t.curvature, self.ds(self.outer))
        return a

    def obstacle_blocks(self) -> np.ndarray:
        """Nodes of V on the obstacle, (n,); none where there is no obstacle."""
        if self.obstacle is None:
            return np.zeros(0, dtype=np.int32)
        tags = self.data.facet_tags
        return fem.locate_dofs_topological(self.V, 2, tags.find(self.obstacle))  # type: ignore[union-attr]

    def _boundary_conditions(self) -> list[Any]:
        self._on_obstacle = fem.Function(self.V)
        bcs = []
        tags = self.data.facet_tags
        if self.problem.condition == "rigid":
            bcs.append(fem.dirichletbc(self._on_obstacle, self.obstacle_blocks()))
        if self.problem.truncation.type in ("pml", "fixed"):
            dofs = fem.locate_dofs_topological(self.V, 2, tags.find(self.outer))  # type: ignore[union-attr]
            bcs.append(fem.dirichletbc(fem.Function(self.V), dofs))
        return bcs

    # ------------------------------------------------------------ right sides

    def _loads(self, kind: str) -> Any:
        """The compiled right side: of a wave, what cavities and inclusions make of it."""
        if kind not in self._load:
            v = ufl.TestFunction(self.V)
            u, g = forms.plane_wave(self.x, self.k, self.d, self.a)
            zero = fem.Constant(self.data.mesh, np.zeros(3, dtype=PETSc.ScalarType))
            L = ufl.inner(zero, v) * self.dx(self.domain)
            if kind == "wave":
                if self.problem.condition == "cavity":
                    # n of the mesh points into the obstacle
                    sigma = forms.stress(g, self.lam, self.mu)
                    L -= ufl.inner(ufl.dot(sigma, self.n), v) * self.ds(self.obstacle)
                for i, region in zip(self.problem.inclusions, self.regions, strict=True):
                    lam, mu, w = self._material(i)
                    contrast = forms.stress(g, lam - self.lam, mu - self.mu)
                    dx = self.dx(region)
                    L -= ufl.inner(contrast, ufl.grad(v)) * dx
                    L += (w - self.rho_omega2) * ufl.inner(u, v) * dx
            self._load[kind] = fem.form(L)
        return self._load[kind]

    def _right_side(self, kind: str) -> PETSc.Vec:
        L = self._loads(kind)
        b = fem_petsc.assemble_vector(L)
        fem_petsc.apply_lifting(b, [self._a], [self._bc])
        b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        fem_petsc.set_bc(b, self._bc)
        return b

    def scattered(self, wave: PlaneWave) -> fem.Function:
        """The field scattered from a plane wave. Collective.

        Raises:
            SolveError: the solver did not converge.
        """
        m = self.problem.medium
        self.k.value, self.d.value, self.a.value = wave.wave_number(m), wave.d, wave.a
        self._on_obstacle.interpolate(lambda x: -wave.displacement(m, x.T).T)
        return self._solution("wave", "field scattered from a plane wave")

    def moved(self, translation: np.ndarray, rotation: np.ndarray) -> fem.Function:
        """The field about a rigid obstacle in motion, translation + rotation x x. Collective."""

        def motion(x: np.ndarray) -> np.ndarray:
            return (translation + np.cross(rotation, x.T)).T.astype(PETSc.ScalarType)

        self._on_obstacle.interpolate(motion)
        return self._solution("motion", "field about a moving obstacle")

    def boundary_values(self, values: Any) -> fem.Function:
        """The field with given displacements on a rigid obstacle, values(x (3, n)). Collective."""
        self._on_obstacle.interpolate(values)
        return self._solution("motion", "field of boundary values")

    def _solution(self, kind: str, what: str) -> fem.Function:
        b = self._right_side(kind)
        u = fem.Function(self.V, name="u_scattered")
        if self.dtn is not None:
            owned(u)[:] = self.dtn(b.array_r.copy())
        else:
            self.iterations = solve(self.ksp, b, u.x.petsc_vec, what)
        u.x.scatter_forward()
        b.destroy()
        return u

    # ------------------------------------------------------------ solvers

    def _solver(self) -> PETSc.KSP:
        o = self.options
        if o.type == "direct":
            return linear.direct(self.A, o)
        if self.problem.medium.omega == 0:
            self.A.setNearNullSpace(linear.rigid_modes(self.V, self.A))
            return linear.multigrid(self.A, o)
        self.damping.value = 1 + 1j * o.damping
        P = fem_petsc.assemble_matrix(self._a, bcs=self._bc)
        P.assemble()
        self.damping.value = 1.0
        return linear.shifted_laplacian(self.A, P, o)

    def _solve_one(self, b: np.ndarray) -> np.ndarray:
        return self._solve_many(b[:, None])[:, 0]

    def _solve_many(self, B: np.ndarray) -> np.ndarray:
        return linear.solve_many(self.ksp, B)

    def scattered_many(self, waves: list[PlaneWave]) -> list[fem.Function]:
        """Fields of many incident waves from one factorisation. Collective."""
        m = self.problem.medium
        columns = []
        for wave in waves:
            self.k.value, self.d.value, self.a.value = wave.wave_number(m), wave.d, wave.a
            self._on_obstacle.interpolate(lambda x, w=wave: -w.displacement(m, x.T).T)
            b = self._right_side("wave")
            columns.append(b.array_r.copy())
            b.destroy()
        X = self._solve_many(np.stack(columns, axis=1))
        fields = []
        for x in X.T:
            u = fem.Function(self.V, name="u_scattered")
            owned(u)[:] = x
            u.x.scatter_forward()
            fields.append(u)
        return fields


def dofs(s: Scatterer) -> int:
    """Number of complex unknowns."""
    return int(s.V.dofmap.index_map.size_global * s.V.dofmap.index_map_bs)
