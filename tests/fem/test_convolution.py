"""W * rho against all pairs, closed forms and its own symmetry and sign."""

import numpy as np
import pytest
from mpi4py import MPI
from scipy.special import exp1, i0, i1

from fem_apps.errors import CaseError
from fem_apps.fem import kernels as K
from fem_apps.fem.convolution import dense_sum, make_convolution
from fem_apps.fem.convolution_symbols import WINDOW_K, singular_exponent, whole_space, windowed

SELF = MPI.COMM_SELF


def cloud(dim, n=300, half=3.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-half, half, (n, dim)) + 5.0, rng.normal(size=n)


def on_sphere(dim, n=300):
    x = np.random.default_rng(1).normal(size=(n, dim))
    return x / np.linalg.norm(x, axis=1)[:, None]


def plane_mesh(n, half=4.0):
    """Perturbed square: nodes, lumped masses, spacing."""
    from scipy.spatial import Delaunay

    h = 2 * half / n
    line = np.linspace(-half, half, n + 1)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = (np.abs(x) < half - h / 2).all(axis=1)
    x = x + np.random.default_rng(n).uniform(-0.3, 0.3, x.shape) * h * inside[:, None]
    cells = Delaunay(x).simplices
    area = np.abs(np.linalg.det(x[cells[:, 1:]] - x[cells[:, :1]])) / 2
    return x, np.bincount(cells.ravel(), np.repeat(area / 3, 3), len(x)), h


def line_mesh(n, half=4.0):
    x = np.linspace(-half, half, n + 1)
    x[1:-1] += np.random.default_rng(n).uniform(-0.3, 0.3, n - 1) * 2 * half / n
    m = np.zeros(n + 1)
    m[1:] += np.diff(x) / 2
    m[:-1] += np.diff(x) / 2
    return x[:, None], m, 2 * half / n


def normal(x, s):
    return np.exp(-(x**2).sum(axis=1) / (2 * s**2)) / (2 * np.pi * s**2) ** (x.shape[1] / 2)


def order(errors):
    """Least-squares order over halvings of the spacing."""
    return -np.polyfit(np.arange(len(errors)), np.log2(errors), 1)[0]


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("width", [0.4, 2.0, 30.0])
def test_gaussian_is_the_sum_over_pairs(dim, width):
    x, b = cloud(dim)
    kernel = K.Gaussian(width=width, strength=-2.0)
    W = make_convolution(SELF, [kernel], x, spacing=0.2)
    exact = dense_sum(kernel, x, b)
    assert np.abs(W(b) - exact).max() < 1e-9 * np.abs(exact).max()
    assert "NUFFT" in W.route


def test_convolution_of_gaussians_in_the_plane():
    x, m, h = plane_mesh(64)
    s, g = 1.0, 0.6
    W = make_convolution(SELF, [K.Gaussian(width=s, strength=-1.0)], x, spacing=h)
    exact = -(s**2) / (s**2 + g**2) * np.exp(-(x**2).sum(axis=1) / (2 * (s**2 + g**2)))
    assert np.abs(W(m * normal(x, g)) - exact).max() < 3e-4


def test_yukawa_in_the_plane():
    """(W * rho)(0) and at r = 1 by Hankel integral; second order."""
    exact, errors = np.array([0.0734428946, 0.0254999735]), []
    for n in (32, 64, 128):
        x, m, h = plane_mesh(n)
        x = np.vstack([x, [[0, 0], [1, 0]]])  # two massless probes
        b = np.r_[m * normal(x[:-2], 0.5), 0, 0]
        W = make_convolution(SELF, [K.Yukawa(kappa=2.0)], x, spacing=h)
        errors.append(np.abs(W(b)[-2:] - exact).max())
    assert order(errors) > 1.9
    assert errors[-1] < 1e-4


def test_log_in_the_plane():
    """The potential log r * N(0, s^2) = log r + E1(r^2 / 2 s^2) / 2; second order."""
    s, errors = 0.7, []
    for n in (32, 64, 128):
        x, m, h = plane_mesh(n, half=5.0)
        r = np.linalg.norm(x, axis=1)
        far = r > 1e-2
        W = make_convolution(SELF, [K.Log()], x, spacing=h)
        error = W(m * normal(x, s))[far] - np.log(r[far]) - exp1(r[far] ** 2 / (2 * s**2)) / 2
        errors.append(np.abs(error).max())
    assert order(errors) > 1.9
    assert errors[-1] < 1e-3


