"""A case of kind elastic-inverse as a run: data, first guess, iteration, pictures, metrics."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from fem_apps.errors import CaseError
from fem_apps.fem.expressions import parse
from fem_apps.fundamental import kupradze, mfs, sphere
from fem_apps.fundamental.medium import PlaneWave
from fem_apps.fundamental.surfaces import fibonacci
from fem_apps.inverse import elastic_source_pictures as pictures
from fem_apps.inverse.elastic_source import (
    Case,
    TrueSources,
    TrueSphere,
    TrueStar,
    check_radius,
)
from fem_apps.inverse.elastic_source_forward import Forward, Receivers, Star
from fem_apps.inverse.elastic_source_sampling import (
    all_waves,
    factorisation,
    grid,
    linear_sampling,
    peaks,
    sampling,
)
from fem_apps.inverse.elastic_source_solve import Estimate, gauss_newton, locate_sources
from fem_apps.mpi import on_rank_zero
from fem_apps.output.files import write_whole
from fem_apps.output.history import History

log = logging.getLogger(__name__)

# data of star-shaped bodies: this many sources, at this factor of r, unlike those of the inversion
DATA_SOURCES, DATA_DEPTH, DATA_ERROR = (420, 630, 950), 0.62, 0.02
SMOOTHNESS = 1.5
METHODS = {
    "direct": "direct sampling",
    "factorisation": "factorisation",
    "linear": "linear sampling",
}
# sources of the inversion, at first and at most
SOURCES, MOST_SOURCES = 120, 1000


def run_case(case: Case, run: Any) -> dict[str, object]:
    """Invert on rank 0, whose small dense matrices are the whole work; the others get the metrics.

    Raises:
        CaseError: a shape that is none. SolveError: the iteration did not find it.
    """
    return on_rank_zero(run.comm, _invert, case, run)


def _invert(case: Case, run: Any) -> dict[str, object]:
    where = fibonacci(case.measurement.receivers)
    far = case.measurement.type == "far-field"
    receivers = Receivers(where if far else case.measurement.radius * where, far)
    with run.phase("data"):
        clean = make_data(case, receivers, [i.wave() for i in case.incident])
        data = with_noise(clean, case.measurement.noise, case.seed)
        noise = float(np.linalg.norm(data - clean) / np.linalg.norm(data))
    with run.phase("sampling"):
        z = grid(case.start.half_width, case.start.points)
        indicator = _indicator(case, receivers, data, z)
    with run.phase("inversion"):
        if isinstance(case.truth, TrueSources):
            return _sources(case, run, receivers, data, z, indicator, noise)
        return _obstacle(case, run, receivers, data, z, indicator, noise)


def _indicator(case: Case, receivers: Receivers, data: np.ndarray, z: np.ndarray) -> np.ndarray:
    medium = case.medium.medium()
    if case.start.method == "direct":
        return sampling(medium, receivers, data, z)
    level = case.measurement.noise
    clean = make_data(case, receivers, all_waves(receivers))
    method = factorisation if case.start.method == "factorisation" else linear_sampling
    return method(medium, receivers, with_noise(clean, level, case.seed + 1), z, level)


def make_data(case: Case, receivers: Receivers, waves: list[PlaneWave]) -> np.ndarray:
    """The measurements without noise, (waves, 3 R), by another method than the inversion's.

    Raises:
        CaseError: a radius that is not positive, or a shape too rough for the sources of the data.
    """
    m, truth = case.medium.medium(), case.truth
    if isinstance(truth, TrueSources):
        y, f = np.array(truth.positions), np.array(truth.forces, dtype=complex)
        return (receivers.matrix(m, y) @ f.ravel())[None]
    if isinstance(truth, TrueSphere):
        out = []
        for w in waves:
            s = sphere.scatter(m, w, radius=truth.radius, centre=truth.centre)
            if receivers.far:
                out.append(receivers.of_far_field(*s.far_field(receivers.x)))
            else:
                out.append(s.displacement(receivers.x).ravel())
        return np.stack(out)
    return _star_data(truth, m, waves, receivers)


def _star_data(truth: TrueStar, m: Any, waves: list[Any], receivers: Receivers) -> np.ndarray:
    radius = parse(truth.radius).numpy

    def points(n: int, factor: float = 1.0) -> np.ndarray:
        d = fibonacci(n)
        r = radius(d.T)
        check_radius(r, truth.radius)
        return np.array(truth.centre) + factor * r[:, None] * d

    fresh = points(997)
    for count in DATA_SOURCES:
        x, y = points(2 * count), points(count, DATA_DEPTH)
        A = mfs.LeastSquares(kupradze.displacement(m, x, y), cut=1e-13)
        c = A.solve(-np.stack([w.displacement(m, x).ravel() for w in waves], axis=1))
        residual = kupradze.displacement(m, fresh, y) @ c
        residual += np.stack([w.displacement(m, fresh).ravel() for w in waves], axis=1)
        error = float(np.sqrt((np.abs(residual) ** 2).sum(axis=0).max() / len(fresh)))
        log.info("data: root mean square of the error on the boundary %.1e", error)
        if error <= DATA_ERROR:
            return (receivers.matrix(m, y) @ c).T
    raise CaseError(
        f"truth.radius = {truth.radius!r}: fundamental solutions make data with an error of "
        f"{error:.1e} only on its boundary (at most {DATA_ERROR:g}); take a smoother shape"
    )


def with_noise(clean: np.ndarray, level: float, seed: int) -> np.ndarray:
    """Data with complex Gaussian noise, its expected norm `level` times that of the data."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape)
    return clean + level * np.linalg.norm(clean) / np.sqrt(2 * clean.size) * noise


