"""Prediction of particles by an estimate: what it explains, in the fitted time and beyond."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from fem_apps.fem.expressions import parse
from fem_apps.inverse.interaction_kernels_atoms import Atom, potential
from fem_apps.inverse.interaction_kernels_distance import w2_sets
from fem_apps.inverse.interaction_kernels_pairs import Drift
from fem_apps.inverse.interaction_kernels_particles import Paths, steps
from fem_apps.inverse.interaction_kernels_simulate import Data
from fem_apps.inverse.interaction_kernels_synthetic import particle_paths
from fem_apps.mpi import on_rank_zero

# Particles of the plane in a transport problem, and times at which it is solved.
SUBSET, TIMES = 600, 9


@dataclass(frozen=True)
class Prediction:
    """What the estimate says of the motion.

    Attributes:
        share: 1 - sum |v + grad Phi|^2 / sum |v|^2 over the fitted steps: the part of the
            dissipation that the estimate explains. None for data without labels or with Brownian
            noise.
        share_held_out: the same over the time that was not fitted.
        share_drift: that of the external potentials alone, fitted without W, over the held-out
            (else the fitted) time: what W adds is the difference.
        t, w2, w2_still: times, distance of predicted and seen positions from the first held-out
            (else fitted) time on, and that of positions that stay where they were.
        w2_noise: distance of two halves of those seen: what so many Brownian particles make of w2
            where the prediction is right. Empty without Brownian noise.
        seen, path: positions at the times, seen and predicted, (N, dim) each; empty, as the
            distances, where particles enter or leave.
    """

    share: float | None
    share_held_out: float | None
    share_drift: float | None
    t: np.ndarray
    w2: np.ndarray
    w2_still: np.ndarray
    w2_noise: np.ndarray
    seen: Sequence[np.ndarray]
    path: Sequence[np.ndarray]

    def metrics(self) -> dict[str, object]:
        """For the summary."""
        return {
            "dissipation_share": self.share,
            "dissipation_share_held_out": self.share_held_out,
            "dissipation_share_drift": self.share_drift,
            "w2_prediction": float(self.w2[-1]) if len(self.w2) else None,
            "w2_still": float(self.w2_still[-1]) if len(self.w2_still) else None,
            "w2_noise": float(self.w2_noise[-1]) if len(self.w2_noise) else None,
        }


def predict(
    comm: MPI.Comm,
    atoms: Sequence[Atom],
    c: np.ndarray,
    drifts: Sequence[Drift],
    sigma: float,
    data: Data,
    alone: np.ndarray,
    seed: int,
) -> Prediction:
    """Evaluate an estimate on the fitted and the held-out data; rank 0 computes. Collective.

    Args:
        comm: communicator.
        atoms: the dictionary.
        c: coefficients of atoms, then of potentials.
        drifts: the potentials.
        sigma: diffusion.
        data: particles.
        alone: coefficients of the potentials where they are fitted without W.
        seed: of Brownian paths.
    """

    def work() -> Prediction:
        K = len(atoms)
        dW = potential(atoms, c[:K])[1]

        def drift(x: np.ndarray) -> np.ndarray:
            out = np.zeros_like(x)
            for factor, V in zip(c[K:], drifts, strict=True):
                out -= factor * V(x)[1]
            return out

        def drift_alone(x: np.ndarray) -> np.ndarray:
            return -sum((a * V(x)[1] for a, V in zip(alone, drifts, strict=True)), np.zeros_like(x))

        share = held = drive = None
        if sigma == 0:
            share = _share(data.particles, dW, drift)
            held = _share(data.held_out, dW, drift) if data.held_out else None
            if drifts:
                drive = _share(data.held_out or data.particles, np.zeros_like, drift_alone)
        target = (data.held_out or data.particles)[0]
        if target.open:
            none = np.zeros(0)
            return Prediction(share, held, drive, none, none, none, none, (), ())
        n = np.unique(np.linspace(0, len(target.t) - 1, TIMES).astype(int))
        rng = np.random.default_rng([seed, 3])
        path = particle_paths(
            target.x[0], dW, target.t[n], sigma=sigma, substeps=20, rng=rng, drift=drift
        )
        seen = [target.x[k] for k in n]
        return Prediction(
            share,
            held,
            drive,
            target.t[n],
            np.array([_w2(p, q, rng) for p, q in zip(path, seen, strict=True)]),
            np.array([_w2(seen[0], q, rng) for q in seen]),
            np.array([_w2(*_halves(q, rng), rng) for q in seen if sigma > 0]),
            seen,
            list(path),
        )

    return on_rank_zero(comm, work)


def _share(
    sets: Sequence[Paths],
    dW: Callable[[np.ndarray], np.ndarray],
    drift: Callable[[np.ndarray], np.ndarray],
) -> float | None:
    rest = whole = 0.0
    for d in sets:
        for n in range(len(d.t) - 1):
            v, moved = steps(d, n)
            dt = d.t[n + 1] - d.t[n]
            one = particle_paths(d.x[n], dW, np.array([0.0, dt]), drift=drift)[1]
            force = (one - d.x[n]) / dt
            rest += dt * float(((v - force)[moved] ** 2).sum()) / max(len(v), 1)
            whole += dt * float((v[moved] ** 2).sum()) / max(len(v), 1)
    return 1 - rest / whole if whole > 0 else None


def _halves(x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.permutation(x)
    return x[: len(x) // 2], x[len(x) // 2 :]


def _w2(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> float:
    if x.shape[1] > 1:
        x = x[rng.permutation(len(x))[:SUBSET]]
        y = y[rng.permutation(len(y))[:SUBSET]]
    return w2_sets(x, np.full(len(x), 1 / len(x)), y, np.full(len(y), 1 / len(y)))


class ScalarField:
    """V(x) with gradient and Laplacian by differences: exact for polynomials of degree 2."""

    STEP = 1e-4

    def __init__(self, text: str) -> None:
        self._f = parse(text)

    def _at(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self._f.numpy(x.T), (len(x),)).astype(float)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values (n,), gradients (n, dim), Laplacians (n,)."""
        h, value = self.STEP * max(1.0, float(np.abs(x).max(initial=0.0))), self._at(x)
        gradient, laplacian = np.empty_like(x), np.zeros(len(x))
        for d in range(x.shape[1]):
            e = np.zeros(x.shape[1])
            e[d] = h
            up, down = self._at(x + e), self._at(x - e)
            gradient[:, d] = (up - down) / (2 * h)
            laplacian += (up - 2 * value + down) / h**2
        return value, gradient, laplacian
