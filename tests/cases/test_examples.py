"""Every example, small: it runs, keeps its invariants, and has the metrics of its kind."""

import json
import math
import tomllib
from pathlib import Path

import pytest

from fem_apps.cli import main

PEDESTRIANS = Path(__file__).parents[3] / "shared/data/pedestrians/n34_cam2.csv"
EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL_SET = [
    "mesh.parameters.h=0.1",
    "time.steps=20",
    "fields.sensors=11",
    "samples.stages=[40]",
    "samples.test=5",
    "training.steps=100",
]
VERIFY = ["verify.times=3", "verify.tolerance=1e-2"]
LANG_LU = [
    "mesh.parameters.h=0.2",
    "data.mesh.parameters.h=0.15",
    "data.snapshots=5",
    "data.end=0.1",
    "data.tolerance=1e-3",
    *VERIFY,
]
# what makes a case small; by the case's place under examples/
SMALL = {
    "aggregation_diffusion/metastable_clusters": ["mesh.parameters.h=0.3", "time.end=20"],
    "aggregation_diffusion/barenblatt": ["mesh.parameters.h=0.3", "time.end=0.5"],
    "aggregation_diffusion/kuramoto": ["mesh.parameters.h=0.2"],
    "aggregation_diffusion/keller_segel": ["mesh.parameters.h=0.25", "mesh.parameters.radius=4"],
    "aggregation_diffusion/von_mises_sphere": ["mesh.parameters.h=0.25", "time.end=5"],
    "aggregation_diffusion/torus_morse": ["mesh.parameters.h=0.2", "time.end=1"],
    "aggregation_diffusion/picture": ["mesh.parameters.h=0.1", "time.end=0.2"],
    "aggregation_diffusion/ball": ["mesh.parameters.h=0.6"],
    "null_control/wave_rough": ["mesh.parameters.h=0.1"],
    "null_control/wave_unfiltered": ["mesh.parameters.h=0.1"],
    "null_control/wave_square": ["mesh.parameters.h=0.25", "hum.lanczos=5"],
    "null_control/wave_hole": ["mesh.parameters.h=0.2", "hum.lanczos=5"],
    "null_control/wave_hole_trapped": ["mesh.parameters.h=0.2", "hum.lanczos=5"],
    "null_control/wave_selections": ["mesh.parameters.h=0.1", "time.steps=20"],
    "null_control/heat_interior": ["mesh.parameters.h=0.1", "time.steps=20"],
    "null_control/heat_boundary": ["mesh.parameters.h=0.1", "time.steps=20"],
    "null_control/heat_square": ["mesh.parameters.h=0.2", "time.steps=10", "hum.modes=5"],
    "null_control/heat_box": ["mesh.parameters.h=0.3", "time.steps=5", "hum.lanczos=5"],
    "null_control/wave_box": ["mesh.parameters.h=0.5", "hum.lanczos=5"],
    "null_control/wave_set": SMALL_SET,
    "null_control/wave_bounded": SMALL_SET,
    "parametric_elliptic/thermal_block": [
        "mesh.parameters.h=0.1",
        "reduced.size=8",
        "reduced.training=100",
        "reduced.test=20",
    ],
    "parametric_elliptic/thermal_block_sweep": [
        "mesh.parameters.h=0.2",
        "reduced.size=6",
        "reduced.training=50",
        "reduced.test=5",
        "sweep.samples=50",
        "trained.samples=10",
        "trained.training.steps=20",
    ],
    "parametric_elliptic/geist_t1": [
        "mesh.parameters.h=0.15",
        "reduced.size=6",
        "reduced.training=40",
        "reduced.test=10",
        "reduced.interpolation_samples=30",
    ],
    "parametric_elliptic/geist_t2": [
        "mesh.parameters.h=0.15",
        "reduced.size=6",
        "reduced.training=40",
        "reduced.test=10",
        "reduced.interpolation_samples=30",
    ],
    "parametric_elliptic/geist_t3": [
        "mesh.parameters.h=0.15",
        "reduced.size=6",
        "reduced.training=40",
        "reduced.test=10",
        "reduced.interpolation_samples=30",
    ],
    "parametric_elliptic/geist_t4": [
        "mesh.parameters.h=0.15",
        "reduced.size=6",
        "reduced.training=40",
        "reduced.test=10",
        "reduced.interpolation_samples=30",
    ],
    "parametric_elliptic/log_normal": [
        "mesh.parameters.h=0.15",
        "reduced.size=6",
        "reduced.training=40",
        "reduced.test=10",
        "reduced.interpolation_samples=30",
    ],
    "parametric_elliptic/disc": ["mesh.parameters.h=0.3", "reduced.test=20"],
    "parametric_elliptic/strassen_network": [
        "mesh.parameters.h=0.2",
        "network.epsilon=0.05",
        "reduced.training=50",
        "reduced.test=3",
    ],
    "parametric_elliptic/strassen_sweep": [
        "mesh.parameters.h=0.2",
        "network.epsilon=0.2",
        "reduced.training=50",
        "reduced.test=3",
        "sweep.samples=20",
    ],
    "imaging/aristoff_bangerth": ["mcmc.chains=2", "mcmc.draws=8", "mcmc.warmup=4"],
    "imaging/eit": [
        *("problem.electrodes=6", "problem.h=0.25", "problem.pixels=4"),
        *("mcmc.chains=2", "mcmc.draws=8", "mcmc.warmup=4"),
    ],
    "imaging/eit_posterior": [
        *("problem.electrodes=6", "problem.h=0.25", "problem.pixels=8"),
        *("mcmc.chains=2", "mcmc.draws=8", "mcmc.warmup=4"),
        *("diffusion.prior.size=8", "diffusion.prior.images=100"),
        *("diffusion.prior.training.steps=20", "diffusion.prior.network.channels=[8]"),
        *("diffusion.sampler.steps=3", "diffusion.sampler.chains=3"),
    ],
    "imaging/ct_posterior": [
        *("prior.images=64", "prior.size=8", "prior.training.steps=20", "images=2"),
        *("prior.network.channels=[8]", "sampler.steps=3", "sampler.chains=3"),
        *("operator.angles=4", "operator.detectors=11"),
    ],
    "imaging/noisier2inverse_ct": [
        *("scanner.size=8", "scanner.angles=16", "scanner.detectors=13", "noise.sigma=2"),
        *("objects.train=16", "objects.validation=4", "objects.test=2"),
        *("network.channels=[8]", "training.steps=20"),
    ],
    "imaging/noisier2inverse_source": [
        *("sensors.size=8", "sensors.cells=8", "sensors.rows=8", "sensors.columns=6"),
        *("objects.train=16", "objects.validation=4", "objects.test=2"),
        *("network.channels=[8]", "training.steps=20"),
    ],
    "kernel_inference/benchmark_a": ["mesh.parameters.h=0.106", "data.snapshots=21", *VERIFY],
    "kernel_inference/benchmark_b": ["mesh.parameters.h=0.106", "data.snapshots=21", *VERIFY],
    "kernel_inference/benchmark_c": ["mesh.parameters.h=0.106", "data.snapshots=21", *VERIFY],
    # twelve splines and few data: a force so steep that solving forward takes minutes
    "kernel_inference/lang_lu_cubic": [*LANG_LU, "dictionary.0.count=8"],
    "kernel_inference/lang_lu_opinion": LANG_LU,
    "kernel_inference/lang_lu_attraction_repulsion": LANG_LU,
    "kernel_inference/radial_2d": [
        "mesh.parameters.h=0.4",
        "data.mesh.parameters.h=0.35",
        "data.end=0.2",
        "data.snapshots=5",
        "solver.resamples=2",
        *VERIFY,
    ],
    "kernel_inference/swarm_1d": ["data.particles=60", "data.snapshots=21"],
    "kernel_inference/swarm_2d": ["data.particles=60", "data.snapshots=11"],
    "kernel_inference/pedestrians": [],
}
SMALL |= {
    "continuity/leveque_rotation": ["mesh.parameters.h=0.0625", "time.end=0.5", "time.dt=0.01"],
    "continuity/swirl": ["mesh.parameters.h=0.1", "time.dt=0.02"],
    "continuity/sphere_rotation": ["mesh.parameters.h=0.3", "time.end=0.5"],
    "continuity/torus_3d": ["mesh.parameters.h=0.4", "time.end=0.1", "scheme.degree=1"],
}
FLOW = ["output.samples=2000", "output.accuracies=[]", "accuracy=0.5"]
SMALL |= {
    f"normalizing_flow/{name}": FLOW
    for name in ("mixture_2d", "two_moons", "ring", "checkerboard", "picture")
}
SMALL |= {
    "normalizing_flow/mixture_1d": [*FLOW, "fem.mesh.parameters.h=0.3"],
    "normalizing_flow/mixture_2d_improved": [
        *FLOW,
        "improve.pieces=4",
        "improve.steps=5",
        "improve.samples=200",
        "fem.mesh.parameters.h=2",
    ],
    "normalizing_flow/mixture_10d": [*FLOW, "improve.steps=5", "construction.most_pieces=10"],
}
METRICS = {
    "continuity": {"l1_error", "l2_error", "min_density", "max_density", "mass_drift"},
    "normalizing-flow": {"kl", "tv", "switches"},
    "aggregation-diffusion": {
        "mass_drift",
        "min_density",
        "energy_increase",
        "free_energy",
        "clusters",
    },
    "null-control": {"control_norm", "final_state", "cg_iterations"},
    "set-valued-control": {"hausdorff", "final_state", "linear_baseline"},
    "parametric-elliptic": {
        "basis_size",
        "reduced_error_max",
        "effectivity_min",
        "effectivity_max",
    },
    "strassen-network": {"weights", "layers", "error_max", "epsilon"},
    "bayesian-inverse": {"map_cost", "gradient_norm", "acceptance", "effective_samples"},
    "diffusion-prior": {"psnr", "psnr_lmmse", "psnr_tv", "chi2", "coverage"},
    "noisier2inverse": {"psnr", "psnr_supervised", "psnr_noise2inverse"},
    "kernel-inference": {"kernel_error", "support_exact", "w2_max", "w2_bound"},
}
# images are arrays, controls of an interval are curves, and nothing moves
WITHOUT_FRAMES = ("bayesian-inverse", "diffusion-prior", "noisier2inverse", "set-valued-control")
WITHOUT_FIELDS = ("diffusion-prior", "noisier2inverse", "set-valued-control", "strassen-network")
PARTICLES = ("swarm_1d", "swarm_2d", "pedestrians")


