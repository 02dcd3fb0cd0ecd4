"""Whole cases small: benchmark supports, bounds, gauges, splines, sources, bad keys."""

import json

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps import meshing
from fem_apps.case import validate
from fem_apps.cli import main
from fem_apps.errors import CaseError, Interrupted, SolveError
from fem_apps.fem import node_graph
from fem_apps.inverse import interaction_kernels_functional as functional
from fem_apps.inverse.interaction_kernels_atoms import Splines, atoms_of
from fem_apps.inverse.interaction_kernels_choose import find_gauges
from fem_apps.inverse.interaction_kernels_distance import w2_line
from fem_apps.inverse.interaction_kernels_flow import Flow, cells, solve
from fem_apps.inverse.interaction_kernels_functional import Known
from fem_apps.inverse.interaction_kernels_simulate import densities, nodal
from fem_apps.inverse.interaction_kernels_verify import lambda_of
from fem_apps.problems.free_energy import Diffusion

SELF = MPI.COMM_SELF
IC = "exp(-(x-1.2)**2/0.18) + 0.6*exp(-(x+1)**2/0.32) + 0.02*exp(-x**2/4)"
RAW = {
    "kind": "kernel-inference",
    "mesh": {"geometry": "interval", "parameters": {"a": -3.975, "b": 3.975, "h": 0.05}},
    "diffusion": [{"exponent": 2, "coefficient": 0.1}],
    "dictionary": [
        {"type": "power", "exponents": [1.5, 2, 3]},
        {"type": "cosine", "frequencies": [1, 2]},
        {"type": "gaussian", "widths": [0.5, 1]},
    ],
    "data": {
        "type": "simulation",
        "solver": "finite-volumes",
        "truth": {"power(2)": 1, "cosine(2)": -0.5},
        "initial": [IC],
        "end": 1,
        "snapshots": 51,
    },
    "observation": {"noise": 0.1},
    "output": {"pictures": False, "fields": False, "radius": 3},
    "verify": {"times": 6, "tolerance": 1e-3},
}


def execute(tmp_path, monkeypatch, changes=None, status=0):
    """Run the case with some tables replaced; returns the summary."""
    import tomli_w

    raw = {**RAW, **(changes or {})}
    (tmp_path / "case.toml").write_text(tomli_w.dumps(raw))
    out = tmp_path / "run"
    monkeypatch.setattr(
        "sys.argv",
        ["fem-apps", "run", str(tmp_path / "case.toml"), "--out", str(out), "--overwrite"],
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0) == status
    return json.loads((out / "summary.json").read_text()) if status == 0 else None


def test_noisy_benchmark(tmp_path, monkeypatch):
    m = execute(tmp_path, monkeypatch)["metrics"]
    assert m["support_exact"]
    assert m["kernel_error"] < 0.02
    assert m["noise"] == pytest.approx(0.1, rel=0.1)
    assert m["bound_holds"]
    assert m["w2_max"] < m["w2_bound"] < 0.1
    assert m["stability"] >= 0.9
    table = np.genfromtxt(tmp_path / "run" / "kernel.csv", delimiter=",", names=True)
    assert (table["dW_low"] < table["dW_high"]).all()
    assert "| power(2) |" in (tmp_path / "run" / "report.md").read_text()


def test_splines_on_clean_data(tmp_path, monkeypatch):
    changes = {
        "observation": {"noise": 0.0},
        "solver": {"method": "tikhonov"},
        "dictionary": [
            {"type": "splines", "count": 9, "degree": 2, "r_max": 3.5},
        ],
        "data": {**RAW["data"], "truth": {"spline(2)": 1.0, "spline(3)": 0.5}},
    }
    m = execute(tmp_path, monkeypatch, changes)["metrics"]
    assert m["explained_share"] > 0.98
    assert m["w2_max"] < 0.01
    assert m["bound_holds"]
    assert m["regularisation"] > 0


