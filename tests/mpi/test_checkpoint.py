"""A checkpoint written on some of the ranks is read on all of them, and the other way round."""

import numpy as np
import pytest
from dolfinx import default_scalar_type, fem, mesh
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.fem.integrals import interpolate
from fem_apps.output import checkpoint
from fem_apps.output.files import npz

WORLD = MPI.COMM_WORLD
SHARED = mesh.GhostMode.shared_facet


def groups():
    """Communicators of different sizes with rank 0, each with whether this rank is in it."""
    half = WORLD.Split(0 if WORLD.rank < max(1, WORLD.size - 1) else 1, WORLD.rank)
    return [
        (MPI.COMM_SELF, WORLD.rank == 0),
        (half, WORLD.rank < max(1, WORLD.size - 1)),
        (WORLD, True),
    ]


MESHES = {
    "interval": lambda comm: mesh.create_unit_interval(comm, 11, ghost_mode=SHARED),
    "square": lambda comm: mesh.create_unit_square(comm, 5, 6, ghost_mode=SHARED),
    "quadrilaterals": lambda comm: mesh.create_unit_square(
        comm, 5, 6, mesh.CellType.quadrilateral, ghost_mode=SHARED
    ),
    "cube": lambda comm: mesh.create_unit_cube(comm, 3, 2, 3, ghost_mode=SHARED),
}
SPACES = [
    ("Lagrange", 1),
    ("Lagrange", 2),
    ("Lagrange", 4),
    ("DG", 0),
    ("DG", 2),
    ("Lagrange", 3, "v"),
]


def space(msh, family, degree, vector=None):
    return fem.functionspace(msh, (family, degree, (2,)) if vector else (family, degree))


def fill(u):
    def values(x):
        return np.sin(7 * x[0] + 1) + np.cos(5 * x[1]) + x[2] ** 3

    u.interpolate(
        (lambda x: np.stack([values(x), -2 * values(x)]))
        if u.function_space.value_shape
        else values
    )
    u.x.scatter_forward()


@pytest.mark.parametrize("kind", list(MESHES))
def test_any_ranks_to_any_ranks(kind, folder):
    """Bit for bit, against a file whose functions were computed on the reading ranks."""
    for i, (writers, writing) in enumerate(groups()):
        if writing:
            msh = MESHES[kind](writers)
            functions = {}
            for s in SPACES:
                u = fem.Function(space(msh, *s))
                fill(u)
                functions[str(s)] = u
            state = {
                "t": 0.1 + 0.2,
                "step": 7,
                "name": "rho",
                "list": [1, 2.5],
                "a": np.arange(3) / 7,
            }
            checkpoint.save(folder / str(i), functions, state)
        WORLD.barrier()
        for readers, reading in groups():
            if reading:
                msh = MESHES[kind](readers)
                functions = {str(s): fem.Function(space(msh, *s)) for s in SPACES}
                state = checkpoint.load(folder / str(i), functions)
                assert (state["t"], state["step"], state["list"]) == (0.1 + 0.2, 7, [1, 2.5])
                assert np.array_equal(state["a"], np.arange(3) / 7)
                worst = 0.0
                for s in SPACES:
                    u = fem.Function(space(msh, *s))
                    fill(u)
                    worst = max(
                        worst, np.abs(functions[str(s)].x.array - u.x.array).max(initial=0.0)
                    )
                # coordinates of a dof may be rounded another way on another rank
                assert readers.allreduce(worst, op=MPI.MAX) <= 5e-14
        WORLD.barrier()


def test_exact_to_the_last_bit(folder):
    """Random values: out to one rank, back to all, and equal in every bit."""
    msh = MESHES["square"](WORLD)
    u = fem.Function(space(msh, "Lagrange", 3))
    u.x.array[:] = np.random.default_rng(WORLD.rank).random(u.x.array.size) / 3
    u.x.scatter_forward()
    checkpoint.save(folder / "all", {"u": u}, {})
    if WORLD.rank == 0:
        alone = fem.Function(space(MESHES["square"](MPI.COMM_SELF), "Lagrange", 3))
        checkpoint.load(folder / "all", {"u": alone})
        checkpoint.save(folder / "alone", {"u": alone}, {})
    WORLD.barrier()
    back = fem.Function(u.function_space)
    checkpoint.load(folder / "alone", {"u": back})
    assert np.array_equal(back.x.array, u.x.array)


