"""Integrals, norms, owned values and interpolation, the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import ufl
from dolfinx import default_scalar_type, fem
from mpi4py import MPI

from fem_apps import compat
from fem_apps.errors import CaseError
from fem_apps.fem.cells import largest_cell
from fem_apps.fem.expressions import Expression
from fem_apps.mpi import total

Norm = Literal["L1", "L2", "H1", "H1-seminorm", "max"]

# Raised by this much, quadrature and interpolation errors are far under an error worth measuring.
RAISED_DEGREE = 3


def integrate(form: Any) -> Any:
    """Integral of a form without arguments, over all ranks. Collective.

    Args:
        form: UFL, or compiled by `dolfinx.fem.form` (in a loop: compile before it).

    Returns:
        A float, or a complex number in a complex build.
    """
    if isinstance(form, ufl.Form):
        form = fem.form(form, dtype=default_scalar_type)
    return form.mesh.comm.allreduce(fem.assemble_scalar(form), op=MPI.SUM)


def owned(u: Any) -> np.ndarray:
    """The values of a function that this rank owns: a writable view, interleaved by component."""
    V = u.function_space
    return u.x.array[: V.dofmap.index_map.size_local * V.dofmap.index_map_bs]


def norm(u: Any, kind: Norm = "L2", *, mesh: Any = None, degree: int | None = None) -> float:
    """Norm of a function or of a UFL expression, over all ranks. Collective.

    Args:
        u: scalar or vector valued.
        kind: "L1" is int |u|, "H1" the square root of |u|_L2^2 + |grad u|_L2^2, "max" the largest
            absolute value of a degree of freedom (functions only).
        mesh: domain, where `u` does not tell.
        degree: quadrature degree; UFL's estimate if None.
    """
    if kind == "max":
        largest = float(np.abs(owned(u)).max(initial=0.0))
        return u.function_space.mesh.comm.allreduce(largest, op=MPI.MAX)
    dx = ufl.dx if mesh is None else ufl.dx(domain=mesh)
    if degree is not None:
        dx = dx(metadata={"quadrature_degree": degree})
    if kind == "L1":
        return float(np.real(integrate(ufl.sqrt(ufl.inner(u, u)) * dx)))
    if kind not in ("L2", "H1", "H1-seminorm"):
        raise ValueError(f"unknown norm {kind!r}")
    square = 0
    if kind in ("L2", "H1"):
        square += ufl.inner(u, u)
    if kind in ("H1", "H1-seminorm"):
        square += ufl.inner(ufl.grad(u), ufl.grad(u))
    return float(np.sqrt(np.real(integrate(square * dx))))


def error_norm(uh: Any, exact: Any, kind: Norm = "L2", *, t: float = 0.0) -> float:
    """Norm of uh - exact, with quadrature of a raised degree. Collective.

    Both are first brought to Lagrange functions of a degree higher by 3, and subtracted there, so
    that a small error is not lost in the cancellation of two integrals.

    Args:
        uh: computed function.
        exact: whatever `interpolate` takes.
        kind: see `norm`.
        t: time at which an `Expression` is taken.
    """
    V = uh.function_space
    mesh = V.mesh
    degree = V.ufl_element().degree + RAISED_DEGREE
    shape = tuple(V.value_shape)
    # discontinuous, so that nothing of a uh that jumps is lost
    W = fem.functionspace(
        mesh, ("Discontinuous Lagrange", degree, shape) if shape else ("DG", degree)
    )
    e = interpolate(W, exact, t=t)
    high = fem.Function(W)
    high.interpolate(uh)
    e.x.array[:] -= high.x.array
    return norm(e, kind, degree=2 * degree)


def interpolate(
    target: Any,
    source: Any,
    *,
    t: float = 0.0,
    parameters: Mapping[str, float] | None = None,
) -> Any:
    """Interpolate a source into a space. Collective.

    Args:
        target: a function space, or a function whose values are replaced.
        source: a number; an `Expression`; for vector spaces a sequence of these, one a component;
            a callable of coordinates, shape (3, n); a UFL expression; a function on this mesh or on
            another one. Where another mesh leaves a bit of the target out (two approximations of
            one curved boundary), its nearest cell is extended by up to a quarter of a cell.
        t: time, for an `Expression`.
        parameters: named parameters, for an `Expression`.

    Returns:
        The function, ghosts up to date.

    Raises:
        CaseError: an `Expression` is not finite somewhere on the mesh, or the source's mesh does
            not cover the target's.
    """
    u = target if isinstance(target, fem.Function) else fem.Function(target)
    V = u.function_space
    if isinstance(source, ufl.core.expr.Expr) and not ufl.domain.extract_domains(source):
        source = float(source)  # a constant belongs to no mesh
    if isinstance(source, fem.Function):
        if source.function_space.mesh is V.mesh or _same_mesh(source.function_space.mesh, V.mesh):
            u.interpolate(source)
        else:
            _interpolate_between(u, source)
    elif isinstance(source, ufl.core.expr.Expr):
        u.interpolate(fem.Expression(source, compat.interpolation_points(V)))
    else:
        u.interpolate(_callable(V, source, t, parameters or {}))
    u.x.scatter_forward()
    if isinstance(source, Expression | Sequence):
        _require_finite(u, source, t)
    return u


def _callable(
    V: Any, source: Any, t: float, parameters: Mapping[str, float]
) -> Callable[[np.ndarray], np.ndarray]:
    gdim = V.mesh.geometry.dim
    shape = tuple(V.value_shape)

    def values(s: Any, x: np.ndarray) -> np.ndarray:
        if isinstance(s, Expression):
            return s.numpy(x[:gdim], t, **parameters).astype(default_scalar_type)
        return np.full(x.shape[1], s, dtype=default_scalar_type)

    if isinstance(source, Sequence):
        if shape != (len(source),):
            raise CaseError(f"{len(source)} components given for a field of shape {shape}")
        return lambda x: np.stack([values(s, x) for s in source])
    if callable(source):
        return lambda x: np.asarray(source(x), dtype=default_scalar_type)
    if shape:
        size = int(np.prod(shape))
        return lambda x: np.broadcast_to(values(source, x), (size, x.shape[1])).copy()
    return lambda x: values(source, x)


def _require_finite(u: Any, source: Any, t: float) -> None:
    V = u.function_space
    bs = V.dofmap.index_map_bs
    bad = np.flatnonzero(~np.isfinite(owned(u)))
    where = None
    if bad.size:
        where = tuple(V.tabulate_dof_coordinates()[bad[0] // bs][: V.mesh.geometry.dim].tolist())
    places = [p for p in V.mesh.comm.allgather(where) if p is not None]
    if places:
        text = (
            source.text
            if isinstance(source, Expression)
            else [getattr(s, "text", s) for s in source]
        )
        place = ", ".join(f"{c:.6g}" for c in min(places))
        raise CaseError(f"expression {text!r} is not finite at ({place}), t = {t:g}")


def _same_mesh(a: Any, b: Any) -> bool:
    return a._cpp_object is b._cpp_object


def _interpolate_between(u: Any, source: Any) -> None:
    """Interpolate from another mesh; the padding grows until every point has found a cell."""
    V, W = u.function_space, source.function_space
    mesh = V.mesh
    index_map = mesh.topology.index_map(mesh.topology.dim)
    cells = np.arange(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
    h = largest_cell(W.mesh)
    missing = 0
    for factor in (1e-8, 1e-3, 0.25):
        data = fem.create_interpolation_data(V, W, cells, padding=factor * h)
        missing = total(
            mesh.comm, int(np.count_nonzero(np.asarray(compat.value_of(data.src_owner)) < 0))
        )
        if missing == 0:
            u.interpolate_nonmatching(source, cells, data)
            return
    raise CaseError(
        f"{missing} interpolation points of {u.name!r} lie more than a quarter of a cell outside "
        f"the mesh of {source.name!r}; give a source whose mesh covers the domain"
    )