def test_splines_follow_the_data(tmp_path, monkeypatch):
    """h = 0.05 and 2 nodes a block: spacing 0.1, so 3.5/0.1 cells and 35^(2/3) intervals."""
    changes = {
        "observation": {"noise": 0.0, "blocks": 2},
        "solver": {"method": "tikhonov"},
        "dictionary": [{"type": "splines", "count": "data", "degree": 1, "r_max": 3.5}],
        "data": {**RAW["data"], "truth": {}, "force": "x", "snapshots": 11},
    }
    m = execute(tmp_path, monkeypatch, changes)["metrics"]
    # 11 intervals, 12 splines, of which the one that is not 0 at 0 is left out
    assert len(m["coefficients"]) == 11
    assert m["kernel_error"] < 0.1


def test_number_of_splines():
    """(R/h)^(2/(s+1)) intervals, s = degree + 1 unless told, none shorter than 2 h."""

    def count(h, **keys):
        family = Splines(count="data", r_max=10, **keys).resolved(h)
        return family.count - family.degree

    assert [count(h, degree=1) for h in (10 / 27, 10 / 125)] == [9, 25]
    assert [count(h, degree=2) for h in (10 / 25, 10 / 100)] == [5, 10]
    assert count(0.1, degree=2, smoothness=1) == 50
    assert count(0.1, degree=1, smoothness=0.5) == 50
    assert count(0.1, degree=1, smoothness=0.5, r_min=2) == 40
    assert Splines(count=7, r_max=1).resolved(None).count == 7
    with pytest.raises(CaseError, match="needs densities on a mesh"):
        atoms_of([Splines(count="data", r_max=10)], 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "data": {**RAW["data"], "solver": "particles"},
                "dictionary": [{"type": "splines", "count": "data", "r_max": 3}],
            },
            "needs densities on a mesh",
        ),
        ({"data": {**RAW["data"], "truth": {"power(9)": 1}}}, "no atom 'power(9)'"),
        ({"data": {**RAW["data"], "snapshots": 1}}, "one snapshot tells nothing"),
        ({"data": {**RAW["data"], "initial": ["x"]}}, "must be >= 0"),
        ({"solver": {"method": "partinv"}}, "needs solver.size"),
        ({"solver": {"trajectories": True, "method": "lasso", "size": 2}}, "method = 'auto'"),
        ({"dictionary": [{"type": "power", "exponents": [-0.5, 2]}]}, "not integrable"),
        ({"dictionary": [{"type": "power", "exponents": [2, 2]}]}, "twice"),
        ({"dictionary": [{"type": "wavelet"}]}, "allowed"),
        ({"data": {"type": "arrays", "files": ["none.npz"]}}, "no file"),
        ({"solver": {"windw": 1}}, "unknown key"),
    ],
)
def test_bad_cases(changes, message, tmp_path, monkeypatch, capsys):
    execute(tmp_path, monkeypatch, changes, status=2)
    said = capsys.readouterr().err
    assert message in said.replace("\n", " ")
    assert "fem-apps: error:" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r: (t, r[:1].repeat(len(t), axis=0)), "null directions of W are silent"),
        (lambda t, r: (t[:1], r[:1]), "W enters through how the density changes"),
        (lambda t, r: (t[::-1], r), "times must increase"),
        (lambda t, r: (t, np.where(r > 0.9, np.nan, r)), "are not finite numbers"),
        (lambda t, r: (t, r - 0.5), "must be positive"),
        (lambda t, r: (t, r - 0.08), "this is no noisy density"),
        (lambda t, r: (t[:-1], r), "do not fit"),
    ],
)
def test_bad_arrays_say_what_cannot_be_identified(change, message, tmp_path, monkeypatch, capsys):
    t, x = np.linspace(0, 1, 6), np.linspace(-4, 4, 81)
    t, rho = change(t, np.array([np.exp(-((x - 0.1 * s) ** 2)) for s in t]))
    np.savez(tmp_path / "d.npz", t=t, x=x, rho=rho)
    execute(tmp_path, monkeypatch, {"data": {"type": "arrays", "files": ["d.npz"]}}, status=2)
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert "Traceback" not in said


