"""Malformed cases and meshes: one line on standard error that names the key or the file, exit 2."""

from pathlib import Path

import pytest
from processes import fails

GOOD = """
kind = "aggregation-diffusion"
[mesh]
geometry = "interval"
parameters = { a = 0, b = 1, h = 0.1 }
[[diffusion]]
exponent = 1
[initial]
type = "expression"
expression = "1 + x"
[time]
end = 0.1
[output]
pictures = false
fields = false
"""

SQUARE = """$MeshFormat
4.1 0 8
$EndMeshFormat
"""

# what replaces what in GOOD, and what the one line has to name
CASES = {
    "not TOML": ("[mesh]", "[mesh", "not TOML"),
    "no kind": ('kind = "aggregation-diffusion"', "", "kind"),
    "unknown kind": ('"aggregation-diffusion"', '"aggregation"', "aggregation-diffusion"),
    "unknown table": ("[time]", "[tim]", "tim"),
    "unknown key": ("end = 0.1", "end = 0.1\nendd = 1", "time.endd"),
    "missing key": ("end = 0.1", "", "time.end"),
    "wrong type": ("end = 0.1", 'end = "soon"', "time.end"),
    "negative end": ("end = 0.1", "end = -1", "time.end"),
    "tolerance below rounding": ("end = 0.1", "end = 0.1\ntolerance = 1e-40", "time.tolerance"),
    "infinite end": ("end = 0.1", "end = inf", "time.end"),
    "exponent zero": ("exponent = 1", "exponent = 0", "exponent"),
    "unknown geometry": ('"interval"', '"intervall"', "intervall"),
    "unknown parameter": ("h = 0.1", "hh = 0.1", "hh"),
    "negative size": ("h = 0.1", "h = -0.1", "h"),
    "no mesh file": ('geometry = "interval"', 'file = "nowhere.msh"', "nowhere.msh"),
    "parameters of a file": ('geometry = "interval"', 'file = "empty.msh"', "parameters"),
    "unknown initial type": ('"expression"\n', '"expresion"\n', "initial.type"),
    "python in an expression": ('"1 + x"', "\"__import__('os')\"", "initial"),
    "unknown name": ('"1 + x"', '"1 + w"', "w"),
    "beyond the dimension": ('"1 + x"', '"1 + y"', "'y'"),
    "negative density": ('"1 + x"', '"x - 2"', "negative"),
    "zero density": ('"1 + x"', '"0"', "zero"),
    "not finite": ('"1 + x"', '"1/x"', "finite"),
    "unknown kernel": ("[time]", '[[interaction]]\ntype = "gausian"\n[time]', "interaction"),
    "kernel off the sphere": ("[time]", '[[interaction]]\ntype = "von-mises"\n[time]', "sphere"),
    "scheme without diffusion": (
        "[[diffusion]]\nexponent = 1",
        '[scheme]\ntype = "log-density"',
        "log-density",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name, tmp_path, capsys, monkeypatch):
    old, new, named = CASES[name]
    assert old in GOOD
    case = tmp_path / "case.toml"
    case.write_text(GOOD.replace(old, new, 1))
    (tmp_path / "empty.msh").touch()
    assert named in fails(capsys, monkeypatch, "run", str(case), "--out", str(tmp_path / "run"))


MESHES = {
    "empty.msh": "",
    "cut.msh": SQUARE + "$Nodes\n1 4 1 4\n2 1 0 4\n1\n2\n",
    "words.vtu": "this is no mesh",
    "unknown.xyzzy": "x",
    "broken.geo": "Point(1) = {0, 0;",
}


@pytest.mark.parametrize("name", MESHES)
def test_mesh(name, tmp_path, capsys, monkeypatch):
    (tmp_path / name).write_text(MESHES[name])
    case = tmp_path / "case.toml"
    table = f'file = "{name}"'
    case.write_text(GOOD.replace('geometry = "interval"', table).replace("parameters", "# "))
    assert name in fails(capsys, monkeypatch, "run", str(case), "--out", str(tmp_path / "run"))


def test_volume_where_a_plane_was_asked(tmp_path, capsys, monkeypatch):
    case = tmp_path / "case.toml"
    mesh = 'geometry = "box"\ndim = 2\nparameters = { h = 0.5 }\n'
    head, _, tail = GOOD.partition('geometry = "interval"\n')
    case.write_text(head + mesh + tail.partition("\n")[2])
    said = fails(capsys, monkeypatch, "run", str(case), "--out", str(tmp_path / "run"))
    assert "2D" in said


@pytest.mark.parametrize("override", ["time.end", "=1", "time.end.x=1", "diffusion.3.exponent=2"])
def test_override(override, tmp_path, capsys, monkeypatch):
    case = tmp_path / "case.toml"
    case.write_text(GOOD)
    said = fails(capsys, monkeypatch, "run", str(case), "--set", override)
    assert override.partition("=")[0].partition(".")[0] in said


def test_folders(tmp_path, capsys, monkeypatch):
    case, out = tmp_path / "case.toml", tmp_path / "run"
    case.write_text(GOOD)
    missing = str(tmp_path / "none.toml")
    assert "none.toml" in fails(capsys, monkeypatch, "run", missing)
    assert "--restart" in fails(
        capsys, monkeypatch, "run", str(case), "--out", str(out), "--restart"
    )
    out.mkdir()
    (out / "precious").touch()
    assert "exists" in fails(capsys, monkeypatch, "run", str(case), "--out", str(out))
    arguments = ["run", str(case), "--out", str(out), "--overwrite"]
    assert "run folder" in fails(capsys, monkeypatch, *arguments)
    assert Path(out / "precious").exists()
    assert "summary.json" in fails(capsys, monkeypatch, "plot", str(tmp_path))
