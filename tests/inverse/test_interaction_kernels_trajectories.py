"""Trajectories: what the data have at a wall, and the misfit that says when not to trust a fit."""

from types import SimpleNamespace

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps import meshing
from fem_apps.fem import node_graph
from fem_apps.inverse import interaction_kernels_functional as functional
from fem_apps.inverse import interaction_kernels_trajectories as trajectories
from fem_apps.inverse.interaction_kernels import SolverCase
from fem_apps.inverse.interaction_kernels_atoms import (
    Cosines,
    Exponentials,
    Gaussians,
    Powers,
    atoms_of,
    potential,
)
from fem_apps.inverse.interaction_kernels_data import Observation, observe, order, snapshots
from fem_apps.inverse.interaction_kernels_estimate import from_densities
from fem_apps.inverse.interaction_kernels_misfit import blocks, misfit
from fem_apps.inverse.interaction_kernels_synthetic import finite_volumes
from fem_apps.problems.free_energy import Diffusion

ATOMS = atoms_of(
    [
        Powers(exponents=(1.25, 1.5, 2, 2.5, 3, 4)),
        Cosines(type="cosine", frequencies=(0.5, 1, 1.5, 2, 3)),
        Gaussians(type="gaussian", widths=(0.25, 0.5, 0.75, 1, 1.5)),
        Exponentials(type="exponential", lengths=(0.25, 0.5, 1, 2)),
    ],
    1,
)
TRUTH = np.zeros(len(ATOMS))
TRUTH[[7, 14]] = -1, -0.5  # cosine(1), gaussian(1)


@pytest.fixture(scope="module")
def walled():
    """m = 3 and W = -cos - gaussian(1)/2, which drives mass to the walls of (-4, 4)."""
    assert [a.name for a, c in zip(ATOMS, TRUTH, strict=True) if c] == ["cosine(1)", "gaussian(1)"]
    line = {"geometry": "interval", "parameters": {"a": -3.975, "b": 3.975, "h": 0.05}}
    mesh = meshing.build(MPI.COMM_SELF, meshing.MeshCase.model_validate(line))
    graph = node_graph.build(mesh.mesh)
    x, t = np.sort(graph.x[:, 0]), np.linspace(0, 1, 51)
    W = potential(ATOMS, TRUTH)[0]
    data = []
    for k, start in enumerate(
        (
            np.exp(-((x - 1.2) ** 2) / 0.18) + 0.6 * np.exp(-((x + 1) ** 2) / 0.32),
            np.exp(-((x - 0.4) ** 2) / 0.1),
        )
    ):
        rho0 = start + 0.02 * np.exp(-(x**2) / 4)
        rho = finite_volumes(x, rho0 / (0.05 * rho0.sum()), W, t, sigma=0.2, m=3)
        clean = snapshots(graph, t, rho[:, order(graph)])
        rng = np.random.default_rng([k, 3])
        data.append(observe(graph, clean, Observation(noise=0.05), rng))
    return functional.set_up(graph, ATOMS), data


def estimate(walled):
    """The estimate, the relative errors of W' after and before trajectories, and the notes."""
    s, data = walled
    notes = []
    run = SimpleNamespace(
        progress=SimpleNamespace(update=lambda *a: None),
        note=notes.append,
        asked_to_stop=lambda: False,
    )
    known = functional.Known((Diffusion(exponent=3, coefficient=0.2),))
    e = from_densities(s, data, known, SolverCase(), run, [a.name for a in ATOMS])
    r = np.linspace(0, 3, 301)
    slope = potential(ATOMS, TRUTH)[1](r)
    return (
        e,
        [
            np.linalg.norm(potential(ATOMS, c)[1](r) - slope) / np.linalg.norm(slope)
            for c in (e.c, e.functional.c)
        ],
        notes,
    )


def test_half_a_cell_at_the_wall_does_not_count(walled):
    e, (after, before), notes = estimate(walled)
    assert after < before
    assert e.start is not None  # by trajectories
    assert not notes
    assert tuple(np.flatnonzero(e.c)) == (7, 14)
    assert after < 6e-3


def test_a_fit_that_errs_otherwise_than_by_noise_is_not_taken(walled, monkeypatch):
    """With the cells at the wall counted the model is wrong there: the functional's estimate."""
    monkeypatch.setattr(trajectories, "WALL", 0)
    e, _, notes = estimate(walled)
    assert e.start is None
    assert any("times those that the noise makes" in n for n in notes)
    assert len(e.selected.samples) == 20


@pytest.mark.parametrize(("common", "low", "high"), [(0.0, 0.6, 1.6), (2.0, 20, 1e3)])
def test_misfit_is_one_for_noise_and_large_for_errors_in_common(common, low, high):
    """Independent residuals; and a residual of 2 standard deviations in an eighth of space."""
    rng = np.random.default_rng(1)
    times, n, K = 40, 64, 3
    S = np.sin(np.linspace(0, 3, times)[:, None, None] + np.arange(n)[:, None] / 9 + np.arange(K))
    r = rng.standard_normal((times, n))
    r[:, :8] += common
    S, r = S.reshape(-1, K), r.ravel()
    c0 = np.array([1.0, -1.0, 0.5])
    c = c0 + np.linalg.lstsq(S, r, rcond=None)[0]
    G, h = blocks(S, r, c0, times)
    assert (h - G @ c).sum(axis=0) == pytest.approx(np.zeros(K), abs=1e-8)
    assert G.sum(axis=0) == pytest.approx(S.T @ S)
    assert low < misfit(G, h, c, range(K)) < high
