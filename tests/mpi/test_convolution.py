"""The same nodes split over the ranks in any way give the same potentials."""

import numpy as np
import pytest
from mpi4py import MPI

from fem_apps.errors import CaseError
from fem_apps.fem import kernels as K
from fem_apps.fem.convolution import make_convolution

COMM = MPI.COMM_WORLD


def owned(n):
    """Uneven parts; with three ranks or more the last owns nothing."""
    parts = max(1, COMM.size - 1) if COMM.size > 2 else COMM.size
    ends = np.r_[0, np.cumsum([n // (2 * parts)] * (parts - 1)), n].astype(int)
    return slice(ends[COMM.rank], ends[COMM.rank + 1]) if COMM.rank < parts else slice(n, n)


def nodes(n=301):
    rng = np.random.default_rng(3)
    return rng.uniform(-2, 2, (n, 2)), rng.normal(size=n)


@pytest.mark.parametrize(
    ("kernels", "lattice"),
    [
        ([K.Gaussian(width=0.6, strength=-1.0)], ()),
        ([K.Log(), K.Morse(), K.Power(exponent=4.0), K.Cosine(wave_vector=(1.0, 2.0))], ()),
        ([K.Exponential(), K.Cosine(mode=(1, 0))], [[4.0, 0.0], [0.0, 4.0]]),
    ],
)
def test_split_nodes(kernels, lattice):
    x, b = nodes()
    mine = owned(len(x))
    whole = make_convolution(MPI.COMM_SELF, kernels, x, spacing=0.1, lattice=lattice)
    split = make_convolution(COMM, kernels, x[mine], spacing=0.1, lattice=lattice)
    exact = whole(b)
    found = split(b[mine])
    assert found.shape == exact[mine].shape
    assert np.abs(found - exact[mine]).max(initial=0.0) < 1e-12 * np.abs(exact).max()
    assert split.sign == whole.sign
    assert split.route == whole.route


def test_split_circle():
    x, b = nodes()
    x /= np.linalg.norm(x, axis=1)[:, None]
    mine = owned(len(x))
    W = make_convolution(COMM, [K.VonMises(beta=2.0)], x[mine], spacing=0.1)
    exact = np.exp(2 * x @ x.T) @ b
    assert np.abs(W(b[mine]) - exact[mine]).max(initial=0.0) < 1e-11 * np.abs(exact).max()


@pytest.mark.parametrize("kernel", [K.ScreenedPoisson(kappa=2.0), K.Poisson(strength=-1.0)])
def test_split_matrix(kernel):
    from petsc4py import PETSc

    n = 100

    def operator(comm):
        S = PETSc.Mat().createAIJ((n + 1, n + 1), nnz=3, comm=comm)
        low, high = S.getOwnershipRange()
        for i in range(low, high):
            for j in (i - 1, i + 1):
                if 0 <= j <= n:
                    S.setValue(i, j, -float(n))
            S.setValue(i, i, (1.0 if i in (0, n) else 2.0) * n)
        S.assemble()
        m = np.full(n + 1, 1 / n)
        m[[0, -1]] /= 2
        x = np.linspace(0, 1, n + 1)[:, None]
        mine = slice(low, high)
        return make_convolution(
            comm, [kernel], x[mine], spacing=0.01, stiffness=S, mass=m[mine]
        ), mine

    b = np.random.default_rng(4).normal(size=n + 1)
    whole, _ = operator(MPI.COMM_SELF)
    split, mine = operator(COMM)
    exact = whole(b)
    assert np.abs(split(b[mine]) - exact[mine]).max(initial=0.0) < 1e-11 * np.abs(exact).max()


def test_errors_reach_every_rank():
    x, _ = nodes()
    mine = x[owned(len(x))].copy()
    if COMM.rank == 0:
        mine[0] = np.nan
    with pytest.raises(CaseError, match="not finite"):
        make_convolution(COMM, [K.Log()], mine, spacing=0.1)
    with pytest.raises(CaseError, match="unit circle"):
        make_convolution(COMM, [K.VonMises()], x[owned(len(x))], spacing=0.1)
