"""Token dynamics against exact solutions, invariants, published merge times, restarts."""

import json

import numpy as np
import pytest

from fem_apps.attention import closed_forms as cf
from fem_apps.attention import staircase as st
from fem_apps.attention.clusters import chord, close_pairs, count, labels
from fem_apps.attention.fields import energy, make_field
from fem_apps.attention.model import Attention
from fem_apps.attention.token_dynamics import Tokens, cloud
from fem_apps.cli import main

KINETIC = (0.0621971, 0.2143230, 1.8191226, 2.9110710, -3.0952483)


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def angles_of(x):
    return np.arctan2(x[:, 1], x[:, 0])


def follow(attention, x, times, mass=None, **options):
    """Clouds at the times, and all merges."""
    solver = Tokens(make_field(attention, x.shape[1]), cluster=chord(0.999), **options)
    c, group = cloud(x, mass), labels(x, chord(0.999))
    out, merges = [], []
    for t in times:
        c, group, m = solver.advance(c, t, group)
        out.append(c)
        merges += m
    return out, merges


def test_kinetic_merges():
    _, merges = follow(Attention(beta=4), circle(KINETIC), [400.0])
    assert [(m.before, m.after) for m in merges] == [(5, 4), (4, 3), (3, 2), (2, 1)]
    assert merges[0].t == pytest.approx(1.2668, rel=1e-4)
    assert merges[-1].t == pytest.approx(328.36, rel=1e-4)


def test_gluing_error():
    """Merge times with two gluing distances and with none up to t = 10."""
    times = [
        [m.t for m in follow(Attention(beta=4), circle(KINETIC), [t], glue=g)[1]]
        for g, t in ((1e-4, 400.0), (1e-6, 400.0), (0.0, 10.0))
    ]
    assert times[0] == pytest.approx(times[1], rel=1e-4)
    assert times[2] == pytest.approx(times[1][:3], rel=1e-8)


@pytest.mark.parametrize(
    ("variant", "beta", "share"),
    [("softmax", 0, 0.5), ("softmax", 20, 0.5), ("softmax", 8, 0.2), ("scaled", 12, 0.5)],
)
def test_two_cluster_lifetimes(variant, beta, share):
    """1e7 time units at beta = 20 in some hundred steps."""
    exact = cf.two_cluster_time(beta, np.pi / 2, variant, share)
    a = Attention(variant=variant, beta=beta)
    mass = np.array([share, 1 - share])
    _, merges = follow(a, circle([0, np.pi / 2]), [2 * exact], mass)
    assert merges[0].t == pytest.approx(exact, rel=1e-6)


def test_causal_second_token():
    x = circle([0, np.pi / 2])
    (c,), merges = follow(Attention(beta=1, masked=True), x, [20.0])
    assert merges[0].t == pytest.approx(cf.causal_time(1, np.pi / 2), rel=1e-6)
    assert c.x[0] == pytest.approx(x[0], abs=1e-12)


@pytest.mark.parametrize(("variant", "beta"), [("softmax", 4), ("unnormalised", 2)])
def test_equiangular(variant, beta):
    """Orthogonal tokens keep one common inner product, which obeys its own equation."""
    n = 32
    _, merges = follow(Attention(variant=variant, beta=beta), np.eye(n), [20.0], tolerance=1e-11)
    exact = cf.equiangular_time(beta, n, variant)
    assert merges[0].t == pytest.approx(exact, rel=1e-6)


def test_kuramoto():
    """Cross-ratios at beta = 0, and the order parameter of a wrapped Cauchy density."""
    n, r0 = 400, 0.3
    u = (np.arange(n) + 0.5) / n
    theta = 2 * np.arctan((1 - r0) / (1 + r0) * np.tan(np.pi * (u - 0.5)))
    (c,), _ = follow(Attention(beta=0), circle(theta), [2.0], tolerance=1e-12)
    assert np.linalg.norm(c.mass @ c.x) == pytest.approx(cf.kuramoto_order(r0, 2), abs=1e-9)
    later = angles_of(c.x)
    for four in ((3, 90, 211, 350), (10, 150, 222, 399)):
        assert cf.cross_ratio(*later[list(four)]) == pytest.approx(
            cf.cross_ratio(*theta[list(four)]), rel=1e-10
        )


