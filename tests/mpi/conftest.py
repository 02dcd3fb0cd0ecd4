"""What the tests under mpirun share."""

import shutil
import tempfile
from pathlib import Path

import pytest
from mpi4py import MPI


@pytest.fixture
def folder():
    """A folder that all ranks see, gone afterwards."""
    comm = MPI.COMM_WORLD
    path = comm.bcast(Path(tempfile.mkdtemp()) if comm.rank == 0 else None)
    yield path
    comm.barrier()
    if comm.rank == 0:
        shutil.rmtree(path)
