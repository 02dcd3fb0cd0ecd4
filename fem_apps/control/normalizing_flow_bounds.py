"""Published numbers of switches that are enough, to set beside those that are used.

Counts of Alvarez-Lopez, Hadj Slimane, Zuazua, *Interplay between depth and width for interpolation
in neural ODEs*, Neural Networks 180:106640 (arXiv 2401.09902), as its authors' slides give them.
The constants of the bound in relative entropy (arXiv 2412.19366) are not among them.
"""

from __future__ import annotations

from math import ceil, sqrt


def switches_for_pairs(count: int, width: int, dim: int) -> int:
    """Switches that take `count` points to any others: 2 ceil(N/p) - 1, one less where d > N."""
    return 2 * ceil(count / width) - (2 if dim > count else 1)


def switches_for_measures(dim: int, width: int, eps: float, q: float = 1.0) -> int:
    """Switches that take any density of bounded support to the uniform law of [0, 1]^d.

        L = ceil(2d/p) + ceil((3^(1+d/q) sqrt(d) / eps)^(d / (1 + d/q - d)) / (p - d + 1)) - 1

    Args:
        dim: d.
        width: p >= d neurons.
        eps: error in the Wasserstein distance W_q.
        q: 1 <= q < d / (d - 1).

    Raises:
        ValueError: p < d, or q out of its range.
    """
    room = 1 + dim / q - dim
    if width < dim or q < 1 or room <= 0:
        raise ValueError(f"width = {width} must be at least {dim}, q = {q} in [1, d/(d - 1))")
    boxes = (3 ** (1 + dim / q) * sqrt(dim) / eps) ** (dim / room) / (width - dim + 1)
    return ceil(2 * dim / width) + ceil(boxes * (1 - 1e-12)) - 1
