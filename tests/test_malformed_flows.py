"""Malformed cases of continuity and normalizing-flow: one line names the key, exit 2; restart."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from fem_apps.cli import main
from fem_apps.output import folder

TRANSPORT = """
kind = "continuity"
exact = "initial"
[mesh]
geometry = "rectangle"
parameters = { h = 0.3 }
[velocity]
type = "expressions"
components = ["1", "0"]
[initial]
type = "expression"
normalise = false
expression = "1 + x"
[time]
end = 0.1
[output]
pictures = false
fields = false
"""
FLOW = """
kind = "normalizing-flow"
accuracy = 0.5
[target]
type = "gaussians"
components = [ { centre = [-1], widths = [0.6] }, { centre = [1], widths = [0.7] } ]
[output]
pictures = false
"""
FIRST = 'type = "gaussians"\ncomponents = [ { centre = [-1], widths = [0.6] }, '
REST = "{ centre = [1], widths = [0.7] } ]"
CASES = {
    "too few components": (TRANSPORT, '["1", "0"]', '["1"]', "velocity.components"),
    "bad expression": (TRANSPORT, '["1", "0"]', '["1", "w"]', "'w'"),
    "infinite velocity": (TRANSPORT, '["1", "0"]', '["1/(x-x)", "0"]', "not finite"),
    "amplitude of x": (TRANSPORT, '["1", "0"]', '["1", "0"]\namplitude = "x"', "'x'"),
    "no schedule": (
        TRANSPORT,
        '"expressions"\ncomponents = ["1", "0"]',
        '"switches"\nfile = "n.csv"',
        "n.csv",
    ),
    "bad schedule": (
        TRANSPORT,
        '"expressions"\ncomponents = ["1", "0"]',
        '"switches"\nfile = "bad.csv"',
        "bad.csv",
    ),
    "bad network": (
        TRANSPORT,
        '"expressions"\ncomponents = ["1", "0"]',
        '"network"\nfile = "bad.csv"',
        "bad.csv",
    ),
    "unknown side": (TRANSPORT, "[initial]", '[boundary.lid]\ntype = "wall"\n[initial]', "lid"),
    "unknown rule": (TRANSPORT, "[initial]", '[boundary.left]\ntype = "slip"\n[initial]', "type"),
    "negative density": (TRANSPORT, '"1 + x"', '"x - 0.5"', "negative"),
    "zero density": (TRANSPORT, '"1 + x"', '"0"', "zero"),
    "negative cfl": (TRANSPORT, "end = 0.1", "end = 0.1\ncfl = -1", "cfl"),
    "vertex limiter of degree 2": (
        TRANSPORT,
        "[output]",
        "[scheme]\ndegree = 2\n[output]",
        "vertex",
    ),
    "empty range": (
        TRANSPORT,
        "[output]",
        '[scheme]\nlimiter = "range"\nhigh = -1\n[output]',
        "high",
    ),
    "unknown scheme": (TRANSPORT, "[output]", '[scheme]\ntype = "fv"\n[output]', "scheme"),
    "exact of a normalised start": (TRANSPORT, "normalise = false", "", "exact"),
    "no accuracy": (FLOW, "accuracy = 0.5", "accuracy = 0", "accuracy"),
    "widths that do not fit": (FLOW, "widths = [0.6]", "widths = [0.6, 1]", "widths"),
    "different dimensions": (
        FLOW,
        "centre = [1], widths = [0.7]",
        "centre = [1, 1], widths = [1, 1]",
        "centres",
    ),
    "heavy tails": (FLOW, FIRST + REST, 'type = "student"\nnu = 1.5', "tails are too heavy"),
    "heavy samples": (FLOW, FIRST + REST, 'type = "samples"\nfile = "heavy.csv"', "Hill"),
    "few samples": (FLOW, FIRST + REST, 'type = "samples"\nfile = "bad.csv"', "bad.csv"),
    "no picture": (FLOW, FIRST + REST, 'type = "picture"\nfile = "bad.csv"', "bad.csv"),
    "negative target": (
        FLOW,
        FIRST + REST,
        'type = "expression"\ndensity = "x"\nlow = [-1]\nhigh = [1]',
        "density",
    ),
    "strips in four dimensions": (
        FLOW,
        FIRST + REST,
        'type = "gaussians"\ncomponents = [ { centre = [0,0,0,0], widths = [1,1,1,2] } ]\n'
        '[construction]\nmethod = "strips"',
        "pursuit",
    ),
    "mesh of another dimension": (
        FLOW,
        "[output]",
        '[fem.mesh]\ngeometry = "disc"\n[output]',
        "fem.mesh",
    ),
}


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["fem-apps", "run", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.mark.parametrize("name", CASES)
def test_case(name, tmp_path, capsys, monkeypatch):
    good, old, new, named = CASES[name]
    assert old in good
    case = tmp_path / "case.toml"
    case.write_text(good.replace(old, new, 1))
    (tmp_path / "bad.csv").write_text("w,a\n1,2,3\nx\n")
    heavy = np.random.default_rng(0).standard_t(1.2, (3000, 1))
    np.savetxt(tmp_path / "heavy.csv", heavy)
    assert run(monkeypatch, case, "--out", tmp_path / "run") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fem-apps:")]
    assert len(said) == 1
    assert named in said[0]


def test_schedule_of_a_flow_drives_the_continuity_equation(tmp_path, monkeypatch):
    """What normalizing-flow writes, continuity reads: the same density, by finite elements."""
    case = tmp_path / "flow.toml"
    case.write_text(FLOW)
    assert not run(monkeypatch, case, "--out", tmp_path / "flow")
    flow = json.loads((tmp_path / "flow" / "summary.json").read_text())["metrics"]
    assert flow["kl"] < 0.5
    pieces = len((tmp_path / "flow" / "schedule.csv").read_text().splitlines()) - 1
    case = tmp_path / "transport.toml"
    p = "0.5*exp(-((x+1)/.6)**2/2)/(.6*sqrt(2*pi)) + 0.5*exp(-((x-1)/.7)**2/2)/(.7*sqrt(2*pi))"
    case.write_text(f"""
