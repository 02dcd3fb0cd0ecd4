"""The run folder: who may write it, what state it is in, and the handle for applications."""

from __future__ import annotations

import logging
import shutil
import signal
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w
from mpi4py import MPI

from fem_apps.case import Case
from fem_apps.errors import CaseError
from fem_apps.mpi import on_rank_zero
from fem_apps.output.files import write_whole
from fem_apps.output.progress import Progress
from fem_apps.output.summary import read_summary, versions, write_summary

log = logging.getLogger(__name__)

# keys of a case that a continued run may change
CONTINUABLE = ("title", "time", "output")


@dataclass
class Stop:
    """A request to stop: the number of the signal that came, 0 for none."""

    signal: int = 0

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as the request from now on. On the main thread."""

        def stop(number: int, frame: Any) -> None:
            self.signal = number

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)


@dataclass
class Run:
    """What an application gets besides its case.

    Attributes:
        comm: communicator of the run.
        folder: where everything is written.
        restart: whether the run continues from `folder`'s checkpoint.
        progress: a bar on a terminal, plain lines elsewhere.
        notes: what was left out and why; ends in the summary.
    """

    comm: MPI.Comm
    folder: Path
    restart: bool
    progress: Progress
    notes: list[str] = field(default_factory=list)
    _phases: dict[str, float] = field(default_factory=dict)
    _begun: float = field(default_factory=time.perf_counter)
    _earlier: float = 0.0
    _stop: Stop = field(default_factory=Stop)
    _sync: bool = True

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the wall time of the body under `name` in the summary."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._phases[name] = self._phases.get(name, 0.0) + time.perf_counter() - begun

    def note(self, text: str) -> None:
        """Record and log something that the user should know of the result."""
        if text not in self.notes:
            self.notes.append(text)
            log.warning(text)

    @property
    def signalled(self) -> bool:
        """Whether this rank got SIGTERM or SIGINT, for loops that one rank runs alone."""
        return bool(self._stop.signal)

    def asked_to_stop(self) -> bool:
        """Whether any rank got SIGTERM or SIGINT. Collective."""
        return bool(self.comm.allreduce(self._stop.signal, op=MPI.MAX))


def open_run(
    comm: MPI.Comm,
    case: Case,
    folder: Path,
    *,
    overwrite: bool = False,
    restart: bool = False,
    stop: Stop | None = None,
) -> Run:
    """Make or reopen the run folder of a case. Collective.

    Args:
        comm: communicator of the run.
        case: what is run.
        folder: the run folder.
        overwrite: replace an existing run folder.
        restart: continue an interrupted run; one without a checkpoint yet is begun again.
        stop: of a caller that runs many cases: it listens to signals and shows progress.

    Raises:
        CaseError: the folder exists and neither `overwrite` nor `restart` is given, it is no run
            folder, there is nothing to continue, or the case is not the one that was begun.
    """
    restart, earlier = on_rank_zero(comm, _prepare, case, folder, overwrite, restart)
    if comm.rank == 0:
        handler = logging.FileHandler(folder / "log.txt", mode="a")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.setLevel(logging.INFO)
        logging.getLogger("fem_apps").addHandler(handler)
    progress = Progress(comm, quiet=stop is not None)
    run = Run(comm, folder, restart, progress, _earlier=earlier, _stop=stop or Stop())
    run._sync = stop is None  # one among many is told to the disk by its record
    if stop is None:
        run._stop.listen()
    return run


def _prepare(case: Case, folder: Path, overwrite: bool, restart: bool) -> tuple[bool, float]:
    """Whether there is a checkpoint to continue from, and the wall time that led to it."""
    known = (folder / "case.toml").is_file()
    text = resolved(case)
    earlier = 0.0
    if restart:
        if not known:
            raise CaseError(f"--restart: {folder} holds no run (no case.toml)")
        _same_case(tomllib.loads((folder / "case.toml").read_text()), tomllib.loads(text), folder)
        there = folder / "summary.json"
        summary = read_summary(there) if there.is_file() else {}
        restart = _has_checkpoint(folder)
        if restart:
            earlier = float(summary.get("wall_time", {}).get("total", 0.0))
        elif summary.get("status") == "done":
            raise CaseError(
                f"--restart: the run in {folder} is done and left no checkpoint; "
                "give --overwrite to run it again"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not overwrite:
            raise CaseError(f"{folder} exists: give --overwrite, --restart, or another --out")
        if not known:
            raise CaseError(
                f"--overwrite: {folder} is no run folder (it has no case.toml); delete it yourself"
            )
        shutil.rmtree(folder)
    try:
        write_whole(folder / "case.toml", text.encode(), sync=False)
    except OSError as e:
        raise CaseError(f"cannot write the run folder {folder}: {e.strerror}") from None
    # what a killed run leaves behind is true: it was interrupted
    write_summary(
        folder / "summary.json",
        {"status": "interrupted", "kind": case.kind, "name": case.name, "metrics": {}},
        sync=False,
    )
    return restart, earlier


def _has_checkpoint(folder: Path) -> bool:
    """Whether a complete file is there; a run killed before its first one has none."""
    place = folder / "checkpoint"
    return place.is_dir() and any(p.suffix != ".part" for p in place.iterdir())


def resolved(case: Case) -> str:
    """The whole case as TOML, defaults and all; it can be run again from anywhere."""
    table = case.model_dump(mode="json", exclude_none=True)
    table["folder"] = str(case.folder.resolve())
    return tomli_w.dumps(table)


def _same_case(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    changed = [
        k
        for k in sorted(old.keys() | new.keys())
        if k not in (*CONTINUABLE, "folder") and old.get(k) != new.get(k)
    ]
    if changed:
        raise CaseError(
            f"--restart: {', '.join(changed)} differ from the run in {folder}; "
            f"only {', '.join(CONTINUABLE)} may change"
        )


def close_run(
    run: Run, case: Case, status: str, metrics: dict[str, Any], message: str = ""
) -> None:
    """Write the summary and stop logging to the folder. Call on every rank; not collective."""
    if run.comm.rank == 0:
        total = time.perf_counter() - run._begun
        summary = {
            "status": status,
            "kind": case.kind,
            "name": case.name,
            "title": case.title,
            "message": message,
            "metrics": metrics,
            "notes": run.notes,
            "ranks": run.comm.size,
            "seed": case.seed,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_time": {**run._phases, "total": run._earlier + total},
            "versions": versions(),
        }
        write_summary(run.folder / "summary.json", summary, sync=run._sync)
        logger = logging.getLogger("fem_apps")
        for handler in list(logger.handlers):
            if isinstance(handler, logging.FileHandler):
                logger.removeHandler(handler)
                handler.close()
    run.progress.close()
