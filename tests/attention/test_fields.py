"""Every field against its definition by plain sums; large and small, blocked and compiled."""

import numpy as np
import pytest

from fem_apps.attention import fields as module
from fem_apps.attention.fields import energy, make_field
from fem_apps.attention.model import Attention
from fem_apps.attention.pair_sums import compiled_sums
from fem_apps.errors import CaseError

RNG = np.random.default_rng(3)
D = 3
Q, K = RNG.standard_normal((2, 2, D)) * 0.7
V = RNG.standard_normal((D, D))


def tuples(M):
    return tuple(map(tuple, M.tolist()))


def cloud(n, d=D):
    x = RNG.standard_normal((n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    m = RNG.uniform(0.5, 1.5, n)
    return x, np.log(m / m.sum())


def weights(variant, x, y, m, beta):
    s = beta * (x @ Q.T) @ (y @ K.T).T
    match variant:
        case "softmax":
            w = m * np.exp(s)
            return w / w.sum(axis=1, keepdims=True)
        case "unnormalised":
            return m * np.exp(s)
        case "scaled":
            return m * np.exp(s - beta)
        case "l2":
            square = ((x @ Q.T)[:, None] - (y @ K.T)[None]) ** 2
            w = m * np.exp(-beta * square.sum(axis=2))
            return w / w.sum(axis=1, keepdims=True)
        case "linear":
            return m * s
        case "sigmoid":
            return m / (1 + np.exp(-s))
        case "sinkhorn":
            kernel = np.exp(beta * (y @ Q.T) @ (y @ K.T).T)
            for _ in range(4000):
                kernel = kernel / (kernel @ m)[:, None]
                kernel = kernel / (m @ kernel)[None, :]
            return beta * kernel * m
    raise ValueError


@pytest.mark.parametrize(
    "variant", ["softmax", "unnormalised", "scaled", "l2", "linear", "sigmoid", "sinkhorn"]
)
@pytest.mark.parametrize("norm", [True, False])
def test_definition(variant, norm):
    x, log_m = cloud(40)
    a = Attention(variant=variant, beta=1.3, Q=tuples(Q), K=tuples(K), V=tuples(V), layer_norm=norm)
    w = weights(variant, x, x, np.exp(log_m), 1.3)
    expected = w @ x @ V.T
    if norm:
        expected = expected - (x * expected).sum(axis=1, keepdims=True) * x
    assert np.asarray(make_field(a, D)(x, x, log_m)) == pytest.approx(expected, abs=1e-11)


def test_heads_and_mask():
    x, log_m = cloud(20)
    heads = [
        {"Q": tuples(Q), "K": tuples(K), "V": tuples(V[:2]), "W": tuples(V[:, :2])},
        {"V": -0.5},
    ]
    a = Attention(heads=heads, layer_norm=False, masked=True)
    m = np.exp(log_m)
    expected = np.zeros_like(x)
    for A, C in ((K.T @ Q, V[:, :2] @ V[:2]), (np.eye(D), -0.5 * np.eye(D))):
        w = np.tril(m * np.exp(x @ A.T @ x.T))
        expected += w / w.sum(axis=1, keepdims=True) @ x @ C.T
    assert np.asarray(make_field(a, D)(x, x, log_m)) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("variant", ["softmax", "linear", "sigmoid", "l2"])
def test_masked_blocks(variant, monkeypatch):
    """Row blocks with a mask give what one block gives."""
    x, log_m = cloud(50)
    f = make_field(Attention(variant=variant, beta=2, masked=True), D)
    whole = np.asarray(f(x, x, log_m))
    monkeypatch.setattr(module, "BLOCK", 350)
    assert np.asarray(f(x, x, log_m)) == pytest.approx(whole, abs=1e-14)
    assert whole[0] == pytest.approx(0, abs=1e-15)  # the first token sees itself alone


@pytest.mark.parametrize("d", [2, 3, 5, 70])
@pytest.mark.parametrize("beta", [0.0, 4.0, 1e4])
def test_compiled_sums(d, beta):
    x, _log_m = cloud(300, d)
    y, b = cloud(700, d)
    sums, c = compiled_sums(beta * x, y, b)
    s = beta * x @ y.T + b
    top = s.max(axis=1)
    w = np.exp(s - top[:, None])
    expected = np.c_[w @ y, w.sum(axis=1)]
    scaled = sums * np.exp(c - top)[:, None]
    assert scaled == pytest.approx(expected, rel=1e-11 + 2e-14 * beta, abs=1e-13)


@pytest.mark.parametrize("d", [2, 3, 5, 70])
def test_symmetric_sums(d):
    """Tokens that see themselves: one exponential a pair, the same sums."""
    x, log_m = cloud(1300, d)
    sums, c = compiled_sums(2.5 * x, x, log_m)
    w = np.exp(2.5 * x @ x.T + log_m - c[:, None])
    assert sums == pytest.approx(np.c_[w @ x, w.sum(axis=1)], rel=1e-11, abs=1e-14)


def test_huge_beta_is_safe():
    x, log_m = cloud(600)
    for compiled in (True, False):
        f = make_field(Attention(beta=1e4), D, compiled=compiled)
        v = np.asarray(f(x, x, log_m))
        assert np.isfinite(v).all()
        assert np.abs(v).max() < 1
        assert float(energy(x, log_m, 1e4, compiled=compiled)) >= np.sum(np.exp(2 * log_m)) * 0.999


@pytest.mark.parametrize("variant", ["softmax", "scaled", "l2", "linear", "sinkhorn"])
def test_rotation_equivariance(variant):
    x, log_m = cloud(30)
    R = np.linalg.qr(RNG.standard_normal((D, D)))[0]
    f = make_field(Attention(variant=variant, beta=2), D)
    assert np.asarray(f(x @ R.T, x @ R.T, log_m)) == pytest.approx(
        np.asarray(f(x, x, log_m)) @ R.T, abs=1e-11
    )


def test_matrices_that_do_not_fit():
    with pytest.raises(CaseError, match="alike"):
        make_field(Attention(Q=tuples(np.ones((1, 3)))), 3)
    with pytest.raises(CaseError, match="3 dimensions"):
        make_field(Attention(Q=tuples(np.ones((1, 2))), K=tuples(np.ones((1, 2)))), 3)
    with pytest.raises(CaseError, match="V must be"):
        make_field(Attention(V=tuples(np.ones((1, 3)))), 3)
    with pytest.raises(CaseError, match="one length"):
        make_field(Attention(V=((1.0, 2), (1.0,))), 2)
