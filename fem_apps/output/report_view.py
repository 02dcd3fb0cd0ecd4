"""The last field of a run as an interactive view in HTML that needs no network: VTK.js.

pyvista's own export starts a web server of trame's to do this; the scene is serialised here with
the same library, trame-vtk, which also brings VTK.js as one file.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from fem_apps.errors import CaseError
from fem_apps.output.pictures import child_environment
from fem_apps.output.plot_field import Frames, read_frames
from fem_apps.output.plot_style import colours

SOLID = {"tetrahedron": "TETRA", "hexahedron": "HEXAHEDRON"}
PIXELS = 600
# triangles that a browser turns smoothly, and that keep the file small
MOST_CELLS = 400_000


def view_apart(folder: Path, seconds: float = 120.0) -> tuple[str, str]:
    """The page of the view, made by a process of its own, which a broken driver may end; else why.

    Returns:
        the page and "", or "" and why there is none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "view.html"
        command = [sys.executable, "-m", "fem_apps.output.report_view", str(folder.resolve())]
        try:
            done = subprocess.run(
                [*command, str(page)],
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            return "", f"drawing it failed: {e}"
        if page.is_file():
            return page.read_text(encoding="utf-8"), ""
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        return "", last[0].removeprefix("fem_apps.errors.CaseError: ")[:200]


def view(folder: Path) -> str:
    """The HTML page of the view.

    Args:
        folder: of a run, with `frames.npz`.

    Raises:
        CaseError: no frames, a domain of one dimension, more cells than a browser likes, or
            trame-vtk or pyvista is missing.
    """
    frames = read_frames(folder / "frames.npz")
    if frames.kind in ("line", "circle", "curve"):
        raise CaseError(f"the field over a {frames.kind} is shown as a picture")
    if len(frames.cells) > MOST_CELLS:
        raise CaseError(f"{len(frames.cells)} cells are too many for a page: see the pictures")
    try:
        import pyvista as pv
        from trame_vtk.tools.vtksz2html import write_html
    except ImportError as e:
        raise CaseError(f"no interactive view: {e}") from None
    pv.OFF_SCREEN = True
    plotter = pv.Plotter(off_screen=True, window_size=[PIXELS, PIXELS])
    plotter.set_background("white")  # type: ignore[arg-type]
    _draw(plotter, frames)
    plotter.render()
    page = io.StringIO()
    write_html(_scene(plotter.render_window), page)
    plotter.close()
    return page.getvalue()


def _draw(plotter: Any, frames: Frames) -> None:
    import numpy as np
    import pyvista as pv

    x = np.zeros((len(frames.points), 3))
    x[:, : frames.points.shape[1]] = frames.points
    values = frames.values[-1]
    cmap, limits = colours(values)
    grid: Any
    if frames.kind == "volume":
        solid = {getattr(pv.CellType, SOLID[frames.cell_type]): frames.cells}
        grid = pv.UnstructuredGrid(solid, x)
    else:
        grid = pv.PolyData.from_regular_faces(x, frames.cells)
    grid.point_data[frames.label] = values
    if frames.kind == "volume":
        low, high = x.min(axis=0), x.max(axis=0)
        middle, far = (low + high) / 2, 2 * high - low
        box = [middle[0], far[0], middle[1], far[1], middle[2], far[2]]
        grid = grid.clip_box(box, invert=True, crinkle=False).extract_surface(
            algorithm="dataset_surface"
        )
    plotter.add_mesh(
        grid,
        scalars=frames.label,
        cmap=cmap,
        clim=limits,
        show_scalar_bar=False,
        lighting=frames.kind != "plane",
        smooth_shading=frames.kind == "surface",
        ambient=0.5,
        diffuse=0.55,
    )
    plotter.view_xy() if frames.kind == "plane" else plotter.view_isometric()


def _scene(window: Any) -> bytes:
    """A render window as VTK.js reads it offline: index.json in a zip archive."""
    from trame_vtk.modules.vtk.serializers import (
        SynchronizationContext,
        configure_serializer,
        extract_array_hash,
        initialize_serializers,
        reference_id,
        serialize,
    )

    initialize_serializers()
    configure_serializer(encode_lut=True, skip_light=True)
    context = SynchronizationContext()
    context.set_ignore_last_dependencies(True)
    scene = serialize(None, window, reference_id(window), context, 1)
    camera = window.GetRenderers().GetFirstRenderer().GetActiveCamera()
    scene["extra"] = {
        "vtkRefId": reference_id(window),
        "centerOfRotation": camera.GetFocalPoint(),
        "camera": reference_id(camera),
    }
    arrays = {
        entry["hash"]: {**entry, "content": context.get_cached_data_array(entry["hash"], False)}
        for entry in extract_array_hash(scene)
    }
    content = json.dumps({"hashes": arrays, "scene": scene})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.json", content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(view(Path(sys.argv[1])), encoding="utf-8")