def test_exponential_on_the_line():
    """The potential exp(-|x|) * N(0, s^2) in terms of erfcx; second order."""
    from scipy.special import erfcx

    s, errors = 0.5, []
    for n in (50, 100, 200, 400):
        x, m, h = line_mesh(n)
        W = make_convolution(SELF, [K.Exponential()], x, spacing=h)
        y = x[:, 0]
        gauss = np.exp(-(y**2) / (2 * s**2)) / 2
        exact = gauss * (erfcx((s - y / s) / np.sqrt(2)) + erfcx((s + y / s) / np.sqrt(2)))
        errors.append(np.abs(W(m * normal(x, s)) - exact).max())
    assert order(errors) > 1.9
    assert errors[-1] < 5e-5


def test_newton_in_space():
    """-1/r * N(0, s^2) = -erf(r / s sqrt 2) / r."""
    from scipy.special import erf

    n, half, s = 32, 3.0, 0.7
    line = np.linspace(-half, half, n + 1)
    h = line[1] - line[0]
    x = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    W = make_convolution(SELF, [K.Power(exponent=-1.0)], x, spacing=h)
    r = np.linalg.norm(x, axis=1)
    out = r > 0
    error = W(h**3 * normal(x, s))[out] + erf(r[out] / s / np.sqrt(2)) / r[out]
    assert np.abs(error).max() < 1e-2
    assert np.abs(error[r[out] > 4 * h]).max() < 4e-3


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(
    "kernel",
    [
        K.Log(),
        K.Power(exponent=0.5),
        K.Power(exponent=-0.9),
        K.Exponential(length=3.0),
        K.Yukawa(kappa=0.2),
    ],
    ids=lambda k: k.type,
)
def test_windowed_symbol_joins_the_closed_one(kernel, dim):
    k = np.linspace(0.9, 1.4, 6) * WINDOW_K / 0.3
    table = windowed(K.radial(kernel, dim), dim, 1.4, 0.3, k[-1], singular_exponent(kernel))
    assert np.abs(table(k) - whole_space(kernel, dim)(k)).max() < 1e-12 * abs(table(0.0))


@pytest.mark.parametrize(("end", "tolerance"), [(16.0, 1e-7), (9.0, 1e-4)])
def test_table_of_a_gaussian(end, tolerance):
    """A table that reaches into the tail, and one that ends where the window begins."""
    x, b = cloud(2)
    r = np.linspace(0, end, 500)
    table = K.Tabulated(r=tuple(r), W=tuple(np.exp(-(r**2) / 8)))
    W = make_convolution(SELF, [table], x, spacing=0.1)
    exact = dense_sum(K.Gaussian(width=2.0), x, b)
    assert np.abs(W(b) - exact).max() < tolerance * np.abs(exact).max()


def test_long_kernels_agree_with_their_own_expansion():
    """exp(-r/l), l far above the domain: 1 - r/l + r^2/2l^2 - ..., each term by its route."""
    x, b = cloud(2)
    length = 400.0
    W = make_convolution(SELF, [K.Exponential(length=length)], x, spacing=0.1)
    terms = [K.Polynomial(coefficients=(1.0, 0.5 / length**2, 1 / 24 / length**4))]
    terms += [K.Power(exponent=1.0, strength=-1 / length)]
    terms += [K.Power(exponent=3.0, strength=-0.5 / length**3)]
    exact = make_convolution(SELF, terms, x, spacing=0.1)(b)
    assert np.abs(W(b) - exact).max() < 1e-7 * np.abs(exact).max()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_polynomials_are_exact(dim):
    x, b = cloud(dim)
    many = [
        K.Polynomial(coefficients=(1.0, -0.5, 0.25, 0.01), strength=3.0),
        K.Power(exponent=2.0),
        K.Power(exponent=4.0),
    ]
    W = make_convolution(SELF, many, x, spacing=0.2)
    exact = sum(dense_sum(k, x, b) for k in many)
    assert np.abs(W(b) - exact).max() < 1e-12 * np.abs(exact).max()
    assert "low rank" in W.route
    assert "NUFFT" not in W.route


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("beta", [0.5, 6.0, -3.0, 120.0])
def test_von_mises(dim, beta):
    x = on_sphere(dim)
    b = np.random.default_rng(2).normal(size=len(x))
    W = make_convolution(SELF, [K.VonMises(beta=beta, strength=-0.5)], x, spacing=0.1)
    exact = -0.5 * np.exp(beta * x @ x.T) @ b
    assert np.abs(W(b) - exact).max() < 1e-9 * np.abs(exact).max()
    assert W.sign == ("indefinite" if beta < 0 else "negative")


