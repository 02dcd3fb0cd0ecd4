"""Random fields, sets and their distances, and networks against linear least squares."""

import numpy as np
import pytest
from control import case_of, run
from mpi4py import MPI

from fem_apps.control import set_valued_run
from fem_apps.control.set_valued_data import Map, hausdorff, karhunen_loeve, make
from fem_apps.errors import CaseError, Interrupted
from fem_apps.surrogates.deeponet import linear_least_squares

SET = {
    "kind": "set-valued-control",
    "mass": "lumped",
    "mesh": {"geometry": "interval", "parameters": {"h": 0.05}},
    "control": {"on": ["right"]},
    "time": {"end": 2.0, "steps": 40, "scheme": "leapfrog"},
    "fields": {"sensors": 21},
    "samples": {"stages": [50, 200], "test": 10, "closed_loop": 2},
    "network": {"width": 40, "basis": 20},
    "training": {"steps": 600, "rate": 5e-3, "batch": 100},
    "output": {"pictures": False},
}


@pytest.fixture(autouse=True)
def no_kept_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("length", "count"), [(0.5, 3), (0.25, 5), (0.125, 8), (0.0625, 14), (0.03125, 28)]
)
def test_modes_of_the_published_lengths(length, count):
    _, modes = karhunen_loeve(length, 0.99)
    assert len(modes) == count
    variance = (modes**2).sum(axis=0)
    assert variance.mean() == pytest.approx(1, abs=0.011)


def test_hausdorff_distance_of_segments_and_hulls():
    w = np.full(4, 0.5)
    one, f = np.ones(4), np.array([1.0, 2, 0, -1])
    a = np.stack([f - one, f + one])
    # translates of a segment: the norm of the translation
    g = np.array([0.1, -0.2, 0.3, 0.0])
    assert hausdorff(a, a + g, w) == pytest.approx(np.sqrt(0.5 * (g**2).sum()), rel=1e-6)
    # points inside do not count, a hull that is too short does
    assert hausdorff(a, np.stack([f - one, f, f + one]), w) < 1e-6
    assert hausdorff(a, np.stack([f - 0.5 * one, f + 0.5 * one]), w) == pytest.approx(
        0.5 * np.sqrt(2), rel=1e-6
    )


def test_labels_are_null_controls_and_their_set_is_linear_or_not():
    for kind in ("segment", "amplitude"):
        case = case_of(SET, target__set=kind)
        m = Map(case)
        train, test = (make(case, m, MPI.COMM_SELF, seed, 120) for seed in (1, 2))
        for k in range(3):
            for v in (test.low[k], test.high[k], test.least[k]):
                assert m.final(test.before[k], v) < 0.1
        # samples do not depend on how many there are
        np.testing.assert_array_equal(m.random(1, 5, 7)[0], train.sensors[5:7])
        linear = linear_least_squares(train.sensors, train.heads)(test.sensors)
        error = m.norm(linear - test.heads).mean() / m.norm(test.heads).mean()
        if kind == "segment":
            assert error < 1e-10
        else:
            assert error > 0.1
            best = np.abs(m.set.selector("linf", test.least[0][:, None])).max()
            assert np.abs(test.low[0]).max() == pytest.approx(1.5 * best, rel=1e-4)
            assert np.abs(test.high[0]).max() == pytest.approx(1.5 * best, rel=1e-4)


def test_simonet_learns_the_set(tmp_path):
    m = run(tmp_path / "run", SET)
    assert m["free_directions"] == 1
    assert m["hausdorff"] < 0.2  # untrained: above 1
    assert m["linear_hausdorff"] < 1e-6
    assert m["linear_baseline"] == m["linear_hausdorff"]
    assert m["final_state"] < 0.5  # no control leaves 1
    # out of distribution both are wrong
    assert m["error_rough"] > 0.1
    assert m["linear_error_rough"] > 0.1
    assert m["error_shorter"] > 0.1
    assert m["linear_error_shorter"] > 0.1


def test_heads_without_labels(tmp_path):
    m = run(tmp_path / "run", SET, network__loss="chamfer", network__members=4)
    assert m["hausdorff"] < 0.45


def test_deeponet_of_a_selection_when_there_are_many_directions(tmp_path):
    changes = {"time__end": 2.4, "time__steps": 48}
    with pytest.raises(CaseError, match="5 free directions"):
        run(tmp_path / "a", SET, **changes)
    m = run(tmp_path / "b", SET, **changes, target__set="none", target__heads=["l2"])
    assert m["hausdorff"] == m["test_error"] < 0.35


def test_interrupted_training_continues(tmp_path, monkeypatch):
    whole = run(tmp_path / "a", SET)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    real, calls = set_valued_run.fit, []

    def fit(*args, **more):
        calls.append(1)
        if len(calls) == 2:  # the second stage is stopped after its third chunk
            answers = iter([False, False, True])
            more["stop"] = lambda: next(answers)
        return real(*args, **more)

    monkeypatch.setattr(set_valued_run, "fit", fit)
    with pytest.raises(Interrupted):
        run(tmp_path / "b", SET)
    monkeypatch.setattr(set_valued_run, "fit", real)
    again = run(tmp_path / "b", SET, restart=True)
    assert again == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mesh__geometry": "rectangle"}, "interval"),
        ({"control__on": ["left", "right"]}, "one boundary point"),
        ({"time__end": 1.9}, "is below 2"),
        ({"samples__stages": [200, 50]}, "growing"),
        ({"target__set": "none"}, "target.heads"),
        ({"target__heads": ["lowest"]}, "target.heads"),
    ],
)
def test_refused(tmp_path, changes, named):
    with pytest.raises(CaseError, match=named):
        run(tmp_path / "r", SET, **changes)
