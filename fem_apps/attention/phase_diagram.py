"""Phase diagram of clustering in (t, beta): a case of kind attention-phase-diagram.

A batch of n uniform tokens for each beta follows softmax or unnormalised attention; the diagram
shows the mean share of pairs with <x_i, x_j> > 0.999. Over it, the time at which tokens that start
orthogonal have met (`closed_forms.equiangular_time`), which in high dimension is where they do.
Source: Geshkovski, Letrouit, Polyanskiy, Rigollet (arXiv 2312.10794). The step is theirs, explicit
Euler and normalisation, here with the tangent projection first. Compiled loops take the exponential
of each unordered pair once, many clouds in a SIMD loop, which stay in cache from start to end.
Rows of beta are shared among the ranks. Needs no DOLFINx.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import njit
from pydantic import Field

from fem_apps.attention.closed_forms import equiangular_time
from fem_apps.attention.pair_sums import LOG2E, bounded_exp2, exp2
from fem_apps.case import Case as AnyCase
from fem_apps.case import Table

FLAGS = {"reassoc", "contract", "nsz"}
# clouds in one SIMD loop, and the numbers that a cache holds
LANES, CACHE = 128, 16384


class Output(Table):
    """What is written."""

    pictures: bool = Field(True, description="the diagram as a picture")


class Case(AnyCase):
    """A case of kind attention-phase-diagram."""

    n: int = Field(32, ge=2, le=512, description="tokens")
    d: int = Field(2, ge=2, le=1024, description="dimension")
    batch: int = Field(64, ge=1, le=100_000, description="clouds for each beta")
    variant: Literal["softmax", "unnormalised"] = Field("softmax", description="the attention")
    beta_min: float = Field(0.1, ge=0, description="first beta")
    beta_max: float = Field(9.0, ge=0, le=300, description="last beta")
    betas: int = Field(90, ge=1, le=2000, description="how many, evenly spaced")
    end: float = Field(30.0, gt=0, description="final time")
    step: float = Field(
        0.1, gt=0, description="step; unnormalised: divided by sqrt(beta)e^(beta-1/2)"
    )
    checkpoints: int = Field(200, ge=1, le=10000, description="times of the statistic")
    close: float = Field(0.999, gt=-1, lt=1, description="inner product of a pair that has met")
    output: Output = Field(default_factory=Output, description="what is written")


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _add(out, w, x):  # type: ignore[no-untyped-def]
    for b in range(len(out)):
        out[b] += w[b] * x[b]


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _dots(x, y, d, out):  # type: ignore[no-untyped-def]
    """Inner products of the first d rows of lanes."""
    m = len(out)
    x0, y0, x1, y1 = x[:m], y[:m], x[m : 2 * m], y[m : 2 * m]
    for b in range(m):
        out[b] = x0[b] * y0[b] + x1[b] * y1[b]
    for k in range(2, d):
        _add(out, x[k * m : (k + 1) * m], y[k * m : (k + 1) * m])


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _weights(w, c, shift):  # type: ignore[no-untyped-def]
    for b in range(len(w)):
        w[b] = exp2(c * w[b] - shift)


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _sums(x, d, lanes, c, shift, one, s, tiled):  # type: ignore[no-untyped-def]
    """sum_j w_ij (x_j, 1), each unordered pair taken once; the last row of x is 1.

    Loops run over lanes and few arrays, which LLVM can tell apart and make vectors of.
    """
    w = tiled[:lanes]
    for i in range(len(x)):
        xi, si = x[i], s[i]
        for b in range(len(si)):
            si[b] = one * xi[b]
        for j in range(i):
            xj = x[j]
            _dots(xi, xj, d, w)
            _weights(w, c, shift)
            for k in range(1, d + 1):
                tiled[k * lanes : (k + 1) * lanes] = w
            _add(si, tiled, xj)
            _add(s[j], tiled, xi)


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _sums2(x, c, shift, one, s, w):  # type: ignore[no-untyped-def]
    """The same for LANES clouds on the circle: the offsets are known to LLVM, few arrays a loop."""
    for i in range(len(x)):
        xi, si = x[i], s[i]
        for b in range(3 * LANES):
            si[b] = one * xi[b]
        for j in range(i):
            xj, sj = x[j], s[j]
            for b in range(LANES):
                a0, a1 = c * xi[b], c * xi[LANES + b]
                w[b] = bounded_exp2((a0 * xj[b] - shift) + a1 * xj[LANES + b])
            for b in range(LANES):
                e = w[b]
                si[b] += e * xj[b]
                si[LANES + b] += e * xj[LANES + b]
                si[2 * LANES + b] += e
            for b in range(LANES):
                e = w[b]
                sj[b] += e * xi[b]
                sj[LANES + b] += e * xi[LANES + b]
                sj[2 * LANES + b] += e


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def follow(x, d, beta, dt, every, close, softmax, out):  # type: ignore[no-untyped-def]
    """Step clouds in place; add the number of close pairs of all to `out` at each check.

    x: (n, (d + 1) clouds): of each token its coordinates, then a 1, each in a row of clouds.
    """
    n = len(x)
    m = x.shape[1] // (d + 1)
    c = beta * LOG2E
    s, tiled, v = np.empty_like(x), np.empty(x.shape[1]), np.empty(m)
    w = tiled[:m]
    one = 1.0 if softmax else exp2(c)
    shift = c if softmax else 0.0
    for check in range(len(out)):
        for _ in range(every):
            if d == 2 and m == LANES:
                _sums2(x, c, shift, one, s, w)
            else:
                _sums(x, d, m, c, shift, one, s, tiled)
            for i in range(n):
                xi, si = x[i], s[i]
                _dots(xi, si, d, w)
                z = si[d * m :]
                for b in range(m):
                    v[b] = dt / z[b] if softmax else dt / n
                for k in range(d):
                    xk, sk = xi[k * m : (k + 1) * m], si[k * m : (k + 1) * m]
                    for b in range(m):
                        sk[b] = xk[b] + v[b] * (sk[b] - w[b] * xk[b])
                _dots(si, si, d, v)
                for b in range(m):
                    v[b] = 1.0 / np.sqrt(v[b])
                for k in range(d):
                    xk, sk = xi[k * m : (k + 1) * m], si[k * m : (k + 1) * m]
                    for b in range(m):
                        xk[b] = sk[b] * v[b]
        met = 0
        for i in range(n):
            for j in range(i):
                _dots(x[i], x[j], d, w)
                for b in range(m):
                    met += w[b] > close
        out[check] += met


def lanes_of(clouds: np.ndarray) -> np.ndarray:
    """Clouds (batch, n, d) as `follow` takes them: (n, (d + 1) batch)."""
    batch, n, d = clouds.shape
    x = np.ones((n, d + 1, batch))
    x[:, :d] = clouds.transpose(1, 2, 0)
    return x.reshape(n, (d + 1) * batch)


def steps_of(case: Case, beta: float) -> tuple[float, int]:
    """Step, and steps between two checks of the statistic."""
    size = case.step
    if case.variant == "unnormalised":
        size /= max(1.0, np.sqrt(beta) * np.exp(beta - 0.5))
    every = max(1, round(case.end / case.checkpoints / size))
    return case.end / (case.checkpoints * every), every


def row(case: Case, number: int, beta: float) -> np.ndarray:
    """The share of pairs that have met at each check, for one beta; depends on the seed alone."""
    rng = np.random.default_rng([case.seed, number])
    dt, every = steps_of(case, beta)
    out = np.zeros(case.checkpoints)
    lanes = max(4, min(LANES, CACHE // (case.n * case.d)))
    for first in range(0, case.batch, lanes):
        x = rng.standard_normal((min(lanes, case.batch - first), case.n, case.d))
        x /= np.linalg.norm(x, axis=2, keepdims=True)
        softmax = case.variant == "softmax"
        follow(lanes_of(x), case.d, beta, dt, every, case.close, softmax, out)
    return out * 2 / (case.batch * case.n * (case.n - 1))


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective."""
    from fem_apps.errors import CaseError, Interrupted
    from fem_apps.mpi import on_rank_zero, total

    if case.beta_max < case.beta_min:
        raise CaseError(f"beta_max = {case.beta_max:g} is below beta_min = {case.beta_min:g}")
    betas = np.linspace(case.beta_min, case.beta_max, case.betas)
    share = np.zeros((case.betas, case.checkpoints))
    comm = run.comm
    with run.phase("clouds"):
        for first in range(0, case.betas, comm.size):
            i = first + comm.rank
            if i < case.betas:
                share[i] = row(case, i, float(betas[i]))
            run.progress.update(
                min(1.0, (first + comm.size) / case.betas),
                f"beta <= {betas[min(i, case.betas - 1)]:.3g}",
            )
            if run.asked_to_stop():
                raise Interrupted("interrupted: a phase diagram is begun again")
    share = total(comm, share)
    times = case.end * np.arange(1, case.checkpoints + 1) / case.checkpoints
    kind = case.variant
    curve = np.array([equiangular_time(float(b), case.n, kind, close=case.close) for b in betas])
    on_rank_zero(comm, _write, case, run.folder, times, betas, share, curve)
    return {
        "share_final": share[:, -1].tolist(),
        "share_mean": float(share.mean()),
        "equiangular_time": curve.tolist(),
        "pairs": case.betas * case.batch * case.n**2,
    }


def _write(case: Case, folder: Any, times: Any, betas: Any, share: Any, curve: Any) -> None:
    from fem_apps.output.files import npz, write_whole

    write_whole(
        folder / "diagram.npz",
        npz({"times": times, "betas": betas, "share": share, "curve": curve}),
    )
    if not case.output.pictures:
        return
    import matplotlib.pyplot as plt

    from fem_apps.output.plot_style import png, style

    style()
    figure, ax = plt.subplots(figsize=(4.2, 3.0), layout="constrained")
    image = ax.pcolormesh(times, betas, share, cmap="viridis", vmin=0, vmax=1, rasterized=True)
    seen = curve <= case.end
    ax.plot(curve[seen], betas[seen], color="white", lw=1.6, label="orthogonal start")
    ax.set_xlabel("time")
    ax.set_ylabel(r"$\beta$")
    ax.set_title(f"n = {case.n}, d = {case.d}, {case.variant}")
    ax.legend(loc="upper left", labelcolor="white")
    figure.colorbar(image, ax=ax, label=f"share of pairs with inner product > {case.close:g}")
    write_whole(folder / "diagram.png", png(figure))
