"""The command line of sweeps with wrong input: one line that says what, exit status 2."""

import sqlite3

import pytest
from processes import fails
from sweeps import CASE

GOOD = "time.end=1,2"
WRONG = {
    "no --over": ([], "--over"),
    "unknown key": (["--over", "time.endd=1,2"], "time.endd"),
    "value out of range": (["--over", "time.end=1,-2"], "time.end"),
    "empty range": (["--over", "time.end=2:1:5"], "empty"),
    "no values": (["--over", "time.end="], "no values"),
    "interval": (["--over", "time.end=1:2"], "--sample"),
    "shard 3/2": (["--over", GOOD, "--shard", "3/2"], "3/2"),
    "shard x": (["--over", GOOD, "--shard", "x"], "i/n"),
    "ranks": (["--over", GOOD, "--ranks-per-case", "4"], "--ranks-per-case"),
    "sample 0": (["--over", "time.end=1:2", "--sample", "0"], "--sample"),
    "method": (["--over", "time.end=1:2", "--sample", "4", "--method", "dice"], "dice"),
    "retry": (["--over", GOOD, "--retry", "all"], "all"),
    "set": (["--over", GOOD, "--set", "time.x=1"], "time.x"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_sweeps(name, tmp_path, capsys, monkeypatch):
    options, named = WRONG[name]
    case = tmp_path / "case.toml"
    case.write_text(CASE)
    out = tmp_path / "out"
    assert named in fails(capsys, monkeypatch, "sweep", str(case), "--out", str(out), *options)
    assert not list(out.glob("runs/*"))


def test_files_that_are_no_sweep(tmp_path, capsys, monkeypatch):
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).execute("create table t (x)").connection.close()
    (tmp_path / "text.sqlite").write_text("no database")
    for words in (
        ("table", str(tmp_path)),
        ("table", str(tmp_path / "nowhere")),
        ("table", str(other)),
        ("table", str(tmp_path / "text.sqlite")),
        ("plot", str(other), "--x", "a", "--y", "b"),
        ("plot", str(tmp_path), "--x", "a"),
        ("report", str(tmp_path)),
        ("report", str(tmp_path / "text.sqlite")),
        ("compare", str(tmp_path), str(tmp_path)),
    ):
        said = fails(capsys, monkeypatch, *words)
        assert str(tmp_path) in said