def test_funk_hecke_on_the_circle():
    """exp(beta cos) acts on cos(k t) as 2 pi I_k(beta)."""
    n, beta = 64, 2.0
    t = 2 * np.pi * np.arange(n) / n
    x = np.stack([np.cos(t), np.sin(t)], axis=1)
    W = make_convolution(SELF, [K.VonMises(beta=beta)], x, spacing=0.1)
    assert np.allclose(W(np.full(n, 2 * np.pi / n)), 2 * np.pi * i0(beta), rtol=1e-12)
    assert np.allclose(W(np.cos(t) * 2 * np.pi / n), 2 * np.pi * i1(beta) * np.cos(t), atol=1e-11)


@pytest.mark.parametrize("width", [0.2, 0.8])
def test_gaussian_on_the_sphere(width):
    x = on_sphere(3)
    b = np.random.default_rng(2).normal(size=len(x))
    W = make_convolution(SELF, [K.Gaussian(width=width)], x, spacing=0.1)
    exact = dense_sum(K.Gaussian(width=width), x, b)
    assert np.abs(W(b) - exact).max() < 1e-9 * np.abs(exact).max()
    assert ("low rank" in W.route) == (width > 0.5)


@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_log_on_a_circle(radius):
    """The uniform density has the potential 2 pi R log R, cos(n t) the eigenvalue -pi R / n."""
    n = 240
    t = 2 * np.pi * np.arange(n) / n
    x = radius * np.stack([np.cos(t), np.sin(t)], axis=1)
    h = radius * 2 * np.pi / n
    W = make_convolution(SELF, [K.Log()], x, spacing=h)
    assert np.allclose(W(np.full(n, h)), 2 * np.pi * radius * np.log(radius), atol=1e-8)
    assert np.allclose(W(h * np.cos(3 * t)), -np.pi * radius / 3 * np.cos(3 * t), atol=1e-4)
    assert W.sign == "negative"
    with pytest.raises(CaseError, match="not integrable in 1 dimension"):
        make_convolution(SELF, [K.Power(exponent=-1.0)], x, spacing=h)


def test_kernels_on_a_circle_without_symmetry():
    """Morse and a table of it on random nodes, the second by its rows."""
    x = on_sphere(2)
    b = np.random.default_rng(2).normal(size=len(x))
    r = np.linspace(0, 2, 200)
    morse = K.Morse(C_r=2.0, l_r=0.5)
    table = K.Tabulated(r=tuple(r), W=tuple(K.radial(morse, 2)(r)))
    found = [make_convolution(SELF, [k], x, spacing=0.01)(b) for k in (morse, table)]
    exact = dense_sum(morse, x, b)
    assert np.abs(found[0] - exact).max() < 0.03 * np.abs(exact).max()
    assert np.abs(found[0] - found[1]).max() < 1e-5 * np.abs(exact).max()
    with pytest.raises(CaseError, match="below the diameter 2"):
        make_convolution(SELF, [K.Tabulated(r=(0, 0.5, 1, 1.5), W=(1, 0, 0, 0))], x, spacing=0.1)


