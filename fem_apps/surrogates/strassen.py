"""Networks that multiply: numbers, matrices by Strassen's algorithm, matrices as they are.

Romera, Barcena-Petisco, arXiv 2501.06539v2; Kutyniok, Petersen, Raslan, Schneider, arXiv
1904.00377.
With 7 products a level and k levels kept as k sparse layers (merged they would have 12^k entries),
a product of n x n matrices, n = 2^k, has these nonzero weights and biases:

    square  18 7^k - 12 4^k             linear layers without activation, 2k + 2 layers
    ReLU    (45 m + 73) 7^k - 66 4^k    ReLU after every layer but the last, 2k + m + 2 layers

where m sets the accuracy of a scalar product; naive products have 6 8^k and (45 m + 5) 8^k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fem_apps.surrogates.strassen_circuit import PAIR, RAW, Circuit, Register
from fem_apps.surrogates.strassen_layers import Activation, Factor, Network

Hidden = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Product:
    """A network for x y on [-D_x, D_x] x [-D_y, D_y].

    Attributes:
        activation: of its hidden layers.
        x, y: columns of the first layer; hidden: (W, b) of the next ones; out: row of the last.
        paired: whether linear layers around it have the activation too, values carried as pairs.
        error: bound of |network - x y|.
    """

    activation: Activation
    x: np.ndarray
    y: np.ndarray
    hidden: Hidden
    out: np.ndarray
    paired: bool
    error: float

    @property
    def weights(self) -> int:
        """Nonzero weights and biases, raw inputs and output."""
        inner = sum(int(np.count_nonzero(W)) + int(np.count_nonzero(b)) for W, b in self.hidden)
        return inner + sum(int(np.count_nonzero(v)) for v in (self.x, self.y, self.out))


def scalar_product(
    activation: Activation, m: int = 1, D_x: float = 1.0, D_y: float = 1.0
) -> Product:
    """The network for one multiplication.

    square: ((x+y)^2 - (x-y)^2)/4, exact, 6 weights. relu2: the same with x^2 = relu(x)^2 +
    relu(-x)^2, 12 weights. relu (Yarotsky, arXiv 1610.01145): with g the hat function and
    sq_m(t) = t - sum_{s<=m} g^{os}(t)/4^s on [0, 1],

        x y ~ 2 D_x D_y (sq_m|xi + eta| - sq_m|xi| - sq_m|eta|),  xi = x/(2 D_x), eta = y/(2 D_y),

    in 45 m + 5 weights and m + 1 hidden layers; the error is at most D_x D_y 4^-m, attained.
    """
    if activation == "square":
        return Product(
            activation, np.array([1.0, 1.0]), np.array([1.0, -1.0]), [],
            np.array([0.25, -0.25]), False, 0.0,
        )  # fmt: skip
    if activation == "relu2":
        return Product(
            activation, np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, -1.0, -1.0, 1.0]), [],
            np.array([0.25, 0.25, -0.25, -0.25]), False, 0.0,
        )  # fmt: skip
    if m < 1:
        raise ValueError(f"m = {m}: the ReLU product needs at least one tent")
    x = np.array([1.0, -1.0, 1.0, -1.0, 0.0, 0.0]) / (2 * D_x)
    y = np.array([1.0, -1.0, 0.0, 0.0, 1.0, -1.0]) / (2 * D_y)
    three, shift = np.eye(3), np.array([0.0, -0.5, -1.0, 0.0])
    # t, t - 1/2, t - 1 and the accumulator t, of t = |.| as the sum of its pair
    hidden = [(np.kron(three, np.ones((4, 2))), np.tile(shift, 3))]
    tent = np.array([2.0, -4.0, 2.0, 0.0])
    for s in range(1, m):
        last = np.array([0.0, 0.0, 0.0, 1.0]) - tent / 4.0**s
        hidden.append((np.kron(three, np.array([tent, tent, tent, last])), np.tile(shift, 3)))
    square = np.array([0.0, 0.0, 0.0, 1.0]) - tent / 4.0**m
    out = 2 * D_x * D_y * np.kron([1.0, -1.0, -1.0], square)
    return Product("relu", x, y, hidden, out, True, D_x * D_y * 4.0**-m)


# ---------------------------------------------------------------- matrix products

# M_p = (ENCODE_A A)_p (ENCODE_B B)_p, C = DECODE M; blocks in the order 11, 12, 21, 22 (Strassen
# 1969)
ENCODE_A = np.array(
    [[1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0], [-1, 0, 1, 0],
     [0, 1, 0, -1]], dtype=float,
)  # fmt: skip
ENCODE_B = np.array(
    [[1, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, -1], [-1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0],
     [0, 0, 1, 1]], dtype=float,
)  # fmt: skip
DECODE = np.array(
    [[1, 0, 0, 1, -1, 0, 1], [0, 0, 1, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0, 0], [1, -1, 1, 0, 0, 1, 0]],
    dtype=float,
)


@dataclass(frozen=True)
class Shape:
    """Matrices of n = b 2^k rows: k levels of Strassen over b x b blocks multiplied as they are.

    b = 1 is Strassen's algorithm throughout, k = 0 the naive product. A matrix is a vector in
    recursive order: (i_1 j_1) (i_2 j_2) ... (i_b j_b), halves first, see `order`.
    """

    k: int
    b: int = 1

    @property
    def n(self) -> int:
        """Rows."""
        return self.b * 2**self.k

    @property
    def products(self) -> int:
        """Scalar multiplications of a matrix product."""
        return 7**self.k * self.b**3

    def order(self) -> np.ndarray:
        """Row-major positions in recursive order: v = A.ravel()[order]; A.ravel()[order] = v."""
        shape = (2,) * self.k + (self.b,)
        index = np.arange(self.n**2).reshape(shape + shape)
        axes = [a for level in range(self.k + 1) for a in (level, level + self.k + 1)]
        return index.transpose(axes).ravel()

    def to_vector(self, A: np.ndarray) -> np.ndarray:
        """Matrices of shape (..., n, n) as vectors of shape (..., n^2)."""
        return A.reshape(*A.shape[:-2], -1)[..., self.order()]

    def to_matrix(self, v: np.ndarray) -> np.ndarray:
        """Back."""
        out = np.empty_like(v)
        out[..., self.order()] = v
        return out.reshape(*v.shape[:-1], self.n, self.n)


@dataclass(frozen=True)
class Task:
    """One product of a stage: `out` = left right (+ plus).

    Attributes:
        out, left, right: registers; left a matrix, right a matrix or a vector.
        product: the network of a scalar product.
        matrix: whether right is a matrix; products with vectors are done as they are.
        plus: a register that is added.
    """

    out: str
    left: str
    right: str
    product: Product
    matrix: bool = True
    plus: str | None = None


def multiply(
    c: Circuit, shape: Shape, tasks: list[Task], carry: tuple[str, ...] = (), *, last: bool = False
) -> None:
    """Add the layers of products that run side by side: encoding, scalar products, decoding.

    Args:
        c: the circuit.
        shape: of the matrices.
        tasks: products with the same number of hidden layers.
        carry: further registers that stay.
        last: these are the last layers of the network.
    """
    kind = tasks[0].product
    levels = shape.k if any(t.matrix for t in tasks) else 0
    column = PAIR if kind.paired else RAW
    act = kind.activation if kind.paired else None
    plus = [t.plus for t in tasks if t.plus]
    operands = [n for t in tasks if not t.matrix for n in (t.left, t.right)]
    kept = list(dict.fromkeys([*carry, *plus]))  # a result takes its name when these are gone
    square, base = shape.products, shape.b**2
    assert all(len(t.product.hidden) == len(kind.hidden) for t in tasks)

    def keep(names: Sequence[str]) -> dict[str, Any]:
        return {n: _carried(c.registers[n], n, kind) for n in names}

    for level in range(1, levels + 1):
        made = keep(list(dict.fromkeys([*kept, *operands])))
        for t in (t for t in tasks if t.matrix):
            for side, E, first in (("x", ENCODE_A, t.left), ("y", ENCODE_B, t.right)):
                old = first if level == 1 else f"{t.out}.{side}"
                factors = _clean(7 ** (level - 1), E, 4 ** (levels - level) * base)
                made[f"{t.out}.{side}"] = (column, [(old, column, factors)])
        c.layer(made, act)
    # scalar products: the first layer, the hidden ones, the one that sums up
    made, biases = {}, {}
    for n in kept:
        made[n], biases[n] = _through(c.registers[n], n, kind)
    for t in tasks:
        x, y = (f"{t.out}.x", f"{t.out}.y") if t.matrix and levels else (t.left, t.right)
        made[f"{t.out}.m"] = (
            np.ones(len(t.product.x)),
            [(x, t.product.x, _left(shape, t.matrix)), (y, t.product.y, _right(shape, t.matrix))],
        )
    c.layer(made, kind.activation, {n: b for n, b in biases.items() if b is not None})
    for h in range(len(kind.hidden)):
        made, biases = keep(kept), {}
        for t in tasks:
            W, b = t.product.hidden[h]
            count = square if t.matrix else shape.n**2
            made[f"{t.out}.m"] = (np.ones(len(b)), [(f"{t.out}.m", W, (count,))])
            biases[f"{t.out}.m"] = (b, (count,))
        c.layer(made, kind.activation, biases)
    for t in tasks:
        r = c.registers[f"{t.out}.m"]
        c.registers[f"{t.out}.m"] = Register(r.start, r.size, t.product.out)
    later = [t.plus for t in tasks if t.plus and t.matrix and levels]
    for level in range(levels, -1, -1):  # level `levels` sums up, the others decode
        end = level == 0
        if last and end:
            column, act = RAW, None
        made = keep(list(dict.fromkeys([*carry, *([] if end else later)])))
        for t in tasks:
            ready = end or not t.matrix
            new, old = (t.out if ready else f"{t.out}.m"), f"{t.out}.m"
            if level == levels:
                sources = [(old, column, _sums(shape, t.matrix))]
            elif t.matrix:
                factors = _clean(7**level, DECODE, 4 ** (levels - level - 1) * base)
                sources = [(old, column, factors)]
            else:
                made[new] = _carried(c.registers[new], new, kind)
                continue
            if t.plus and ready:
                sources.append((t.plus, column, (c.registers[t.plus].size,)))
            made[new] = (column, sources)
        c.layer(made, act)


def _clean(*factors: Any) -> tuple[Factor, ...]:
    """Without identities of size 1."""
    return tuple(f for f in factors if not (isinstance(f, int) and f == 1))


def _column(b: int) -> Factor:
    return np.ones((b, 1)) if b > 1 else 1


def _left(s: Shape, matrix: bool) -> tuple[Factor, ...]:
    """Where the left operand's entries go among the products: (p, i, l) to (p, i, l, j)."""
    return _clean(7**s.k, s.b, s.b, _column(s.b)) if matrix else (s.n**2,)