def test_conserved_angles_and_energy_law():
    """USA on the circle keeps the sum of the angles; dE/dt = mean of |x'|^2."""
    rng = np.random.default_rng(0)
    theta = rng.uniform(-1, 1, 12)
    a = Attention(variant="unnormalised", beta=2)
    h = 1e-3
    (c0, c1, c2), _ = follow(a, circle(theta), [0.2 - h, 0.2, 0.2 + h], tolerance=1e-13)
    assert angles_of(c2.x).sum() == pytest.approx(theta.sum(), abs=1e-10)
    log_m = np.log(c1.mass)
    E = [float(energy(c.x, log_m, 2.0)) * np.exp(2) / 4 for c in (c0, c1, c2)]
    v = np.asarray(make_field(a, 2)(c1.x, c1.x, log_m))
    assert (E[2] - E[0]) / (2 * h) == pytest.approx((v**2).sum(axis=1).mean(), rel=1e-5)


def test_softmax_energy_law():
    """dE/dt = (1/n) sum (Z_i/n) |x_i'|^2; sum_i Z_i x_i ^ x_i' = 0."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((15, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    log_m = np.full(15, -np.log(15))
    f = make_field(Attention(beta=3), 3)
    v, z = np.asarray(f(x, x, log_m)), np.exp(np.asarray(f.normaliser(x, x, log_m)))
    assert (z[:, None] * np.cross(x, v)).sum(axis=0) == pytest.approx(0, abs=1e-12)
    h = 1e-5
    E = [float(energy(x + s * h * v, log_m, 3.0)) * np.exp(3) / 6 for s in (1, -1)]
    assert (E[0] - E[1]) / (2 * h) == pytest.approx((z * (v**2).sum(axis=1)).mean(), rel=1e-7)


def test_linear_rates():
    """Growth of the modes of 3000 evenly spaced tokens: k^2 lambda_k / beta."""
    from fem_apps.attention.funk_hecke import growth_rates

    n, k, eps = 512, 3, 1e-5
    phi = 2 * np.pi * np.arange(n) / n
    theta = phi + eps * np.sin(k * phi)  # density 1 - eps k cos k phi
    v = np.asarray(
        make_field(Attention(variant="unnormalised", beta=5), 2)(
            circle(theta), circle(theta), np.full(n, -np.log(n))
        )
    )
    speed = v[:, 1] * np.cos(theta) - v[:, 0] * np.sin(theta)
    rate = 2 * (speed * np.sin(k * phi)).mean() / eps
    assert rate == pytest.approx(growth_rates(5, 2, 4, "unnormalised")[3], rel=1e-6)


def test_noise():
    """beta = 0, V = 0: E[x(t).x(0)] = exp(-kappa (d-1) t), within three standard errors."""
    n, kappa, t = 2000, 0.1, 1.0
    x = np.tile([0.0, 0, 1], (n, 1))
    a = Attention(beta=0, V=0.0)
    (c,), _ = follow(a, x, [t], noise=kappa, dt=0.05)
    z = c.x[:, 2]
    assert z.mean() == pytest.approx(np.exp(-2 * kappa * t), abs=3 * z.std() / np.sqrt(n) + 2e-3)


def test_metastability_theorem():
    """Three caps: together by T1, and still three clusters at T2."""
    n, beta, eps = 30, 20.0, 0.01
    rng = np.random.default_rng(0)
    centre = np.repeat(2 * np.pi / 3 * np.arange(3), n // 3)
    x = circle(centre + np.arccos(1 - eps) * rng.uniform(-1, 1, n))
    bound = cf.metastability(2 * np.pi / 3, n, beta, eps)
    (c1, c2), merges = follow(Attention(beta=beta), x, [bound.t1, bound.t2])
    assert count(c1.tokens, np.sqrt(2) * np.exp(-0.25 * (1 - bound.alpha) * beta)) == 3
    assert count(c2.tokens, chord(0.999)) == 3
    assert merges[-1].t < bound.t1


def test_staircase():
    assert st.staircase(st.PUBLISHED, 2000).merge_times == pytest.approx(
        [0.003953, 0.019928, 0.043645, 0.100800], abs=1e-6
    )
    assert st.staircase(st.PUBLISHED, 3000).merge_times == pytest.approx(
        [0.003753, 0.018919, 0.041435, 0.095695], abs=1e-6
    )
    found = st.staircase(st.PUBLISHED, 500)
    assert found.merge_times[1:] == pytest.approx([0.02376, 0.05288, 0.12237], abs=1e-5)
    assert 0.0050 < found.merge_times[0] < 0.0075
    assert (np.diff(found.energy) > -1e-12).all()
    lengths, plateaus = st.limit_merges(st.PUBLISHED)
    assert lengths == pytest.approx([0.030045, 0.151471, 0.331743, 0.766170], abs=1e-6)
    assert plateaus == pytest.approx([0.2, 0.28, 0.44, 0.52, 1.0])


@pytest.mark.parametrize(
    ("beta", "start", "crossings"),
    [
        (500, 0.2525, [0.01684, 0.04688, 0.11308]),
        (2000, 0.21316, [0.01709, 0.04119, 0.09701]),
        (4000, 0.2022, [0.01642, 0.03841, 0.08991]),
    ],
)
def test_published_staircase_rule(beta, start, crossings):
    e = st.published_rule(st.PUBLISHED, float(beta), 15000)
    assert e[0] == pytest.approx(start, abs=6e-5)
    assert [np.argmax(e > level) * 1e-5 for level in (0.36, 0.48, 0.76)] == pytest.approx(
        crossings, abs=2.1e-5
    )


def test_clusters():
    rng = np.random.default_rng(0)
    x = np.concatenate([c + 0.01 * rng.standard_normal((1000, 3)) for c in np.eye(3)])
    assert count(x, 0.2) == 3
    assert np.array_equal(labels(x, 0.2), np.repeat(np.arange(3), 1000))
    assert count(x[::20], 0.2) == 3
    gram = np.array([[1, 0.9995, 0], [0.9995, 1, 0], [0, 0, 1]])
    assert close_pairs(gram) == pytest.approx(1 / 3)


CASE = """
kind = "tokens"
[attention]
beta = 9
[tokens]
type = "uniform"
n = 40
d = 2
[time]
end = 3
[output]
frames = 6
pictures = false
checkpoint = 0
"""


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["fem-apps", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.mark.parametrize("extra", [(), ("noise=0.01",)])
def test_restart(extra, tmp_path, monkeypatch):
    """A run that goes on from its checkpoint ends exactly where an uninterrupted one does."""
    case = tmp_path / "case.toml"
    case.write_text(CASE)
    sets = [a for e in extra for a in ("--set", e)]
    half = [*sets, "--set", "time.end=1.5", "--set", "output.frames=3"]
    full, part = tmp_path / "full", tmp_path / "part"
    assert not command(monkeypatch, "run", case, "--out", full, *sets)
    assert not command(monkeypatch, "run", case, "--out", part, *half)
    assert not command(monkeypatch, "run", case, "--out", part, "--restart", *sets)
    metrics = [json.loads((p / "summary.json").read_text())["metrics"] for p in (full, part)]
    assert metrics[0] == metrics[1]
    for name in ("tokens.csv", "history.csv"):
        assert (full / name).read_text() == (part / name).read_text()


@pytest.mark.parametrize(("d", "clusters"), [(0.3, 2), (1.0, 1)])
def test_antipodal_pairs(d, clusters):
    """D = diag(d, 1), ascent: two clusters for d < tanh 1, one between tanh 1 and 1.1997."""
    D = ((d, 0.0), (0.0, 1.0))
    x = circle(np.random.default_rng(5).uniform(0, 2 * np.pi, 60))
    a = Attention(variant="unnormalised", beta=1, K=D, V=D)
    (c,), _ = follow(a, x, [400.0], tolerance=1e-7)
    assert count(c.tokens, chord(0.999)) == clusters


GOOD = """
kind = "tokens"
[attention]
beta = 1
[tokens]
type = "positions"
positions = [[1, 0], [0, 1]]
[time]
end = 1
"""
BAD = {
    "negative beta": ("beta = 1", "beta = -1", "attention.beta"),
    "NaN beta": ("beta = 1", "beta = nan", "attention.beta"),
    "unlike shapes": ("beta = 1", "beta = 1\nQ = [[1, 0]]", "alike"),
    "off the sphere": ("[0, 1]]", "[0, 2]]", "norm 2"),
    "ragged": ("[0, 1]]", "[0]]", "length"),
    "NaN token": ("[0, 1]]", "[0, nan]]", "positions"),
    "unknown variant": ("beta = 1", 'beta = 1\nvariant = "sofmax"', "variant"),
    "negative end": ("end = 1", "end = -1", "time.end"),
    "tiny glue": ('kind = "tokens"', 'kind = "tokens"\nglue = 1e-9', "glue"),
    "clock": ('kind = "tokens"', 'kind = "tokens"\nclock = "arc-length"', "scaled"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, tmp_path, capsys, monkeypatch):
    old, new, named = BAD[name]
    assert old in GOOD
    case = tmp_path / "case.toml"
    case.write_text(GOOD.replace(old, new, 1))
    assert command(monkeypatch, "run", case, "--out", tmp_path / "run") == 2
    said = [x for x in capsys.readouterr().err.splitlines() if x.startswith("fem-apps:")]
    assert len(said) == 1
    assert named in said[0]


def test_file_with_nan(tmp_path, capsys, monkeypatch):
    (tmp_path / "x.csv").write_text("1,0\nnan,1\n")
    case = tmp_path / "case.toml"
    case.write_text(
        GOOD.replace('"positions"', '"file"').replace(
            "positions = [[1, 0], [0, 1]]", 'file = "x.csv"'
        )
    )
    assert command(monkeypatch, "run", case, "--out", tmp_path / "run") == 2
    assert "token 2" in capsys.readouterr().err


def test_blow_up_in_space(tmp_path, monkeypatch):
    """Two tokens in R^1 under linear attention run away in finite time: x' = x^3 (x, -x)."""
    case = tmp_path / "case.toml"
    case.write_text(
        GOOD.replace("[[1, 0], [0, 1]]", "[[1], [-1]]").replace(
            "beta = 1", 'beta = 1\nvariant = "linear"\nlayer_norm = false'
        )
    )
    out = tmp_path / "run"
    sets = ["--set", "output.pictures=false", "--set", "output.frames=3"]
    assert not command(monkeypatch, "run", case, "--out", out, *sets)
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    assert metrics["blow_up_time"] == pytest.approx(0.5, abs=1e-6)


