"""Running a plan: groups of ranks that take the next case as they become free."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

from fem_apps.case import application, validate
from fem_apps.errors import CaseError, FemAppsError, Interrupted
from fem_apps.mpi import on_rank_zero, share
from fem_apps.output.folder import Stop, close_run, open_run
from fem_apps.output.summary import plain_values, read_summary
from fem_apps.sweep.desk import Counter, Desk
from fem_apps.sweep.plan import Plan, Point
from fem_apps.sweep.record import Halted, Outcome, Record
from fem_apps.sweep.view import View

log = logging.getLogger(__name__)

LastWords = Callable[[Outcome], None]

# seconds that a rank with an error waits for the others of its group to have one too
PATIENCE = 20.0
# bytes that a disk must take for an error not to be the disk's
PROBE = 1 << 16


def run_sweep(
    comm: MPI.Comm,
    plan: Plan,
    out: Path,
    *,
    ranks_per_case: int = 1,
    retry_failed: bool = False,
    about: dict[str, Any] | None = None,
) -> dict[str, int]:
    """Run what is not done of a plan. Collective.

    Args:
        comm: all ranks; they are split into as many groups as there can be.
        plan: the cases.
        out: folder of the sweep: the record `sweep.sqlite`, and `runs/`.
        ranks_per_case: least number of ranks of a group.
        retry_failed: failed cases are run again.
        about: further entries for the record.

    Returns:
        number of cases by status.

    Raises:
        CaseError: too few ranks; the folder holds something else, or another sweep is at work.
        Interrupted: a signal came; interrupted cases go on when the sweep is started again.
        Halted: the record or the disk is not to be written.
    """
    if not 1 <= ranks_per_case <= comm.size:
        raise CaseError(f"--ranks-per-case {ranks_per_case}: there are {comm.size} rank(s)")
    groups = comm.size // ranks_per_case
    record: Record | None = None

    def begin() -> tuple[list[Point], dict[str, int]]:
        nonlocal record
        record = Record(out, plan, about or {})
        return record.resume(retry_failed=retry_failed), record.counts()

    todo, counts = on_rank_zero(comm, begin)
    mail, group = comm.Dup(), comm.Split(comm.rank * groups // comm.size, comm.rank)
    share(group)
    stop = Stop()
    stop.listen()
    view = View(counts, groups)
    desk: Desk | Counter | None = None
    if comm.rank == 0:
        assert record is not None
        view.start()
        desk = Desk(mail, record, todo, groups, view)
    elif group.rank == 0:
        desk = Counter(mail)
    speaker = desk or Counter(mail)

    def last_words(outcome: Outcome) -> None:
        speaker.report(outcome)
        time.sleep(1.0)  # for the desk to read it

    try:
        _work(group, plan, out, desk, stop, last_words)
        if desk is not None:
            desk.leave()
        _rest(comm)
        halt = comm.bcast(desk.halt if isinstance(desk, Desk) else None)
        counts = on_rank_zero(comm, lambda: record.counts() if record else {})
    finally:
        view.close()
        if record is not None:
            record.close()
    signals = comm.allreduce(stop.signal, op=MPI.MAX)
    group.Free()
    mail.Free()
    if halt:
        raise Halted(halt)
    if signals:
        ended = counts.get("done", 0) + counts.get("failed", 0)
        raise Interrupted(
            f"interrupted with {ended} of {sum(counts.values())} cases ended; "
            "the same command goes on"
        )
    return counts


def _rest(comm: MPI.Comm) -> None:
    """Wait for all ranks without spinning: another group may compute for hours. Collective."""
    everyone = comm.Ibarrier()
    while not everyone.Test():
        time.sleep(0.005)


def _work(
    group: MPI.Comm,
    plan: Plan,
    out: Path,
    desk: Desk | Counter | None,
    stop: Stop,
    last_words: LastWords,
) -> None:
    """Take cases and run them, until there are none left or the sweep has to stop."""
    queue: deque[Point] = deque()
    over = False
    while True:
        point: Point | None = None
        if desk is not None:
            if isinstance(desk, Desk):
                desk.look()
            if not over and len(queue) < 2:
                desk.ask()  # before the last one is begun
                more = desk.answer(wait=not queue)
                queue.extend(more or ())
                over = more == []
            if queue and not stop.signal:
                point = queue.popleft()
        point = group.bcast(point) if group.size > 1 else point
        if point is None:
            return
        outcome = run_case(group, plan, point, out, stop, last_words)
        if desk is not None:
            desk.report(outcome)
        if outcome.halt:
            return


def run_case(
    group: MPI.Comm,
    plan: Plan,
    point: Point,
    out: Path,
    stop: Stop,
    last_words: LastWords = lambda _: None,
) -> Outcome:
    """Run one case of a plan in its folder; what it raises becomes its outcome. Collective.

    Args:
        group: the ranks that run it.
        plan: of the sweep.
        point: the case.
        out: folder of the sweep.
        stop: asks for an end.
        last_words: reports an outcome before the whole job is ended, because this rank has an error
            and others of the group have none and wait for it.
    """
    folder = out / "runs" / f"{point.id:06d}"
    status, error = "done", ""
    metrics: dict[str, Any] = {}
    handle = case = None
    begun = time.perf_counter()
    try:
        case = validate(plan.tables(point.parameters, point.id), f"case {point.id}")
        module = application(case.kind)
        overwrite, restart = on_rank_zero(group, _how, folder)
        handle = open_run(group, case, folder, overwrite=overwrite, restart=restart, stop=stop)
        begun = time.perf_counter()
        metrics = module.run(case, handle)
    except Interrupted as e:
        status, error = "pending", str(e)
    except (Exception, SystemExit) as e:
        status, error = "failed", _text(e)
        log.debug("case %d", point.id, exc_info=True)
    wall = time.perf_counter() - begun
    alone = Outcome(point.id, "failed", {}, wall, group.size, error)
    status, error = _agree(group, status, error, lambda: last_words(alone))
    if handle is not None and case is not None:
        try:
            close_run(
                handle, case, "interrupted" if status == "pending" else status, metrics, error
            )
        except FemAppsError as e:
            status, error = "failed", str(e)
    halt = ""
    if status == "failed" and group.rank == 0:
        halt = _disk_trouble(out, error)
    if halt:
        status = "pending"
    error = error if status == "failed" else ""
    return Outcome(point.id, status, plain_values(metrics), wall, group.size, error, halt)


def _how(folder: Path) -> tuple[bool, bool]:
    """Whether a case overwrites what is in its folder, and whether it goes on from there."""
    if not folder.exists():
        return False, False
    try:
        interrupted = read_summary(folder / "summary.json").get("status") == "interrupted"
    except CaseError:
        interrupted = False
    if (
        interrupted
        and (folder / "case.toml").is_file()
        and any((folder / "checkpoint").glob("*.npz"))
    ):
        return False, True
    if not (folder / "case.toml").is_file():  # killed before its first file was written
        shutil.rmtree(folder)
    return True, False


def _agree(
    group: MPI.Comm, status: str, error: str, last_words: Callable[[], None]
) -> tuple[str, str]:
    """The status that all ranks of a group take: failed if one has failed. Collective.

    A rank that has failed alone, while the others wait for it in the application, ends the job.
    """
    if group.size == 1:
        return status, error
    everyone, given_up = group.Ibarrier(), time.monotonic() + PATIENCE
    while not everyone.Test():
        if status == "failed" and time.monotonic() > given_up:
            last_words()
            log.error("rank %d alone failed: %s; start the sweep again", group.rank, error)
            MPI.COMM_WORLD.Abort(1)
        time.sleep(1e-4)
    said = group.allgather((status, error))
    for wanted in ("failed", "pending"):
        for s, e in said:
            if s == wanted:
                return s, e
    return "done", ""


def _text(error: BaseException) -> str:
    """One line for the record; what is not meant for the user also says where it was raised."""
    if isinstance(error, FemAppsError):
        return str(error)
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}{at}"


def _disk_trouble(out: Path, error: str) -> str:
    """Why the sweep has to stop, if an error is the disk's and not the case's."""
    full = any(os.strerror(n) in error for n in (errno.ENOSPC, errno.EDQUOT))
    probe = out / f".probe-{os.getpid()}"
    try:
        with probe.open("wb") as f:
            f.write(b"\0" * PROBE)
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        full, error = True, f"{out}: {e.strerror}"
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return (
        f"{error}; what is done is kept: make room, and start the same sweep again" if full else ""
    )
