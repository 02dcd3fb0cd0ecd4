"""Sizes and errors of Strassen networks: the tables and the picture of docs/strassen_networks.md.

    ./run_mpi.sh python3 benchmarks/elliptic_strassen.py [--small] [--picture FILE]

Sizes are counted on networks that were built, and compared with the closed formulas; errors are the largest entry of
A B - network(A, B) over random matrices with entries in [-1, 1].
"""

import argparse
from pathlib import Path

import numpy as np

from fem_apps.output.plot_style import png, style
from fem_apps.surrogates.strassen import (
    Shape,
    matrix_product,
    naive_weights,
    product_within,
    scalar_product,
    strassen_weights,
    tents,
)

ACCURACIES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)


def sizes(levels):
    print(
        "| n | square, naive | square, Strassen | ReLU m=10, naive | ReLU m=10, Strassen | ratio |"
    )
    print("|---|---|---|---|---|---|")
    for k in levels:
        shape = Shape(k)
        square = matrix_product(shape, scalar_product("square")).weights
        relu = matrix_product(shape, product_within(shape, 1, 1, 10)).weights
        assert (square, relu) == (strassen_weights(k, "square"), strassen_weights(k, "relu", 10))
        naive = naive_weights(2**k, "square"), naive_weights(2**k, "relu", 10)
        print(f"| {2**k} | {naive[0]} | {square} | {naive[1]} | {relu} | {relu / naive[1]:.4f} |")


def same_error(k, epsilon):
    """Weights of Strassen's and the naive ReLU network for one accuracy."""
    m = tents(Shape(k), 1, 1, epsilon), tents(Shape(0, 2**k), 1, 1, epsilon)
    return strassen_weights(k, "relu", m[0]), naive_weights(2**k, "relu", m[1])


def errors(levels):
    print("| n | " + " | ".join(f"eps = {e:.0e}" for e in ACCURACIES) + " |")
    print("|---|" + "---|" * len(ACCURACIES))
    rng = np.random.default_rng(0)
    for k in levels:
        shape, row = Shape(k), []
        A, B = rng.uniform(-1, 1, (2, 1, shape.n, shape.n))
        x = np.concatenate([shape.to_vector(A), shape.to_vector(B)], axis=1)
        for epsilon in ACCURACIES:
            m = tents(shape, 1, 1, epsilon)
            net = matrix_product(shape, product_within(shape, 1, 1, m))
            error = np.abs(shape.to_matrix(net(x)) - A @ B).max()
            assert error <= epsilon
            row.append(f"{error:.1e} (m = {m}, {net.weights:.3g} weights)")
        print(f"| {shape.n} | " + " | ".join(row) + " |", flush=True)


def break_even(path):
    print(
        "| eps | "
        + " | ".join(f"n = {2**k}" for k in (3, 5, 7, 9))
        + " | fewer weights from n on |"
    )
    print("|---|---|---|---|---|---|")
    for epsilon in (1e-2, 1e-6, 1e-10):
        ratio = {k: np.divide(*same_error(k, epsilon)) for k in range(1, 13)}
        least = next(k for k in ratio if all(ratio[j] < 1 for j in range(k, 13)))
        print(
            f"| {epsilon:.0e} | "
            + " | ".join(f"{ratio[k]:.3f}" for k in (3, 5, 7, 9))
            + f" | {2**least} |"
        )
    if path is None:
        return
    import matplotlib.pyplot as plt

    style()
    figure, ax = plt.subplots(figsize=(4.2, 2.8), layout="constrained")
    k = np.arange(1, 13)
    marks = {1e-2: "o-", 1e-6: "s--", 1e-10: "^-."}
    for epsilon, mark in marks.items():
        exponent = int(np.log10(epsilon))
        ax.plot(2**k, [np.divide(*same_error(j, epsilon)) for j in k], mark, markersize=3,
                label=rf"ReLU, $\varepsilon = 10^{{{exponent}}}$")  # fmt: skip
    square = [strassen_weights(j, "square") / naive_weights(2**j, "square") for j in k.tolist()]
    ax.plot(2**k, square, "d:", markersize=3, label="square")
    ax.axhline(1, color="0.5", linewidth=0.7)
    ax.set(xscale="log", xlabel="matrix size $n$", ylabel="weights, Strassen / naive")
    ax.set_xscale("log", base=2)
    ax.legend()
    Path(path).write_bytes(png(figure))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="n up to 8")
    parser.add_argument("--picture", help="where the ratio is drawn")
    given = parser.parse_args()
    sizes((3, 5) if given.small else (3, 5, 8, 9, 12))
    break_even(given.picture)
    errors((1, 2, 3) if given.small else (1, 2, 3, 4, 5, 6))
