"""The cases of a sweep: a grid over axes, or points sampled between them; the part of a shard."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fem_apps.case import application, put, validate
from fem_apps.describe import meaning
from fem_apps.errors import CaseError
from fem_apps.sweep.axes import Axis, parse_over

Method = Literal["lhs", "sobol"]
MOST = 10**6
# values of one axis that are checked before the sweep begins
CHECKED = 64


@dataclass(frozen=True)
class Point:
    """A case of a sweep: its number in the whole sweep, and what it changes in the base case."""

    id: int
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """All cases of a sweep.

    Attributes:
        raw: tables of the base case, `--set` put in.
        axes: what is varied, in the order given; the last one varies fastest.
        sample: number of sampled points; 0: the grid of all combinations.
        method: of sampling: Latin hypercube (McKay, Beckman, Conover 1979) or scrambled Sobol
            (Sobol 1967, Owen 1998), both by scipy.stats.qmc.
        seed: of the sampling.
        shard: (i, n): of all cases those whose number is i - 1 modulo n.
    """

    raw: dict[str, Any]
    axes: tuple[Axis, ...]
    sample: int = 0
    method: Method = "lhs"
    seed: int = 0
    shard: tuple[int, int] = (1, 1)

    @property
    def model(self) -> Any:
        """The `Case` of the kind."""
        return application(self.raw["kind"]).Case

    @property
    def size(self) -> int:
        """Number of cases of the whole sweep."""
        return self.sample or math.prod(len(a.values) for a in self.axes)

    def points(self) -> Iterator[Point]:
        """The cases of this shard."""
        i, n = self.shard
        keys = [a.key for a in self.axes]
        if self.sample:
            columns = [a.at(u) for a, u in zip(self.axes, self._unit().T, strict=True)]
            for k in range(i - 1, self.sample, n):
                yield Point(k, dict(zip(keys, (c[k] for c in columns), strict=True)))
            return
        shape = tuple(len(a.values) for a in self.axes)
        for k in range(i - 1, self.size, n):
            at = np.unravel_index(k, shape)
            yield Point(k, {a.key: a.values[int(j)] for a, j in zip(self.axes, at, strict=True)})

    def _unit(self) -> np.ndarray:
        """The sample in the unit cube, shape (sample, axes)."""
        from scipy.stats import qmc

        rng, dim = np.random.default_rng(self.seed), len(self.axes)
        if self.method == "lhs":
            return qmc.LatinHypercube(dim, rng=rng).random(self.sample)
        # the balance of Sobol points needs powers of two: more are drawn, the first are taken
        power = max(0, math.ceil(math.log2(self.sample)))
        return qmc.Sobol(dim, rng=rng).random_base2(power)[: self.sample]

    def case(self, point: Point) -> Any:
        """The validated case of a point.

        Raises:
            CaseError: the combination of values is wrong.
        """
        return validate(self.tables(point.parameters, point.id), f"case {point.id}")

    def tables(self, parameters: dict[str, Any], number: int | None = None) -> dict[str, Any]:
        """The raw tables with the parameters put in, and the case's own name."""
        raw = copy.deepcopy(self.raw)
        for key, value in parameters.items():
            put(raw, key, value, f"--over {key}={value}")
        if number is not None:
            raw["name"] = f"{raw['name']}-{number:06d}"
        return raw

    def identity(self) -> dict[str, Any]:
        """What makes it this sweep and no other, as JSON values; not where the case file lies."""
        return {
            "case": {k: v for k, v in self.raw.items() if k != "folder"},
            "over": [[a.key, list(a.values), a.low, a.high, a.log] for a in self.axes],
            "sample": self.sample,
            "method": self.method if self.sample else "",
            "seed": self.seed if self.sample else 0,
            "shard": list(self.shard),
        }


def make_plan(
    raw: dict[str, Any],
    over: Sequence[str],
    *,
    sample: int | None = None,
    method: Method = "lhs",
    seed: int = 0,
    shard: tuple[int, int] = (1, 1),
) -> Plan:
    """The plan of a command line, with every axis checked against the model of the kind.

    Args:
        raw: tables of the base case.
        over: the `--over` options.
        sample: number of sampled points, None for the grid.
        method: of sampling.
        seed: of sampling.
        shard: part (i, n) of the cases.

    Raises:
        CaseError: an unknown key, a value that the case does not allow, an empty range, a key
            twice, an interval without `--sample`, too many cases.
    """
    axes = [parse_over(text) for text in over]
    if not axes:
        raise CaseError("a sweep varies something: give --over key=a,b,c or --over key=lo:hi:n")
    for i, axis in enumerate(axes):
        if axis.key in [a.key for a in axes[:i]]:
            raise CaseError(f"--over {axis.key}: the key is there twice")
    if sample is not None and sample < 1:
        raise CaseError(f"--sample {sample}: at least 1")
    plan = Plan(raw, tuple(axes), sample or 0, method, seed, shard)
    if sample is None:
        for axis in axes:
            if not axis.values:
                raise CaseError(
                    f"--over {axis.key}: lo:hi is an interval to sample; "
                    "give lo:hi:n for a grid, or --sample N"
                )
    if plan.size > MOST:
        raise CaseError(f"{plan.size} cases are more than {MOST}: fewer values, or --sample")
    plan = replace(plan, axes=tuple(_typed(plan, axis) for axis in axes))
    for axis in plan.axes:
        ends = axis.values or (axis.low, axis.high)
        # values of several axes may be wrong together only: such a case fails when its turn comes
        usual = {a.key: a.values[0] if a.values else a.low for a in plan.axes}
        for j in sorted({int(j) for j in np.linspace(0, len(ends) - 1, CHECKED)}):
            value = int(ends[j]) if axis.whole and not axis.values else ends[j]
            validate(plan.tables({**usual, axis.key: value}), "--over")
    return plan


def _typed(plan: Plan, axis: Axis) -> Axis:
    """An interval of whole numbers where the key takes no other ones."""
    if axis.values or axis.log or axis.low % 1 or axis.high % 1:
        return axis

    def allowed(value: float) -> bool:
        try:
            validate(plan.tables({axis.key: value}))
        except CaseError:
            return False
        return True

    return replace(axis, whole=allowed(int(axis.low)) and not allowed(axis.low + 0.5))


def without_pictures(raw: dict[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The tables with `output.pictures = false`, where the kind has it and `--set` is silent."""
    if any(o.startswith("output.pictures") for o in overrides):
        return raw
    quiet = copy.deepcopy(raw)
    put(quiet, "output.pictures", False, "pictures")
    known = meaning(application(raw["kind"]).Case, "output.pictures")
    return quiet if known else raw
