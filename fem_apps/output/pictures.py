"""Pictures of a run, drawn from its folder alone: no DOLFINx, no MPI.

`draw` starts `python -m fem_apps.output.pictures FOLDER`, because an off-screen driver that is
missing can crash the process that renders, and a run must still finish.

* `history.png`: what the history says of energy, mass, extremes and the rest, against time;
* `field.png`: the last field (in one dimension: first, intermediate and last);
* `evolution.png`: six snapshots;
* `animation.gif`: for plane domains and surfaces.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fem_apps
from fem_apps.errors import CaseError

log = logging.getLogger(__name__)

SECONDS = 300.0
# A child of an MPI process that sees these takes itself for a rank.
LAUNCHERS = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "HYDRA_", "HYDI_", "MPIR_CVAR_", "MPI_LOCALNRANKS")


def draw(folder: str | Path, *, seconds: float = SECONDS) -> list[str]:
    """Draw all pictures of a run folder, in a process of its own. On one rank.

    Args:
        folder: with `frames.npz` and `history.csv`, either may be missing.
        seconds: limit, after which what is drawn is drawn.

    Returns:
        What was left out and why, one line each; empty if nothing was.
    """
    notes, crash = _attempt(Path(folder), [], seconds)
    if crash is None:
        return notes
    again, second = _attempt(Path(folder), ["--no-pyvista"], seconds)
    notes = [f"pyvista left out: drawing with it {crash}", *again]
    if second is not None:
        notes.append(f"pictures left out: drawing by matplotlib {second}")
    return notes


def _attempt(folder: Path, options: list[str], seconds: float) -> tuple[list[str], str | None]:
    """Notes of the drawing process, and what became of it if it did not finish."""
    command = [sys.executable, "-m", "fem_apps.output.pictures", str(folder.resolve()), *options]
    try:
        done = subprocess.run(
            command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [], f"took more than {seconds:g} s"
    except OSError as e:
        return [], f"could not start: {e}"
    log.debug("%s", done.stderr)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1]), None
    if done.returncode < 0:
        return [], f"crashed ({signal.Signals(-done.returncode).name})"
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    return [], f"failed ({last[0][:200]})"


def child_environment() -> dict[str, str]:
    """Environment of a process that draws: no rank, no display."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
    environment.pop("DISPLAY", None)  # off screen; a display that does not answer would hang
    environment["MPLBACKEND"] = "Agg"
    environment["PYVISTA_OFF_SCREEN"] = "true"
    root = str(Path(fem_apps.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return environment


def draw_here(folder: Path, *, with_pyvista: bool = True) -> list[str]:
    """Draw all pictures in this process; what fails is left out and said."""
    from fem_apps.output import plot_field, plot_history
    from fem_apps.output.files import write_whole

    notes: list[str] = []

    def make(name: str, picture: Callable[[], bytes | None]) -> None:
        try:
            content = picture()
        except CaseError as e:
            notes.append(f"{name} left out: {e}")
        except Exception as e:  # whatever a renderer raises: the other pictures are still drawn
            log.debug("%s", name, exc_info=True)
            notes.append(f"{name} left out: {type(e).__name__}: {e}")
        else:
            if content is not None:
                write_whole(folder / name, content)

    make("history.png", lambda: plot_history.history(folder / "history.csv"))
    try:
        frames = plot_field.read_frames(folder / "frames.npz")
    except CaseError as e:
        return [*notes, f"pictures of the field left out: {e}"]
    notes += frames.notes
    painter = plot_field.painter(frames, with_pyvista=with_pyvista, notes=notes)
    if painter is None:
        return notes
    make("field.png", lambda: plot_field.field(frames, painter))
    if len(frames.times) > 1:
        make("evolution.png", lambda: plot_field.evolution(frames, painter))
    if len(frames.times) > 2 and frames.kind in ("plane", "surface"):
        make("animation.gif", lambda: plot_field.animation(frames, painter))
    return notes


def main(arguments: list[str]) -> int:
    """The command: FOLDER [--no-pyvista]; prints the notes as JSON on the last line."""
    notes = draw_here(Path(arguments[0]), with_pyvista="--no-pyvista" not in arguments[1:])
    sys.stdout.write(json.dumps(notes) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
