"""Parts of a run that --restart need not compute again: named tables of arrays in checkpoint/.

What is kept is the same on all ranks and free of their number (nodal values in the order of
coordinates), so that a run may go on with other ranks. A part is written when it is complete.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpi4py import MPI

from fem_apps.mpi import on_rank_zero
from fem_apps.output.files import npz, write_whole

Arrays = dict[str, np.ndarray]
Keep = Callable[[str, Callable[[], Arrays]], Arrays]


def no_keep(name: str, make: Callable[[], Arrays]) -> Arrays:
    """Keeps nothing."""
    return make()


@dataclass(frozen=True)
class Kept:
    """The parts of one run. Called with a name and what makes the part. Collective.

    Attributes:
        comm: communicator.
        folder: where they are.
        restart: whether parts that are there already are taken.
    """

    comm: MPI.Comm
    folder: Path
    restart: bool

    def __call__(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The part, from the folder or new."""
        path = self.folder / f"{name}.npz"

        def read() -> Arrays | None:
            if not (self.restart and path.is_file()):
                return None
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as f:
                return {k: f[k] for k in f.files}

        found = on_rank_zero(self.comm, read)
        if found is not None:
            return found
        made = make()
        on_rank_zero(self.comm, lambda: write_whole(path, npz(made), sync=False))
        return made
