"""The error functional, noise and particles: the same numbers on any number of ranks."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.fem import node_graph
from fem_apps.inverse import interaction_kernels_functional as functional
from fem_apps.inverse.interaction_kernels_atoms import Exponentials, Gaussians, Powers, atoms_of
from fem_apps.inverse.interaction_kernels_data import Observation, noise_level, observe, snapshots
from fem_apps.inverse.interaction_kernels_pairs import pair_sums
from fem_apps.inverse.interaction_kernels_particles import paths
from fem_apps.meshing import MeshCase, build
from fem_apps.problems.free_energy import Diffusion

MESHES = {
    1: MeshCase(geometry="interval", parameters={"a": -3, "b": 3, "h": 0.1}),
    2: MeshCase(
        geometry="rectangle", parameters={"x0": -3, "y0": -3, "width": 6, "height": 6, "h": 0.3}
    ),
}


def form(comm, dim, dense):
    graph = node_graph.build(build(comm, MESHES[dim]).mesh)
    atoms = atoms_of(
        [
            Powers(type="power", exponents=(2, 3)),
            Gaussians(type="gaussian", widths=(0.8,)),
            Exponentials(type="exponential", lengths=(0.5,)),
        ],
        dim,
    )
    t = np.linspace(0, 1, 5)
    r2 = (graph.x**2).sum(axis=1)
    rho = np.array([np.exp(-r2 / (1 + s)) * (1.1 + np.sin(graph.x[:, 0] + s)) for s in t])
    data = observe(
        graph, snapshots(graph, t, rho), Observation(noise=0.1), np.random.default_rng(0)
    )
    s = functional.set_up(graph, atoms, external=graph.x[:, :1] ** 2, dense=dense)
    known = functional.Known((Diffusion(exponent=2, coefficient=0.1),))
    q = functional.assemble(s, data, known, noise=0.1)
    return q, noise_level(graph, data)


@pytest.mark.parametrize(("dim", "dense"), [(1, 1000), (2, 0), (2, 1000)])
def test_form_is_that_of_one_rank(dim, dense):
    one, noise_one = form(MPI.COMM_SELF, dim, dense)
    many, noise_many = form(MPI.COMM_WORLD, dim, dense)
    tolerance = 1e-10 if dense else 1e-7
    assert np.abs(many.A - one.A).max() <= tolerance * np.abs(one.A).max()
    assert np.abs(many.b - one.b).max() <= tolerance * np.abs(one.b).max()
    assert noise_many == pytest.approx(noise_one, rel=1e-10)


def test_particles():
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.standard_normal((5, 31, 2)), axis=0)
    atoms = atoms_of([Powers(type="power", exponents=(2, 3))], 2)
    data = paths(np.linspace(0, 1, 5), list(x))
    one = pair_sums(MPI.COMM_SELF, atoms, data, sigma=0.1).form
    many = pair_sums(MPI.COMM_WORLD, atoms, data, sigma=0.1).form
    assert np.allclose(many.A, one.A, rtol=1e-12)
    assert np.allclose(many.b, one.b, rtol=1e-12)
