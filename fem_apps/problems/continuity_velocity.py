"""Velocities of d_t rho + div(rho v) = 0: expressions, finite-element functions, networks, v[rho].

A scheme asks for v at its `Sites` (quadrature points of cells and facets, or nodes), at a time, for
the density of that time, a `Measure`. `velocity_of` makes a `Velocity` of whatever a user has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from dolfinx import fem
from mpi4py import MPI
from pydantic import Field

from fem_apps.case import Table
from fem_apps.errors import CaseError
from fem_apps.fem.expressions import Expression, ExpressionText, parse
from fem_apps.mpi import on_rank_zero, same_error
from fem_apps.problems.data_files import Find


@dataclass(frozen=True)
class Sites:
    """Points at which a scheme wants the velocity.

    Attributes:
        x: coordinates, shape (n, gdim).
        cells: a local cell that each lies in, shape (n,).
        x_in_cell: the point as that cell sees it; across a periodic side it is not x.
    """

    x: np.ndarray
    cells: np.ndarray
    x_in_cell: np.ndarray


@dataclass(frozen=True)
class Measure:
    """A density as a discrete measure, sum of masses[q] delta(points[q]): its quadrature.

    Attributes:
        comm: of the mesh.
        points: of this rank, shape (n, gdim).
        masses: weight times density there, shape (n,).
    """

    comm: MPI.Comm
    points: np.ndarray
    masses: np.ndarray

    @cached_property
    def everywhere(self) -> tuple[np.ndarray, np.ndarray]:
        """Points and masses of all ranks, on every rank. Collective at its first use."""
        if self.comm.size == 1:
            return self.points, self.masses
        parts = self.comm.allgather((self.points, self.masses))
        return np.concatenate([p for p, _ in parts]), np.concatenate([m for _, m in parts])

    def integral(self, values: np.ndarray) -> Any:
        """Int f drho, from values f(points), shape (n,) or (n, k). Collective."""
        return self.comm.allreduce(self.masses @ values, op=MPI.SUM)


@dataclass(frozen=True)
class Velocity:
    """v(x, t)[rho] = amplitude(t) at(sites, t, rho).

    Attributes:
        at: gives v at sites, shape (n, gdim). Called on every rank; may be collective.
        changes: what `at` depends on besides x: nothing, the time, or the density (and the time).
        amplitude: a factor that depends on time alone: what does not change is computed once.
        breaks: times at which v jumps; steps land on them.
    """

    at: Callable[[Sites, float, Measure], np.ndarray]
    changes: Literal["never", "time", "density"]
    amplitude: Callable[[float], float] | None = None
    breaks: tuple[float, ...] = field(default=())

    def factor(self, t: float) -> float:
        """The amplitude at a time."""
        return 1.0 if self.amplitude is None else float(self.amplitude(t))


def mean_field(v: Callable[[np.ndarray, float, Measure], np.ndarray]) -> Velocity:
    """The velocity v(x, t, rho) that depends on the density: `rho` is a `Measure`.

    `rho.everywhere` gives all points (m, gdim) and masses (m,), so that
    v(x) = sum_q masses_q K(x, points_q) is two lines. It is called once a Runge-Kutta stage for all
    of a rank's sites, on every rank; it returns shape (n, gdim) for x of shape (n, gdim). On
    surfaces v should be tangential; the sites of flat cells lie a little off a curved surface.
    """
    return Velocity(lambda s, t, rho: v(s.x, t, rho), "density")


def expressions(components: Sequence[str], amplitude: str | None = None) -> Velocity:
    """Components as expressions of x, y, z, t; the amplitude one of t alone."""
    parsed = [parse(c) for c in components]
    factor = None if amplitude is None else parse(amplitude, variables=("t",))

    def at(sites: Sites, t: float, rho: Measure) -> np.ndarray:
        v = np.stack([p.numpy(sites.x.T, t) for p in parsed], axis=1)
        _require_finite(v, sites.x, t, list(components))
        return v

    changes: Literal["never", "time"] = "time" if any("t" in p.names for p in parsed) else "never"
    return Velocity(at, changes, None if factor is None else _of_time(factor))


def _of_time(e: Expression) -> Callable[[float], float]:
    point = np.zeros((1, 1))
    return lambda t: float(np.asarray(e.numpy(point, t)).ravel()[0])


def function(u: fem.Function, *, steady: bool = True) -> Velocity:
    """A vector-valued finite-element function on the density's mesh.

    Its normal component must be continuous: Lagrange, Raviart-Thomas, BDM, not discontinuous
    Lagrange. `steady=False`: its values are read again at every stage.

    Raises:
        ValueError: a discontinuous element.
    """
    if u.function_space.ufl_element().discontinuous:
        raise ValueError(
            "a velocity needs a continuous normal component; interpolate or project it"
        )

    def at(sites: Sites, t: float, rho: Measure) -> np.ndarray:
        x = np.zeros((len(sites.x), 3))
        x[:, : sites.x.shape[1]] = sites.x_in_cell
        if len(x) == 0:
            return np.zeros_like(sites.x)
        return np.asarray(u.eval(x, sites.cells)).reshape(len(x), -1).real

    return Velocity(at, "never" if steady else "time")


def network(f: Callable[[Any, float], Any], *, breaks: Sequence[float] = ()) -> Velocity:
    """A JAX function v(x, t) of one point, x of shape (gdim,): vectorised and compiled here."""
    import jax

    batched = jax.jit(jax.vmap(f, in_axes=(0, None)))

    def at(sites: Sites, t: float, rho: Measure) -> np.ndarray:
        with double_precision():
            return np.asarray(batched(sites.x, t), dtype=float)

    return Velocity(at, "time", breaks=tuple(breaks))


def double_precision() -> Any:
    """A context in which JAX computes in float64."""
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64(True)


def half_spaces(
    w: np.ndarray, a: np.ndarray, b: np.ndarray, durations: np.ndarray, start: float = 0.0
) -> Velocity:
    """The field w_k (a_k . x + b_k)_+ on the k-th piece of time, constant in each.

    The controlled field of Alvarez-Lopez, Geshkovski, Ruiz-Balet (2025), arXiv 2412.19366.

    Args:
        w: shape (pieces, d), or (pieces, width, d) for the sum of `width` neurons.
        a: of the same shape.
        b: shape (pieces,), or (pieces, width).
        durations: of the pieces, shape (pieces,).
        start: time of the first piece.
    """
    pieces = len(durations)
    w, a = (np.asarray(m, float).reshape(pieces, -1, np.shape(m)[-1]) for m in (w, a))
    b = np.asarray(b, float).reshape(pieces, -1)
    ends = start + np.cumsum(durations)

    def at(sites: Sites, t: float, rho: Measure) -> np.ndarray:
        k = min(
            int(np.searchsorted(ends, t + 1e-12 * max(1.0, ends[-1]), side="right")), pieces - 1
        )
        return np.maximum(sites.x @ a[k].T + b[k], 0.0) @ w[k]

    return Velocity(at, "time", breaks=tuple(float(e) for e in ends[:-1]))


def velocity_of(v: Any) -> Velocity:
    """A `Velocity` of what a user has.

    A `Velocity` is taken as it is; a sequence of texts are expressions; a Function is a steady
    field; a callable is v(x, t, rho) of the density (see `mean_field`).
    """
    if isinstance(v, Velocity):
        return v
    if isinstance(v, fem.Function):
        return function(v)
    if callable(v):
        return mean_field(v)
    return expressions(list(v))


def _require_finite(v: np.ndarray, x: np.ndarray, t: float, text: object) -> None:
    bad = np.flatnonzero(~np.isfinite(v).all(axis=1))
    if bad.size:
        place = ", ".join(f"{c:.6g}" for c in x[bad[0]])
        raise CaseError(f"velocity {text!r} is not finite at ({place}), t = {t:g}")


# ---------------------------------------------------------------- tables of a case


class FromExpressions(Table):
    """Components as expressions."""

    type: Literal["expressions"]
    components: tuple[ExpressionText, ...] = Field(
        min_length=1, max_length=3, description="v_x, v_y, v_z as expressions of x, y, z, t"
    )
    amplitude: ExpressionText | None = Field(
        None, description="a factor, an expression of t alone; faster than t in the components"
    )


class FromSwitches(Table):
    """A schedule of half-space fields w (a.x + b)_+, as kind normalizing-flow writes it."""

    type: Literal["switches"]
    file: Path = Field(
        description="CSV, one piece a line: w_1..w_d, a_1..a_d, b, duration, with a header"
    )
    start: float = Field(0.0, description="time of the first piece")


class FromNetwork(Table):
    """A fully connected network v(x, t)."""

    type: Literal["network"]
    file: Path = Field(
        description=(
            ".npz with W0, b0, W1, b1, ...: layers of v(x), or of v(x, t) where W0 has a further"
            " column"
        )
    )
    activation: Literal["tanh", "relu", "softplus", "sin"] = Field(
        "tanh", description="between the layers"
    )


VelocityTable = Annotated[FromExpressions | FromSwitches | FromNetwork, Field(discriminator="type")]


def velocity_of_case(comm: MPI.Comm, table: VelocityTable, gdim: int, find: Find) -> Velocity:
    """The velocity that a table of a case stands for. Collective.

    Raises:
        CaseError: a wrong number of components, or a file that does not fit.
    """
    if isinstance(table, FromExpressions):
        if len(table.components) != gdim:
            raise CaseError(
                f"velocity.components: {len(table.components)} are given; the mesh is in {gdim}D"
            )
        with same_error(comm):
            return expressions(table.components, table.amplitude)
    path = on_rank_zero(comm, find, table.file)
    if isinstance(table, FromSwitches):
        w, a, b, durations = on_rank_zero(comm, read_switches, path)
        if w.shape[1] != gdim:
            raise CaseError(f"{path}: pieces in {w.shape[1]}D; the mesh is in {gdim}D")
        return half_spaces(w, a, b, durations, table.start)
    layers = on_rank_zero(comm, _read_layers, path, gdim)
    return network(_perceptron(layers, table.activation, gdim))


def read_switches(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Arrays w (n, d), a (n, d), b (n,), durations (n,) of a schedule. Raises CaseError."""
    try:
        table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as e:
        raise CaseError(f"cannot read {path} as a schedule: {e}") from None
    d = (table.shape[1] - 2) // 2
    if table.shape[1] < 4 or table.shape[1] % 2 or not np.isfinite(table).all():
        raise CaseError(
            f"{path}: {table.shape[1]} columns; needed: w_1..w_d, a_1..a_d, b, duration"
        )
    if not len(table) or (table[:, -1] <= 0).any():
        raise CaseError(f"{path}: at least one piece is needed, and every duration positive")
    return table[:, :d], table[:, d : 2 * d], table[:, 2 * d], table[:, 2 * d + 1]


