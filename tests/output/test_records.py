"""History and summary: what is written reads back, also after a crash."""

import json

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.case import read, validate
from fem_apps.errors import CaseError
from fem_apps.output.folder import close_run, open_run
from fem_apps.output.history import History, read_history
from fem_apps.output.summary import read_summary, versions, write_summary

COMM = MPI.COMM_SELF


def write(path, steps, **how):
    with History(COMM, path, **how) as history:
        for i in steps:
            history.write(
                {"time": i / 3, "step": i, "mass": np.float64(1 + 1e-16 * i), "note": None}
            )


def test_floats_read_back_exactly(tmp_path):
    write(tmp_path / "h.csv", range(5))
    h = read_history(tmp_path / "h.csv")
    assert h["time"].tolist() == [i / 3 for i in range(5)]
    assert h["mass"].tolist() == [1 + 1e-16 * i for i in range(5)]
    assert np.isnan(h["note"]).all()
    assert (tmp_path / "h.csv").read_text().splitlines()[0] == "time,step,mass,note"


def test_restart_redoes_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "h.csv"
    write(path, range(8))
    with path.open("a") as f:
        f.write("2.6666,8,0.9")  # a crash within a line
    assert len(read_history(path)["step"]) == 8
    write(path, range(5, 7), append=True, last_step=4)
    undisturbed = tmp_path / "whole.csv"
    write(undisturbed, range(7))
    assert path.read_text() == undisturbed.read_text()


def test_rows_are_on_disk_before_the_file_is_closed(tmp_path):
    history = History(COMM, tmp_path / "h.csv")
    history.write({"step": 0})
    assert (tmp_path / "h.csv").read_text() == "step\n0\n"
    history.close()


def test_restart_without_a_checkpoint_begins_again_what_is_not_done(tmp_path):
    tokens = 'tokens = { type = "orthogonal", n = 2, d = 2 }'
    (tmp_path / "a.toml").write_text(f'kind = "tokens"\n{tokens}\ntime.end = 1\n')
    case, out = validate(read(tmp_path / "a.toml"), "a.toml"), tmp_path / "run"
    with pytest.raises(CaseError, match="no run"):
        open_run(COMM, case, out, restart=True)
    open_run(COMM, case, out)  # killed
    (out / "checkpoint").mkdir()
    (out / "checkpoint" / "checkpoint.npz.part").touch()  # while the first one was written
    run = open_run(COMM, case, out, restart=True)
    assert not run.restart
    close_run(run, case, "done", {})
    with pytest.raises(CaseError, match="--overwrite"):
        open_run(COMM, case, out, restart=True)
    (out / "checkpoint" / "checkpoint.npz").touch()
    assert open_run(COMM, case, out, restart=True).restart


def test_wrong_use(tmp_path):
    with History(COMM, tmp_path / "h.csv") as history:
        history.write({"step": 0})
        with pytest.raises(ValueError, match="this row"):
            history.write({"steps": 0})
    with pytest.raises(CaseError, match="no history"):
        read_history(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CaseError, match="no column 'step'"):
        History(COMM, tmp_path / "other.csv", append=True, last_step=3)
    with pytest.raises(CaseError, match="cannot write"):
        History(COMM, tmp_path / "no" / "h.csv")


def test_summary_is_always_json(tmp_path):
    path = tmp_path / "summary.json"
    write_summary(
        path,
        {
            "status": "done",
            "metrics": {
                "a": np.float64(0.5),
                "b": float("nan"),
                "c": [1, np.inf],
                "n": np.int32(3),
            },
            "array": np.arange(3),
            "folder": tmp_path,
            "z": 1 + 2j,
            "flag": np.bool_(True),
        },
    )

    def refuse(constant):
        raise AssertionError(constant)

    data = json.loads(path.read_text(), parse_constant=refuse)
    assert data["metrics"] == {"a": 0.5, "b": None, "c": [1, None], "n": 3}
    assert data["not_finite"] == {"metrics.b": "nan", "metrics.c.1": "inf"}
    assert (data["array"], data["z"], data["flag"]) == ([0, 1, 2], [1.0, 2.0], True)
    assert read_summary(path) == data
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_versions():
    found = versions()
    assert {"fem_apps", "python", "numpy", "dolfinx", "mpi"} <= set(found)