def test_log_on_the_sphere():
    """The uniform density of the unit sphere has the potential 4 pi (log 2 - 1/2); second order."""
    errors = []
    for n in (500, 2000):
        i = np.arange(n) + 0.5
        z, turn = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
        x = np.stack(
            [np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1
        )
        W = make_convolution(SELF, [K.Log()], x, spacing=(4 * np.pi / n) ** 0.5)
        u = W(np.full(n, 4 * np.pi / n))
        errors.append(np.abs(u - 4 * np.pi * (np.log(2) - 0.5)).max())
    assert order(errors) > 1.9
    assert errors[-1] < 0.05


def test_cosine():
    x, b = cloud(2)
    W = make_convolution(SELF, [K.Cosine(wave_vector=(1.5, -0.5), strength=2.0)], x, spacing=0.2)
    phase = x @ [1.5, -0.5]
    assert np.allclose(W(b), 2 * np.cos(phase[:, None] - phase) @ b, atol=1e-11)
    circle = 2.5 * on_sphere(2)
    b = b[: len(circle)]
    W = make_convolution(SELF, [K.Cosine(mode=(3,))], circle, spacing=0.1)
    t = np.arctan2(circle[:, 1], circle[:, 0])
    assert np.allclose(W(b), np.cos(3 * (t[:, None] - t)) @ b, atol=1e-11)
    assert W.sign == "positive"
    still = make_convolution(SELF, [K.Cosine(wave_vector=(0.0, 0.0))], x, spacing=0.1)
    assert still.sign == "negative"  # a constant is zero on functions of zero mass
    assert np.allclose(still(b), b.sum())


def test_noisy_kuramoto_kernel():
    """On the circle W = -cos takes (1 + a cos x)/2 pi to -(a/2) cos x."""
    n, a = 48, 0.3
    x = 2 * np.pi * np.arange(n)[:, None] / n
    W = make_convolution(
        SELF, [K.Cosine(mode=(1,), strength=-1.0)], x, spacing=0.1, lattice=[[2 * np.pi]]
    )
    b = (1 + a * np.cos(x[:, 0])) / n
    assert np.allclose(W(b), -a / 2 * np.cos(x[:, 0]), atol=1e-14)


def test_modes_of_a_torus():
    x, b = cloud(2)
    a = np.array([[2.0, 0.0], [0.5, 3.0]])
    dual = 2 * np.pi * np.linalg.inv(a).T
    one = make_convolution(SELF, [K.Cosine(mode=(1, -2))], x, spacing=0.2, lattice=a)
    d = x[:, None] - x
    assert np.allclose(one(b), np.cos(d @ (dual[0] - 2 * dual[1])) @ b, atol=1e-10)
    both = make_convolution(SELF, [K.Cosine(mode=(2,))], x, spacing=0.2, lattice=a)
    assert np.allclose(both(b), (np.cos(2 * d @ dual[0]) + np.cos(2 * d @ dual[1])) @ b, atol=1e-10)


@pytest.mark.parametrize(
    "lattice", [[[6.0, 0.0], [0.0, 7.0]], [[6.0, 1.0], [-2.0, 7.0]], [[6.0, 0.0]], [[6.0, 1.0]]]
)
def test_gaussian_on_a_torus_is_the_sum_over_images(lattice):
    x, b = cloud(2)
    kernel = K.Gaussian(width=1.2)
    W = make_convolution(SELF, [kernel], x, spacing=0.2, lattice=lattice)
    steps = [range(-4, 5)] * len(lattice)
    shifts = np.stack(np.meshgrid(*steps), axis=-1).reshape(-1, len(lattice)) @ np.array(lattice)
    d = x[:, None] - x
    exact = sum(np.exp(-((d + s) ** 2).sum(axis=2) / (2 * 1.2**2)) @ b for s in shifts)
    assert np.abs(W(b) - exact).max() < 1e-9 * np.abs(exact).max()


@pytest.mark.parametrize(
    "kernel", [K.Log(), K.Power(exponent=1.0), K.Exponential(length=2.0), K.Yukawa()]
)
def test_eigenvalues_on_a_torus(kernel):
    n, L = 256, 4.0
    x = L * np.arange(n)[:, None] / n
    W = make_convolution(SELF, [kernel], x, spacing=L / n, lattice=[[L]])
    k = 2 * np.pi * 2 / L
    wave = np.cos(k * x[:, 0])
    assert np.allclose(
        W(wave * L / n),
        whole_space(kernel, 1)(k) * wave,
        rtol=0,
        atol=1e-5 * abs(whole_space(kernel, 1)(k)),
    )
    if isinstance(kernel, K.Log):
        assert np.abs(W(np.ones(n))).max() < 1e-9  # a neutralising background


GAUSS_TABLE = K.Tabulated(
    r=tuple(np.linspace(0, 12, 300)), W=tuple(np.exp(-(np.linspace(0, 12, 300) ** 2)))
)


@pytest.mark.parametrize(
    ("kernels", "sign"),
    [
        ([K.Gaussian(strength=-1.0)], "negative"),
        ([K.Gaussian()], "positive"),
        ([K.Log()], "negative"),
        ([K.Log(strength=-1.0)], "positive"),
        ([K.Power(exponent=2.0)], "negative"),
        ([K.Power(exponent=1.0)], "negative"),
        ([K.Power(exponent=1.5)], "negative"),
        ([K.Power(exponent=-0.5)], "negative"),
        ([K.Power(exponent=3.0)], "indefinite"),
        ([K.Power(exponent=4.0), K.Power(exponent=2.0, strength=-1.0)], "indefinite"),
        ([K.Exponential(strength=-1.0)], "negative"),
        ([K.Yukawa(strength=-2.0)], "negative"),
        ([K.Morse(C_r=2.0, l_r=0.5, C_a=1.0, l_a=2.0)], "indefinite"),
        ([K.Morse(C_r=2.0, l_r=1.0, C_a=-1.0, l_a=2.0)], "positive"),
        ([K.Gaussian(width=0.5, strength=-1.0), K.Gaussian(width=2.0)], "indefinite"),
        ([K.Gaussian(width=2.0, strength=-1.0), K.Power(exponent=2.0), K.Log()], "negative"),
        ([K.Polynomial(coefficients=(1.0, -1.0))], "positive"),
        ([K.Polynomial(coefficients=(5.0,))], "negative"),
        ([K.Cosine(wave_vector=(1.0, 0.0), strength=-1.0)], "negative"),
        ([GAUSS_TABLE], "positive"),
        ([], "negative"),
        ([K.Log(strength=0.0)], "negative"),
    ],
    ids=lambda v: v if isinstance(v, str) else "+".join(k.type for k in v),
)
def test_symmetry_and_sign(kernels, sign):
    """The matrix is symmetric; at zero mass its eigenvalues have the sign that it says."""
    x, _ = cloud(2, n=80)
    W = make_convolution(SELF, kernels, x, spacing=0.3)
    assert W.sign == sign
    matrix = np.stack([W(e) for e in np.eye(len(x))])
    scale = max(np.abs(matrix).max(), 1e-300)
    assert np.abs(matrix - matrix.T).max() <= 1e-12 * scale
    P = np.eye(len(x)) - 1 / len(x)
    values = np.linalg.eigvalsh(P @ (matrix + matrix.T) / 2 @ P) / scale
    assert values.min() > -1e-8 if sign == "positive" else values.min() <= 0
    if sign == "negative":
        assert values.max() < 1e-8
    if sign == "indefinite":
        assert values.min() < -1e-8
        assert values.max() > 1e-8


def test_fourier_kernels_share_one_pass():
    x, b = cloud(2)
    many = [K.Gaussian(width=0.7), K.Log(strength=-1.0), K.Morse(), K.Power(exponent=0.5)]
    together = make_convolution(SELF, many, x, spacing=0.2)
    assert len(together.passes) == 1
    each = sum(make_convolution(SELF, [k], x, spacing=0.2)(b) for k in many)
    assert np.abs(together(b) - each).max() < 1e-8 * np.abs(each).max()


def interval_matrix(n):
    from petsc4py import PETSc

    h = 1 / n
    S = PETSc.Mat().createAIJ((n + 1, n + 1), nnz=3, comm=SELF)
    for i in range(n + 1):
        for j in (i - 1, i + 1):
            if 0 <= j <= n:
                S.setValue(i, j, -1 / h)
        S.setValue(i, i, (1 if i in (0, n) else 2) / h)
    S.assemble()
    m = np.full(n + 1, h)
    m[[0, -1]] /= 2
    return S, m, np.linspace(0, 1, n + 1)[:, None]


def test_screened_poisson_is_greens_function_of_the_interval():
    kappa, errors = 3.0, []
    for n in (40, 80):
        S, m, x = interval_matrix(n)
        W = make_convolution(
            SELF,
            [K.ScreenedPoisson(kappa=kappa, strength=-2.0)],
            x,
            spacing=1 / n,
            stiffness=S,
            mass=m,
        )
        rho = np.cos(np.pi * x[:, 0])
        errors.append(np.abs(W(m * rho) + 2 * rho / (kappa**2 + np.pi**2)).max())
        assert W.sign == "negative"
    assert order(errors) > 1.95
    y = n // 4
    lo, hi = np.minimum(x[:, 0], x[y, 0]), np.maximum(x[:, 0], x[y, 0])
    green = np.cosh(kappa * lo) * np.cosh(kappa * (1 - hi)) / (kappa * np.sinh(kappa))
    assert np.abs(W(np.eye(n + 1)[y]) / -2 - green).max() < 1e-3
    W.destroy()


def test_poisson_has_mean_zero():
    S, m, x = interval_matrix(50)
    W = make_convolution(SELF, [K.Poisson()], x, spacing=0.02, stiffness=S, mass=m)
    u = W(m * np.cos(np.pi * x[:, 0]))
    assert np.abs(u - np.cos(np.pi * x[:, 0]) / np.pi**2).max() < 1e-4
    matrix = np.stack([W(e) for e in np.eye(len(x))])
    assert np.abs(matrix - matrix.T).max() < 1e-13
    assert np.abs(matrix @ m).max() < 1e-13
    assert np.linalg.eigvalsh(matrix).min() > -1e-13


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        (K.Power(exponent=-2.0), {}, "not integrable"),
        (K.VonMises(), {}, "unit circle or sphere"),
        (K.Power(exponent=2.0), {"lattice": [[6.0, 0.0], [0.0, 6.0]]}, "not periodic"),
        (K.Log(), {"lattice": [[6.0, 0.0]]}, "periodic in 1 of 2"),
        (K.Cosine(wave_vector=(1.0,)), {}, "2 entries"),
        (
            K.Cosine(wave_vector=(1.0, 0.0)),
            {"lattice": [[6.0, 0.0], [0.0, 6.0]]},
            "does not fit the torus",
        ),
        (K.Cosine(mode=(1,)), {}, "needs a torus"),
        (K.Cosine(mode=(1, 1, 1)), {"lattice": [[6.0, 0.0], [0.0, 6.0]]}, "each of 2 periods"),
        (K.Log(), {"lattice": [[6.0, 0.0], [12.0, 0.0]]}, "not independent"),
        (K.Tabulated(r=(0, 1, 2, 3), W=(3, 2, 1, 0)), {}, "below the diameter"),
        (K.Tabulated(r=(1, 4, 6, 9), W=(3, 2, 1, 0)), {}, "above the node spacing"),
        (
            K.Tabulated(r=(0, 4, 6, 9), W=(3, 2, 1, 1)),
            {"lattice": [[6.0, 0.0], [0.0, 6.0]]},
            "died out",
        ),
        (K.Gaussian(width=1e-4), {}, "Fourier modes"),
        (K.ScreenedPoisson(), {}, "stiffness matrix"),
        (K.Gaussian(), {"spacing": 0.0}, "spacing"),
    ],
)
def test_refused(kernel, options, message):
    x, _ = cloud(2)
    with pytest.raises(CaseError, match=message):
        make_convolution(SELF, [kernel], x, **{"spacing": 0.2, **options})


def test_refused_nodes():
    x, _ = cloud(2)
    with pytest.raises(CaseError, match="not finite"):
        make_convolution(SELF, [K.Log()], np.full((4, 2), np.nan), spacing=0.1)
    with pytest.raises(CaseError, match="at least two"):
        make_convolution(SELF, [K.Log()], x[:1], spacing=0.1)
    with pytest.raises(CaseError, match="shape"):
        make_convolution(SELF, [K.Log()], x[:, 0], spacing=0.1)
    S, m, _ = interval_matrix(10)
    with pytest.raises(CaseError, match="do not match"):
        make_convolution(SELF, [K.Poisson()], x, spacing=0.1, stiffness=S, mass=m)
