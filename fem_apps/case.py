"""Cases: TOML files checked against the pydantic model of their kind, and the catalogue of kinds.

Nothing here imports DOLFINx, PETSc or JAX.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fem_apps.errors import CaseError


class Table(BaseModel):
    """A table of a case: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Case(Table):
    """What every case has, whatever its kind."""

    kind: str = Field(description="the application, a name that `fem-apps list` prints")
    name: str = Field("", description="name of the run folder; the case file's own name if empty")
    title: str = Field("", description="one line for people, shown in pictures and tables")
    seed: int = Field(0, ge=0, description="seed of everything random")
    folder: Path = Field(
        Path("."),
        exclude=True,
        description="where relative files are looked for: the case's folder",
    )

    def file(self, path: str | Path) -> Path:
        """The path of a data file that the case names, relative to the case's own folder.

        Raises:
            CaseError: no such file.
        """
        found = (self.folder / path).resolve()
        if not found.is_file():
            raise CaseError(
                f"no file {found} (the case names {str(path)!r}, relative to its own folder)"
            )
        return found


@dataclass(frozen=True)
class Kind:
    """A kind of case: the module with its `Case` model and its `run(case, run) -> metrics`."""

    module: str
    summary: str
    scalar: Literal["real", "complex", "any"] = "real"


KINDS: dict[str, Kind] = {
    "aggregation-diffusion": Kind(
        "fem_apps.problems.aggregation_diffusion",
        "d_t rho = div(rho grad(H'(rho) + V + W*rho)): gradient flow of a density, structure kept",
    ),
    "null-control": Kind(
        "fem_apps.control.null_control",
        "heat and wave equations brought to rest at T: the least control, and all others as a set",
    ),
    "set-valued-control": Kind(
        "fem_apps.control.set_valued",
        "networks (DeepONet, SIMONet) from initial states to one or to all null controls",
    ),
    "kernel-inference": Kind(
        "fem_apps.inverse.interaction_kernels",
        "which interaction potential W explains noisy densities or particle paths",
    ),
    "parametric-elliptic": Kind(
        "fem_apps.problems.elliptic_case",
        "-div(a(x; mu) grad u) + c u = f for all mu: finite elements, certified reduced bases",
    ),
    "strassen-network": Kind(
        "fem_apps.surrogates.strassen_case",
        "mu -> u of a parametric elliptic problem as a network built from Strassen multiplication",
    ),
    "continuity": Kind(
        "fem_apps.problems.continuity",
        "d_t rho + div(rho v) = 0 for any velocity: mass and positivity kept",
    ),
    "normalizing-flow": Kind(
        "fem_apps.control.normalizing_flow",
        "drive a Gaussian to a target by w (a.x + b)_+ with few switches, to a relative entropy",
    ),
    "fundamental-solutions": Kind(
        "fem_apps.fundamental.scattering",
        "elastic waves about obstacles in 3D by fundamental solutions; the error is reported",
        scalar="any",
    ),
    "elastic-inverse": Kind(
        "fem_apps.inverse.elastic_source",
        "a rigid obstacle or point forces from elastic far or near fields with noise",
        scalar="any",
    ),
    "navier-lame": Kind(
        "fem_apps.problems.navier_lame",
        "elastic waves about an obstacle by finite elements: absorbing layer, dashpots, exact DtN",
        scalar="complex",
    ),
    "tokens": Kind(
        "fem_apps.attention.tokens",
        "x_i' = P_x Gamma(x_i): attention as interacting tokens, merges of clusters timed",
    ),
    "gaussian-attention": Kind(
        "fem_apps.attention.gaussian",
        "attention on Gaussian measures: mean and covariance, blow-up, limiting rank",
    ),
    "attention-statics": Kind(
        "fem_apps.attention.statics",
        "stationary states of attention on spheres: bifurcations, branches, extremisers",
    ),
    "sphere-attention": Kind(
        "fem_apps.attention.sphere",
        "attention on a density by finite elements: circle, sphere, plane; noise, repulsion",
    ),
    "attention-phase-diagram": Kind(
        "fem_apps.attention.phase_diagram",
        "share of attention's pairs of tokens that have met, in time and inverse temperature",
    ),
    "bayesian-inverse": Kind(
        "fem_apps.inverse.bayesian",
        "coefficients of an elliptic equation from data: mode, Laplace approximation, chains",
    ),
    "diffusion-prior": Kind(
        "fem_apps.inverse.diffusion_prior",
        "y = A x + n with a diffusion model as the prior of x: samples, intervals, baselines",
    ),
    "noisier2inverse": Kind(
        "fem_apps.inverse.noisier2inverse",
        "reconstruction networks trained without clean images under correlated noise",
    ),
}


def application(kind: str) -> Any:
    """The module of a kind, imported."""
    if kind not in KINDS:
        raise CaseError(f"kind = {kind!r} is not known; known: {', '.join(sorted(KINDS))}")
    return import_module(KINDS[kind].module)


