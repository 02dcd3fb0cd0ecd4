"""Data that a case names: pictures, particle positions, fields. Read on one rank, plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fem_apps.errors import CaseError

Find = Callable[[Path], Path]


@dataclass(frozen=True)
class Picture:
    """Grey values in [0, 1], shape (rows, columns), first row on top."""

    grey: np.ndarray

    def sample(self, x: np.ndarray, extent: tuple[float, float, float, float]) -> np.ndarray:
        """Bilinear values at points (n, 2), the picture over x0, y0, x1, y1; zero outside."""
        from scipy.ndimage import map_coordinates

        x0, y0, x1, y1 = extent
        if not (x1 > x0 and y1 > y0):
            raise CaseError(f"initial.extent = {list(extent)}: x0 < x1 and y0 < y1 are needed")
        rows, columns = self.grey.shape
        u, v = (x[:, 0] - x0) / (x1 - x0), (x[:, 1] - y0) / (y1 - y0)
        places = np.stack([(1 - v) * rows - 0.5, u * columns - 0.5])
        inside = (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
        return np.where(inside, map_coordinates(self.grey, places, order=1, mode="nearest"), 0.0)


def read_picture(path: Path, invert: bool) -> Picture:
    """Brightness of a picture; transparent parts count as empty. Raises CaseError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as im:
            la = np.asarray(im.convert("LA"), dtype=float) / 255
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
        raise CaseError(f"cannot read {path} as a picture: {e}") from None
    grey = 1 - la[..., 0] if invert else la[..., 0]
    return Picture(grey * la[..., 1])


def read_positions(path: Path, dim: int) -> np.ndarray:
    """Positions of particles, shape (n, dim), from CSV. Raises CaseError."""
    return _numbers(path, dim, "particle positions x[,y[,z]]")


def read_field(path: Path, name: str | None, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, dim) and values (n,) of a field. Raises CaseError."""
    if path.suffix.lower() in (".csv", ".txt"):
        table = _numbers(path, dim + 1, f"{dim} coordinates and a value")
        return table[:, :dim], table[:, dim]
    import meshio

    try:
        read = meshio.read(path)
    except (Exception, SystemExit) as e:  # meshio raises whatever its readers raise, or exits
        raise CaseError(f"cannot read {path}: {e or type(e).__name__}") from None
    known = sorted(read.point_data)
    if name is None and len(known) == 1:
        name = known[0]
    if name not in read.point_data:
        raise CaseError(f"{path} has no point data {name!r}; it has: {', '.join(known) or 'none'}")
    values = np.asarray(read.point_data[name], dtype=float)
    if values.ndim > 1 and values.shape[1:] != (1,):
        raise CaseError(
            f"{path}: the point data {name!r} is no scalar, its shape is {values.shape}"
        )
    return np.asarray(read.points, dtype=float)[:, :dim], values.ravel()


def interpolate_scattered(
    points: np.ndarray, values: np.ndarray, x: np.ndarray, *, surface: bool
) -> np.ndarray:
    """Values at x, shape (n, dim): linear between the points, the nearest one's outside their hull.

    On surfaces the nearest point's value.
    """
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

    if x.shape[1] == 1:
        order = np.argsort(points[:, 0])
        return np.interp(x[:, 0], points[order, 0], values[order])
    nearest = NearestNDInterpolator(points, values)(x)
    if surface:
        return np.asarray(nearest)
    linear = LinearNDInterpolator(points, values)(x)
    return np.where(np.isnan(linear), nearest, linear)


def _numbers(path: Path, columns: int, what: str) -> np.ndarray:
    rows: list[list[float]] = []
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise CaseError(f"cannot read {path}: {e}") from None
    for i, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cells = line.replace(",", " ").replace(";", " ").split()
        try:
            row = [float(c) for c in cells]
        except ValueError:
            if not rows and i <= 1:
                continue  # a header
            raise CaseError(f"{path}, line {i}: {line.strip()!r} is not {what}") from None
        if len(row) != columns or not np.isfinite(row).all():
            raise CaseError(
                f"{path}, line {i}: {line.strip()!r} is not {what} ({columns} finite numbers)"
            )
        rows.append(row)
    if not rows:
        raise CaseError(f"{path} is empty: {what} were expected")
    return np.array(rows)
