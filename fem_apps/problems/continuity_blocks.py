"""Cells in blocks: what a stage of Runge-Kutta reads, in the order in which it reads it.

The loops of `continuity_kernels` go over cells and take each facet's flux twice, once from either
side: reading a neighbour's values again costs less than writing fluxes and reading them back. For
that every cell sees its facets in the order of the reference cell, with quadrature points and basis
functions of its own. A facet's trace depends on the functions on it alone, and functions and points
are symmetric (Lagrange nodes, Gauss points), so the neighbour's values at my points come from the
same little matrix and a list of its dofs in my order: no case for how two cells meet is left.

Arrays (n, ..., m) are kept as (blocks, m..., BLOCK), so that the innermost loop goes over cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fem_apps.problems.continuity_cells import Cells

# cells that go through a stage together: their values stay in the first-level cache
BLOCK = 64


def blocked(x: np.ndarray) -> np.ndarray:
    """(n, ...) as (blocks, m, BLOCK), zeros at the end; m is the product of the other sizes."""
    count = -(-len(x) // BLOCK)
    out = np.zeros((count * BLOCK, int(np.prod(x.shape[1:]))), x.dtype)
    out[: len(x)] = x.reshape(len(x), -1)
    return np.ascontiguousarray(out.reshape(count, BLOCK, -1).swapaxes(1, 2))


def unblocked(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What `blocked` was given, of this shape."""
    return x.swapaxes(1, 2).reshape(-1, x.shape[1])[: shape[0]].reshape(shape)


@dataclass(frozen=True)
class Facing:
    """Cells and what faces them; nf facets of nk functions and nfq points each.

    Attributes:
        inside: basis functions at a cell's own facet points, shape (nf nfq, nb).
        across: the functions of a facet at its points, shape (nfq, nk).
        dofs: places of the neighbour's values among all (cells and ghosts, nb), in blocks
            (blocks, nf nk, BLOCK); the cell's own on the boundary.
        at: place of each cell's facet points among those of all facets, shape (n, nf, nfq).
        sign: 1 where the facet's conormal points out of the cell, -1 where into it, 0 on the
            boundary, shape (n, nf).
    """

    inside: np.ndarray
    across: np.ndarray
    dofs: np.ndarray
    at: np.ndarray
    sign: np.ndarray

    def outward(self, values: np.ndarray) -> np.ndarray:
        """Values along conormals (facets, nfq) as cells see them, in blocks; 0 on the boundary."""
        return blocked(self.sign[:, :, None] * values.ravel()[self.at])


def face(c: Cells) -> Facing:
    """Arrange a mesh's facets around its cells."""
    nb, nfq = c.trace.shape[2], c.trace.shape[1]
    on = _functions_of_facets(c.trace)
    first: dict[tuple[int, ...], int] = {}
    for v, dofs in enumerate(on):
        first.setdefault(tuple(sorted(dofs)), v)
    canonical = np.array([first[tuple(sorted(dofs))] for dofs in on])
    sides = list(first.values())
    side = np.array([sides.index(v) for v in canonical])
    # of each variant: its points, and its functions, in the order of the canonical one
    points = np.array([_match(c.trace[v], c.trace[w]) for v, w in enumerate(canonical)])
    order = np.array([[list(on[v]).index(d) for d in on[w]] for v, w in enumerate(canonical)])

    rank = np.argsort(side[c.cell_variants], axis=1)
    f, out, which = (
        np.take_along_axis(x, rank, axis=1) for x in (c.cell_facets, c.cell_signs, c.cell_variants)
    )
    own = np.broadcast_to(np.arange(c.size)[:, None], f.shape)
    other = np.where(out > 0, c.right[f], c.left[f])
    theirs = np.where(out > 0, c.variant_right[f], c.variant_left[f])
    edge = other < 0
    other, theirs = np.where(edge, own, other), np.where(edge, which, theirs)
    dofs = other[:, :, None] * nb + np.take_along_axis(on[theirs], order[which], axis=2)
    return Facing(
        inside=np.concatenate([c.trace[w] for w in sides]),
        across=np.ascontiguousarray(c.trace[sides[0]][:, on[sides[0]]]),
        dofs=blocked(dofs.astype(np.uint32)),
        at=f[:, :, None] * nfq + points[which],
        sign=np.where(edge, 0.0, out),
    )


def _functions_of_facets(trace: np.ndarray) -> np.ndarray:
    """The functions that do not vanish on a facet, (variants, nk), in the order of one facet."""
    out: list[np.ndarray] = []
    for table in trace:
        there = np.flatnonzero(np.abs(table).max(axis=0) > 1e-10)
        if out:
            there = there[_match(table[:, there].T, trace[0][:, out[0]].T)]
        out.append(there)
    return np.array(out)


def _match(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each wanted row, which of the rows it is."""
    gap = np.abs(wanted[:, None] - rows[None]).max(axis=2)
    assert gap.min(axis=1).max() < 1e-9, "facet points or functions are not symmetric"
    return gap.argmin(axis=1)