def read(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The raw tables of a case file with `table.key=value` overrides put in.

    Raises:
        CaseError: no such file, not TOML, an override that is not `table.key=value`.
    """
    path = Path(path)
    try:
        with path.open("rb") as f:
            raw = tomllib.load(f)
    except FileNotFoundError:
        raise CaseError(f"no case file {path}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise CaseError(f"cannot read {path}: {e}") from None
    except tomllib.TOMLDecodeError as e:
        raise CaseError(f"{path} is not TOML: {e}") from None
    for override in overrides:
        _set(raw, override)
    if not isinstance(raw.get("kind"), str):
        raise CaseError(
            f"{path}: the key 'kind' is missing; known kinds: {', '.join(sorted(KINDS))}"
        )
    raw.setdefault("folder", str(path.parent.resolve()))
    raw["name"] = raw.get("name") or path.stem
    return raw


def _set(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise CaseError(f"--set {override!r}: give table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    put(raw, key.strip(), value, f"--set {override!r}")


def put(raw: dict[str, Any], key: str, value: Any, said: str) -> None:
    """Set `table.key` of the raw tables; a number in the key is a place in a list.

    Args:
        raw: the tables, changed.
        key: such as "time.end" or "diffusion.0.exponent".
        value: as TOML would give it.
        said: what the user said, for the message.

    Raises:
        CaseError: there is no such place.
    """
    *tables, last = key.split(".")
    node: Any = raw
    for name in tables:
        is_list = isinstance(node, list)
        node = _entry(node, name, said) if is_list else node.setdefault(name, {})
        if not isinstance(node, dict | list):
            raise CaseError(f"{said}: {name!r} is a value, not a table")
    if isinstance(node, list):
        _entry(node, last, said)
        node[int(last)] = value
    else:
        node[last] = value


def _entry(node: list[Any], name: str, said: str) -> Any:
    if not name.isdigit() or int(name) >= len(node):
        raise CaseError(f"{said}: {name!r} is not an index from 0 to {len(node) - 1}")
    return node[int(name)]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Any:
    """Read, override and validate a case file; the result is the `Case` of its kind.

    Raises:
        CaseError: names each wrong key, its value and what is allowed.
    """
    raw = read(path, overrides)
    return validate(raw, str(path))


def validate(raw: dict[str, Any], where: str = "case") -> Any:
    """The raw tables as the `Case` of their kind. Raises CaseError."""
    return parse_table(application(raw["kind"]).Case, raw, where)


def parse_table[T: BaseModel](model: type[T], raw: dict[str, Any], where: str) -> T:
    """A raw table as its model; errors name each wrong key, its value and what is allowed.

    Raises:
        CaseError: unknown key, wrong type, value out of range.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as e:
        raise CaseError(
            f"{where}: " + "; ".join(_explain(model, err) for err in e.errors())
        ) from None


SHOWN = 80  # characters of a value in a message; longer ones are left out


def _explain(model: type[BaseModel], error: Any) -> str:
    loc = [p for p in error["loc"] if p != "folder"]
    key = ".".join(str(p) for p in loc) or "case"
    if error["type"] == "extra_forbidden":
        known = _known_keys(model, loc[:-1])
        return f"unknown key {key!r}" + (f"; allowed here: {', '.join(known)}" if known else "")
    if error["type"] == "missing":
        return f"the key {key!r} is missing"
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        tags = error.get("ctx", {}).get("expected_tags") or ", ".join(_tags(model, loc))
        found = error.get("ctx", {}).get("tag")
        return (
            f"{key}.type "
            + (f"= {found!r} is not known" if found else "is missing")
            + f"; allowed: {tags}"
        )
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    value = error.get("input")
    if isinstance(value, dict | BaseModel) or len(repr(value)) > SHOWN:
        return f"{key}: {message}" if loc else message
    return f"{key} = {value!r}: {message}"


def _tags(model: Any, loc: Sequence[Any]) -> list[str]:
    """Values that `type` may have at a place of a model."""
    for p in loc:
        if not isinstance(p, int):
            model = getattr(model, "model_fields", {}).get(p)
            model = getattr(model, "annotation", None)
    return [str(_tag(t)) for t in _tables(model)]


def _known_keys(model: Any, loc: Sequence[Any]) -> list[str]:
    """Keys allowed at a place of a model; empty where the place is a union of tables."""
    for p in loc:
        if isinstance(p, int):
            continue
        field = getattr(model, "model_fields", {}).get(p)
        if field is None:
            tagged = [m for m in _tables(model) if _tag(m) == p]
            if not tagged:
                return []
            model = tagged[0]
            continue
        tables = _tables(field.annotation)
        model = tables[0] if len(tables) == 1 else field.annotation
    return [k for k in getattr(model, "model_fields", {}) if k != "folder"]


def _tables(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is None:
        return []
    return [t for a in get_args(annotation) for t in _tables(a)]


def _tag(model: Any) -> Any:
    field = model.model_fields.get("type")
    return (
        get_args(field.annotation)[0] if field is not None and get_args(field.annotation) else None
    )
