"""Cases of the elliptic kinds: bad input says what is wrong, and interrupted runs go on."""

import json

import numpy as np
import pytest

from fem_apps.cli import main
from fem_apps.problems.elliptic_stored import load_reduced

GOOD = """
kind = "parametric-elliptic"
[mesh]
geometry = "blocks"
parameters = { h = 0.2 }
[diffusion]
type = "blocks"
counts = [2, 2]
range = [0.1, 1]
[[quantities]]
name = "mean"
[reduced]
size = 4
training = 30
test = 5
[online]
parameters = [[0.5, 0.5, 0.5, 0.5]]
[output]
pictures = false
"""
NETWORK = GOOD.replace("parametric-elliptic", "strassen-network").replace("size = 4", "size = 25")

# what replaces what, and what the one line has to name
CASES = {
    "not positive": ("range = [0.1, 1]", "range = [-0.1, 1]", "not positive"),
    "empty range": ("range = [0.1, 1]", "range = [1, 0.1]", "empty"),
    "outside the trained set": ("[0.5, 0.5, 0.5, 0.5]", "[0.5, 0.5, 2, 0.5]", "y3 = 2"),
    "too few values": ("[0.5, 0.5, 0.5, 0.5]", "[0.5, 0.5]", "2 values for 4"),
    "N larger than the basis": ("[online]", "[online]\nsize = 9", "N = 9"),
    "unknown part": ("[reduced]", '[[boundary]]\non = "lid"\n[reduced]', "lid"),
    "unknown diffusion": ('"blocks"\ncounts', '"bloks"\ncounts', "bloks"),
    "unknown parameter": ("[reduced]", '[[source]]\ntheta = "nu"\n[reduced]', "nu"),
    "python in theta": ("[reduced]", '[[source]]\ntheta = "open(1)"\n[reduced]', "open"),
    "no norm": (
        "[reduced]",
        '[[reaction]]\n[[boundary]]\non = "top"\ntype = "neumann"\n[reduced]\nproduct = "seminorm"',
        "seminorm",
    ),
    "bounds of a high interpolant": ("[diffusion]", "interpolation = 2\n[diffusion]", "interpol"),
}


def run(monkeypatch, capsys, folder, text, *options):
    """Exit status, the error line, and the summary's metrics of a run."""
    (folder / "case.toml").write_text(text)
    command = ["fem-apps", "run", str(folder / "case.toml"), "--out", str(folder / "run")]
    monkeypatch.setattr("sys.argv", [*command, *options])
    with pytest.raises(SystemExit) as end:
        main()
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("fem-apps: error")]
    path = folder / "run" / "summary.json"
    metrics = json.loads(path.read_text())["metrics"] if path.exists() else {}
    return end.value.code or 0, lines, metrics


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name, tmp_path, monkeypatch, capsys):
    old, new, said = CASES[name]
    assert old in GOOD
    if name == "bounds of a high interpolant":
        text = new.split("\n")[0] + GOOD  # a key of the top table
    else:
        text = GOOD.replace(old, new, 1)
    status, lines, _ = run(monkeypatch, capsys, tmp_path, text)
    assert status == 2
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("size = 25", "size = 2", "reduced.size = 2 does not reach"),
        ('type = "blocks"\ncounts = [2, 2]\nrange = [0.1, 1]', 'type = "polynomial"', "not affine"),
        ("[output]", "[network]\nlevels = 6\n[output]", "network.levels = 6"),
        ("[output]", "[network]\nepsilon = 2\n[output]", "network.epsilon"),
    ],
)
def test_bad_networks(old, new, said, tmp_path, monkeypatch, capsys):
    assert old in NETWORK
    text = NETWORK.replace(old, new, 1).replace("parameters = [[0.5, 0.5, 0.5, 0.5]]", "")
    status, lines, _ = run(monkeypatch, capsys, tmp_path, text)
    assert status == 2
    assert said in lines[0]


def test_extrapolation_is_done_when_asked_for(tmp_path, monkeypatch, capsys):
    text = GOOD.replace("[0.5, 0.5, 0.5, 0.5]", "[0.5, 0.5, 2, 0.5]")
    text = text.replace("[online]", "[online]\nextrapolate = true\nsize = 3")
    status, _, metrics = run(monkeypatch, capsys, tmp_path, text)
    assert status == 0
    assert metrics["violations"] == 0
    assert (tmp_path / "run" / "online.csv").read_text().startswith("y1,y2,y3,y4,norm,bound,mean")


def test_stored_model_and_restart_give_the_same(tmp_path, monkeypatch, capsys):
    """A greedy stopped after its second step, and continued, ends in the same model."""
    from fem_apps.output.folder import Run

    status, _, whole = run(monkeypatch, capsys, tmp_path, GOOD)
    assert status == 0
    first = load_reduced(tmp_path / "run" / "reduced.npz")
    calls = iter([False, True] + [False] * 50)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "asked_to_stop", lambda self: next(calls))
        status, lines, _ = run(patch, capsys, tmp_path, GOOD, "--overwrite")
    assert status == 1
    assert "continue with --restart" in lines[0]
    status, _, metrics = run(monkeypatch, capsys, tmp_path, GOOD, "--restart")
    assert status == 0
    again = load_reduced(tmp_path / "run" / "reduced.npz")
    mus = np.random.default_rng(0).uniform(0.1, 1, (20, 4))
    np.testing.assert_allclose(again.error_bound(mus), first.error_bound(mus), rtol=1e-9)
    for key in ("reduced_error_max", "effectivity_max", "estimator_max"):
        assert metrics[key] == pytest.approx(whole[key], rel=1e-7)


def test_every_family_is_certified(tmp_path, monkeypatch, capsys):
    """T1 to T4 of Geist et al. and log-normal fields, small: no bound is violated."""
    families = {
        "trigonometric": 'type = "trigonometric"\np = 3',
        "chessboard": 'type = "blocks"\ncounts = [3, 3]\noffset = 1e-3\nrange = [0, 1]',
        "cookies": 'type = "cookies"\ns = 2',
        "moving cookies": 'type = "cookies"\ns = 1\nradius = [0.5, 0.9]',
        "polynomial": 'type = "polynomial"\nk = 1',
        "log-normal": 'type = "log-normal"\nterms = 2\nlength = 0.5',
    }
    old = 'type = "blocks"\ncounts = [2, 2]\nrange = [0.1, 1]'
    for name, family in families.items():
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        text = GOOD.replace(old, family).split("[online]")[0] + "[output]\npictures = false\n"
        status, lines, metrics = run(monkeypatch, capsys, folder, text)
        assert status == 0, (name, lines)
        assert metrics["violations"] == 0, (name, metrics)
        assert metrics["effectivity_min"] >= 1 - 1e-9, name
        stored = load_reduced(folder / "run" / "reduced.npz")
        middle = np.array([[0.5 * (a + b) for a, b in stored.ranges.values()]])
        assert np.isfinite(stored.error_bound(middle)).all(), name
