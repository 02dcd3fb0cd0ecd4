"""Networks for the inverse of a matrix, and for the solution of a parametric equation.

S symmetric with spectrum in [s_min, s_max], alpha = 2/(s_min + s_max), A = I - alpha S, so that
|A| <= r = (kappa - 1)/(kappa + 1):

    S^-1 ~ X_J = alpha prod_{j<J} (I + A^(2^j)),    |S^-1 - X_J| <= r^(2^J) / s_min,

in 2 (J - 1) matrix products and J stages: A_(j+1) = A_j A_j beside X_(j+1) = X_j + A_j X_j. Every
product is off by at most what its m allows; `budget` follows these errors to the end and chooses
the least m that keeps the result within epsilon, for every matrix with that spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.surrogates.strassen import (
    PAIR,
    RAW,
    Circuit,
    Product,
    Shape,
    Task,
    multiply,
    product_within,
    scalar_product,
)
from fem_apps.surrogates.strassen_layers import Activation, Network

Form = Literal["inverse", "applied"]
MOST_TENTS, MOST_STEPS = 60, 40


@dataclass(frozen=True)
class Budget:
    """How an accuracy is reached: J factors, m tents in every product of a stage.

    Attributes:
        J: number of factors.
        tents: m of stage 0, ..., J - 1 (ReLU; 1 otherwise).
        bounds: (Z_A, Z_X) of each stage: no entry of A_j, of X_j (or x_j) is larger.
        truncation: r^(2^J)/s_min times the size of the right side; `products`: the rest.
    """

    J: int
    tents: tuple[int, ...]
    bounds: tuple[tuple[float, float], ...]
    truncation: float
    products: float

    @property
    def error(self) -> float:
        """Bound of the error in the 2-norm."""
        return self.truncation + self.products


def factors_needed(s_min: float, s_max: float, epsilon: float) -> int:
    """Least J with r^(2^J)/s_min <= epsilon."""
    r = (s_max - s_min) / (s_max + s_min)
    J = 1
    while r ** (2.0**J) / s_min > epsilon:
        J += 1
        if J > MOST_STEPS:
            raise CaseError(
                f"the spectrum [{s_min:g}, {s_max:g}] needs more than {MOST_STEPS} factors for "
                f"epsilon = {epsilon:g}"
            )
    return J


def budget(
    s_min: float,
    s_max: float,
    epsilon: float,
    shape: Shape,
    activation: Activation = "relu",
    form: Form = "inverse",
    size: float = 1.0,
) -> Budget:
    """Factors and tents for an error of at most epsilon in the 2-norm.

    Args:
        s_min: lower bound of the spectrum, positive.
        s_max: upper bound.
        epsilon: the accuracy; half of it is for the truncation.
        shape: of the matrices.
        activation: of the products.
        form: the inverse, or factors applied to a vector.
        size: of the right side that the result is applied to.

    Raises:
        CaseError: float64 does not reach epsilon, or the spectrum is not positive.
    """
    if not 0 < s_min <= s_max:
        raise CaseError(f"the spectrum [{s_min:g}, {s_max:g}] is not positive")
    r = (s_max - s_min) / (s_max + s_min)
    J = factors_needed(s_min, s_max, 0.5 * epsilon / size)
    truncation = r ** (2.0**J) / s_min * size
    if activation != "relu":
        bounds = tuple((1.0, 1.0) for _ in range(J))
        return Budget(J, (1,) * J, bounds, truncation, 0.0)
    tau = epsilon
    for _ in range(200):
        tents, bounds, error = _propagate(r, 2 / (s_min + s_max), J, shape, form, size, tau)
        if error <= epsilon - truncation and max(tents) <= MOST_TENTS:
            return Budget(J, tents, bounds, truncation, error)
        tau *= 0.7
    raise CaseError(f"epsilon = {epsilon:g} is beyond what float64 reaches for this spectrum")


def _propagate(
    r: float, alpha: float, J: int, shape: Shape, form: Form, size: float, tau: float
) -> tuple[tuple[int, ...], tuple[tuple[float, float], ...], float]:
    """Tents for which every product is within tau in norm, and the error of the result.

    a, d: norm and error of A_j; rho, e: of X_j (of x_j / alpha if applied), see the module.
    """
    n, a, d = shape.n, r, 0.0
    applied = form == "applied"
    unit = size if applied else 1.0
    rho, e = (1 + r) * unit, 0.0
    tents, bounds = [], []
    for j in range(J):
        Z_A, Z_X = a + d, rho + e
        bounds.append((Z_A, Z_X))
        # entry errors of both kinds of product that this stage has, for m = 0
        square = n * shape.b * 16.0**shape.k * Z_A**2 if j < J - 1 else 0.0
        times = (
            n**1.5 * Z_A * Z_X if applied else n * shape.b * 16.0**shape.k * Z_A * Z_X
        ) if j else 0.0  # fmt: skip
        worst = max(square, times / unit)
        m = max(1, int(np.ceil(0.5 * np.log2(worst / tau)))) if worst else 1
        tents.append(m)
        if j:
            e = e * (1 + a + d) + d * rho + times * 4.0**-m
            rho *= 1 + a
        if j < J - 1:
            d = d * (2 * a + d) + square * 4.0**-m
            a = a**2
    scale = 1.0 if applied else size
    return tuple(tents), tuple(bounds), alpha * e * scale


def _products(
    activation: Activation, shape: Shape, b: Budget, j: int, form: Form
) -> tuple[Product, Product]:
    """Networks of a scalar product in A_j A_j, and in A_j X_j."""
    if activation != "relu":
        p = scalar_product(activation)
        return p, p
    Z_A, Z_X = b.bounds[j]
    m = b.tents[j]
    times = (
        scalar_product("relu", m, Z_A, Z_X)
        if form == "applied"
        else product_within(shape, Z_A, Z_X, m)
    )
    return product_within(shape, Z_A, Z_A, m), times


def _factors(
    c: Circuit, shape: Shape, b: Budget, activation: Activation, form: Form, carry: tuple[str, ...]
) -> None:
    """Stages from registers A = A_0 and X = I + A_0 (or its product with f) to X = X_J / alpha."""
    for j in range(b.J):
        square, times = _products(activation, shape, b, j, form)
        tasks = []
        if j < b.J - 1:
            tasks.append(Task("A", "A", "A", square))
        if j:
            tasks.append(Task("X", "A", "X", times, form == "inverse", "X"))
        if tasks:
            multiply(c, shape, tasks, carry if j else (*carry, "X"))


def inverse_network(
    shape: Shape, s_min: float, s_max: float, epsilon: float, activation: Activation = "relu"
) -> tuple[Network, Budget]:
    """The network S -> S^-1 for all S with that spectrum, within epsilon in the 2-norm.

    Input and output in recursive order, shape (n^2,).

    Raises:
        CaseError: see `budget`.
    """
    b = budget(s_min, s_max, epsilon, shape, activation)
    alpha, n2 = 2 / (s_min + s_max), shape.n**2
    unit = shape.to_vector(np.eye(shape.n))
    column, act = _linear(activation)
    c = Circuit(S=n2)
    minus = ("S", -alpha * column, (n2,))
    c.layer(
        {"A": (column, [minus]), "X": (column, [minus])},
        act,
        {"A": (column, (unit,)), "X": (column, (2 * unit,))},
    )
    _factors(c, shape, b, activation, "inverse", ())
    c.layer({"inverse": (RAW, [("X", alpha * RAW, (n2,))])}, None)
    return c.network(), b


def solver_network(
    theta: tuple[np.ndarray, np.ndarray],
    operators: np.ndarray,
    load: np.ndarray,
    basis: np.ndarray | None,
    shape: Shape,
    b: Budget,
    spectrum: tuple[float, float],
    activation: Activation = "relu",
    form: Form = "inverse",
) -> Network:
    """The network mu -> u of a parametric equation, in the basis or on the mesh.

    mu -> theta = theta_0 + T mu -> A_0 = I - alpha sum_q theta_q S_q -> X_J -> X_J f -> Phi X_J f.

    Args:
        theta: theta_0 of shape (Q,) and T of shape (Q, P).
        operators: S_q, shape (Q, n, n), with n that of the shape.
        load: f, shape (n,).
        basis: Phi, shape (dofs, n); None for coefficients.
        shape: of the products; n.
        b: from `budget`, for this spectrum and form.
        spectrum: bounds of that of every S(mu).
        activation: of the products.
        form: "inverse" builds X_J, "applied" only its product with f, in half of the work.
    """
    alpha, n2, n = 2 / sum(spectrum), shape.n**2, shape.n
    theta_0, T = theta
    S = np.einsum("qij,qp->pij", operators, T)
    S_0 = np.einsum("qij,q->ij", operators, theta_0)
    column, act = _linear(activation)
    c = Circuit(mu=T.shape[1])
    A_of_mu, A_0 = -alpha * S, np.eye(n) - alpha * S_0
    A_map = shape.to_vector(A_of_mu).T
    if form == "inverse":
        X_map, X_0 = A_map, shape.to_vector(A_0 + np.eye(n))
    else:
        X_map, X_0 = (A_of_mu @ load).T, load + A_0 @ load
    c.layer(
        {
            "A": (column, [("mu", column, (_tidy(A_map),))]),
            "X": (column, [("mu", column, (_tidy(X_map),))]),
        },
        act,
        {"A": (column, (_tidy(shape.to_vector(A_0)),)), "X": (column, (_tidy(X_0),))},
    )
    _factors(c, shape, b, activation, form, ())
    if form == "inverse":
        # row i of X_J times f, X in recursive order
        order = shape.order()
        contract = np.zeros((n, n2))
        contract[order // n, np.arange(n2)] = load[order % n]
        values: Any = ("X", alpha * column, (_tidy(contract),))
    else:
        values = ("X", alpha * column, (n,))
    if basis is None:
        c.layer({"u": (RAW, [(values[0], alpha * RAW, values[2])])}, None)
        return c.network()
    c.layer({"u": (column, [values])}, act)
    assert basis.shape[1] == n
    c.layer({"u": (RAW, [("u", RAW, (basis,))])}, None)
    return c.network()


def _linear(activation: Activation) -> tuple[np.ndarray, Activation | None]:
    """Column and activation of layers around products."""
    return (PAIR, "relu") if activation == "relu" else (RAW, None)


def _tidy(x: np.ndarray) -> np.ndarray:
    """Without entries that are rounding: they would count as weights."""
    return np.where(np.abs(x) > 1e-14 * np.abs(x).max(), x, 0.0)
