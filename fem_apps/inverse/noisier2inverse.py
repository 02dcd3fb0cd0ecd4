"""Noisier2Inverse: reconstruction from noisy data alone, under correlated noise.

One noisy sinogram y of each object, never a clean image: f is trained by E|A f(B z) - (2 y - z)|^2
with z = y + eta, eta drawn anew every step from the law of the noise (Gruber et al., arXiv
2503.19468). Every y enters turned or reflected at random (its noise keeps its law), every eta as
eta and as -eta. The weights that are kept are those with the least held-out loss, which less 2 tr
Sigma is an unbiased error. Data are not made by the operator that inverts them: sinograms are exact
line integrals of ellipses, states at sensors are those of finer images on a finer mesh.

The ranks share the methods out: each trains its own networks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from fem_apps.case import Case as AnyCase
from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.inverse.noisier2inverse_losses import (
    SUPERVISED,
    Method,
    Norm,
    Setting,
    estimate,
    make_loss,
)
from fem_apps.inverse.noisier2inverse_noise import (
    CorrelatedNoise,
    Law,
    grid_symmetries,
    half_circle_symmetries,
)
from fem_apps.mpi import same_error
from fem_apps.output.files import npz, write_whole
from fem_apps.surrogates.training import Training
from fem_apps.surrogates.unet import Network, check_size

log = logging.getLogger(__name__)

VERSION = 2  # of what trains: raised when the same case no longer gives the same weights
Inverse = Callable[[np.ndarray], np.ndarray]
NEEDED: tuple[Method, ...] = ("noisier2inverse", "supervised", "noise2inverse")


class Noise(Table):
    """The law of the noise, and what is assumed of it."""

    intensity: float = Field(0.25, gt=0, description="marginal standard deviation")
    sigma: float = Field(
        3.0, ge=0, le=10, description="standard deviation of the filter, in samples; 0: white"
    )
    law: Law = Field("gaussian", description="of the white noise that is filtered")
    assumed_sigma: float | None = Field(
        None, ge=0, le=10, description="sigma of the recorruption, where it is not the true one"
    )
    assumed_intensity: float | None = Field(
        None, gt=0, description="intensity of the recorruption, where it is not the true one"
    )


class Scanner(Table):
    """The parallel beam and the image."""

    size: int = Field(32, ge=8, le=128, description="pixels of a side")
    angles: int = Field(48, ge=4, description="k pi/angles; a multiple of 4, the folds")
    detectors: int = Field(47, ge=4, description="linspace(-1.4, 1.4)")


class Sensors(Table):
    """A source f on [-1, 1]^2 from -div grad u + absorption u = f, no flux, seen on a grid."""

    size: int = Field(32, ge=8, le=64, description="pixels of a side of the source's image")
    rows: int = Field(24, ge=4, description="of sensors; a multiple of 4, the folds")
    columns: int = Field(24, ge=4, description="of sensors")
    absorption: float = Field(1.0, gt=0, description="of the equation")
    cells: int = Field(
        32, ge=4, description="squares of a side, cut in two; data come from twice as many"
    )
    weight: float = Field(
        4e-3, gt=0, description="of Tikhonov's B = A^T (A A^T + weight |A|^2 I)^-1, what f gets"
    )


class Objects(Table):
    """How many objects are measured."""

    train: int = Field(1000, ge=4, description="seen once each, with noise")
    validation: int = Field(100, ge=2, description="held out, noisy too: they choose the weights")
    test: int = Field(50, ge=1, description="with their truth, for the metrics")


class Output(Table):
    """What is written."""

    pictures: bool = Field(True, description="pictures")


class Case(AnyCase):
    """A case of kind noisier2inverse."""

    scanner: Scanner = Field(default_factory=Scanner, description="tomography")
    sensors: Sensors | None = Field(None, description="a source by finite elements")
    noise: Noise = Field(default_factory=Noise, description="noise")
    objects: Objects = Field(default_factory=Objects, description="data")
    methods: tuple[Method, ...] = Field(NEEDED, description="what is trained")
    alpha: float = Field(
        1.0, gt=0, description="strength of the recorruption; other than 1 for Gaussian noise only"
    )
    norm: Norm = Field(
        "image", description="of residuals r: mean square of B r (image), of r (l2), or r in H1"
    )
    symmetries: bool = Field(
        True,
        description="training data are turned and reflected at random, and the mean of f over turns"
        " and reflections is used",
    )
    antithetic: bool = Field(
        True, description="each recorruption w of a batch enters as w and as -w"
    )
    draws: int = Field(4, ge=1, description="recorruptions in the mean over f(B(y + eta))")
    network: Network = Field(
        default_factory=lambda: Network(channels=(32, 64, 64)), description="the U-Net"
    )
    training: Training = Field(
        default_factory=lambda: Training(steps=300, batch=16, rate=2e-3, average=0.98),
        description="of each method",
    )
    output: Output = Field(default_factory=Output, description="what is written")

    @model_validator(mode="after")
    def _fits(self) -> Case:
        if self.alpha != 1 and self.noise.law != "gaussian":
            raise ValueError("alpha other than 1 needs noise.law = 'gaussian'")
        if self.sensors is not None and "scanner" in self.model_fields_set:
            raise ValueError("give [scanner] or [sensors], not both")
        if self.sensors is None and self.scanner.angles % 4:
            raise ValueError(f"scanner.angles = {self.scanner.angles} is not a multiple of 4")
        if self.sensors is not None and self.sensors.rows % 4:
            raise ValueError(f"sensors.rows = {self.sensors.rows} is not a multiple of 4")
        if missing := [m for m in NEEDED if m not in self.methods]:
            raise ValueError(f"methods must hold {', '.join(missing)}: the metrics compare them")
        reach = 2 * int(4 * self.noise.sigma + 0.5) + 1
        if self.sensors is None and reach > 2 * self.scanner.angles:
            raise ValueError(
                f"noise.sigma = {self.noise.sigma:g} reaches over {reach} angles, and there are "
                f"{self.scanner.angles} on the half circle"
            )
        check_size(self.network, self.size)
        return self

    @property
    def size(self) -> int:
        """Pixels of a side of an image."""
        return self.scanner.size if self.sensors is None else self.sensors.size


def noise_law(case: Case, *, assumed: bool) -> CorrelatedNoise:
    """The true law of the noise, or the one that is assumed of it."""
    n = case.noise
    sigma, intensity = n.sigma, n.intensity
    if assumed:
        sigma = n.sigma if n.assumed_sigma is None else n.assumed_sigma
        intensity = n.intensity if n.assumed_intensity is None else n.assumed_intensity
    if case.sensors is None:
        shape = case.scanner.angles, case.scanner.detectors
    else:
        shape = case.sensors.rows, case.sensors.columns
    return CorrelatedNoise(*shape, intensity, sigma, n.law, half_circle=case.sensors is None)


def setting(case: Case) -> Setting:
    """Operator and assumed noise of a case."""
    law, seen = noise_law(case, assumed=True), None
    symmetries, turns = None, None
    K, J, size = law.angles, law.detectors, case.size
    if case.symmetries:
        symmetries = (half_circle_symmetries if case.sensors is None else grid_symmetries)(K, J)
        turns = grid_symmetries(size, size)
    if case.sensors is None:
        A, inverse = _tomography(case.scanner)
    else:
        A, inverse = _source(case.sensors)
        if turns is not None and K != J:
            turns = turns[:4]  # a rectangle of sensors has no quarter turns
        seen = (inverse(np.ones(len(A), bool)) @ A).astype(np.float32)
    return Setting(
        *(size, A, inverse, law, case.alpha, case.norm, seen),
        *(symmetries, turns, case.antithetic),
    )


def _tomography(s: Scanner) -> tuple[np.ndarray, Inverse]:
    """The projector, and filtered back-projection of some angles, weighted as of all."""
    from fem_apps.inverse.operators_ct import fbp, parallel_beam, projection_matrix

    beam = parallel_beam(s.angles, s.detectors)
    whole = fbp(np.eye(s.angles * s.detectors), s.size, beam).T
    A = projection_matrix(s.size, beam).toarray().astype(np.float32)
    return A, lambda part: whole * part / part.mean()


def _source(s: Sensors) -> tuple[np.ndarray, Inverse]:
    """Source to states at the sensors, and Tikhonov's reconstruction from some of them."""
    A = _sensed(s, s.size, s.cells).dense
    weight = s.weight * np.linalg.norm(A, 2) ** 2

    def inverse(part: np.ndarray) -> np.ndarray:
        B, Ap = np.zeros(A.T.shape), A[part]
        B[:, part] = np.linalg.solve(Ap @ Ap.T + weight * np.eye(len(Ap)), Ap).T
        return B

    return A.astype(np.float32), inverse


