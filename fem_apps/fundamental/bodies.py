"""Obstacles of a case, their boundary points, and where their sources go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.spatial import cKDTree

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.expressions import ExpressionText, parse
from fem_apps.fundamental import graded, surfaces, triangulation
from fem_apps.fundamental.surfaces import Surface
from fem_apps.fundamental.tables import Vector

Find = Callable[[str | Path], Path]
# points of the cloud from which graded points are taken; depth of the sources they are spaced for
FINE, DEPTH = 20_000, 0.6
GEOMETRIES = Path(__file__).parents[1] / "meshes"


class Body(Table):
    """What every obstacle has."""

    centre: Vector = Field((0.0, 0.0, 0.0), description="of the obstacle; a mesh is moved by it")
    condition: Literal["rigid", "cavity"] = Field(
        "rigid", description="rigid: u = 0 on the boundary; cavity: no traction"
    )
    rigid_where: ExpressionText | None = Field(
        None, description="mixed conditions: rigid where this of x, y, z is positive, else a cavity"
    )


class Sphere(Body):
    """A sphere."""

    type: Literal["sphere"]
    radius: float = Field(1.0, gt=0, description="radius")


class Ellipsoid(Body):
    """An ellipsoid with its axes along the coordinates."""

    type: Literal["ellipsoid"]
    axes: Vector = Field(description="semi-axes")

    @model_validator(mode="after")
    def _positive(self) -> Ellipsoid:
        if min(self.axes) <= 0:
            raise ValueError("axes must be positive")
        return self


class MeshBody(Body):
    """A closed surface from a gmsh geometry or a mesh file."""

    type: Literal["mesh"]
    geometry: str | None = Field(None, description="name of a packaged geometry: meshes/NAME.geo")
    file: Path | None = Field(None, description=".geo, .msh, .stl or any surface that meshio reads")
    parameters: dict[str, float] = Field({}, description="constants of the .geo")
    scale: float = Field(1.0, gt=0, description="factor of the coordinates")

    @model_validator(mode="after")
    def _one_source(self) -> MeshBody:
        if (self.geometry is None) == (self.file is None):
            raise ValueError("give either geometry or file")
        return self


Obstacle = Annotated[Sphere | Ellipsoid | MeshBody, Field(discriminator="type")]


class Sources(Table):
    """Where the sources go: number and place, for every obstacle."""

    count: int = Field(300, ge=4, le=20000, description="sources in each obstacle")
    oversampling: float = Field(
        2.5, ge=1.2, le=10, description="boundary points of collocation for each source"
    )
    placement: Literal["auto", "offset", "scaled", "confocal"] = Field(
        "auto",
        description="auto: the best of several, by the error at fresh boundary points; offset: "
        "inwards along the normal by a fraction of the largest inner ball; scaled: towards the "
        "centre; confocal: for ellipsoids",
    )
    fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="offset: of the inner ball's radius; scaled: factor of the distance to the "
        "centre; confocal: least semi-axis of the sources' ellipsoid over that of the obstacle",
    )
    file: Path | None = Field(
        None, description="sources of the user's own: lines x,y,z, in any of the obstacles"
    )
    resonance_check: bool = Field(
        True, description="look for interior resonances of the sources' surface and move it away"
    )

    @model_validator(mode="after")
    def _fraction(self) -> Sources:
        if self.placement != "auto" and self.fraction is None and self.file is None:
            raise ValueError(f"placement = {self.placement!r} needs fraction")
        return self


@dataclass(frozen=True)
class Mixed:
    """A cloud as in `Surface`, with distances d to the change of condition, (n,)."""

    x: np.ndarray
    normals: np.ndarray
    weights: np.ndarray
    depth: np.ndarray
    d: np.ndarray


@dataclass(frozen=True)
class Shape:
    """An obstacle's surface and its sampling.

    Attributes:
        body: its table.
        surface: its cloud.
    """

    body: Sphere | Ellipsoid | MeshBody
    surface: Surface

    @property
    def axes(self) -> np.ndarray | None:
        """Semi-axes of an ellipsoid, (3,)."""
        if isinstance(self.body, Sphere):
            return np.full(3, self.body.radius)
        return np.array(self.body.axes) if isinstance(self.body, Ellipsoid) else None

    def pole(self, forward: np.ndarray | None) -> np.ndarray:
        """Where points on a sphere or ellipsoid have the pole of their lattice, (3,).

        Along the wave on a sphere, where fields turn about it; along the least semi-axis else.
        """
        if isinstance(self.body, Sphere):
            return np.array([0.0, 0.0, 1.0]) if forward is None else forward
        # of equal ones the last, which leaves z to nearly round bodies
        return np.eye(3)[2 - int(np.argmin(np.array(self.axes)[::-1]))]

    def sample(
        self, n: int, seed: int = 0, forward: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """N boundary points with normals; another seed gives fresh points.

        Args:
            n: number of points.
            seed: 0 for collocation.
            forward: direction of the incident wave, (3,).
        """
        centre = np.array(self.body.centre)
        if self.axes is not None:
            pole = None if seed else self.pole(forward)
            return surfaces.on_ellipsoid(self.axes, centre, n, pole)[:2]  # type: ignore[return-value]
        at = triangulation.boundary_points(self.surface, n, seed)
        return self.surface.x[at], self.surface.normals[at]

    @cached_property
    def mixed(self) -> Mixed | None:
        """The cloud with its distances to the change of condition, or None if there is none."""
        if self.body.rigid_where is None:
            return None
        s = self.surface
        x, normals, weights, depth = s.x, s.normals, s.weights, s.depth
        if self.axes is not None:
            x, normals, weights = surfaces.on_ellipsoid(self.axes, np.array(self.body.centre), FINE)
            depth = depth[cKDTree(s.x).query(x)[1]]
        rigid = self.rigid(x)
        if rigid.all() or not rigid.any():
            return None
        return Mixed(x, normals, weights, depth, graded.from_change(x, rigid))

    def collocation(
        self, n: int, sources: int, forward: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """N boundary points for a number of sources, normals, weights; denser where it changes."""
        m = self.mixed
        if m is None:
            x, normals = self.sample(n, forward=forward)
            return x, normals, np.ones(len(x))
        depth = graded.depths(m.d, m.weights, DEPTH * m.depth, sources)
        # another start than that of the sources: points face the gaps between them
        at, weights = graded.points(m.x, depth, n, seed=len(m.x) // 2)
        return m.x[at], m.normals[at], weights

    def _graded(self, placement: str, fraction: float, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Sources where `placement` would have them, but no deeper than the change is far."""
        m, centre = self.mixed, np.array(self.body.centre)
        if m is None:
            raise ValueError("no change of condition")
        if placement == "offset":
            y = m.x - fraction * m.depth[:, None] * m.normals
        elif placement == "scaled" or self.axes is None:
            middle = centre if self.axes is not None else self.surface.centre
            y = middle + fraction * (m.x - middle)
        else:
            inner = np.sqrt(self.axes**2 - self.axes.min() ** 2 * (1 - fraction**2))
            y = centre + inner * (m.x - centre) / self.axes
        top = np.linalg.norm(y - m.x, axis=1)
        depth = graded.depths(m.d, m.weights, top, n)
        y = m.x + (depth / top)[:, None] * (y - m.x)
        kept = np.flatnonzero(self.contains(y))
        if not len(kept):
            raise CaseError("sources: none would be inside the obstacle")
        at = kept[graded.points(m.x[kept], depth[kept], n)[0]]
        return y[at], m.normals[at]

    def rigid(self, x: np.ndarray) -> np.ndarray:
        """Which boundary points are rigid."""
        if self.body.rigid_where is not None:
            return parse(self.body.rigid_where).numpy(x.T) > 0
        return np.full(len(x), self.body.condition == "rigid")

    def sources(
        self, placement: str, fraction: float, n: int, forward: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """N sources and the normals of their surface.

        Args:
            placement: "offset", "scaled" or "confocal".
            fraction: as in `Sources.fraction`.
            n: number of sources.
            forward: direction of the incident wave, (3,).

        Raises:
            CaseError: a source outside, a placement that does not fit the obstacle.
        """
        centre = np.array(self.body.centre)
        if placement == "confocal" and self.axes is None:
            raise CaseError("sources.placement = 'confocal': only for spheres and ellipsoids")
        if self.mixed is not None:
            return self._graded(placement, fraction, n)
        if placement == "confocal":
            a = np.array(self.axes)
            inner = np.sqrt(a**2 - a.min() ** 2 * (1 - fraction**2))
            pole = self.pole(forward)
            return surfaces.on_ellipsoid(inner, centre, n, pole)[:2]  # type: ignore[return-value]
        if placement == "scaled" or isinstance(self.body, Sphere):
            factor = fraction if placement == "scaled" else 1 - fraction
            middle = centre if self.axes is not None else self.surface.centre
            x, normals = self.sample(n, forward=forward)
            y = middle + factor * (x - middle)
        else:
            y, normals = self._offset(fraction, n)
        self.check_inside(y)
        return y, normals

    def _offset(self, fraction: float, n: int) -> tuple[np.ndarray, np.ndarray]:
        s = self.surface
        y = s.x - fraction * s.depth[:, None] * s.normals
        distance = fraction * s.depth
        kept = np.flatnonzero(surfaces.inside(s, y))
        if not len(kept):
            raise CaseError("sources.placement = 'offset': no source would be inside the obstacle")
        # denser where they are near the boundary
        scale = np.clip(distance[kept], 0.1 * distance.max(), None)
        at = kept[surfaces.spread(y[kept], n, scale)]
        return y[at], s.normals[at]

    def check_inside(self, y: np.ndarray) -> None:
        """Refuse sources that are not inside. Raises CaseError."""
        out = np.flatnonzero(~self.contains(y))
        if len(out):
            place = ", ".join(f"{v:.4g}" for v in y[out[0]])
            raise CaseError(
                f"sources: {len(out)} of {len(y)} lie outside their obstacle, the first at "
                f"({place}). "
                "Remedy: placement = 'offset', or a smaller fraction"
            )

    def contains(self, y: np.ndarray) -> np.ndarray:
        """Which points are inside."""
        if self.axes is not None:
            return np.sum(((y - self.body.centre) / self.axes) ** 2, axis=1) < 1 - 1e-9
        return surfaces.inside(self.surface, y)


def shape_of(body: Sphere | Ellipsoid | MeshBody, find: Find) -> Shape:
    """The surface of an obstacle's table.

    Raises:
        CaseError: no such file or geometry, an open or self-intersecting surface.
    """
    if not isinstance(body, MeshBody):
        axes = np.full(3, body.radius) if isinstance(body, Sphere) else np.array(body.axes)
        return Shape(body, surfaces.ellipsoid(axes, np.array(body.centre)))
    if body.geometry is not None:
        path = GEOMETRIES / f"{body.geometry}.geo"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in GEOMETRIES.glob("*.geo")))
            raise CaseError(f"geometry = {body.geometry!r} is not known; known: {known}")
    else:
        path = find(body.file or "")
    x, cells = triangulation.read_triangles(path, body.parameters)
    surface = triangulation.surface_of(body.scale * x + np.array(body.centre), cells, str(path))
    return Shape(body, surface)


def check_apart(shapes: list[Shape]) -> None:
    """Refuse obstacles that overlap. Raises CaseError."""
    for i, a in enumerate(shapes):
        for j, b in enumerate(shapes):
            if i != j and a.contains(b.surface.x).any():
                raise CaseError(
                    f"obstacle {j + 1} reaches into obstacle {i + 1}: obstacles must be apart"
                )


def moved(shape: Shape, by: np.ndarray) -> Shape:
    """The same obstacle elsewhere."""
    centre = tuple((np.array(shape.body.centre) + by).tolist())
    body = shape.body.model_copy(update={"centre": centre})
    return Shape(body, replace(shape.surface, x=shape.surface.x + by))