def writes_fields(name: str, kind: str) -> bool:
    """Particles have none, nor have flows that no finite elements follow."""
    closed_form = kind == "normalizing-flow" and not name.endswith(("_1d", "_improved"))
    return not (kind in WITHOUT_FIELDS or name.endswith(PARTICLES) or closed_form)


CASES = sorted(str(p.relative_to(EXAMPLES).with_suffix("")) for p in EXAMPLES.rglob("*.toml"))
# those have tests of their own: test_attention_examples.py, test_navier_lame_examples.py
CASES = [c for c in CASES if not c.startswith(("attention/", "navier_lame/"))]


@pytest.mark.parametrize("name", CASES)
def test_example(name, tmp_path, monkeypatch):
    if name.endswith("pedestrians") and not PEDESTRIANS.exists():
        pytest.skip("the measured trajectories are not part of the project")
    pictures = name.endswith("metastable_clusters")  # one is enough to see that they are made
    small = [*SMALL[name], f"output.pictures={str(pictures).lower()}"]
    kind = tomllib.loads((EXAMPLES / f"{name}.toml").read_text())["kind"]
    if kind not in WITHOUT_FRAMES:
        small.append("output.frames=3")
    if kind in WITHOUT_FIELDS or name == "imaging/eit_posterior":  # weights of small trainings
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sets = [a for s in small for a in ("--set", s)]
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
    if writes_fields(name, kind):
        assert (out / "fields.bp").exists() or (out / "fields.xdmf").exists()
    if summary["kind"] == "aggregation-diffusion":
        assert metrics["mass_drift"] <= 1e-12
        assert metrics["min_density"] >= 0
        assert metrics["energy_increase"] <= 1e-10
        assert math.isfinite(metrics["free_energy"])
    if summary["kind"] == "parametric-elliptic":
        assert metrics["violations"] == 0
        assert metrics["effectivity_min"] >= 1 - 1e-9
    if summary["kind"] == "strassen-network":
        assert metrics["error_max"] <= metrics["epsilon"]
    if pictures:
        assert {p.name for p in out.glob("*.png")} >= {"field.png", "evolution.png", "history.png"}
        assert (out / "animation.gif").stat().st_size > 10_000


def test_numbers_of_small_examples(tmp_path, monkeypatch):
    """The order parameter of the Kuramoto case is I1(K r/D)/I0(K r/D) on a coarse circle too."""
    out = tmp_path / "run"
    case = str(EXAMPLES / "aggregation_diffusion/kuramoto.toml")
    sets = ["--set", "mesh.parameters.h=0.1", "--set", "output.pictures=false"]
    monkeypatch.setattr("sys.argv", ["fem-apps", "run", case, "--out", str(out), *sets])
    with pytest.raises(SystemExit):
        main()
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    assert abs(metrics["order_parameter"] - 0.589707987783) < 1e-4