def _right(s: Shape, matrix: bool) -> tuple[Factor, ...]:
    """(p, l, j) to (p, i, l, j); of a vector, entry j to every (i, j)."""
    if matrix:
        return _clean(7**s.k, _column(s.b), s.b, s.b)
    return _clean(*([np.ones((2, 1)), 2] * s.k), _column(s.b), s.b)


def _sums(s: Shape, matrix: bool) -> tuple[Factor, ...]:
    """The sum over l of the products (p, i, l, j); with a vector, over j of (i, j)."""
    row: Factor = np.ones((1, s.b)) if s.b > 1 else 1
    if matrix:
        return _clean(7**s.k, s.b, row, s.b)
    return _clean(*([2, np.ones((1, 2))] * s.k), s.b, row)


def _carried(r: Register, name: str, kind: Product) -> Any:
    """A value kept by a linear layer, or by a layer of ReLUs: relu(relu(v)) = relu(v)."""
    if kind.paired:
        W = np.eye(2) if len(r.read) == 2 else PAIR
        return PAIR, [(name, W, (r.size,))]
    return RAW, [(name, RAW, (r.size,))]


def _through(r: Register, name: str, kind: Product) -> Any:
    """A value kept by a layer with the activation: v = ((v+1)^2 - (v-1)^2)/4 for squares."""
    if kind.paired:
        return _carried(r, name, kind), None
    if kind.activation == "square":
        column, bias, read = np.array([1.0, 1.0]), np.array([1.0, -1.0]), np.array([0.25, -0.25])
    else:
        column = np.array([1.0, -1.0, 1.0, -1.0])
        bias, read = np.array([1.0, -1.0, -1.0, 1.0]), np.array([0.25, 0.25, -0.25, -0.25])
    return (read, [(name, column, (r.size,))]), (bias, (r.size,))