def test_large_cloud():
    """Above the limit of events: 1300 tokens in two caps end as two that carry all masses."""
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(3)[:2], 650, axis=0) + 0.02 * rng.standard_normal((1300, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    (c,), _ = follow(Attention(beta=20), x, [30.0], tolerance=1e-6, glue=1e-5)
    assert len(c.x) < 10
    assert count(c.tokens, chord(0.999)) == 2
    assert c.mass.sum() == pytest.approx(1)
    assert np.bincount(labels(c.tokens, chord(0.999))).tolist() == [650, 650]


def test_merge_of_a_large_cloud():
    """1200 tokens in two tight caps merge between two outputs, when two tokens do."""
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(3)[:2], 600, axis=0) + 1e-4 * rng.standard_normal((1200, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    _, merges = follow(Attention(beta=4), x, [15.0], tolerance=1e-7)
    assert [(m.before, m.after) for m in merges] == [(2, 1)]
    assert merges[0].t == pytest.approx(cf.two_cluster_time(4, np.pi / 2), rel=1e-3)


@pytest.mark.parametrize("d", [3, 20])
def test_gaps_by_blocks(d, monkeypatch):
    """Least distance of different groups, and clusters in many dimensions, against all pairs."""
    from fem_apps.attention import fields
    from fem_apps.attention.token_dynamics import circle_gap, least_gap

    rng = np.random.default_rng(d)
    x = np.repeat(rng.standard_normal((60, d)), 30, axis=0)
    x += 0.01 * rng.standard_normal(x.shape)
    group = labels(x, 0.5)
    far = ((x[:, None] - x) ** 2).sum(axis=2) + 1e9 * (group[:, None] == group)
    monkeypatch.setattr(fields, "BLOCK", 7 * len(x))
    assert float(least_gap(x, group)) == pytest.approx(far.min(), rel=1e-9)
    if d == 20:
        assert np.array_equal(group, np.repeat(np.arange(60), 30))
    y = circle(rng.uniform(0, 2 * np.pi, 300))
    g = rng.integers(0, 5, 300)
    far = ((y[:, None] - y) ** 2).sum(axis=2) + 1e9 * (g[:, None] == g)
    assert float(circle_gap(y, g)) == pytest.approx(far.min(), rel=1e-9)