def _sensed(s: Sensors, size: int, cells: int) -> Any:
    from mpi4py import MPI

    from fem_apps.inverse.operators_source import source_to_sensors
    from fem_apps.surrogates.score_images import pixels

    places = np.stack(np.meshgrid(pixels(s.columns), pixels(s.rows)), axis=-1).reshape(-1, 2)
    return source_to_sensors(MPI.COMM_SELF, size, cells, places, s.absorption)


def measure(case: Case) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Noisy data and clean images (y, x) of training, validation and test, flat, float32."""
    import jax

    from fem_apps.inverse.operators_ct import ellipse_sinograms, parallel_beam
    from fem_apps.surrogates.score_images import draw_ellipses, random_ellipses

    noise = noise_law(case, assumed=False)
    if case.sensors is None:
        beam = parallel_beam(case.scanner.angles, case.scanner.detectors)
    else:
        fine = _sensed(case.sensors, 2 * case.size, 2 * case.sensors.cells).dense
    out = {}
    for number, part in enumerate(("train", "validation", "test")):
        count = getattr(case.objects, part)
        ellipses = random_ellipses(count, np.random.default_rng([case.seed, number]))
        x = draw_ellipses(ellipses, case.size).reshape(count, -1)
        if case.sensors is None:
            clean = ellipse_sinograms(ellipses, beam).reshape(count, -1)
        else:
            clean = draw_ellipses(ellipses, 2 * case.size).reshape(count, -1) @ fine.T
        eps = noise.draw(jax.random.fold_in(jax.random.key(case.seed), number), count)
        out[part] = ((clean + np.asarray(eps)).astype(np.float32), x.astype(np.float32))
    return out


def train(
    case: Case,
    method: Method,
    s: Setting,
    data: dict[str, tuple[np.ndarray, np.ndarray]],
    *,
    progress: Any = None,
    state_file: Path | None = None,
    stop: Any = None,
) -> tuple[Any, Path]:
    """The network of a method: from the cache, or trained and selected by its held-out loss.

    The supervised references alone see clean images; only theirs are selected with them.
    """
    import equinox as eqx
    import jax

    from fem_apps.surrogates import weights
    from fem_apps.surrogates.training import fit
    from fem_apps.surrogates.unet import new_unet

    # the same first weights for every method: they are compared
    model = new_unet(case.network, 1, 1, jax.random.key(case.seed))
    loss = make_loss(method, s)
    best = state_file.with_suffix(".best.npz") if state_file is not None else None
    held_out = data["validation"] if method in SUPERVISED else (data["validation"][0], np.zeros(0))
    # the supervised ones read x; the others cannot
    batch = held_out if method in SUPERVISED else (held_out[0], held_out[0][:, :1])
    validate = eqx.filter_jit(lambda m: loss(m, batch, jax.random.key(case.seed + 1)))
    every = max(20, case.training.steps // 20 // 20 * 20)
    record: list[Any] = [np.inf, model]
    if best is not None and state_file is not None and state_file.is_file() and best.is_file():
        record = list(weights.from_bytes((np.zeros(()), model), best.read_bytes()))

    def watch(current: Any, step: int) -> None:
        if step % every and step < case.training.steps:
            return
        value = float(validate(current))
        if value < float(record[0]):
            record[:] = [value, current]
            if best is not None:
                write_whole(best, weights.to_bytes((np.array(value), current)))

    def learn() -> Any:
        fit(
            *(model, loss, data["train"], case.training, case.seed),
            chunk=20,
            progress=progress,
            state_file=state_file,
            stop=stop,
            watch=watch,
        )
        if best is not None:
            best.unlink(missing_ok=True)
        return record[1]

    key = weights.fingerprint(
        what="noisier2inverse",
        version=VERSION,
        method=method,
        seed=case.seed,
        **{
            k: getattr(case, k)
            for k in (
                *("noise", "objects", "alpha", "norm", "symmetries", "antithetic"),
                *("network", "training"),
            )
        },
        **({"scanner": case.scanner} if case.sensors is None else {"sensors": case.sensors}),
    )
    return weights.kept(model, key, learn)


def run(case: Case, run: Any) -> dict[str, object]:
    """Run a case; returns the metrics of its summary. Collective.

    Raises:
        Interrupted: SIGTERM or SIGINT came; `--restart` continues the training.
    """
    from fem_apps.inverse.noisier2inverse_report import report

    comm = run.comm
    checkpoint = run.folder / "checkpoint"
    with run.phase("data"), same_error(comm):
        checkpoint.mkdir(exist_ok=True)
        s = setting(case)
        data = measure(case)
    images: dict[str, np.ndarray] = {}
    files: dict[str, str] = {}
    with run.phase("training"), same_error(comm):
        methods = case.methods[comm.rank :: comm.size]
        for k, method in enumerate(methods):

            def progress(fraction: float, text: str, k: int = k, method: str = method) -> None:
                run.progress.update((k + fraction) / len(methods), f"{method}: {text}")

            model, path = train(
                *(case, method, s, data),
                progress=progress,
                state_file=checkpoint / f"{method}.npz",
                stop=lambda: run.signalled,
            )
            files[method] = str(path)
            y = data["test"][0]
            images[method] = np.asarray(estimate(method, s, model, y), float)
            images[f"{method}, mean"] = np.asarray(
                estimate(method, s, model, y, draws=case.draws), float
            )
    for part in comm.allgather((images, files)):
        images |= part[0]
        files |= part[1]
    with run.phase("baselines"), same_error(comm):
        metrics = report(case, run, s, data, images) if comm.rank == 0 else {}
        if comm.rank == 0:
            write_whole(
                run.folder / "reconstructions.npz", npz(images | {"truth": data["test"][1]})
            )
    metrics = comm.bcast(metrics)
    metrics["weights"] = files
    if not np.isfinite(metrics["psnr"]):
        raise CaseError("objects.test: the test images are constant, and have no PSNR")
    return metrics
