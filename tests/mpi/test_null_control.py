"""Null control on several ranks: the same numbers as on one, adjoints, restart."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from control import run
from mpi4py import MPI

from fem_apps.control import null_control_run
from fem_apps.errors import CaseError, Interrupted
from fem_apps.fem.split import split
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.heat import Heat
from fem_apps.problems.wave import Wave

WORLD = MPI.COMM_WORLD
SQUARE = {
    "kind": "null-control",
    "equation": "wave",
    "mesh": {"geometry": "rectangle", "parameters": {"h": 0.5}, "refine": 1},
    "control": {"on": ["left", "bottom"]},
    "initial": {"y0": "sin(pi*x)*sin(pi*y)", "y1": "x"},
    "time": {"end": 3.0, "steps": 24},
    "hum": {"filter": "two-grid", "tolerance": 1e-8, "lanczos": 3},
    "output": {"pictures": False, "frames": 3},
}
HEAT = {
    "equation": "heat",
    "control": {"where": "where(x < 0.5, 1, 0)"},
    "time": {"end": 0.3, "steps": 5},
    "hum": {"tolerance": 1e-8, "lanczos": 3, "modes": 3, "epsilon": 1e-3},
}


def numbers(metrics):
    return {k: v for k, v in metrics.items() if k not in ("cg_reason", "cg_residual")}


@pytest.mark.parametrize(
    "changes", [{}, HEAT, {"hum": {"filter": "spectral", "lanczos": 3, "gamma": 20}}]
)
def test_same_numbers_as_on_one_rank(folder, changes):
    here = run(folder / "here", {**SQUARE, **changes}, WORLD)
    own = Path(tempfile.mkdtemp())
    alone = run(own / "alone", {**SQUARE, **changes})
    shutil.rmtree(own)
    small = {"final_state_filtered", "observability_residual"}
    for key, value in numbers(alone).items():
        if key not in small:
            assert here[key] == pytest.approx(value, rel=1e-6, abs=1e-9), key


def test_adjoints_are_transposes_across_ranks():
    data = build(WORLD, MeshCase(geometry="rectangle", parameters={"h": 0.2}))
    rng = np.random.default_rng(WORLD.rank)
    for control in ({"boundary": ("right", "top")}, {"interior": "where(x < 0.5, 1, 0)"}):
        s = split(data, **control)
        explicit = Wave(split(data, mass="lumped", **control), 0.5, 60, 0.0)
        for a in (Heat(s, 0.5, 5, "bdf2"), Wave(s, 0.5, 9), Wave(s, 0.5, 9, gauss=True), explicit):
            n = len(s.free)
            e = rng.normal(size=n if isinstance(a, Heat) else (2, n))
            v = rng.normal(size=(len(a.times), len(s.control)))
            left, right = s.dot(a.act(v), e), s.dot(a.weights[:, None] * v, a.observe(e))
            assert left == pytest.approx(right, rel=1e-11, abs=1e-12)


def test_a_line_is_done_by_one_rank_and_errors_are_everyones(folder):
    line = {**SQUARE, "mesh": {"geometry": "interval", "parameters": {"h": 0.1}},
            "control": {"on": ["right"]}, "initial": {"y0": "x"}}  # fmt: skip
    metrics = run(folder / "line", line, WORLD)
    assert len(set(WORLD.allgather(metrics["control_norm"]))) == 1
    with pytest.raises(CaseError, match="is below 2"):
        run(folder / "short", line, WORLD, time__end=1.0)


def test_continued_on_all_ranks(folder, monkeypatch):
    whole = run(folder / "a", SQUARE, WORLD)
    calls = iter([False] * 3 + [True] * 100)
    monkeypatch.setattr(null_control_run.Run, "asked_to_stop", lambda self: next(calls))
    with pytest.raises(Interrupted):
        run(folder / "b", SQUARE, WORLD)
    monkeypatch.undo()
    again = run(folder / "b", SQUARE, WORLD, restart=True)
    for key in ("control_norm", "final_state", "cg_iterations"):
        assert again[key] == pytest.approx(whole[key], rel=1e-9)
