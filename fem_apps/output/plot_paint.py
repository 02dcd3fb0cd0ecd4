"""Painters: put one frame of a field into axes, by pyvista off screen or by matplotlib."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from fem_apps.errors import CaseError

# Rendered pixels for one of the figure, which scales them down and so smooths edges.
OVERSAMPLING = 1.8
CORNERS = {"interval": 2, "triangle": 3, "quadrilateral": 4, "tetrahedron": 4, "hexahedron": 8}


class Painter(Protocol):
    """Paints frames of one mesh.

    `views` is 2 where front and back are worth showing, else 1; `frame` whether axes have
    coordinates.
    """

    views: int
    frame: bool

    def paint(
        self, ax: Any, values: np.ndarray, cmap: str, limits: tuple[float, float], view: int = 0
    ) -> Any:
        """Draw the values into empty axes; returns what `repaint` takes."""

    def repaint(
        self, artist: Any, values: np.ndarray, cmap: str, limits: tuple[float, float]
    ) -> None:
        """Replace the values of what was drawn."""


class Triangles:
    """A plane domain by matplotlib alone."""

    views, frame = 1, True

    def __init__(self, points: np.ndarray, cells: np.ndarray) -> None:
        """Of triangles or quadrilaterals."""
        from matplotlib.tri import Triangulation

        if cells.shape[1] == 4:  # corners of a quadrilateral go round
            cells = np.concatenate([cells[:, [0, 1, 2]], cells[:, [0, 2, 3]]])
        self._triangulation = Triangulation(points[:, 0], points[:, 1], cells)

    def paint(
        self, ax: Any, values: np.ndarray, cmap: str, limits: tuple[float, float], view: int = 0
    ) -> Any:
        """See `Painter`."""
        artist = ax.tripcolor(
            self._triangulation,
            values,
            shading="gouraud",
            cmap=cmap,
            vmin=limits[0],
            vmax=limits[1],
        )
        ax.set_aspect("equal")
        ax.margins(0)
        return artist

    def repaint(
        self, artist: Any, values: np.ndarray, cmap: str, limits: tuple[float, float]
    ) -> None:
        """See `Painter`."""
        artist.set_array(values)


class Curve:
    """A curve in the plane, drawn in colours."""

    views, frame = 1, True

    def __init__(self, points: np.ndarray, cells: np.ndarray) -> None:
        """Of intervals."""
        if points.shape[1] != 2:
            raise CaseError("curves in space are not drawn")
        self._cells, self._segments = cells, points[cells]

    def paint(
        self, ax: Any, values: np.ndarray, cmap: str, limits: tuple[float, float], view: int = 0
    ) -> Any:
        """See `Painter`."""
        from matplotlib.collections import LineCollection

        artist = LineCollection(self._segments, cmap=cmap, linewidths=2.5, capstyle="round")
        artist.set_array(values[self._cells].mean(axis=1))
        artist.set_clim(*limits)
        ax.add_collection(artist)
        ax.autoscale()
        ax.set_aspect("equal")
        return artist

    def repaint(
        self, artist: Any, values: np.ndarray, cmap: str, limits: tuple[float, float]
    ) -> None:
        """See `Painter`."""
        artist.set_array(values[self._cells].mean(axis=1))


class Scene:
    """Plane domains, surfaces and volumes by pyvista off screen.

    A plane domain fills the image and gets axes; surfaces are seen from (1, 1, 1), closed ones from
    behind too; of volumes the octant towards the viewer is cut away.
    """

    def __init__(self, points: np.ndarray, cells: np.ndarray, cell_type: str, kind: str) -> None:
        """Set up the renderer; `kind` is plane, surface or volume."""
        import pyvista as pv

        pv.OFF_SCREEN = True
        self._kind, self._count = kind, len(points)
        x = np.zeros((len(points), 3))
        x[:, : points.shape[1]] = points
        if kind == "volume":
            solid = {"tetrahedron": pv.CellType.TETRA, "hexahedron": pv.CellType.HEXAHEDRON}
            self._grid = pv.UnstructuredGrid({solid[cell_type]: cells}, x)
        else:
            self._grid = pv.PolyData.from_regular_faces(x, cells)
        self._grid.point_data["v"] = np.zeros(len(points))
        self._low, self._high = x.min(axis=0), x.max(axis=0)
        self.frame = kind == "plane"
        self.views = 2 if kind == "surface" and _closed(cells) else 1
        size = self._high - self._low
        self._ratio = size[:2] / size[:2].max() if self.frame else np.ones(2)
        self._pixels = 100
        self._plotter = pv.Plotter(off_screen=True, window_size=self._window(self._pixels))
        self._crop: dict[tuple[int, int], tuple[slice, slice]] = {}

    def _window(self, pixels: int) -> list[int]:
        return [max(8, round(pixels * r)) for r in self._ratio]

    def paint(
        self, ax: Any, values: np.ndarray, cmap: str, limits: tuple[float, float], view: int = 0
    ) -> Any:
        """See `Painter`."""
        room = ax.get_window_extent()
        self._pixels = round(OVERSAMPLING * max(room.width, room.height))
        image = self._image(values, cmap, limits, view)
        if self.frame:
            extent = (self._low[0], self._high[0], self._low[1], self._high[1])
            return ax.imshow(image, extent=extent, interpolation_stage="rgba")
        ax.axis("off")
        return ax.imshow(image, interpolation_stage="rgba")

    def repaint(
        self, artist: Any, values: np.ndarray, cmap: str, limits: tuple[float, float]
    ) -> None:
        """See `Painter`."""
        artist.set_data(self._image(values, cmap, limits, 0))

    def _image(
        self, values: np.ndarray, cmap: str, limits: tuple[float, float], view: int
    ) -> np.ndarray:
        """RGBA, transparent where nothing is."""
        self._grid.point_data["v"] = values
        shown = self._grid
        if self._kind == "volume":
            middle = (self._low + self._high) / 2
            far = self._high + (self._high - self._low)
            box = [middle[0], far[0], middle[1], far[1], middle[2], far[2]]
            shown = shown.clip_box(box, invert=True, crinkle=False)
        shape: dict[str, Any] = (
            {"lighting": False}
            if self.frame
            else {"ambient": 0.5, "diffuse": 0.55, "specular": 0.0}
        )
        shape["smooth_shading"] = self._kind == "surface"
        self._plotter.window_size = self._window(self._pixels)
        self._plotter.add_mesh(
            shown,
            name="field",
            scalars="v",
            cmap=cmap,  # type: ignore[arg-type]
            clim=limits,
            show_scalar_bar=False,
            interpolate_before_map=True,
            reset_camera=False,
            **shape,
        )
        self._look(view)
        self._plotter.render()
        image = np.asarray(self._plotter.screenshot(transparent_background=True, return_img=True))
        if image.ndim != 3 or not image[..., -1].any():
            raise CaseError("off-screen rendering gives empty images")
        if self.frame:
            return image
        key = (view, self._pixels)
        if key not in self._crop:
            rows, columns = (np.flatnonzero(image[..., -1].any(axis=a)) for a in (1, 0))
            self._crop[key] = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        return image[self._crop[key]]

    def _look(self, view: int) -> None:
        camera = self._plotter.camera
        middle = (self._low + self._high) / 2
        size = np.linalg.norm(self._high - self._low)
        camera.parallel_projection = True
        camera.focal_point = middle
        if self.frame:
            camera.position = middle + np.array([0.0, 0.0, size])
            camera.up = (0, 1, 0)
            camera.parallel_scale = (self._high - self._low)[1] / 2
        else:
            side = -1 if view else 1
            camera.position = middle + 2 * side * size * np.array([1.0, 0.8, 0.6])
            camera.up = (0, 0, 1)
            camera.parallel_scale = size / 2
        self._plotter.renderer.reset_camera_clipping_range()


def _closed(cells: np.ndarray) -> bool:
    """Whether every edge of a surface belongs to two cells."""
    n = cells.shape[1]
    edges = np.concatenate([cells[:, [i, (i + 1) % n]] for i in range(n)])
    return bool((np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)[1] == 2).all())