def matrix_product(shape: Shape, product: Product) -> Network:
    """The network (A, B) -> A B; inputs and output in recursive order."""
    n2 = shape.n**2
    c = Circuit(A=n2, B=n2)
    multiply(c, shape, [Task("C", "A", "B", product)], last=True)
    return c.network()


def strassen_weights(k: int, activation: Activation, m: int = 1) -> int:
    """Closed formula of the weights of `matrix_product(Shape(k), ...)`."""
    if activation == "relu":
        return (45 * m + 73) * 7**k - 66 * 4**k if k else 45 * m + 5
    return 12 * (7**k - 4**k) + (6 if activation == "square" else 12) * 7**k


def naive_weights(n: int, activation: Activation, m: int = 1) -> int:
    """Closed formula of the weights of `matrix_product(Shape(0, n), ...)`."""
    return n**3 * {"relu": 45 * m + 5, "square": 6, "relu2": 12}[activation]


def tents(shape: Shape, Z_x: float, Z_y: float, epsilon: float) -> int:
    """Least m with which every entry of a product is within epsilon, |entries| <= Z_x and Z_y.

    Encoded entries reach 2^k Z, and an entry of the product sums up to 4^k b of these products:
    the error is at most b 16^k Z_x Z_y 4^-m.
    """
    return max(1, int(np.ceil(0.5 * np.log2(shape.b * 16.0**shape.k * Z_x * Z_y / epsilon))))


def product_within(shape: Shape, Z_x: float, Z_y: float, m: int) -> Product:
    """The ReLU product for the encoded entries of matrices whose entries are within Z_x and Z_y."""
    return scalar_product("relu", m, 2.0**shape.k * Z_x, 2.0**shape.k * Z_y)
