"""What a sweep shows while it runs: cases done, failed, running, their rate, the time left."""

from __future__ import annotations

import logging
import time
from typing import Any

from fem_apps.sweep.record import Outcome

log = logging.getLogger(__name__)

# seconds between plain lines; a bar is drawn at most this often
EVERY, DRAWN = 10.0, 0.2
# failures that get a line
SHOWN = 10


class View:
    """A bar on a terminal, plain lines elsewhere; on rank 0."""

    def __init__(self, counts: dict[str, int], groups: int) -> None:
        """Begin.

        Args:
            counts: number of cases of each status at the start.
            groups: how many cases run at a time.
        """
        self.total = sum(counts.values())
        self.done, self.failed, self.running = counts.get("done", 0), counts.get("failed", 0), 0
        self._groups, self._before = groups, self.done + self.failed
        self._begun = self._shown = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._on = False

    def start(self) -> None:
        """Show the bar, if there is a terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._on = True
        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = Progress(
                BarColumn(), TextColumn("{task.description}"), console=console, auto_refresh=False
            )
            self._task = self._bar.add_task(self.text(), total=self.total)
            self._bar.start()

    def add(self, outcome: Outcome) -> None:
        """Count an outcome; a failed case gets a line of its own."""
        self.running -= 1
        self.done += outcome.status == "done"
        if outcome.status == "failed":
            self.failed += 1
            if self.failed <= SHOWN:
                log.warning("case %d failed: %s", outcome.id, outcome.error)
            if self.failed == SHOWN:
                log.warning("further failures go to the table only")

    def show(self) -> None:
        """Draw the bar, or write a line, if it is time."""
        now = time.monotonic()
        if now - self._shown < (DRAWN if self._bar else EVERY):
            return
        self._shown = now
        if self._bar:
            done = self.done + self.failed
            self._bar.update(self._task, completed=done, description=self.text(), refresh=True)
        else:
            log.info("%s", self.text())

    def text(self) -> str:
        """One line."""
        ended = self.done + self.failed
        seconds = time.monotonic() - self._begun
        rate = (ended - self._before) / max(seconds, 1e-9)
        left = _time((self.total - ended) / rate) if rate > 0 else "?"
        return (
            f"{ended} of {self.total} cases: {self.done} done, {self.failed} failed, "
            f"{min(self.running, self._groups)} running; {_rate(rate)}, {left} left"
        )

    def close(self) -> None:
        """Leave the terminal as it was, and say the last line."""
        if self._bar:
            self._bar.update(self._task, completed=self.done + self.failed, description=self.text())
            self._bar.stop()
            self._bar = None
        elif self._on:
            log.info("%s", self.text())


def _rate(rate: float) -> str:
    if rate >= 1 or rate == 0:
        return f"{rate:.3g} cases/s"
    return f"{60 * rate:.3g} cases/min" if rate > 1 / 60 else f"{3600 * rate:.3g} cases/h"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
