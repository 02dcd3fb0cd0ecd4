"""Kernel tables of a case and W(r)."""

import numpy as np
import pytest
from mpi4py import MPI
from pydantic import TypeAdapter, ValidationError

from fem_apps.errors import CaseError
from fem_apps.fem import kernels as K

parse = TypeAdapter(K.Interaction).validate_python


@pytest.mark.parametrize(
    ("table", "dim", "r", "value"),
    [
        ({"type": "gaussian", "width": 2.0, "strength": -3.0}, 2, 2.0, -3 * np.exp(-0.5)),
        ({"type": "power", "exponent": 3.0}, 1, 2.0, 8 / 3),
        ({"type": "power", "exponent": -1.0}, 3, 2.0, -0.5),
        ({"type": "log", "strength": 0.5}, 2, np.e, 0.5),
        ({"type": "exponential", "length": 2.0}, 2, 4.0, np.exp(-2)),
        ({"type": "yukawa", "kappa": 2.0}, 1, 1.0, np.exp(-2) / 4),
        ({"type": "yukawa", "kappa": 2.0}, 2, 0.5, 0.4210244382407083 / (2 * np.pi)),
        ({"type": "yukawa", "kappa": 2.0}, 3, 0.5, np.exp(-1) / (2 * np.pi)),
        (
            {"type": "morse", "C_r": 2.0, "l_r": 1.0, "C_a": 1.0, "l_a": 2.0},
            1,
            2.0,
            2 * np.exp(-2) - np.exp(-1),
        ),
        ({"type": "polynomial", "coefficients": [1.0, 0.0, 2.0]}, 3, 2.0, 33.0),
        ({"type": "tabulated", "r": [0, 1, 2, 3], "W": [0, 1, 4, 9]}, 1, 1.5, 2.25),
    ],
)
def test_values(table, dim, r, value):
    assert K.radial(parse(table), dim)(np.array([r]))[0] == pytest.approx(value, rel=1e-12)


def test_limit_at_zero():
    zero = np.zeros(1)
    assert K.radial(K.Log(), 2)(zero)[0] == -np.inf
    assert K.radial(K.Power(exponent=-1), 2)(zero)[0] == -np.inf
    assert K.radial(K.Yukawa(), 2)(zero)[0] == np.inf
    assert K.radial(K.Yukawa(), 1)(zero)[0] == 0.5


@pytest.mark.parametrize("interpolation", ["cubic", "monotone"])
def test_table_between_its_rows(interpolation):
    r = np.linspace(0, 4, 60)
    kernel = K.Tabulated(r=tuple(r), W=tuple(np.exp(-(r**2))), interpolation=interpolation)
    s = np.linspace(0, 4, 1001)
    found = K.radial(kernel, 1)(s)
    assert np.abs(found - np.exp(-(s**2))).max() < (2e-5 if interpolation == "cubic" else 2e-3)
    if interpolation == "monotone":
        assert np.all(np.diff(found) <= 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"type": "power", "exponent": 0.0}, "log"),
        ({"type": "gaussian", "width": 0.0}, "width"),
        ({"type": "gaussian", "sigma": 1.0}, "sigma"),
        ({"type": "gauss"}, "gaussian"),
        ({"type": "cosine"}, "wave_vector"),
        ({"type": "cosine", "mode": [1], "wave_vector": [1.0]}, "either"),
        ({"type": "tabulated"}, "file"),
        ({"type": "tabulated", "r": [0, 1, 1, 2], "W": [0, 1, 2, 3]}, "row 3"),
        ({"type": "tabulated", "r": [0, 1, 2], "W": [0, 1, 2]}, "too few"),
        ({"type": "tabulated", "r": [0, 1, 2, 3], "W": [0, 1, 2]}, "entries"),
        ({"type": "tabulated", "r": [-1, 1, 2, 3], "W": [0, 1, 2, 3]}, "negative"),
        ({"type": "log", "strength": float("nan")}, "strength"),
    ],
)
def test_refused_tables(table, message):
    with pytest.raises(ValidationError, match=message):
        parse(table)


def test_refused_functions_of_distance():
    with pytest.raises(CaseError, match="not integrable in 2 dimensions"):
        K.radial(K.Power(exponent=-2.0), 2)
    K.radial(K.Power(exponent=-2.0), 3)
    with pytest.raises(CaseError, match="von-mises"):
        K.radial(K.VonMises(), 2)
    with pytest.raises(CaseError, match="read_tables"):
        K.radial(K.Tabulated(file="w.csv"), 2)


def test_table_from_csv(tmp_path):
    (tmp_path / "w.csv").write_text("# measured\nr,W\n0,1\n1,.5\n2,.25\n3,.1\n")
    kernels = [K.Tabulated(file="w.csv", strength=2.0), K.Log()]
    read, log = K.read_tables(MPI.COMM_SELF, kernels, tmp_path.joinpath)
    assert log is kernels[1]
    assert K.radial(read, 1)(np.array([2.0]))[0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("r,W\n0,1\n1,x\n2,3\n", "row 2"),
        ("0,1\n1\n", "row 2"),
        ("0,1\n1,2\n.5,3\n2,4\n", "must increase"),
        ("0,1\n1,nan\n2,3\n3,4\n", "finite"),
        ("", "too few"),
    ],
)
def test_refused_csv(tmp_path, text, message):
    if text is not None:
        (tmp_path / "w.csv").write_text(text)
    with pytest.raises(CaseError, match=message):
        K.read_tables(MPI.COMM_SELF, [K.Tabulated(file="w.csv")], tmp_path.joinpath)
