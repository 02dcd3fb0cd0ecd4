"""The record of a sweep: one SQLite file, one writer; every case is there exactly once.

    meta   key -> JSON: format, kind, identity of the plan, descriptions of the axes
    cases  id, parameters, status, metrics, wall, ranks, error, folder, finished; and of crashes:
           attempts, begun, saved (times of the run folder's summary and checkpoint at the last one)

Status: pending, running (handed to a group of ranks), done, failed. What a killed sweep leaves as
running is looked for in its run folder when the sweep starts again: done there is done, an
interrupted run is continued, and a case has failed that was running at three crashes without a new
checkpoint between them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from fem_apps.errors import CaseError, FemAppsError
from fem_apps.sweep.plan import Plan, Point

APPLICATION_ID, FORMAT = 0x46456D53, 1
# a case that was running at this many crashes is what crashes
CRASHES = 3
SCHEMA = """
create table meta (key text primary key, value text not null);
create table cases (
    id integer primary key, parameters text not null, status text not null default 'pending',
    metrics text, wall real, ranks integer, error text, folder text not null,
    finished text, attempts integer not null default 0, begun integer, saved integer
);
create index status on cases (status);
"""


class Halted(FemAppsError):
    """The sweep cannot go on, but what is done is kept. Exit status 1."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        id: its number.
        status: done, failed, or pending: interrupted, to be continued.
        metrics: JSON values.
        wall: seconds of the application.
        ranks: how many computed it.
        error: why it failed.
        halt: why the whole sweep has to stop; empty if it has not.
    """

    id: int
    status: str
    metrics: dict[str, Any]
    wall: float
    ranks: int
    error: str = ""
    halt: str = ""


@dataclass(frozen=True)
class _Left:
    """What a killed sweep left of a case: its summary, times of that and of the checkpoint."""

    summary: dict[str, Any]
    begun: int
    saved: int | None


def _left_behind(folder: Path) -> _Left | None:
    from fem_apps.output.summary import read_summary

    try:
        summary = read_summary(folder / "summary.json")
        begun = (folder / "summary.json").stat().st_mtime_ns
        saved = max((p.stat().st_mtime_ns for p in (folder / "checkpoint").glob("*")), default=None)
    except (CaseError, OSError):
        return None
    return _Left(summary, begun, saved)


def file_of(out: Path, shard: tuple[int, int] = (1, 1)) -> Path:
    """Where the record of a shard is."""
    return out / ("sweep.sqlite" if shard[1] == 1 else f"sweep.{shard[0]}-of-{shard[1]}.sqlite")


def files_in(out: Path) -> list[Path]:
    """The records in the folder of a sweep, one for each shard."""
    return sorted(out.glob("sweep*.sqlite"))


class Record:
    """The file, open for writing; a second writer is refused. Use as a context, on one rank."""

    def __init__(self, out: Path, plan: Plan, about: dict[str, Any]) -> None:
        """Make the record of a plan, or take up the one that is there.

        Args:
            out: folder of the sweep.
            plan: its cases.
            about: further entries of `meta`, JSON values.

        Raises:
            CaseError: the folder holds something else, another sweep, or another sweep is at work.
            Halted: the file cannot be written.
        """
        self.out, self.path = out, file_of(out, plan.shard)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise CaseError(f"cannot make the folder {out}: {e.strerror}") from None
        self._lock = _lock(self.path)
        try:
            with _readable(self.path):
                self._open(plan, about)
        except BaseException:
            self.close()
            raise

    def _open(self, plan: Plan, about: dict[str, Any]) -> None:
        known = files_in(self.out)
        strangers = [p.name for p in self.out.iterdir() if not p.name.startswith("sweep")]
        if strangers and not known:
            raise CaseError(f"{self.out} holds no sweep but {strangers[0]}: give another --out")
        for path in known:
            _same_plan(path, plan)
        if self.path not in known:
            self._create(plan, about)
        # manual transactions; the desk's thread writes too, one at a time
        self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._db.execute("pragma journal_mode = wal")
        # a killed process loses nothing; a dead node loses what came after the last `sync`
        self._db.execute("pragma synchronous = normal")

    def _create(self, plan: Plan, about: dict[str, Any]) -> None:
        """Write the file beside its place and move it there: it is whole or absent."""
        beside = self.path.with_suffix(".part")
        beside.unlink(missing_ok=True)
        db = sqlite3.connect(beside, isolation_level=None)
        try:
            db.execute(f"pragma application_id = {APPLICATION_ID}")
            db.execute("begin immediate")
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            meta = {"format": FORMAT, "plan": plan.identity(), "size": plan.size, **about}
            db.executemany(
                "insert into meta values (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()]
            )
            db.executemany(
                "insert into cases (id, parameters, folder) values (?, ?, ?)",
                ((p.id, json.dumps(p.parameters), f"runs/{p.id:06d}") for p in plan.points()),
            )
            db.execute("commit")
        finally:
            db.close()
        beside.replace(self.path)

    def resume(self, *, retry_failed: bool = False) -> list[Point]:
        """What is to be done, cases that may have ended a process last.

        Raises:
            Halted: the file cannot be written.
        """
        now: list[Outcome] = []
        crashed: list[tuple[int, int | None, int | None, int]] = []
        for row in self._db.execute(
            "select id, folder, attempts, begun, saved from cases where status = 'running'"
        ).fetchall():
            id_, folder, attempts, begun, saved = row
            left = _left_behind(self.out / folder)
            if left is None or left.begun == begun:
                continue  # handed out, but not begun
            attempts = 1 if left.saved is not None and left.saved != saved else attempts + 1
            if left.summary.get("status") == "done":
                wall = float(left.summary.get("wall_time", {}).get("total", 0.0))
                ranks = int(left.summary.get("ranks", 1))
                now.append(Outcome(id_, "done", left.summary.get("metrics", {}), wall, ranks))
            elif attempts >= CRASHES:
                text = f"the process ended without a word, {CRASHES} times while it ran this case"
                now.append(Outcome(id_, "failed", {}, 0.0, 0, text))
            else:
                crashed.append((attempts, left.begun, left.saved, id_))
        self.store(now)
        with self._transaction():
            self._db.executemany(
                "update cases set attempts = ?, begun = ?, saved = ? where id = ?", crashed
            )
            self._db.execute("update cases set status = 'pending' where status = 'running'")
            if retry_failed:
                self._db.execute(
                    "update cases set status = 'pending', attempts = 0, error = null"
                    " where status = 'failed'"
                )
        rows = self._db.execute(
            "select id, parameters from cases where status = 'pending' order by attempts, id"
        )
        return [Point(id_, json.loads(text)) for id_, text in rows]

    def counts(self) -> dict[str, int]:
        """Number of cases of each status."""
        return dict(self._db.execute("select status, count(*) from cases group by status"))

    def begin(self, ids: Iterable[int]) -> None:
        """Note that cases are handed out. Raises Halted."""
        with self._transaction():
            self._db.executemany(
                "update cases set status = 'running' where id = ?", ((i,) for i in ids)
            )

    def store(self, outcomes: Iterable[Outcome]) -> None:
        """Note what became of cases. Raises Halted."""
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [
            (o.status, json.dumps(o.metrics), o.wall, o.ranks, o.error or None, finished, o.id)
            for o in outcomes
        ]
        with self._transaction():
            self._db.executemany(
                "update cases set status = ?, metrics = ?, wall = ?, ranks = ?, error = ?,"
                " finished = ? where id = ?",
                rows,
            )

    def sync(self) -> None:
        """Have the disk hold what is noted. Raises Halted."""
        wal = self.path.with_name(self.path.name + "-wal")
        try:
            with wal.open("rb") as f:
                os.fsync(f.fileno())
        except FileNotFoundError:
            return
        except OSError as e:
            raise Halted(f"{self.path}: {e.strerror}; start the same sweep again") from None

    def release(self) -> None:
        """Cases that were handed out and not begun are pending again. Raises Halted."""
        with self._transaction():
            self._db.execute("update cases set status = 'pending' where status = 'running'")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("begin immediate")
            yield
            self._db.execute("commit")
        except sqlite3.OperationalError as e:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("rollback")
            raise Halted(
                f"{self.path}: {e}; what is done is kept: make room or set it right, and start "
                "the same sweep again"
            ) from None

    def close(self) -> None:
        """Close the file and let others write it."""
        if hasattr(self, "_db"):
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        self._lock.close()

    def __enter__(self) -> Record:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def read(path: Path) -> tuple[dict[str, Any], list[sqlite3.Row]]:
    """The meta entries and the rows of a record, also while a sweep writes it.

    Raises:
        CaseError: no such file, or no record of a sweep.
    """
    if not path.is_file():
        raise CaseError(f"there is no {path}")
    with _readable(path):
        db = _reader(path)
        try:
            meta = {k: json.loads(v) for k, v in db.execute("select key, value from meta")}
            rows = db.execute("select * from cases order by id").fetchall()
        finally:
            db.close()
    return meta, rows


def _reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads; of a file in a read-only folder too."""
    uri = path.resolve().as_uri()
    try:
        db = sqlite3.connect(f"{uri}?mode=ro", uri=True)
        known = db.execute("pragma application_id").fetchone()[0]
    except sqlite3.OperationalError:
        db = sqlite3.connect(f"{uri}?immutable=1", uri=True)
        known = db.execute("pragma application_id").fetchone()[0]
    if known != APPLICATION_ID:
        db.close()
        raise CaseError(f"{path} is not the record of a sweep")
    db.row_factory = sqlite3.Row
    return db


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as e:
        raise Halted(f"{path}: {e}") from None
    except sqlite3.DatabaseError as e:
        raise CaseError(f"{path} is not the record of a sweep: {e}") from None


