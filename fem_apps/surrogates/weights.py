"""Trained weights: bytes of a pytree, and the user's cache of them by a hash of what made them."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel

from fem_apps.output.files import write_whole

log = logging.getLogger(__name__)


def folder() -> Path:
    """Where trained weights are kept: `${XDG_CACHE_HOME:-~/.cache}/fem-apps/weights`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fem-apps" / "weights"


def fingerprint(**what: Any) -> str:
    """A hash of everything that the weights depend on: numbers, text, tables of a case, arrays."""
    digest = hashlib.sha256()
    for name in sorted(what):
        digest.update(name.encode())
        digest.update(_bytes(what[name]))
    return digest.hexdigest()[:20]


def _bytes(value: Any) -> bytes:
    match value:
        case BaseModel():
            return _bytes(value.model_dump(mode="json"))
        case np.ndarray() | jax.Array():
            a = np.ascontiguousarray(value)
            return f"{a.dtype}{a.shape}".encode() + a.tobytes()
        case dict():
            return b"".join(str(k).encode() + _bytes(value[k]) for k in sorted(value))
        case list() | tuple():
            return b"".join(map(_bytes, value)) + str(len(value)).encode()
    return json.dumps(value).encode()


def to_bytes(tree: Any) -> bytes:
    """The arrays of a pytree as bytes."""
    out = io.BytesIO()
    np.savez(out, *[np.asarray(a) for a in jax.tree.leaves(eqx.filter(tree, eqx.is_array))])
    return out.getvalue()


def from_bytes(like: Any, data: bytes) -> Any:
    """The pytree `like` with the arrays of `to_bytes` in it.

    Raises:
        ValueError: other arrays than `like` has.
    """
    arrays, rest = eqx.partition(like, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    with np.load(io.BytesIO(data)) as f:
        kept = [f[f"arr_{k}"] for k in range(len(f.files))]
    if [(a.shape, a.dtype) for a in kept] != [(a.shape, a.dtype) for a in leaves]:
        raise ValueError("these weights belong to another model")
    return eqx.combine(jax.tree.unflatten(structure, list(map(jnp.asarray, kept))), rest)


def kept(like: Any, key: str, train: Callable[[], Any]) -> tuple[Any, Path]:
    """The trained model of a key: from the cache if it is there, else trained and put there.

    On one rank; `share` gives it to the others.

    Args:
        like: a model of the same structure (the untrained one).
        key: what `fingerprint` made.
        train: trains and returns the model.

    Returns:
        The model and the file that holds it.
    """
    path = folder() / f"{key}.npz"
    if path.is_file():
        try:
            model = from_bytes(like, path.read_bytes())
        except Exception as e:  # a damaged file costs a training, not the run
            log.warning("%s cannot be used (%s); training again", path, e)
        else:
            log.info("trained weights: %s", path)
            return model, path
    model = train()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, to_bytes(model))
    return model, path


def share(comm: Any, like: Any, make: Callable[[], Any]) -> Any:
    """What `make` returns on rank 0, a model like `like`, on every rank. Collective.

    Raises:
        Exception: whatever `make` raised, on every rank.
    """
    from fem_apps.mpi import on_rank_zero

    result: list[Any] = []

    def on_zero() -> bytes:
        result.append(make())
        return to_bytes(result[0])

    data = on_rank_zero(comm, on_zero)
    return result[0] if result else from_bytes(like, data)
