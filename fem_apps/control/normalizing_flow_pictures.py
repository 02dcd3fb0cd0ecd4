"""Pictures of a controlled flow, drawn from `flow.npz` alone, in a process of their own.

* `density.png`: the target, what the flow makes of the Gaussian, and particles;
* `entropy.png`: KL(rho_t | rho_*) along the flow, and entropy against switches where studied;
* `animation.gif`: particles and density while the pieces act one after the other.

    python -m fem_apps.control.normalizing_flow_pictures FOLDER
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fem_apps
from fem_apps.control.normalizing_flow_map import Schedule, forward, log_density
from fem_apps.output.files import write_whole
from fem_apps.output.pictures import LAUNCHERS
from fem_apps.output.plot_style import LINES, SEQUENTIAL, png, style

SECONDS = 300.0
PARTICLES = 3000
# KL against switches of docs/normalizing_flow.md: strips of equal mass, equispaced knots
REFERENCE = ((36, 0.409), (66, 0.167), (398, 0.0234), (1310, 0.0070))


def draw_flow(folder: Path, *, seconds: float = SECONDS) -> list[str]:
    """Draw all pictures of a run folder; returns what was left out and why. On one rank."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
    environment["MPLBACKEND"] = "Agg"
    root = str(Path(fem_apps.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", __name__, str(folder.resolve())]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as e:
        return [f"pictures left out: {e}"]
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return [f"pictures left out: {last[0][:200]}"]
    return []


def _schedule(f: dict[str, Any]) -> Schedule:
    return Schedule(f["w"], f["a"], f["b"], f["tau"])


def density_picture(f: dict[str, Any]) -> bytes:
    """Target and push-forward."""
    import matplotlib.pyplot as plt

    s = _schedule(f)
    style()
    if s.dim == 1:
        x, p, y, q = _profiles(f, s)
        figure, ax = plt.subplots(figsize=(4.2, 2.6), layout="constrained")
        ax.plot(x, p, "--", color="0.5", label="target")
        ax.plot(y, q, color=LINES[0], label=f"flow, {s.switches} switches")
        ax.set_xlabel("$x$")
        ax.set_ylabel("density")
        ax.set_ylim(bottom=0)
        ax.legend()
        return png(figure)
    particles = forward(s, np.random.default_rng(0).standard_normal((PARTICLES, s.dim)))
    if s.dim > 2 or "masses" not in f:
        figure, axes = plt.subplots(1, s.dim - 1, figsize=(2.4 * (s.dim - 1), 2.6), squeeze=False)
        for i, ax in enumerate(axes[0]):
            ax.plot(
                particles[:, 0], particles[:, i + 1], ".", ms=1, color=LINES[0], rasterized=True
            )
            ax.set_xlabel("$x_1$")
            ax.set_ylabel(f"$x_{i + 2}$")
        figure.tight_layout()
        return png(figure)
    target, made, extent = _planes(f, s)
    figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9), layout="constrained")
    top = float(np.quantile(target[target > 0], 0.999))
    panels = (("target", target), (f"flow, {s.switches} switches", made))
    for ax, (title, values) in zip(axes, panels, strict=False):
        image = ax.imshow(
            values.T, origin="lower", extent=extent, cmap=SEQUENTIAL, vmin=0, vmax=top
        )
        ax.set_title(title)
    figure.colorbar(image, ax=list(axes[:2]), shrink=0.85, label="density")
    axes[2].plot(particles[:, 0], particles[:, 1], ".", ms=1, color=LINES[0], rasterized=True)
    axes[2].set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    axes[2].set_title("particles")
    for ax in axes:
        ax.set_xlabel("$x_1$")
    axes[0].set_ylabel("$x_2$")
    return png(figure)


def _profiles(f: dict[str, Any], s: Schedule) -> tuple[np.ndarray, ...]:
    """Midpoints and density of the target's cells, and a finer line of the flow's."""
    low, high = f["box"][0]
    e = np.linspace(low, high, len(f["masses"]) + 1)
    y = np.linspace(low, high, 4000)
    return (
        0.5 * (e[1:] + e[:-1]),
        f["masses"] / np.diff(e) / f["masses"].sum(),
        y,
        np.exp(log_density(s, y[:, None])),
    )


