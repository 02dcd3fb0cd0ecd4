"""Strassen networks: sizes equal to closed formulas, errors under their bounds, plain layers."""

import numpy as np
import pytest

from fem_apps.errors import CaseError
from fem_apps.surrogates.strassen import (
    DECODE,
    ENCODE_A,
    ENCODE_B,
    Shape,
    matrix_product,
    naive_weights,
    product_within,
    scalar_product,
    strassen_weights,
    tents,
)
from fem_apps.surrogates.strassen_file import load_network, save_network
from fem_apps.surrogates.strassen_inverse import budget, inverse_network, solver_network
from fem_apps.surrogates.strassen_layers import activate


def written_out(network, x):
    """The network as sparse matrices and activations alone, and the nonzeros that it has."""
    y, weights = x.T, 0
    for layer in network.layers:
        W, b = layer.matrix()
        assert W.shape == (layer.outputs, layer.inputs)
        weights += W.count_nonzero() + np.count_nonzero(b)
        y = activate(W @ y + b[:, None], layer.activation)
    return y.T, weights


def matrices(shape, number, seed=0):
    rng = np.random.default_rng(seed)
    A, B = rng.uniform(-1, 1, (2, number, shape.n, shape.n))
    return A, B, np.concatenate([shape.to_vector(A), shape.to_vector(B)], axis=1)


def test_strassens_identity():
    """sum_p DECODE[c, p] ENCODE_A[p, a] ENCODE_B[p, b] is the tensor of the 2 x 2 product."""
    T = np.einsum("cp,pa,pb->cab", DECODE, ENCODE_A, ENCODE_B)
    for i in range(2):
        for j in range(2):
            for a in range(4):
                for b in range(4):
                    wanted = a // 2 == i and b % 2 == j and a % 2 == b // 2
                    assert T[2 * i + j, a, b] == wanted
    assert all(np.count_nonzero(E) == 12 for E in (ENCODE_A, ENCODE_B, DECODE))


