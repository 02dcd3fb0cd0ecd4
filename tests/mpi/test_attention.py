"""Attention on densities: the same numbers on any number of ranks."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.attention.model import Attention
from fem_apps.attention.sphere import Case, set_up
from fem_apps.fem.time_stepping import march
from fem_apps.meshing import MeshCase, build

HEADS = ({"V": 0.5}, {"V": 0.5})
D = ((1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 1.5))


@pytest.mark.parametrize(
    "attention",
    [
        Attention(variant="softmax", beta=3),
        Attention(variant="unnormalised", beta=1, K=D, V=D),
        Attention(variant="softmax", beta=3, heads=HEADS),
    ],
    ids=["softmax", "matrix", "transport"],
)
def test_same_numbers(attention):
    case = Case(
        kind="sphere-attention",
        mesh={"geometry": "sphere", "parameters": {"h": 0.5}},
        attention=attention,
        initial={"type": "expression", "expression": "1 + 0.3*z + 0.2*x*y"},
        time={"end": 0.3, "dt": 0.03, "tolerance": 0},
    )
    found = []
    for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
        s = set_up(build(comm, MeshCase(**case.mesh.model_dump()), "."), case)
        state = s.solver.start(0.0, s.rho0)
        for step in march(state, s.solver.attempt, case.time, dt=0.03):
            state = step.state
        z = s.graph.x[:, 2]
        found.append(
            [s.graph.integral(state.rho * f) for f in (1 + 0 * z, z, z * z)]
            + [s.graph.integral(state.rho**2), state.energy.total]
        )
    assert np.array(found[0]) == pytest.approx(np.array(found[1]), rel=1e-9)