def _obstacle(
    case: Case, run: Any, receivers: Receivers, data: np.ndarray, z: np.ndarray,
    indicator: np.ndarray, noise: float,
) -> dict[str, object]:  # fmt: skip
    truth, medium = case.truth, case.medium.medium()
    waves = tuple(i.wave() for i in case.incident)
    metrics: dict[str, object] = {}
    assert isinstance(truth, TrueSphere | TrueStar)  # sources have a branch of their own

    def tell(k: int, residual: float) -> None:
        run.progress.update(min(k / case.iterations, 1.0), f"residual {residual:.4g}")

    level = case.measurement.noise

    def fit(star: Star, start: np.ndarray, penalty: np.ndarray | None = None) -> Estimate:
        count = case.sources or SOURCES
        while True:
            forward = Forward(
                medium, waves, receivers, star, count, case.depth,
            )  # fmt: skip
            found = gauss_newton(
                forward, data, start, noise=level, penalty=penalty, iterations=case.iterations,
                tell=tell,
            )  # fmt: skip
            if case.sources is not None:
                return found
            doubt = forward.doubt(found.p)
            log.info("%d sources: predictions uncertain by %.2g of the data", count, doubt)
            if doubt <= max(0.2 * level, 1e-3) or count * 1.5 > MOST_SOURCES:
                metrics["sources"] = count
                metrics["model_error"] = doubt
                return found
            count = int(1.5 * count)

    first = np.array(case.start.centre)
    if case.start.sampling:
        weight = indicator**4
        first = weight @ z / weight.sum()
    # a sphere first: its centre is where a star-shaped surface is seen from, and stays (harmonics
    # of degree 1 move the surface)
    star = Star(0)
    found = fit(star, star.sphere(first, case.start.radius))
    if isinstance(truth, TrueStar):
        radius = float(star.radius(found.p, np.array([[0.0, 0.0, 1.0]]))[0])
        centre, star = found.p[:3], Star(truth.degree)
        n = np.sqrt(np.arange((star.degree + 1) ** 2)).astype(int)
        penalty = np.concatenate([np.full(3, 1e3), 0.05 * (1 + n * (n + 1.0)) ** (SMOOTHNESS / 2)])
        found = fit(star, star.sphere(centre, radius), penalty)
    p, d, origin = found.p, fibonacci(2000), np.array(truth.centre)
    metrics |= {
        "iterations": len(found.residuals) - 1,
        "residual": found.residuals[-1],
        "noise": noise,
    }

    def true_radius(e: np.ndarray) -> np.ndarray:
        if isinstance(truth, TrueSphere):
            return np.full(len(e), truth.radius)
        return parse(truth.radius).numpy(e.T) * np.ones(len(e))

    # both surfaces seen from the true centre
    surface = p[:3] + star.radius(p, d)[:, None] * d - origin
    found_radius = np.linalg.norm(surface, axis=1)
    difference = found_radius - true_radius(surface / found_radius[:, None])
    if isinstance(truth, TrueStar):
        metrics["shape_error"] = float(np.linalg.norm(difference) / np.linalg.norm(found_radius))
        metrics["shape_error_max"] = float(np.abs(difference).max() / true_radius(d).max())
        middle = surface.mean(axis=0) - (true_radius(d)[:, None] * d).mean(axis=0)
        metrics["centre_error"] = float(np.linalg.norm(middle))
        metrics["radius_error"] = float(abs(found_radius.mean() - true_radius(d).mean()))
    else:
        metrics |= {f"centre_{a}": float(v) for a, v in zip("xyz", p[:3], strict=True)}
        metrics["radius"] = float(star.radius(p, d[:1])[0])
        metrics["centre_error"] = float(np.linalg.norm(p[:3] - origin))
        metrics["radius_error"] = abs(float(star.radius(p, d[:1])[0]) - truth.radius)
    with History(_Alone(), run.folder / "history.csv") as history:  # type: ignore[arg-type]
        for k, (r, q) in enumerate(zip(found.residuals, found.path, strict=True)):
            row = {"step": k, "residual": r}
            history.write(row | {f"centre_{a}": v for a, v in zip("xyz", q[:3], strict=True)})
    write_whole(run.folder / "parameters.csv", _csv(found.path))
    if case.output.pictures:
        picture = pictures.obstacle(
            star,
            found,
            origin,
            d,
            true_radius(d),
            z,
            indicator,
            case.output.frames,
            METHODS[case.start.method],
        )
        write_whole(run.folder / "reconstruction.png", picture)
        write_whole(run.folder / "convergence.png", pictures.convergence(found.residuals, noise))
    return metrics


