"""Who does which case next: the desk on rank 0, which alone writes the record, and its callers.

The first rank of each group asks the desk for cases before it has run out of them and reports
each outcome without waiting, so that no group waits while rank 0 computes. The desk answers from
a thread of rank 0, and between rank 0's own cases.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from mpi4py import MPI

from fem_apps.sweep.plan import Point
from fem_apps.sweep.record import Halted, Outcome, Record
from fem_apps.sweep.view import View

TO_DESK, FROM_DESK = 1, 2
# seconds: between looks at the mail; how long cases that are handed out at once should last;
# between synchronisations of the record with the disk
NAP, BATCH, SYNC = 0.1, 0.5, 5.0
LARGEST = 64


class Desk:
    """Hands out cases and records outcomes; on rank 0."""

    def __init__(
        self, comm: MPI.Comm, record: Record, todo: list[Point], groups: int, view: View
    ) -> None:
        self._comm, self._record, self._groups, self._view = comm, record, groups, view
        self._todo = deque(todo)
        self._lock = threading.Lock()
        self._wall, self._count, self._left = 0.0, 0, groups
        self._synced, self._known = time.monotonic(), 0
        self._sent: list[MPI.Request] = []
        self.halt = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        if MPI.Query_thread() == MPI.THREAD_MULTIPLE:
            self._thread.start()

    def _serve(self) -> None:
        while not self._over.wait(NAP):
            self.look()
            self._sync()

    def _sync(self) -> None:
        """From time to time, and not under the lock: the disk may take long."""
        now = time.monotonic()
        if now - self._synced < SYNC or self._count == self._known:
            return
        self._synced, self._known = now, self._count
        try:
            self._record.sync()
        except Halted as e:
            self.halt = self.halt or str(e)

    def look(self) -> None:
        """Answer all mail that is there."""
        with self._lock:
            while (message := self._comm.improbe(tag=TO_DESK)) is not None:
                status = MPI.Status()
                self._answer(message.recv(status=status), status.Get_source())
            self._sent = [r for r in self._sent if not r.Test()]
            self._view.show()

    def _answer(self, mail: Any, source: int) -> None:
        if mail is None:
            self._sent.append(self._comm.isend(self._take(), dest=source, tag=FROM_DESK))
        elif mail == "leaves":
            self._left -= 1
        else:
            self._store(mail)

    def ask(self) -> None:
        """Rank 0's own group asks: nothing to be sent."""

    def answer(self, *, wait: bool = True) -> list[Point] | None:
        """The next cases for rank 0's own group; [] if there are none left."""
        with self._lock:
            return self._take()

    def report(self, outcome: Outcome) -> None:
        """Record an outcome of rank 0's own group."""
        with self._lock:
            self._store(outcome)

    def leave(self) -> None:
        """Wait until all groups have left, and set back what was handed out in vain."""
        self._left -= 1
        while self._left > 0:
            self.look()
            time.sleep(NAP)
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self._record.release()
        except Halted as e:
            self.halt = self.halt or str(e)

    def _take(self) -> list[Point]:
        """Cases that last about BATCH seconds, and few enough that all groups end together."""
        if self.halt:
            return []
        mean = self._wall / self._count if self._count else BATCH
        fair = len(self._todo) // (2 * self._groups)
        n = max(1, min(int(BATCH / max(mean, 1e-6)), fair, LARGEST))
        batch = [self._todo.popleft() for _ in range(min(n, len(self._todo)))]
        try:
            self._record.begin(p.id for p in batch)
        except Halted as e:
            self.halt = str(e)
            return []
        self._view.running += len(batch)
        return batch

    def _store(self, outcome: Outcome) -> None:
        self._wall, self._count = self._wall + outcome.wall, self._count + 1
        try:
            self._record.store([outcome])
        except Halted as e:
            self.halt = self.halt or str(e)
        self.halt = self.halt or outcome.halt
        self._view.add(outcome)


class Counter:
    """The same for the first rank of any other group: it writes to the desk."""

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm
        self._sent: list[MPI.Request] = []
        self._due = False

    def ask(self) -> None:
        """Ask for cases, unless that is done already."""
        if not self._due:
            self._due = True
            self._send(None)

    def answer(self, *, wait: bool = True) -> list[Point] | None:
        """The cases; [] if there are none left; None if there is no answer yet (not `wait`)."""
        self.ask()
        while not self._comm.iprobe(source=0, tag=FROM_DESK):
            if not wait:
                return None
            time.sleep(0.001)
        self._due = False
        cases: list[Point] = self._comm.recv(source=0, tag=FROM_DESK)
        return cases

    def report(self, outcome: Outcome) -> None:
        """Send an outcome."""
        self._send(outcome)

    def leave(self) -> None:
        """Say that this group has ended."""
        if self._due:
            self.answer()
        self._send("leaves")
        MPI.Request.waitall(self._sent)

    def _send(self, mail: Any) -> None:
        self._sent = [r for r in self._sent if not r.Test()]
        self._sent.append(self._comm.isend(mail, dest=0, tag=TO_DESK))
