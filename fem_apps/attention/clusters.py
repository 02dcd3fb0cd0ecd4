"""Clusters of tokens: connected components of the graph of pairs closer than a distance."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist, squareform

# inner product above which two tokens are one cluster
CLOSE = 0.999
# up to here all pairs are looked at, which in many dimensions is faster than a tree
ALL_PAIRS = 1500
MANY_PAIRS = 3e7
# above this many dimensions a tree looks at almost every pair, one by one; matrix products do not
TREE, ROWS, EDGES = 8, 64, 2_000_000


def chord(cosine: float) -> float:
    """Distance of two unit vectors with this inner product."""
    return float(np.sqrt(2 * (1 - cosine)))


def labels(x: np.ndarray, distance: float) -> np.ndarray:
    """Number of each token's cluster: tokens linked by steps of at most `distance`.

    Args:
        x: tokens, (n, d).
        distance: Euclidean.

    Returns:
        (n,), 0 to clusters - 1, in the order in which clusters first appear.
    """
    n = len(x)
    if n <= ALL_PAIRS:
        near = squareform(pdist(x)) <= distance
        found = connected_components(coo_matrix(near), directed=False)[1]
    else:
        pairs = _sparse_pairs(x, distance) if x.shape[1] <= TREE else _block_pairs(x, distance)
        graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
        found = connected_components(graph, directed=False)[1]
    _, first, number = np.unique(found, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return order[number]


def _sparse_pairs(x: np.ndarray, distance: float) -> np.ndarray:
    """Pairs whose graph has the components of all pairs within the distance."""
    tree = cKDTree(x)
    if tree.count_neighbors(tree, distance) < MANY_PAIRS:
        return tree.query_pairs(distance, output_type="ndarray")
    # crowded: tokens of one box of diameter `distance` are one component; between two boxes the
    # closest pair decides
    box = np.floor(x / (distance / np.sqrt(x.shape[1]))).astype(np.int64)
    _, first, number = np.unique(box, axis=0, return_index=True, return_inverse=True)
    number = number.ravel()
    pairs = [np.stack([np.arange(len(x)), first[number]], axis=1)]
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(len(first) + 1))
    for a, b in cKDTree(x[first]).query_pairs(3 * distance):
        A, B = order[starts[a] : starts[a + 1]], order[starts[b] : starts[b + 1]]
        gap, which = cKDTree(x[B]).query(x[A])
        k = int(np.argmin(gap))
        if gap[k] <= distance:
            pairs.append(np.array([[A[k], B[which[k]]]]))
    return np.concatenate(pairs)


def _block_pairs(x: np.ndarray, distance: float) -> np.ndarray:
    """The same in many dimensions: all inner products, by blocks; memory O(n d)."""
    n = len(x)
    square = np.einsum("id,id->i", x, x)
    found: list[np.ndarray] = [np.empty((0, 2), dtype=np.int64)]
    total = 0
    for start in range(0, n, ROWS):
        rows = slice(start, start + ROWS)
        gap = x[rows] @ x[start:].T
        gap *= -2
        gap += square[rows, None]
        gap += square[start:]
        near = gap <= distance**2
        # each column hangs on the first row near it; rows that share a column on one another
        column = np.flatnonzero(near.any(axis=0))
        found.append(np.stack([start + column, start + near[:, column].argmax(axis=0)], axis=1))
        some = near[:, column].astype(np.float32)
        i, j = np.nonzero(np.triu(some @ some.T > 0, 1))
        found.append(start + np.stack([i, j], axis=1))
        total += len(column) + len(i)
        if total > EDGES:  # a forest of the same components
            found, total = [_forest(np.concatenate(found), n)], n
    return np.concatenate(found)


def _forest(pairs: np.ndarray, n: int) -> np.ndarray:
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    label = connected_components(graph, directed=False)[1]
    first = np.unique(label, return_index=True)[1]
    return np.stack([np.arange(n), first[label]], axis=1)


def count(x: np.ndarray, distance: float) -> int:
    """Number of clusters."""
    return int(labels(x, distance).max()) + 1


def close_pairs(gram: np.ndarray, cosine: float = 0.999) -> np.ndarray:
    """Share of off-diagonal pairs with inner product above `cosine`: (...,) of (..., n, n)."""
    n = gram.shape[-1]
    return ((gram > cosine).sum(axis=(-2, -1)) - n) / (n * (n - 1))