def _same_plan(path: Path, plan: Plan) -> None:
    """Refuse to go on with another plan than the one recorded; shards differ in `shard` only."""
    meta, _ = read(path)
    old, new = meta["plan"], json.loads(json.dumps(plan.identity()))
    same_file = path == file_of(path.parent, plan.shard)
    if old["shard"][1] != new["shard"][1]:
        raise CaseError(
            f"{path.parent} holds a sweep in {old['shard'][1]} part(s): give the same --shard i/n, "
            "or another --out"
        )
    differ = [k for k in new if old.get(k) != new[k] and (k != "shard" or same_file)]
    if differ:
        names = {"case": "the case or --set", "over": "--over"}
        said = ", ".join(names.get(k, f"--{k}") for k in differ)
        raise CaseError(f"{path} is of another sweep ({said} differ): give another --out")


def _lock(path: Path) -> TextIO:
    """Hold the right to write a record until the file is closed, or the process is gone."""
    try:
        handle = path.with_suffix(".lock").open("a+")
    except OSError as e:
        raise CaseError(f"cannot write in {path.parent}: {e.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        who = handle.read().strip() or "unknown"
        handle.close()
        raise CaseError(
            f"another sweep is writing {path} ({who}): wait for it, or give another --out"
        ) from None
    handle.seek(0)
    handle.truncate()
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name in it
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
    return handle