def _read_layers(path: Path, gdim: int) -> list[tuple[np.ndarray, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as f:
            count = sum(k.startswith("W") for k in f.files)
            layers = [
                (np.asarray(f[f"W{i}"], float), np.asarray(f[f"b{i}"], float)) for i in range(count)
            ]
    except (OSError, ValueError, KeyError, EOFError) as e:
        raise CaseError(f"cannot read {path} as the layers W0, b0, W1, b1, ...: {e}") from None
    widths = [gdim, *(len(b) for _, b in layers)]
    for i, (W, b) in enumerate(layers):
        allowed = (
            [(len(b), widths[i]), (len(b), widths[i] + 1)] if i == 0 else [(len(b), widths[i])]
        )
        if W.shape not in allowed:
            raise CaseError(f"{path}: W{i} has shape {W.shape}; needed {allowed[0]}")
    if not layers or widths[-1] != gdim:
        raise CaseError(f"{path}: the last layer has {widths[-1]} outputs; the mesh is in {gdim}D")
    return layers


def _perceptron(
    layers: list[tuple[np.ndarray, np.ndarray]], activation: str, gdim: int
) -> Callable[[Any, float], Any]:
    import jax
    import jax.numpy as jnp

    sigma = {"tanh": jnp.tanh, "relu": jax.nn.relu, "softplus": jax.nn.softplus, "sin": jnp.sin}
    timed = layers[0][0].shape[1] == gdim + 1

    def v(x: Any, t: float) -> Any:
        y = jnp.append(x, t) if timed else x
        for W, b in layers[:-1]:
            y = sigma[activation](W @ y + b)
        return layers[-1][0] @ y + layers[-1][1]

    return v
