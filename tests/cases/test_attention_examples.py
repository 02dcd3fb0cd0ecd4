"""Every example of attention, small, with the numbers that it states where it is small enough."""

import json
from pathlib import Path

import pytest

from fem_apps.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples" / "attention"
QUIET = ["output.pictures=false"]
SMALL = {
    "metastability": ["output.frames=6"],
    "staircase": [*QUIET, "output.frames=6"],
    "gaussian_blow_up": QUIET,
    "rank_histogram": [*QUIET, "ranks.draws=3"],
    "bifurcation": [*QUIET, "branch.states=40"],
    "landscape": [*QUIET, "branch.states=30", "landscape.points=90"],
    "phase_portrait": [*QUIET, "portrait.points=4"],
    "clusters_on_the_sphere": [*QUIET, "tokens.n=30", "time.end=3", "output.frames=4"],
    "noisy_sphere": [*QUIET, "mesh.parameters.h=0.4", "time.end=5", "output.frames=3"],
    "phase_diagram": [*QUIET, "betas=3", "batch=2", "d=4", "end=2", "checkpoints=4"],
}
METRICS = {
    "tokens": {"merge_times", "clusters", "energy_decrease"},
    "gaussian-attention": {"blow_up_time", "rank"},
    "sphere-attention": {"mass_drift", "energy_increase", "order_parameter"},
    "attention-statics": {"kappa_1", "kappa_c", "order_parameter"},
    "attention-phase-diagram": {"share_final", "equiangular_time"},
}
CASES = sorted(p.stem for p in EXAMPLES.glob("*.toml"))


@pytest.mark.parametrize("name", CASES)
def test_example(name, tmp_path, monkeypatch):
    sets = [a for s in SMALL[name] for a in ("--set", s)]
    out = tmp_path / "run"
    case = str(EXAMPLES / f"{name}.toml")
    monkeypatch.setattr("sys.argv", ["fem-apps", "run", case, "--out", str(out), *sets])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    summary = json.loads((out / "summary.json").read_text())
    metrics = summary["metrics"]
    assert summary["status"] == "done"
    assert METRICS[summary["kind"]] <= set(metrics)
    match name:
        case "metastability":
            assert metrics["merge_times"][-1] == pytest.approx(328.36, rel=1e-4)
            assert metrics["energy_decrease"] < 1e-12
            assert {p.name for p in out.glob("*.png")} == {"tokens.png", "energy.png"}
            assert (out / "animation.gif").stat().st_size > 5_000
        case "staircase":
            assert metrics["merge_times"][-1] == pytest.approx(0.1008, abs=1e-6)
        case "gaussian_blow_up":
            assert metrics["blow_up_time"] == pytest.approx(0.702340, abs=1e-6)
            assert metrics["rank"] == 1
        case "bifurcation":
            assert metrics["kappa_c"] == pytest.approx(0.810541, abs=1e-6)
        case "landscape":
            assert metrics["landscape"]["amplitude_2"] == pytest.approx(0.53817, abs=1e-5)
        case "noisy_sphere":
            assert metrics["mass_drift"] < 1e-12
            assert metrics["energy_increase"] < 1e-10