@pytest.mark.parametrize(
    ("activation", "m", "weights"),
    [("square", 1, 6), ("relu2", 1, 12), ("relu", 1, 50), ("relu", 10, 455), ("relu", 16, 725)],
)
def test_scalar_products(activation, m, weights):
    D = 3.0
    p = scalar_product(activation, m, D, D)
    net = matrix_product(Shape(0), p)
    assert p.weights == net.weights == weights
    assert net.depth == (m + 2 if activation == "relu" else 2)
    assert net.neurons == (12 * m + 6 if activation == "relu" else weights // 3)
    x = np.random.default_rng(0).uniform(-D, D, (2000, 2))
    corner = D * (1 - 2.0 ** -(m + 1))
    x = np.vstack([x, [[corner, corner], [D, D], [D, -D], [0, 0]]])
    error = np.abs(net(x)[:, 0] - x[:, 0] * x[:, 1]).max()
    if activation == "relu":
        assert error <= D**2 * 4.0**-m
        assert error >= 0.3 * D**2 * 4.0**-m  # the bound is sharp
    else:
        assert error < 1e-14


@pytest.mark.parametrize(
    ("k", "b", "activation", "m", "weights", "depth"),
    [
        (1, 1, "relu", 3, 1192, 7),
        (1, 1, "relu", 10, 3397, 14),
        (2, 1, "relu", 2, 6931, 8),
        (2, 1, "relu", 6, 15751, 12),
        (3, 1, "square", 1, 5406, 8),
        (2, 1, "relu2", 1, 984, 6),
        (0, 4, "relu", 6, 17600, 8),
        (0, 8, "square", 1, 3072, 2),
        (1, 3, "relu", 8, None, 12),
        (2, 3, "square", 1, None, 6),
    ],
)
def test_matrix_products(k, b, activation, m, weights, depth):
    shape = Shape(k, b)
    product = product_within(shape, 1, 1, m) if activation == "relu" else scalar_product(activation)
    net = matrix_product(shape, product)
    assert net.depth == depth
    if b == 1:
        assert net.weights == weights == strassen_weights(k, activation, m)
    if k == 0:
        assert net.weights == weights == naive_weights(shape.n, activation, m)
    A, B, x = matrices(shape, 3)
    C = net(x)
    plain, counted = written_out(net, x)
    assert counted == net.weights
    np.testing.assert_allclose(plain, C, atol=1e-13)
    error = np.abs(shape.to_matrix(C) - A @ B).max()
    assert error <= (b * 16.0**k * 4.0**-m if activation == "relu" else 1e-13)


@pytest.mark.parametrize("epsilon", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("k", [1, 2, 3, 4, pytest.param(5, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)])  # fmt: skip  # noqa: E501
def test_relu_within_epsilon(k, epsilon):
    shape = Shape(k)
    m = tents(shape, 1, 1, epsilon)
    A, B, x = matrices(shape, 1, seed=k)
    C = shape.to_matrix(matrix_product(shape, product_within(shape, 1, 1, m))(x))
    assert np.abs(C - A @ B).max() <= epsilon


def test_table_of_sizes_and_break_even():
    """Exact counts of the literature's conventions, and from which n on Strassen has fewer."""
    assert strassen_weights(5, "square") == 290238
    assert strassen_weights(9, "square") == 723219198
    assert strassen_weights(12, "square") == 248941843026
    assert strassen_weights(5, "relu", 10) == 8722477
    square = [strassen_weights(k, "square") < naive_weights(2**k, "square") for k in range(1, 13)]
    assert square.index(True) + 1 == 9  # n = 512
    assert strassen_weights(1, "relu", 10) < naive_weights(2, "relu", 10)
    for epsilon, least in ((1e-2, 8), (1e-6, 3), (1e-10, 1)):  # at the same error
        fewer = [
            strassen_weights(k, "relu", tents(Shape(k), 1, 1, epsilon))
            < naive_weights(2**k, "relu", tents(Shape(0, 2**k), 1, 1, epsilon))
            for k in range(1, 13)
        ]
        assert fewer.index(True) + 1 == least
        assert all(fewer[least - 1 :])


def spd(n, kappa, rng):
    Q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return (Q * np.geomspace(1, kappa, n)) @ Q.T


@pytest.mark.parametrize(
    ("k", "b", "activation", "kappa", "epsilon"),
    [
        (2, 1, "square", 10, 1e-10),
        (1, 3, "relu2", 10, 1e-8),
        (2, 1, "relu", 10, 1e-6),
        (1, 3, "relu", 30, 1e-3),
        (1, 1, "relu", 10, 1e-10),
    ],
)
def test_inverse(k, b, activation, kappa, epsilon):
    shape, rng = Shape(k, b), np.random.default_rng(1)
    net, plan = inverse_network(shape, 1.0, kappa, epsilon, activation)
    S = np.array([spd(shape.n, kappa, rng) for _ in range(3)])
    X = shape.to_matrix(net(shape.to_vector(S)))
    error = max(np.linalg.norm(x - np.linalg.inv(s), 2) for x, s in zip(X, S, strict=True))
    assert error <= plan.error * (1 + 1e-6) + 1e-14
    assert plan.error <= epsilon
    if activation == "square":
        r = (kappa - 1) / (kappa + 1)
        assert plan.J == 7
        assert error == pytest.approx(r ** (2.0**plan.J), rel=1e-2)  # attained
        # 2 (J - 1) products, the rest carries values and adds
        assert net.weights > 2 * (plan.J - 1) * strassen_weights(k, "square")


@pytest.mark.parametrize("form", ["inverse", "applied"])
@pytest.mark.parametrize("activation", ["relu", "square", "relu2"])
def test_parametric_solver(form, activation):
    """Mu -> Phi S(mu)^-1 f within epsilon over 1,000 parameters, written out too."""
    rng, n, shape = np.random.default_rng(2), 4, Shape(2)
    parts = rng.normal(size=(2, n, n))
    S = np.array([p @ p.T for p in parts])
    w, V = np.linalg.eigh(S.sum(axis=0))  # normalised so that S_1 + S_2 = I
    S = np.array([V / np.sqrt(w) @ V.T @ s @ V / np.sqrt(w) @ V.T for s in S])
    S = 0.5 * (S + S.transpose(0, 2, 1))
    f, Phi = rng.normal(size=n), rng.normal(size=(6, n))
    epsilon, spectrum = 1e-5, (0.2, 1.0)
    plan = budget(*spectrum, epsilon, shape, activation, form, float(np.linalg.norm(f)))
    theta = np.zeros(2), np.eye(2)
    net = solver_network(theta, S, f, None, shape, plan, spectrum, activation, form)
    mus = rng.uniform(*spectrum, (1000, 2))
    exact = np.linalg.solve(np.tensordot(mus, S, axes=1), np.tile(f, (1000, 1))[..., None])[..., 0]
    error = np.linalg.norm(net(mus) - exact, axis=1).max()
    assert error <= epsilon
    full = solver_network(theta, S, f, Phi, shape, plan, spectrum, activation, form)
    plain, counted = written_out(full, mus[:3])
    assert counted == full.weights
    np.testing.assert_allclose(plain, net(mus[:3]) @ Phi.T, atol=1e-11)


def test_applied_form_is_smaller():
    spectrum, f = (0.1, 1.0), np.ones(4)
    sizes = {}
    for form in ("inverse", "applied"):
        plan = budget(*spectrum, 1e-6, Shape(2), "relu", form, 2.0)
        S = np.eye(4)[None]
        net = solver_network(
            (np.zeros(1), np.ones((1, 1))), S, f, None, Shape(2), plan, spectrum, "relu", form
        )
        sizes[form] = net.weights
    assert sizes["applied"] < 0.7 * sizes["inverse"]


def test_stored_and_read(tmp_path):
    net, _ = inverse_network(Shape(1), 1.0, 4.0, 1e-4)
    save_network(net, tmp_path / "n.npz")
    again = load_network(tmp_path / "n.npz")
    x = Shape(1).to_vector(np.array([[[2.0, 0.5], [0.5, 3.0]]]))
    np.testing.assert_array_equal(again.apply(x), net.apply(x))
    assert again.weights == net.weights
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(CaseError, match="no network"):
        load_network(tmp_path / "bad.npz")


def test_what_cannot_be_reached_is_refused():
    with pytest.raises(CaseError, match="not positive"):
        budget(-1.0, 1.0, 1e-3, Shape(1))
    with pytest.raises(CaseError, match="beyond what float64"):
        budget(0.1, 1.0, 1e-30, Shape(4))
