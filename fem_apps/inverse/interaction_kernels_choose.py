"""The case's solver on a form, and the columns that a form cannot tell apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.inverse import interaction_kernels_selection as selection
from fem_apps.inverse import interaction_kernels_sparse as sparse
from fem_apps.inverse.interaction_kernels import SolverCase
from fem_apps.inverse.interaction_kernels_atoms import Atom
from fem_apps.inverse.interaction_kernels_functional import Quadratic
from fem_apps.inverse.interaction_kernels_selection import Selected
from fem_apps.inverse.interaction_kernels_sharpen import Estimate
from fem_apps.inverse.interaction_kernels_sparse import Fit
from fem_apps.inverse.interaction_kernels_tikhonov import penalty, tikhonov
from fem_apps.inverse.interaction_kernels_tikhonov import solve as regularised

# Part of a column's square that other columns may leave before it is a gauge of theirs.
GAUGE = 1e-5


def find_gauges(form: Quadratic, atoms: int, names: Sequence[str]) -> list[tuple[int, str]]:
    """Columns besides W's that other columns reproduce: not identifiable, and fixed at 0.

    With a constant mean mbar, W += c |x|^2/2 and V += -c |x|^2/2 + c mbar.x leave the flow
    unchanged;
    a narrow kernel mimics quadratic diffusion.
    """
    scale = 1 / np.sqrt(np.maximum(np.diag(form.A), 1e-300))
    A = form.A * np.outer(scale, scale)
    out: list[tuple[int, str]] = []
    kept = list(range(atoms))
    for k in range(atoms, len(A)):
        block = A[np.ix_(kept, kept)]
        values, Q = np.linalg.eigh(block)
        good = values > 1e-9 * values[-1]
        t = (Q[:, good].T @ A[kept, k]) / values[good]
        rest = 1 - float(t @ (values[good] * t))
        if rest < GAUGE:
            x = Q[:, good] @ t
            strongest = [names[kept[i]] for i in np.argsort(-np.abs(x))[:3]]
            out.append(
                (
                    k,
                    f"{names[k]} cannot be told from a combination of other terms (mainly "
                    f"{', '.join(strongest)}; {max(rest, 0):.1e} is left): a gauge freedom of "
                    "these data; it was fixed at 0. Remedy: a mean that moves, more initial data",
                )
            )
        else:
            kept.append(k)
    return out


def informed(form: Quadratic) -> None:
    """A form that says something, or an error.

    Raises:
        CaseError: not finite, or no force on any atom.
    """
    if not np.isfinite(form.A).all() or not np.isfinite(form.b).all():
        raise CaseError("the error functional is not finite: an atom is singular where data are")
    if not np.trace(form.A) > 0:
        raise CaseError(
            "the data give no force to any atom of the dictionary: nothing can be identified"
        )


def choose(
    form: Quadratic,
    others: Sequence[Quadratic],
    solver: SolverCase,
    free: Sequence[int],
    atoms: Sequence[Atom],
    distances: Callable[[], np.ndarray],
    count: int = 0,
) -> Estimate:
    """The case's solver on the columns that are free; atoms always are.

    Args:
        form: of the data.
        others: resamples.
        solver: the case's table.
        free: columns that are no gauge.
        atoms: the interaction's.
        distances: of pairs, for seminorms.
        count: number of values whose chi^2 the form is; 0: the form is no likelihood.
    """
    f: Any = np.ix_(free, free)
    A, b = form.A[f], form.b[list(free)]
    method, size = solver.method, solver.size
    lam = None
    if method == "tikhonov":
        size_of = penalty(solver.seminorm, atoms, distances(), len(b) - len(atoms))
        c, lam = tikhonov(A, b, size_of, solver.rule)
        fit = Fit(tuple(range(len(b))), c, float(c @ A @ c - 2 * b @ c))
        again = [regularised(q.A[f], q.b[list(free)], size_of, lam) for q in others]
        samples = np.array(again).reshape(-1, len(b))
        chosen = Selected(fit, [fit], 1.0, samples, Counter())
    elif method == "auto" and size is None and count:
        steps = selection.ladder(A, b, solver.largest)
        stars = [q.b[list(free)] for q in others]
        chosen = selection.from_likelihood(A, b, count, steps, stars, certain=0.0)
    elif method == "auto" and size is None:
        few = [Quadratic(q.A[f], q.b[list(free)]) for q in others]
        chosen = selection.from_resamples(Quadratic(A, b), few, solver.largest)
    else:
        fit = _sized(A, b, solver, size)
        again = [sparse.refit(q.A[f], q.b[list(free)], fit.support).c for q in others]
        chosen = Selected(fit, [fit], 1.0, np.array(again).reshape(-1, len(b)), Counter())
    chosen = _widen(chosen, free, len(form.b))
    return Estimate(chosen.fit.c, chosen, chosen.fit, form, 0.0, "ends", None, (), lam)


def _sized(A: np.ndarray, b: np.ndarray, solver: SolverCase, size: int | None) -> Fit:
    if solver.method == "stlsq":
        return sparse.sequential_thresholding(A, b, solver.threshold)
    if size is None:
        raise CaseError(f"solver.method = {solver.method!r} needs solver.size")
    if size > len(b):
        raise CaseError(f"solver.size = {size}: there are only {len(b)} columns")
    if solver.method == "lasso":
        return sparse.lasso(A, b, size)
    if solver.method == "partinv":
        Phi, u = sparse.square_root(A, b)
        among = sparse.partial_inversion(Phi, u, max(solver.kept, size))
        return sparse.best_subset(A, b, min(size, len(among)), among)[0]
    if solver.method == "subspace-pursuit":
        return sparse.refit(A, b, sparse.subspace_pursuit(*sparse.square_root(A, b), size))
    return selection.candidates(A, b, size)


def _widen(chosen: Selected, free: Sequence[int], n: int) -> Selected:
    """Back to all columns."""

    def wide(f: Fit) -> Fit:
        c = np.zeros(n)
        c[list(free)] = f.c
        return Fit(tuple(free[i] for i in f.support), c, f.cost)

    samples = np.zeros((len(chosen.samples), n))
    samples[:, list(free)] = chosen.samples
    supports = Counter({tuple(free[i] for i in k): v for k, v in chosen.supports.items()})
    return replace(
        chosen,
        fit=wide(chosen.fit),
        ladder=[wide(f) for f in chosen.ladder],
        samples=samples,
        supports=supports,
    )