class _Alone:
    """What a history needs of a communicator, on rank 0 inside `on_rank_zero`."""

    rank, size = 0, 1

    @staticmethod
    def bcast(x: Any, root: int = 0) -> Any:
        return x


def _csv(path: list[np.ndarray]) -> bytes:
    return ("\n".join(",".join(f"{v:.17g}" for v in p) for p in path) + "\n").encode()


def _sources(
    case: Case, run: Any, receivers: Receivers, data: np.ndarray, z: np.ndarray,
    indicator: np.ndarray, noise: float,
) -> dict[str, object]:  # fmt: skip
    truth = case.truth
    if not isinstance(truth, TrueSources):
        raise TypeError(truth)
    count = len(truth.positions)
    first = peaks(indicator, z, count)
    if len(first) < count:
        raise CaseError(f"start: direct sampling found {len(first)} of {count} sources")
    y, f, residual = locate_sources(case.medium.medium(), receivers, data[0], first)
    true = np.array(truth.positions)
    distance = np.linalg.norm(y[:, None] - true[None], axis=2)
    order = distance.argmin(axis=0)
    force = np.array(truth.forces)
    metrics: dict[str, object] = {
        "centre_error": float(distance.min(axis=0).max()),
        "force_error": float(np.linalg.norm(f[order] - force) / np.linalg.norm(force)),
        "residual": residual,
        "noise": noise,
        "radius_error": 0.0,
    }
    text = [
        ",".join(f"{v:.17g}" for v in (*a, *b.real, *b.imag)) for a, b in zip(y, f, strict=True)
    ]
    write_whole(run.folder / "sources.csv", ("\n".join(text) + "\n").encode())
    if case.output.pictures:
        picture = pictures.sources(z, indicator, first, y, true)
        write_whole(run.folder / "reconstruction.png", picture)
    return metrics