def _planes(f: dict[str, Any], s: Schedule) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    mass = f["masses"]
    edges = [np.linspace(a, b, n + 1) for (a, b), n in zip(f["box"], mass.shape, strict=True)]
    area = np.diff(edges[0])[0] * np.diff(edges[1])[0]
    centre = np.stack(np.meshgrid(*[0.5 * (e[1:] + e[:-1]) for e in edges], indexing="ij"), axis=-1)
    made = np.exp(log_density(s, centre.reshape(-1, 2))).reshape(mass.shape)
    keep = []  # where there is something to see
    for axis in (0, 1):
        along = np.cumsum(mass.sum(axis=1 - axis)) / mass.sum()
        keep.append(slice(*np.searchsorted(along, [2e-4, 1 - 2e-4])))
    x, y = (e[k.start : k.stop + 1] for e, k in zip(edges, keep, strict=True))
    window = tuple(keep)
    return mass[window] / area / mass.sum(), made[window], (x[0], x[-1], y[0], y[-1])


def entropy_picture(f: dict[str, Any]) -> bytes:
    """KL along the flow; KL against switches."""
    import matplotlib.pyplot as plt

    style()
    study = json.loads(str(f["study"]))
    figure, axes = plt.subplots(
        1,
        2 if study else 1,
        figsize=(6.6 if study else 3.6, 2.6),
        layout="constrained",
        squeeze=False,
    )
    ax = axes[0, 0]
    ax.plot(f["times"], f["entropy"])
    ax.set_yscale("symlog", linthresh=1.0)
    ax.set_xlabel("time")
    ax.set_ylabel(r"KL$(\rho_t\,|\,\rho_*)$")
    if study:
        ax = axes[0, 1]
        n, kl, bound = (np.array([row[k] for row in study]) for k in ("switches", "kl", "bound"))
        order = np.argsort(n)
        ax.loglog(n[order], kl[order], "o-", label="this construction")
        ax.loglog(bound[order], kl[order], "^:", color="0.5", label="enough by the $W_1$ theorem")
        if len(f["box"]) == 2 and "four gaussians" in str(f["title"]).lower():
            ax.loglog(
                *np.array(REFERENCE).T, "s--", color=LINES[1], label="equal strips, even knots"
            )
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1))
        ax.set_xlabel("switches")
        ax.set_ylabel(r"KL$(\rho_*\,|\,\rho_N)$")
    return png(figure)


def animation(f: dict[str, Any]) -> bytes | None:
    """Particles while the pieces act, in one or two dimensions."""
    import imageio.v3 as iio
    import matplotlib.pyplot as plt

    s = _schedule(f)
    if s.dim > 2 or not len(s.b):
        return None
    style()
    x = np.random.default_rng(1).standard_normal((PARTICLES, s.dim))
    # where particles are while a staircase lifts them is of no interest: the frame is the target's
    box = np.array([[min(a, -4.0), max(b, 4.0)] for a, b in f["box"]])
    stops = np.unique(np.linspace(0, len(s.b), int(f["frames"])).astype(int))
    figure, ax = plt.subplots(
        figsize=(4.0, 4.0 if s.dim == 2 else 2.6), dpi=100, layout="constrained"
    )
    images, begin = [], 0
    for stop in stops:
        part = Schedule(s.w[begin:stop], s.a[begin:stop], s.b[begin:stop], s.tau[begin:stop])
        x, begin = (forward(part, x) if stop > begin else x), int(stop)
        ax.clear()
        if s.dim == 2:
            ax.plot(x[:, 0], x[:, 1], ".", ms=1.2, color=LINES[0])
            ax.set(xlim=box[0], ylim=box[1], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
        else:
            bins = [float(e) for e in np.linspace(box[0, 0], box[0, 1], 80)]
            ax.hist(x[:, 0], bins=bins, density=True, color=LINES[0])
            ax.set(xlim=box[0], xlabel="$x$", ylabel="density")
        ax.set_title(f"after {stop} of {len(s.b)} pieces")
        figure.canvas.draw()
        canvas: Any = figure.canvas
        images.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    plt.close(figure)
    buffer = io.BytesIO()
    durations = [150] * (len(images) - 1) + [1500]
    iio.imwrite(buffer, np.array(images), extension=".gif", duration=durations, loop=0)
    return buffer.getvalue()


def main(arguments: list[str]) -> int:
    """The command."""
    folder = Path(arguments[0])
    with np.load(folder / "flow.npz", allow_pickle=False) as data:
        f = {k: data[k] for k in data.files}
    write_whole(folder / "density.png", density_picture(f))
    write_whole(folder / "entropy.png", entropy_picture(f))
    moving = animation(f)
    if moving is not None:
        write_whole(folder / "animation.gif", moving)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