def test_what_is_refused_is_refused_on_all_ranks(folder):
    msh = MESHES["square"](WORLD)
    u = interpolate(space(msh, "Lagrange", 2), 1.0)
    with pytest.raises(CaseError, match="no checkpoint"):
        checkpoint.load(folder, {"u": u})
    checkpoint.save(folder, {"u": u}, {"step": 1})
    with pytest.raises(CaseError, match="has no field 'v'; it has u"):
        checkpoint.load(folder, {"v": u})
    with pytest.raises(CaseError, match=r"another space of 'u': P2 \(\) there, P1 \(\) here"):
        checkpoint.load(folder, {"u": interpolate(space(msh, "Lagrange", 1), 1.0)})
    others = [
        (
            mesh.create_unit_square(WORLD, 5, 9),
            r"another mesh: 60 cells \(triangle\) in 2D there, 90 cells",
        ),
        (
            mesh.create_rectangle(WORLD, [[0.1, 0], [1.1, 1]], [5, 6]),
            "another mesh: 60 cells differ, cell 0 is at",
        ),
        (
            mesh.create_unit_square(WORLD, 5, 6, diagonal=mesh.DiagonalType.left),
            "cells differ",
        ),
    ]
    for other, says in others:
        v = interpolate(space(other, "Lagrange", 2), 1.0)
        with pytest.raises(CaseError, match=says):
            checkpoint.load(folder, {"u": v})
    with pytest.raises(ValueError, match="not a Lagrange space"):
        checkpoint.save(folder, {"u": fem.Function(fem.functionspace(msh, ("N1curl", 1)))}, {})


def test_damage_is_noticed(folder):
    u = interpolate(space(MESHES["square"](WORLD), "Lagrange", 1), 1.0)
    checkpoint.save(folder, {"u": u}, {})
    path = folder / checkpoint.FILE
    whole = path.read_bytes()
    WORLD.barrier()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (
        whole[:-100],
        whole[: len(whole) // 3],
        b"",
        b"text",
        bytes(flipped),
        npz({"a": 1}),
    ):
        if WORLD.rank == 0:
            path.write_bytes(content)
        WORLD.barrier()
        with pytest.raises(CaseError, match="damaged"):
            checkpoint.load(folder, {"u": u})
        WORLD.barrier()


def test_a_crash_while_writing_leaves_the_last_checkpoint(folder, monkeypatch):
    u = interpolate(space(MESHES["square"](WORLD), "Lagrange", 1), 1.0)
    checkpoint.save(folder, {"u": u}, {"step": 1})
    monkeypatch.setattr("os.fsync", _no_space)
    u.x.array[:] = 2.0
    with pytest.raises(CaseError, match="No space left"):
        checkpoint.save(folder, {"u": u}, {"step": 2})
    monkeypatch.undo()
    assert checkpoint.load(folder, {"u": u}) == {"step": 1}
    assert np.array_equal(u.x.array, np.ones_like(u.x.array, dtype=default_scalar_type))
    WORLD.barrier()
    assert [p.name for p in folder.iterdir()] == [checkpoint.FILE]


def _no_space(_):
    raise OSError(28, "No space left on device")


def periodic(comm):
    """P2 on a square whose right side is its left one; the space has ghosts beyond the mesh's."""
    mpc = pytest.importorskip("dolfinx_mpc")
    V = space(MESHES["square"](comm), "Lagrange", 2)
    constraint = mpc.MultiPointConstraint(V)
    constraint.create_periodic_constraint_geometrical(
        V,
        lambda x: np.isclose(x[0], 1.0),
        lambda x: np.stack([x[0] - 1.0, x[1], x[2]]),
        [],
        default_scalar_type(1.0),
    )
    constraint.finalize()
    u = fem.Function(constraint.function_space)
    return u, constraint


def test_periodic_space(folder):
    u, constraint = periodic(WORLD)
    u.interpolate(lambda x: np.sin(2 * np.pi * x[0]) + x[1])
    u.x.scatter_forward()  # masters may be on other ranks
    constraint.backsubstitution(u)
    u.x.scatter_forward()
    checkpoint.save(folder / "all", {"u": u}, {})
    if WORLD.rank == 0:
        alone, _ = periodic(MPI.COMM_SELF)
        checkpoint.load(folder / "all", {"u": alone})
        checkpoint.save(folder / "alone", {"u": alone}, {})
    WORLD.barrier()
    # in the same space: the next mesh may be cut up differently
    back = fem.Function(u.function_space)
    checkpoint.load(folder / "alone", {"u": back})
    assert np.array_equal(back.x.array, u.x.array)
