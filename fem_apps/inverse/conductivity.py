"""The benchmark of Aristoff and Bangerth: 64 conductivities from 169 point values.

    -div(a grad u) = 10 in (0,1)^2,   u = 0 on the boundary,   a = theta_k on square k = i + 8 j

Data: u at (p/14, q/14), p, q = 1..13, q fastest; noise N(0, .05^2). Prior: ln theta_k ~ N(0, 2^2),
as a density in theta; in m = ln theta it is N(4, 2^2). arXiv 2102.07263.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from dolfinx import fem, mesh

from fem_apps.inverse.operators_fem import (
    LogConductivity,
    Stiffness,
    boundary_nodes,
    load_vector,
    point_matrix,
)

SQUARES, POINTS, NOISE = 8, 13, 0.05
PRIOR_MEAN, PRIOR_STD = 4.0, 2.0

# the published data (made with Q3 on 256 x 256, without noise), symmetric in (p, q): row p, q =
# p..13
PUBLISHED = """
0.060765117623 0.096019101208 0.123885251784 0.149518411738 0.184159612755 0.217452502826
0.225099616090 0.219795476900 0.207469569837 0.188999647766 0.163272253215 0.127678248004
0.077118459158 0.200058953337 0.338559259195 0.393430002465 0.404022389246 0.412232953784
0.410048009155 0.394915163719 0.369787326479 0.334018262359 0.285039780666 0.218426003248
0.127112115635 0.711928516277 0.817571286176 0.683625411658 0.577945241983 0.555561595614
0.528518156174 0.491439702849 0.440936749485 0.373006008206 0.282169498340 0.161017673386
0.943915462553 0.801590411510 0.685968374925 0.656123536696 0.621319720187 0.575361131500
0.514009175453 0.432532550635 0.324831514892 0.183460041273 0.787011956114 0.737310833140
0.711655887807 0.674517904909 0.623530057416 0.555933270405 0.467030499447 0.349980914381
0.196882637463 0.745881198318 0.727896802241 0.690479353536 0.636917645271 0.567744369374
0.478473876487 0.360219063282 0.203179205474 0.712192867867 0.671218739143 0.613915777559
0.547825166530 0.467712268760 0.358765491100 0.205073429168 0.617840828936 0.545360502724
0.489575966491 0.434171688106 0.353438997478 0.208322749696 0.433660492961 0.410964174302
0.388186479011 0.364264009018 0.217959990928 0.395727260284 0.377894932200 0.359626827186
0.219125026895 0.363336256719 0.346445726191 0.209636232137 0.326072895342 0.180670595355
0.106796555001
"""


def published_data() -> np.ndarray:
    """zhat, shape (169,)."""
    z = np.zeros((POINTS, POINTS))
    z[np.triu_indices(POINTS)] = [float(v) for v in PUBLISHED.split()]
    return (z + np.triu(z, 1).T).ravel()


def true_conductivity() -> np.ndarray:
    """Theta = 1, but .1 for i, j in {1, 2} and 10 for i, j in {5, 6}; shape (64,)."""
    theta = np.ones((SQUARES, SQUARES))
    theta[1:3, 1:3], theta[5:7, 5:7] = 0.1, 10.0
    return theta.ravel()


def square_conductivity(
    comm: Any,
    *,
    cells: int = 32,
    squares: int = SQUARES,
    points: int = POINTS,
    source: float = 10.0,
    degree: int = 1,
) -> LogConductivity:
    """The benchmark's operator m -> z, Q_degree on cells x cells squares of the unit square.

    Args:
        comm: of size 1 (COMM_SELF): chains are what ranks share.
        cells: a multiple of `squares`.
        squares: conductivities a side.
        points: data a side, at (p/(points+1), q/(points+1)).
        source: right-hand side.
        degree: of the elements.
    """
    domain = mesh.create_unit_square(comm, cells, cells, mesh.CellType.quadrilateral)
    V = fem.functionspace(domain, ("Lagrange", degree))
    stiffness = Stiffness(V, boundary_nodes(V))
    tdim = domain.topology.dim
    number = domain.topology.index_map(tdim).size_local
    middle = mesh.compute_midpoints(domain, tdim, np.arange(number, dtype=np.int32))
    i, j = (middle[:, :2].T * squares).astype(int)
    P = sp.csr_matrix(
        (np.ones(number), (np.arange(number), i + squares * j)), shape=(number, squares**2)
    )
    t = np.arange(1, points + 1) / (points + 1)
    grid = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2)
    free = stiffness.free
    B = point_matrix(V, grid)[:, free].tocsr()
    return LogConductivity(stiffness, load_vector(V, source)[free], P, B)
