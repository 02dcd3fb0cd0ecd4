"""What every part needs of MPI: the same value, or the same error, on all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