kind = "continuity"
exact = "{p}"
[mesh]
geometry = "interval"
parameters = {{ a = -8, b = 8, h = 0.05 }}
[velocity]
type = "switches"
file = "flow/schedule.csv"
[initial]
type = "expression"
normalise = false
expression = "exp(-x**2/2)/sqrt(2*pi)"
[time]
end = {pieces}
[output]
pictures = false
fields = false
frames = 1
""")
    assert not run(monkeypatch, case, "--out", tmp_path / "transport")
    metrics = json.loads((tmp_path / "transport" / "summary.json").read_text())["metrics"]
    assert metrics["mass_defect"] < 1e-12
    assert abs(metrics["l1_error"] / 2 - flow["tv"]) < 0.05


def test_restart(tmp_path, monkeypatch):
    """A run that is stopped and continued ends at the same numbers, bit by bit."""
    case = tmp_path / "case.toml"
    case.write_text(TRANSPORT)
    assert not run(monkeypatch, case, "--out", tmp_path / "whole")
    asked = []

    def stop(self):
        asked.append(signal.SIGTERM)
        return len(asked) == 3

    with monkeypatch.context() as m:
        m.setattr(folder.Run, "asked_to_stop", stop)
        assert run(m, case, "--out", tmp_path / "cut") == 1
    said = json.loads((tmp_path / "cut" / "summary.json").read_text())["status"]
    assert said == "interrupted"
    assert not run(monkeypatch, case, "--out", tmp_path / "cut", "--restart")
    a, b = (
        json.loads((Path(tmp_path) / n / "summary.json").read_text())["metrics"]
        for n in ("whole", "cut")
    )
    assert a == b
