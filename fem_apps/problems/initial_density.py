"""Initial densities of a case: expression, Gaussians, noise, picture, particles, field of a file.

Every one gives nodal values >= 0, normalised to the stated mass by lumped quadrature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.expressions import ExpressionText, parse
from fem_apps.fem.node_graph import NodeGraph
from fem_apps.fem.points import PointEvaluator
from fem_apps.mpi import extremes, on_rank_zero, same_error
from fem_apps.problems.data_files import (
    Find,
    interpolate_scattered,
    read_field,
    read_picture,
    read_positions,
)

NOISE_MODES = 256


class Initial(Table):
    """What every initial density has."""

    mass: float = Field(1.0, gt=0, description="total mass after normalisation")
    normalise: bool = Field(
        True, description="scale to the stated mass; false: the data as they are"
    )


class FromExpression(Initial):
    """An expression of x, y, z."""

    type: Literal["expression"]
    expression: ExpressionText = Field(description="density up to a factor, >= 0")


class Component(Table):
    """One Gaussian of a mixture."""

    centre: tuple[float, ...] = Field(description="its mean")
    width: float = Field(gt=0, description="its standard deviation")
    weight: float = Field(1.0, gt=0, description="its share of the mass, relative to the others'")


class FromGaussians(Initial):
    """A mixture of Gaussians."""

    type: Literal["gaussians"]
    components: tuple[Component, ...] = Field(min_length=1, description="the Gaussians")


class FromNoise(Initial):
    """Uniform with smooth random noise: 256 random waves, the same on any mesh and rank count."""

    type: Literal["uniform"]
    noise: float = Field(
        0.0, ge=0, le=1, description="standard deviation of the noise relative to the mean"
    )
    length: float = Field(
        0.1, gt=0, description="correlation length of the noise, in the mesh's unit"
    )


class FromPicture(Initial):
    """A picture over the domain's bounding box, or over `extent`; brightness is density."""

    type: Literal["picture"]
    file: Path = Field(description="PNG, JPEG, ...")
    invert: bool = Field(False, description="dark is dense")
    extent: tuple[float, float, float, float] | None = Field(
        None, description="x0, y0, x1, y1; zero outside"
    )


class FromParticles(Initial):
    """Positions of particles, each deposited with equal mass on the nodes of its cell."""

    type: Literal["particles"]
    file: Path = Field(description="CSV: x[,y[,z]], one particle a line, an optional header")


class FromFile(Initial):
    """A field of a file: point data of a mesh that meshio reads, or CSV lines x[,y[,z]],value."""

    type: Literal["file"]
    file: Path = Field(description="the file")
    field: str | None = Field(
        None, description="name of the point data; may be left out where there is one"
    )


InitialDensity = Annotated[
    FromExpression | FromGaussians | FromNoise | FromPicture | FromParticles | FromFile,
    Field(discriminator="type"),
]


def initial_density(
    initial: Initial, graph: NodeGraph, seed: int = 0, find: Find = Path
) -> np.ndarray:
    """Nodal values of an initial density, owned nodes, of the stated mass. Collective.

    Args:
        initial: a table of a case.
        graph: the nodes.
        seed: of the noise.
        find: gives the path of a file that the case names.

    Raises:
        CaseError: a negative or non-finite density, no mass, a file or particle that does not fit.
    """
    with same_error(graph.comm):
        values = (
            _local(initial, graph, seed)
            if not isinstance(initial, FromParticles | FromPicture | FromFile)
            else None
        )
    if values is None:
        values = _from_data(initial, graph, find)
    with same_error(graph.comm):
        if not np.isfinite(values).all():
            raise CaseError("initial: the density is not finite somewhere on the mesh")
        if (values < 0).any():
            i = int(values.argmin())
            raise CaseError(
                f"initial: the density is negative: {values[i]:.4g} at {graph.x[i].tolist()}"
            )
    mass = graph.integral(values)
    if mass <= 0:
        raise CaseError("initial: the density is zero on the whole mesh")
    return values * (initial.mass / mass) if initial.normalise else values


def _local(initial: Initial, graph: NodeGraph, seed: int) -> np.ndarray:
    x = graph.x
    if isinstance(initial, FromExpression):
        return parse(initial.expression).numpy(x.T)
    if isinstance(initial, FromGaussians):
        out = np.zeros(graph.n)
        for c in initial.components:
            if len(c.centre) != x.shape[1]:
                raise CaseError(f"initial: centre = {list(c.centre)} on a mesh in {x.shape[1]}D")
            d = x - np.array(c.centre)
            if graph.lattice:  # the nearest image
                basis = np.array(graph.lattice)
                d = d - np.round(d @ np.linalg.pinv(basis)) @ basis
            r2 = (d**2).sum(axis=1) / c.width**2
            out += c.weight / c.width**graph.V.mesh.topology.dim * np.exp(-r2 / 2)
        return out
    assert isinstance(initial, FromNoise)
    return np.maximum(1 + initial.noise * _waves(x, graph.lattice, initial.length, seed), 0.0)


def _waves(
    x: np.ndarray, lattice: tuple[tuple[float, ...], ...], length: float, seed: int
) -> np.ndarray:
    """A Gaussian random field of variance 1, correlation exp(-r^2 / 2 length^2): random waves."""
    rng = np.random.default_rng(seed)
    k = rng.standard_normal((NOISE_MODES, x.shape[1])) / length
    phase = rng.uniform(0, 2 * np.pi, NOISE_MODES)
    if lattice:
        dual = 2 * np.pi * np.linalg.pinv(np.array(lattice)).T
        k = np.round(k @ np.linalg.pinv(dual)) @ dual
    out = np.zeros(len(x))
    for wave, p in zip(k, phase, strict=True):
        out += np.cos(x @ wave + p)
    return out * np.sqrt(2 / NOISE_MODES)


def _from_data(initial: Initial, graph: NodeGraph, find: Find) -> np.ndarray:
    comm, x = graph.comm, graph.x
    if isinstance(initial, FromParticles):
        path = on_rank_zero(comm, find, initial.file)
        positions = on_rank_zero(comm, read_positions, path, x.shape[1])
        points = PointEvaluator(graph.V.mesh, positions, missing="error")
        E = points.matrix(graph.V)
        ones, out = E.createVecLeft(), E.createVecRight()
        ones.set(1.0)
        E.multTranspose(ones, out)
        values = graph.from_dofs(out.array_r[: graph.V.dofmap.index_map.size_local]) / graph.mass
        for o in (E, ones, out):
            o.destroy()
        return values
    if isinstance(initial, FromPicture):
        if x.shape[1] != 2:
            raise CaseError(f"initial: a picture is two-dimensional, the mesh is in {x.shape[1]}D")
        path = on_rank_zero(comm, find, initial.file)
        picture = on_rank_zero(comm, read_picture, path, initial.invert)
        extent = initial.extent
        if extent is None:
            (x0, x1), (y0, y1) = (extremes(comm, x[:, k]) for k in range(2))
            extent = (x0, y0, x1, y1)
        with same_error(comm):
            return picture.sample(x, extent)
    assert isinstance(initial, FromFile)
    return field_of_file(graph, initial.file, initial.field, find)


def field_of_file(graph: NodeGraph, file: Path, name: str | None, find: Find) -> np.ndarray:
    """Nodal values of a field that a file holds, interpolated linearly. Collective."""
    path = on_rank_zero(graph.comm, find, file)
    points, values = on_rank_zero(graph.comm, read_field, path, name, graph.x.shape[1])
    return interpolate_scattered(
        points, values, graph.x, surface=graph.V.mesh.topology.dim < graph.x.shape[1]
    )
