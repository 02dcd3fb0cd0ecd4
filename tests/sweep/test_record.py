"""The record of a sweep: what it takes up after a crash, what it refuses, a full disk."""

import json
import os
import sqlite3
import tomllib

import pytest
from sweeps import CASE

from fem_apps.errors import CaseError
from fem_apps.sweep import record as records
from fem_apps.sweep.plan import make_plan
from fem_apps.sweep.record import CRASHES, Halted, Outcome, Record, files_in, read

RAW = {**tomllib.loads(CASE), "name": "small", "folder": "."}


def plan(n=6, **more):
    return make_plan(RAW, [f"time.end=1:2:{n}"], **more)


def leave(out, number, status, stamp, saved=None, **more):
    """What a case leaves in its run folder when the process is killed."""
    folder = out / "runs" / f"{number:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    summary = folder / "summary.json"
    summary.write_text(json.dumps({"status": status, **more}))
    os.utime(summary, ns=(stamp, stamp))
    if saved is not None:
        (folder / "checkpoint").mkdir(exist_ok=True)
        (folder / "checkpoint" / "checkpoint.npz").touch()
        os.utime(folder / "checkpoint" / "checkpoint.npz", ns=(saved, saved))


def statuses(out):
    _, rows = read(files_in(out)[0])
    return {row["id"]: row["status"] for row in rows}


def test_done_is_done_and_the_rest_is_missing(tmp_path):
    with Record(tmp_path, plan(), {}) as record:
        assert [p.id for p in record.resume()] == list(range(6))
        record.begin([0, 1, 2])
        record.store([Outcome(0, "done", {"a": 0.1}, 1.5, 2)])
        record.store([Outcome(1, "failed", {}, 0.5, 2, "diverged")])
        record.store([Outcome(2, "pending", {}, 0.5, 2)])
    with Record(tmp_path, plan(), {}) as record:
        assert [p.id for p in record.resume()] == [2, 3, 4, 5]
        assert record.counts() == {"done": 1, "failed": 1, "pending": 4}
    with Record(tmp_path, plan(), {}) as record:
        assert [p.id for p in record.resume(retry_failed=True)] == [1, 2, 3, 4, 5]
    _, rows = read(files_in(tmp_path)[0])
    assert json.loads(rows[0]["metrics"]) == {"a": 0.1}
    assert (rows[0]["wall"], rows[0]["ranks"]) == (1.5, 2)


def test_case_that_was_done_but_not_recorded_is_not_repeated(tmp_path):
    with Record(tmp_path, plan(), {}) as record:
        record.begin([0, 1])
        leave(tmp_path, 0, "done", 10, metrics={"a": 0.1}, ranks=2, wall_time={"total": 3.0})
        leave(tmp_path, 1, "interrupted", 11)
    with Record(tmp_path, plan(), {}) as record:
        # the one that may have ended the process comes last
        assert [p.id for p in record.resume()] == [2, 3, 4, 5, 1]
    assert statuses(tmp_path)[0] == "done"
    _, rows = read(files_in(tmp_path)[0])
    assert json.loads(rows[0]["metrics"]) == {"a": 0.1}


def test_case_that_ends_the_process_every_time_has_failed(tmp_path):
    for i in range(CRASHES):
        with Record(tmp_path, plan(), {}) as record:
            assert 4 in [p.id for p in record.resume()]
            record.begin([4, 5])
            leave(tmp_path, 4, "interrupted", 10 + i)
    with Record(tmp_path, plan(), {}) as record:
        assert 4 not in [p.id for p in record.resume()]
        assert 4 in [p.id for p in record.resume(retry_failed=True)]


def test_killed_again_and_again_is_no_failure_where_it_gets_on_or_has_not_begun(tmp_path):
    Record(tmp_path / "x", plan(), {}).close()
    leave(tmp_path / "x", 3, "interrupted", 7)
    for i in range(3 * CRASHES):
        with Record(tmp_path / "x", plan(), {}) as record:
            assert {3, 4} <= {p.id for p in record.resume()}
            record.begin([3, 4])
            # 4 writes a new checkpoint each time; 3 is handed out, and what is there is old
            leave(tmp_path / "x", 4, "interrupted", 10 + i, saved=20 + i)


def test_second_writer_is_refused(tmp_path):
    with (
        Record(tmp_path, plan(), {}),
        pytest.raises(CaseError, match=f"another sweep.*process {os.getpid()}"),
    ):
        Record(tmp_path, plan(), {})
    Record(tmp_path, plan(), {}).close()


def test_another_plan_is_refused(tmp_path):
    Record(tmp_path, plan(), {}).close()
    for other, said in (
        (plan(7), "--over"),
        (make_plan({**RAW, "seed": 5}, ["time.end=1:2:6"]), "--set"),
        (plan(shard=(1, 2)), "--shard"),
        (make_plan(RAW, ["time.end=1:2"], sample=6), "--sample"),
    ):
        with pytest.raises(CaseError, match=said):
            Record(tmp_path, other, {})


def test_shards_are_files_of_one_sweep(tmp_path):
    for i in (1, 2):
        Record(tmp_path, plan(shard=(i, 2)), {}).close()
    assert len(files_in(tmp_path)) == 2
    with pytest.raises(CaseError, match="--shard"):
        Record(tmp_path, plan(), {})
    with pytest.raises(CaseError, match="--over"):
        Record(tmp_path, plan(8, shard=(2, 2)), {})


def test_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(CaseError, match="precious"):
        Record(tmp_path, plan(), {})
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".sqlite"] == []


@pytest.mark.parametrize("content", [b"this is no database at all", b"", b"other"])
def test_file_that_is_no_sweep_is_refused(content, tmp_path):
    path = tmp_path / "sweep.sqlite"
    if content == b"other":
        sqlite3.connect(path).execute("create table cases (id)").connection.close()
    else:
        path.write_bytes(content)
    with pytest.raises(CaseError, match="not the record of a sweep"):
        read(path)
    if content:
        with pytest.raises(CaseError, match="not the record of a sweep"):
            Record(tmp_path, plan(), {})


def test_full_disk_halts_and_loses_nothing(tmp_path):
    with Record(tmp_path, plan(), {}) as record:
        record.resume()
        record.begin([0, 1])
        record.store([Outcome(0, "done", {"a": 1.0}, 1.0, 1)])
        pages = record._db.execute("pragma page_count").fetchone()[0]
        record._db.execute(f"pragma max_page_count = {pages}")  # SQLite's own full disk
        with pytest.raises(Halted, match="full"):
            record.store([Outcome(1, "done", {"a": "x" * 100_000}, 1.0, 1)])
    with Record(tmp_path, plan(), {}) as record:
        assert record.resume()[0].id == 1
    assert statuses(tmp_path)[0] == "done"


def test_schema_is_what_the_docs_say(tmp_path):
    Record(tmp_path, plan(), {"kind": "k"}).close()
    meta, rows = read(records.file_of(tmp_path))
    assert meta["kind"] == "k"
    assert meta["size"] == 6
    assert set(rows[0].keys()) >= {
        *("id", "parameters", "status", "metrics", "wall", "ranks", "error", "folder", "finished")
    }