def grid(h=0.05, dictionary=RAW["dictionary"]):
    case = validate({**RAW, "dictionary": dictionary})
    mesh = meshing.build(
        SELF,
        case.mesh.model_copy(update={"parameters": {"a": -3.975, "b": 3.975, "h": h}}),
    )
    graph = node_graph.build(mesh.mesh)
    return graph, atoms_of(case.dictionary, 1)


def test_w2_is_below_the_bound_for_fifty_random_estimates():
    graph, atoms = grid(0.1)
    s = functional.set_up(graph, atoms)
    x, order = graph.x[:, 0], np.argsort(graph.x[:, 0])
    c = cells(x[order], graph.mass[order])
    rng = np.random.default_rng(0)
    truth = np.array([0, 1, 0, 0, -0.5, 0, 0])
    # convex enough estimates: the concave kink of |x|^1.5 is left out
    wrong = truth + 0.3 * rng.standard_normal((50, 7)) * (rng.random((50, 7)) < 0.5)
    wrong[:, 0] = np.abs(wrong[:, 0])
    t = np.linspace(0, 1, 41)
    rho0 = nodal(graph, IC)[order]
    r = np.abs(np.subtract.outer(c.centre, c.centre))
    tables = np.array([a.psi(r) for a in atoms])
    kernels = np.tensordot(np.vstack([truth, wrong]), tables, 1)

    diffusion = (Diffusion(exponent=2, coefficient=0.1),)
    runs = [solve(Flow(c, K, 0 * rho0, diffusion), rho0, t, 8)[0] for K in kernels]
    from fem_apps.inverse.interaction_kernels_distance import bound
    from fem_apps.inverse.interaction_kernels_verify import force_gap

    back = np.argsort(order)
    for k in range(50):
        w2 = np.array([w2_line(c.width, p, q) for p, q in zip(runs[0], runs[k + 1], strict=True)])
        gap = np.array([force_gap(s, p[back], wrong[k] - truth) for p in runs[0]])
        limit = bound(t, gap, lambda_of(s, wrong[k]))
        assert (w2 <= limit + 1e-12).all(), (k, w2.max(), limit.max())


def test_quadratic_gauge_is_found():
    """With a fixed mean, W += c x^2/2 and V -= c x^2/2 leave the flow unchanged."""
    graph, atoms = grid(0.1)
    from fem_apps.inverse.interaction_kernels_data import snapshots

    x = graph.x[:, 0]
    t = np.linspace(0, 1, 9)
    rho = np.array([np.exp(-(x**2) / (0.5 + 0.5 * u)) for u in t])
    external = np.stack([x**2 / 2, x**4 / 4], axis=1)
    s = functional.set_up(graph, atoms, external=external)
    form = functional.assemble(s, snapshots(graph, t, rho), functional.Known(), kind="ends")
    names = [*(a.name for a in atoms), "V2", "V4"]
    found = find_gauges(form, len(atoms), names)
    assert [k for k, _ in found][:1] == [len(atoms)]
    assert "gauge" in found[0][1]


def test_a_flow_without_end_ends():
    """A verification stops at its limit of steps, and where the run was asked to stop."""
    box = meshing.MeshCase(geometry="interval", parameters={"a": -3, "b": 3, "h": 0.2})
    mesh = meshing.build(SELF, box)
    rho0 = nodal(node_graph.build(mesh.mesh), IC)
    known = Known((Diffusion(exponent=2, coefficient=0.1),))
    times = np.linspace(0, 1, 5)
    assert len(list(densities(mesh, [], known, None, rho0, times))) == 5
    with pytest.raises(SolveError, match="more than 3 steps"):
        list(densities(mesh, [], known, None, rho0, times, most=3))
    with pytest.raises(Interrupted):
        list(densities(mesh, [], known, None, rho0, times, stop=lambda: True))
