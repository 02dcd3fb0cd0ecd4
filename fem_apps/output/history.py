"""The history of a run: one line of numbers a step, in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.output.files import write_whole

if TYPE_CHECKING:
    from mpi4py import MPI


class History:
    """Writes `history.csv` on rank 0, a row at a time; other ranks do nothing.

    The keys of the first row are the header. Every row is flushed, so that a killed run keeps what
    it has done, and floats are written so that they read back exactly.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        path: str | Path,
        *,
        append: bool = False,
        last_step: int | None = None,
    ) -> None:
        """Open the file. Collective.

        Args:
            comm: communicator of the run.
            path: the file.
            append: continue the file that is there, instead of a new one.
            last_step: with `append`, keep only rows whose "step" is at most this one, the
                checkpoint's: what came after it will be done again.

        Raises:
            CaseError: the file cannot be written, or what is there is no history.
        """
        from fem_apps.mpi import on_rank_zero  # pictures read histories where MPI must not start

        self.path = Path(path)
        self._keys: list[str] | None = None
        self._file: io.TextIOWrapper | None = None
        on_rank_zero(comm, self._open, append, last_step)

    def _open(self, append: bool, last_step: int | None) -> None:
        try:
            if append and self.path.exists():
                self._keys = _truncate(self.path, last_step)
            self._file = self.path.open("a" if append else "w", newline="", encoding="utf-8")
        except OSError as e:
            raise CaseError(f"cannot write {self.path}: {e}") from None

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; its keys are those of the first one.

        Raises:
            ValueError: other keys (a bug of the caller, on rank 0).
        """
        if self._file is None:
            return
        out = csv.writer(self._file, lineterminator="\n")
        if self._keys is None:
            self._keys = list(row)
            out.writerow(self._keys)
        if set(row) != set(self._keys):
            raise ValueError(f"the history has {self._keys}, this row {list(row)}")
        out.writerow([_text(row[key]) for key in self._keys])
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> History:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def read_history(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a history, floats (text where a column is not numbers).

    A line that a crash cut short is left out.

    Raises:
        CaseError: no such file.
    """
    keys, rows = _rows(Path(path))
    columns: dict[str, np.ndarray] = {}
    for i, key in enumerate(keys):
        column = [row[i] for row in rows]
        try:
            columns[key] = np.array([float(v) if v else np.nan for v in column])
        except ValueError:
            columns[key] = np.array(column)
    return columns


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CaseError(f"no history {path}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise CaseError(f"cannot read {path}: {e}") from None
    text = text[: text.rfind("\n") + 1]
    table = list(csv.reader(io.StringIO(text)))
    if not table:
        return [], []
    return table[0], [row for row in table[1:] if len(row) == len(table[0])]


def _truncate(path: Path, last_step: int | None) -> list[str] | None:
    """Rewrite the file with the rows up to a step; returns its header, None if it has none."""
    keys, rows = _rows(path)
    if last_step is not None and keys:
        if "step" not in keys:
            raise CaseError(f"{path} has no column 'step': it is not the history of this run")
        at = keys.index("step")
        try:
            rows = [row for row in rows if float(row[at]) <= last_step]
        except ValueError:
            raise CaseError(
                f"{path}: a step is not a number: it is not the history of a run"
            ) from None
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([keys, *rows] if keys else [])
    write_whole(path, text.getvalue().encode())
    return keys or None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | np.bool_ | np.integer):
        return str(int(value))
    return repr(float(value))
