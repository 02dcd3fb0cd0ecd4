"""What every part needs of MPI: the same value, or the same error, on all ranks."""

from __future__ import annotations

import ctypes
import os
import signal
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI


def on_rank_zero[T](comm: MPI.Comm, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call `function` on rank 0 and give its result to every rank. Collective.

    Raises:
        Exception: whatever `function` raised, on every rank.
    """
    result: Any = None
    error: BaseException | None = None
    if comm.rank == 0:
        try:
            result = function(*args, **kwargs)
        except Exception as e:
            error = e
    result, error = comm.bcast((result, error), root=0)
    if error is not None:
        raise error
    return result


@contextmanager
def same_error(comm: MPI.Comm) -> Iterator[None]:
    """Raise the lowest failing rank's error on every rank. Collective at its end.

    The body must not call collectives after the point where it may fail.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as e:
        error = e
    failing = comm.allreduce(comm.rank if error is not None else comm.size, op=MPI.MIN)
    if failing < comm.size:
        raise comm.bcast(error, root=failing)


PR_SET_PDEATHSIG = 1
_SHARED = MPI.Comm.Create_keyval()


def share(comm: MPI.Comm, limit: int = 8) -> None:
    """From now on `shared` keeps, on this communicator, the last `limit` things that were used."""
    comm.Set_attr(_SHARED, (OrderedDict(), limit))


def shared[T](comm: MPI.Comm, key: Hashable, make: Callable[[], T]) -> T:
    """What `make()` gives, made once for all cases that a sweep runs on this communicator.

    Collective if `make` is: all ranks of a communicator have made the same things. Outside a sweep
    nothing is kept. What is shared must never be changed.

    Args:
        comm: communicator of the run, `run.comm`.
        key: all that the result depends on.
        make: makes it.
    """
    kept: Any = comm.Get_attr(_SHARED)
    if kept is None:
        return make()
    things: OrderedDict[Hashable, T] = kept[0]
    if key not in things:
        things[key] = make()
        while len(things) > kept[1]:
            things.popitem(last=False)
    things.move_to_end(key)
    return things[key]


def total(comm: MPI.Comm, x: Any) -> Any:
    """Sum of a number, or of an array entry by entry, over the ranks. Collective."""
    if isinstance(x, np.ndarray):
        out = np.empty_like(x)
        comm.Allreduce(np.ascontiguousarray(x), out, op=MPI.SUM)
        return out
    return comm.allreduce(x, op=MPI.SUM)


def extremes(comm: MPI.Comm, x: np.ndarray) -> tuple[float, float]:
    """Least and greatest entry of an array spread over the ranks. Collective."""
    low = float(x.min()) if x.size else np.inf
    high = float(x.max()) if x.size else -np.inf
    out = np.empty(2)
    comm.Allreduce(np.array([-low, high]), out, op=MPI.MAX)
    return -float(out[0]), float(out[1])


# names of the processes that start ranks on a node, for Open MPI, MPICH and Intel MPI
LAUNCHERS = ("mpirun", "mpiexec", "prterun", "prted", "orted", "hydra_pmi_proxy")


def end_with_launcher() -> None:
    """Have the kernel end this rank when the process that started it dies. Linux; else nothing.

    Ranks whose mpirun was killed would wait for it for ever, holding what they have locked. Of
    Slurm's own launcher it is known that it ends its tasks.
    """
    parent = os.getppid()
    try:
        if Path(f"/proc/{parent}/comm").read_text().strip() not in LAUNCHERS:
            return
        kernel = ctypes.CDLL(None)
        kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it has died meanwhile
        os.kill(os.getpid(), signal.SIGKILL)
