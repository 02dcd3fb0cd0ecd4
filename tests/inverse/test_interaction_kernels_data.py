"""Data sources end to end: run folders of the forward problem, pictures, particles; restart."""

import json
import re

import numpy as np
import pytest

from fem_apps.cli import main
from fem_apps.inverse import interaction_kernels_estimate as estimate
from fem_apps.inverse import interaction_kernels_simulate as simulate
from fem_apps.inverse.interaction_kernels_synthetic import particle_paths
from fem_apps.output.folder import Run

LINE = {"geometry": "interval", "parameters": {"a": -4, "b": 4, "h": 0.1}}
SQUARE = {
    "geometry": "rectangle",
    "parameters": {"x0": -3, "y0": -3, "width": 6, "height": 6, "h": 0.25},
}
QUIET = {"pictures": False, "fields": False, "radius": 2}


def execute(monkeypatch, folder, raw, *flags, status=0):
    """Run a case; returns the summary's metrics."""
    import tomli_w

    (folder / "case.toml").write_text(tomli_w.dumps(raw))
    out = folder / "run"
    monkeypatch.setattr(
        "sys.argv", ["fem-apps", "run", str(folder / "case.toml"), "--out", str(out), *flags]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0) == status
    if status == 2:
        return {}
    return json.loads((out / "summary.json").read_text())["metrics"]


def inference(data, mesh=LINE, **tables):
    return {
        "kind": "kernel-inference",
        "mesh": mesh,
        "diffusion": [{"exponent": 1, "coefficient": 0.2}],
        "dictionary": [
            {"type": "power", "exponents": [2, 4]},
            {"type": "gaussian", "widths": [0.5]},
        ],
        "data": data,
        "verify": {"times": 3, "tolerance": 1e-3},
        "output": QUIET,
        **tables,
    }


def test_run_folders_of_the_forward_problem(tmp_path, monkeypatch):
    forward = {
        "kind": "aggregation-diffusion",
        "mesh": LINE,
        "diffusion": [{"exponent": 1, "coefficient": 0.2}],
        "interaction": [{"type": "power", "exponent": 2, "strength": 1.0}],
        "initial": {"type": "expression", "expression": "exp(-(x-1)**2/0.3) + exp(-(x+1)**2/0.5)"},
        "time": {"end": 0.6, "tolerance": 1e-4},
        "output": {"frames": 24, "fields": False},
    }
    (tmp_path / "forward").mkdir()
    execute(monkeypatch, tmp_path / "forward", forward)
    data = {"type": "runs", "folders": ["forward/run"]}
    m = execute(monkeypatch, tmp_path, inference(data))
    assert m["support"] == ["power(2)"]
    assert m["coefficients"]["power(2)"] == pytest.approx(1.0, abs=0.03)
    assert m["w2_data"] < 0.02
    data["folders"] = ["nowhere"]
    execute(monkeypatch, tmp_path, inference(data), "--overwrite", status=2)


def test_pictures(tmp_path, monkeypatch):
    """Eight-bit pictures of a Gaussian that W = |x|^2/2 and diffusion contract."""
    from PIL import Image

    times = np.linspace(0, 0.8, 9)
    g = (np.arange(96) + 0.5) / 96 * 6 - 3
    x, y = np.meshgrid(g, -g)
    names = []
    for n, t in enumerate(times):
        s = 0.2 + (0.7 - 0.2) * np.exp(-2 * t)
        image = np.exp(-(x**2 + y**2) / (2 * s))
        names.append(f"{n}.png")
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(tmp_path / names[-1])
    data = {"type": "images", "files": names, "times": times.tolist(), "extent": [-3, -3, 3, 3]}
    case = inference(data, SQUARE, solver={"method": "best-subset", "size": 1})
    m = execute(monkeypatch, tmp_path, case)
    assert m["coefficients"]["power(2)"] == pytest.approx(1.0, abs=0.05)
    data["extent"] = [-3, -3, -3, 3]
    execute(monkeypatch, tmp_path, inference(data, SQUARE), "--overwrite", status=2)
    data["extent"], data["times"] = [-3, -3, 3, 3], times[::-1].tolist()
    execute(monkeypatch, tmp_path, inference(data, SQUARE), "--overwrite", status=2)


@pytest.mark.parametrize("dim", [1, 2])
def test_particles_with_unknown_diffusion(dim, tmp_path, monkeypatch):
    """Labelled rows of a CSV file in any order: sigma and W; without labels it says why not."""
    rng, N, t = np.random.default_rng(dim), 400, np.linspace(0, 0.5, 11)
    x0 = rng.standard_normal((N, dim)) + rng.integers(0, 2, (N, 1))
    x = particle_paths(x0, lambda r: r, t, sigma=0.1, substeps=4, rng=rng)
    names = ["x", "y"][:dim]
    rows = [(s, k, *p) for s, places in zip(t, x, strict=True) for k, p in enumerate(places)]
    rng.shuffle(rows)
    text = "\n".join(",".join(f"{v:.10g}" for v in row) for row in rows)
    (tmp_path / "p.csv").write_text(",".join(["t", "who", *names]) + "\n" + text + "\n")
    data = {"type": "trajectories", "files": ["p.csv"], "columns": ["t", *names], "label": "who"}
    case = inference(data, LINE if dim == 1 else SQUARE, unknown={"diffusion": [1]}, diffusion=[])
    case["output"] = {**QUIET, "pictures": True}
    m = execute(monkeypatch, tmp_path, case)
    linked = re.findall(r"\]\((.*)\)", (tmp_path / "run" / "report.md").read_text())
    assert linked == ["kernel.png", "flow.png", "distance.png"]
    assert all((tmp_path / "run" / name).is_file() for name in linked)
    assert m["support"] == ["power(2)"]
    assert m["coefficients"]["power(2)"] == pytest.approx(1.0, abs=0.1)
    assert m["sigma"] == pytest.approx(0.1, rel=0.08)
    del data["label"]
    execute(monkeypatch, tmp_path, case, "--overwrite", status=2)


def test_restart_goes_on_to_the_same_answer(tmp_path, monkeypatch):
    """Interrupted after the first verification: neither data nor forms are made again."""
    data = {
        "type": "simulation",
        "solver": "finite-volumes",
        "truth": {"power(2)": 1},
        "initial": ["exp(-(x-1)**2/0.3)", "exp(-(x+1)**2/0.5) + exp(-(x-2)**2/0.5)"],
        "end": 0.5,
        "snapshots": 11,
    }
    case = inference(data, observation={"noise": 0.02})
    (tmp_path / "whole").mkdir()
    whole = execute(monkeypatch, tmp_path / "whole", case)
    with monkeypatch.context() as stopping:
        asked = Run.asked_to_stop
        stopping.setattr(
            Run,
            "asked_to_stop",
            lambda r: (r.folder / "checkpoint/verify_1.npz").exists() or asked(r),
        )
        execute(monkeypatch, tmp_path, case, status=1)
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "interrupted"

    def fail(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(estimate, "assemble", fail)
    monkeypatch.setattr(simulate, "finite_volumes", fail)
    again = execute(monkeypatch, tmp_path, case, "--restart")
    assert again == whole
